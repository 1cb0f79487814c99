"""P(observable flipped | on-basis detectors, fired classes), summed over everything else, in compiled code.

In the Walsh-Hadamard domain an error multiplies: characters a (one bit a detector, one for the observable) of an edge
get (1 - 2 q)^(a.x), of a fired class the sum over its members of weight * (-1)^(a.x). Only the characters of open
detectors are held, 2^12 at d=5 and seldom many more: a detector opens as two copies, and closes by the sum over its
bit with the sign of what was seen. Nothing is pruned. Rounding (1e-16 of all patterns) would count only for shots
less likely than that, which are not drawn.

A state is float64 (2, 2^F): the observable's character bit, then the F open detectors', the oldest uppermost.

Legend: B shots, N detectors in closing order, G fired classes of all shots, F open detectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_plan import NONE, SweepPlan

try:
    from numba import njit
except ImportError:  # the caller says so; this module must import without it
    njit = None

LOW = 6  # bits of the contiguous innermost loop

Table = NDArray[np.float64]
Ints = NDArray[np.int64]


def _compiled(function: Any) -> Any:
    return function if njit is None else njit(cache=True, nogil=True)(function)


@_compiled
def sweep(
    plan: SweepPlan, seen_BN: NDArray[np.uint8], fired_start_B: Ints, fired_G: Ints, most_open: int
) -> NDArray[np.float64]:
    """P(observable flipped), float64 (B,); NaN where more than `most_open` detectors would be open at once.

    seen_BN: uint8 (B, N), events without the shifts of errors that are known. fired_G[fired_start_B[b] :
    fired_start_B[b + 1]] are the classes that fired once in shot b, by their first detector.
    """
    b, n = seen_BN.shape
    out_B = np.empty(b)
    one, two = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
    open_F, place_N = np.empty(most_open + 1, np.int64), np.empty(n, np.int64)
    for shot in range(b):
        fired = fired_G[fired_start_B[shot] : fired_start_B[shot + 1]]
        out_B[shot] = _one_shot(plan, seen_BN[shot], fired, most_open, one, two, open_F, place_N)
    return out_B


@_compiled
def _one_shot(
    plan: SweepPlan,
    seen_N: NDArray[np.uint8],
    fired: Ints,
    most_open: int,
    state: Table,
    spare: Table,
    open_F: Ints,
    opened_N: Ints,
) -> float:
    opened_N[:] = 0
    state[0, 0], state[1, 0] = 1.0, plan.unseen_chi
    f, g = 0, 0
    for n in range(len(seen_N)):
        before = f
        f = _want(n, open_F, f, opened_N, most_open)
        for e in range(plan.edge_start_N[n], plan.edge_start_N[n + 1]):
            f = _want(plan.edge_other_E[e], open_F, f, opened_N, most_open)
        h = g
        while h < len(fired) and plan.class_first_C[fired[h]] == n:
            for m in range(plan.class_start_C[fired[h]], plan.class_start_C[fired[h] + 1]):
                f = _want(plan.member_ends_M2[m, 0], open_F, f, opened_N, most_open)
                f = _want(plan.member_ends_M2[m, 1], open_F, f, opened_N, most_open)
            h += 1
        if f > most_open:
            return np.nan
        if f > before:
            _open(state, spare, before, f - before)
            state, spare = spare, state
        while g < h:
            _apply_class(plan, fired[g], state, open_F, f)
            g += 1
        _close(plan, n, seen_N[n], state, spare, open_F, f)
        state, spare = spare, state
        f -= 1
    for c in fired[g:]:
        _apply_class(plan, c, state, open_F, 0)
    return min(1.0, max(0.0, 0.5 - 0.5 * state[1, 0] / state[0, 0]))


@_compiled
def _want(n: int, open_F: Ints, f: int, opened_N: Ints, most_open: int) -> int:
    """Add a detector to the open ones; returns how many they are."""
    if n == NONE or opened_N[n] or f > most_open:
        return f
    opened_N[n] = 1
    open_F[f] = n
    return f + 1


@_compiled
def _place(n: int, open_F: Ints, f: int) -> int:
    """The bit of an open detector."""
    for k in range(f):
        if open_F[k] == n:
            return f - 1 - k
    return NONE


@_compiled
def _open(state: Table, out: Table, f: int, more: int) -> None:
    copies = 1 << more
    for half in range(2):
        if more == 1:
            for i in range(1 << f):
                value = state[half, i]
                out[half, 2 * i] = value
                out[half, 2 * i + 1] = value
        else:
            for i in range(1 << f):
                value = state[half, i]
                for k in range(copies):
                    out[half, (i << more) + k] = value


@_compiled
def _apply_class(plan: SweepPlan, c: int, state: Table, open_F: Ints, f: int) -> None:
    first, last = plan.class_start_C[c], plan.class_start_C[c + 1]
    involved = np.empty(f, np.int64)
    k = 0
    for m in range(first, last):
        for end in range(2):
            n = plan.member_ends_M2[m, end]
            if n != NONE and _place(n, involved, k) == NONE:
                involved[k] = n
                k += 1
    factor = np.zeros(2 << k)
    for m in range(first, last):
        x = np.int64(plan.member_flip_M[m]) << k
        for end in range(2):
            n = plan.member_ends_M2[m, end]
            if n != NONE:
                x ^= 1 << _place(n, involved, k)
        factor[x] += plan.member_weight_M[m]
    _walsh_hadamard(factor)
    low = min(f, LOW)
    of_low, of_high = np.zeros(1 << low, np.int64), np.zeros(1 << (f - low), np.int64)
    for i in range(k):
        bit, place = 1 << (k - 1 - i), _place(involved[i], open_F, f)
        table, at = (of_low, place) if place < low else (of_high, place - low)
        for j in range(len(table)):
            table[j] |= bit * (j >> at & 1)
    for half in range(2):
        for u in range(len(of_high)):
            base = u << low
            of_u = of_high[u] + (half << k)
            for v in range(1 << low):
                state[half, base + v] *= factor[of_u + of_low[v]]


@_compiled
def _walsh_hadamard(values: Table) -> None:
    step = 1
    while step < len(values):
        for i in range(0, len(values), 2 * step):
            for j in range(i, i + step):
                a, b = values[j], values[j + step]
                values[j], values[j + step] = a + b, a - b
        step *= 2


@_compiled
def _close(plan: SweepPlan, n: int, seen: int, state: Table, out: Table, open_F: Ints, f: int) -> None:
    """Apply the edges that touch n first, sum over its bit, take it from the open ones, and make P(seen) one."""
    at = _place(n, open_F, f)
    for k in range(f - 1 - at, f - 1):
        open_F[k] = open_F[k + 1]
    f -= 1
    low = min(f, LOW, at)
    weight_low, weight_high = np.empty((2, 1 << low)), np.empty((2, 1 << (f - low)))
    scale = 1.0
    for half in range(2):
        for bit in range(2):
            _edge_factors(plan, n, half, bit, weight_low[bit], weight_high[bit], open_F, f, low)
            if bit and seen:
                weight_high[bit] *= -1.0
        above = at - low
        for u in range(1 << (f - low)):
            zero = ((u >> above) << (above + 1) | u & ((1 << above) - 1)) << low
            one = zero + (1 << at)
            weight_zero, weight_one = scale * weight_high[0, u], scale * weight_high[1, u]
            base = u << low
            for v in range(1 << low):
                out[half, base + v] = (
                    state[half, zero + v] * (weight_zero * weight_low[0, v])
                    + state[half, one + v] * (weight_one * weight_low[1, v])
                )
        if half == 0:
            scale = 1.0 / out[0, 0]
            for i in range(1 << f):
                out[0, i] *= scale


@_compiled
def _edge_factors(
    plan: SweepPlan, n: int, half: int, bit: int, weight_low: Table, weight_high: Table, open_F: Ints, f: int, low: int
) -> None:
    """The edges' factor for one value of n's bit and of the observable's: a product over the other bits."""
    weight_low[:] = 1.0
    weight_high[:] = 1.0
    for e in range(plan.edge_start_N[n], plan.edge_start_N[n + 1]):
        odd = bit ^ (half & plan.edge_flip_E[e])
        chi = plan.edge_chi_E[e]
        if plan.edge_other_E[e] == NONE:
            if odd:
                weight_high *= chi
            continue
        place = _place(plan.edge_other_E[e], open_F, f)
        if place < low:
            for j in range(len(weight_low)):
                if (j >> place & 1) ^ odd:
                    weight_low[j] *= chi
        else:
            for j in range(len(weight_high)):
                if (j >> (place - low) & 1) ^ odd:
                    weight_high[j] *= chi
