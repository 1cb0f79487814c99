"""P(observable flipped | on-basis detectors, fired classes), summed over everything else, in compiled code.

In the Walsh-Hadamard domain an error multiplies: characters a (one bit a detector, one for the observable) of an edge
get (1 - 2 q)^(a.x), of a fired class the sum over its members of weight * (-1)^(a.x). Only the characters of open
detectors are held, 2^12 at d=5 and seldom many more: a detector opens as two copies, and closes by the sum over its
bit with the sign of what was seen. Nothing is pruned. Rounding (1e-16 of all patterns) would count only for shots
less likely than that, which are not drawn.

A state is float64 (2, 2^F): the observable's character bit, then the F open detectors', the oldest uppermost.

Legend: B shots, N detectors in closing order, F open detectors, G classes that fired once (GM: class, member that
fired), of all shots one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_plan import NONE, SweepPlan

try:
    from numba import njit
except ImportError:  # the caller says so; this module must import without it
    njit = None  # type: ignore[assignment]

LOW = 9  # bits of the contiguous innermost loop

Table = NDArray[np.float64]
Ints = NDArray[np.int64]


def _compiled(function: Any) -> Any:
    return function if njit is None else njit(cache=True, nogil=True)(function)


@_compiled
def sweep(
    plan: SweepPlan, seen_BN: NDArray[np.uint8], fired_start_B: Ints, fired_GM: Ints, most_open: int
) -> NDArray[np.float64]:
    """P(observable flipped), float64 (B,).

    seen_BN: uint8 (B, N), events without the shifts of errors that are known. fired_GM[fired_start_B[b] :
    fired_start_B[b + 1]] are the classes that fired once in shot b, by their first detector, each with the member that
    fired. Where more than `most_open` detectors would be open at once, the member of the class of most detectors is
    taken for known, and so on: a choice that depends on known things alone, as the tower property asks.
    """
    b, n = seen_BN.shape
    out_B = np.empty(b)
    one, two = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
    open_F, opened_N = np.empty(most_open + 1, np.int64), np.empty(n, np.int64)
    for shot in range(b):
        fired_GM_of = fired_GM[fired_start_B[shot] : fired_start_B[shot + 1]].copy()
        seen_N, turned, g = seen_BN[shot].copy(), 0, len(fired_GM_of)
        p = _one_shot(plan, seen_N, fired_GM_of[:g, 0], most_open, one, two, open_F, opened_N)
        while np.isnan(p) and g > 0:
            turned ^= _reveal_widest(plan, seen_N, fired_GM_of[:g])
            g -= 1
            p = _one_shot(plan, seen_N, fired_GM_of[:g, 0], most_open, one, two, open_F, opened_N)
        out_B[shot] = 1.0 - p if turned else p
    return out_B


@_compiled
def _reveal_widest(plan: SweepPlan, seen_N: NDArray[np.uint8], fired_GM: Ints) -> int:
    """Take the class of most detectors out of the list, its member out of the events; whether that flips."""
    widest = 0
    for g in range(len(fired_GM)):
        if plan.class_width_C[fired_GM[g, 0]] > plan.class_width_C[fired_GM[widest, 0]]:
            widest = g
    member = fired_GM[widest, 1]
    for g in range(widest, len(fired_GM) - 1):
        fired_GM[g] = fired_GM[g + 1]
    for end in range(2):
        if plan.member_ends_M2[member, end] != NONE:
            seen_N[plan.member_ends_M2[member, end]] ^= 1
    return int(plan.member_flip_M[member])


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
        h = g
        while h < len(fired) and plan.class_first_C[fired[h]] == n:
            h += 1
        before = f
        f = _want(n, open_F, f, opened_N, most_open)
        for c in fired[g:h]:
            for m in range(plan.class_start_C[c], plan.class_start_C[c + 1]):
                f = _want(plan.member_ends_M2[m, 0], open_F, f, opened_N, most_open)
                f = _want(plan.member_ends_M2[m, 1], open_F, f, opened_N, most_open)
        old = f
        for e in range(plan.edge_start_N[n], plan.edge_start_N[n + 1]):
            f = _want(plan.edge_other_E[e], open_F, f, opened_N, most_open)
        if f > most_open:
            return np.nan
        if old > before:
            _open(state, spare, before, old - before)
            state, spare = spare, state
        for c in fired[g:h]:
            _apply_class(plan, c, state, open_F, old)
        g = h
        _close(plan, n, seen_N[n], state, spare, open_F, f, f - old)
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
    """Copy for each value of `more` new bits, the lowest."""
    for half in range(2):
        for i in range(1 << f):
            out[half, i << more : (i + 1) << more] = state[half, i]


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
            block = state[half, u << low : (u + 1) << low]
            factor_u = factor[of_high[u] + (half << k) :]
            for v in range(len(of_low)):
                block[v] *= factor_u[of_low[v]]


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
def _close(plan: SweepPlan, n: int, seen: int, state: Table, out: Table, open_F: Ints, f: int, fresh: int) -> None:
    """Apply the edges that touch n first, sum over its bit, take it from the open ones, and divide by the P before.

    The `fresh` newest open detectors are not in `state` yet; they open on the way.
    """
    at = _place(n, open_F, f)
    for k in range(f - 1 - at, f - 1):
        open_F[k] = open_F[k + 1]
    at, f = at - fresh, f - 1
    low = min(LOW, at)
    high = f - fresh - low
    of_low, of_high, of_fresh = np.empty((2, 1 << low)), np.empty((2, 1 << high)), np.empty((2, 1 << fresh))
    scale, above = 1.0 / state[0, 0], at - low
    for half in range(2):
        for bit in range(2):
            _edge_factors(plan, n, half, bit, of_low[bit], of_high[bit], of_fresh[bit], open_F, f, low, fresh)
            of_high[bit] *= -scale if bit and seen else scale
        for u in range(1 << high):
            zero = ((u >> above) << (above + 1) | u & ((1 << above) - 1)) << low
            one = zero + (1 << at)
            _close_block(
                state[half, zero : zero + (1 << low)],
                state[half, one : one + (1 << low)],
                out[half, u << (low + fresh) : (u + 1) << (low + fresh)],
                of_low,
                of_high[0, u],
                of_high[1, u],
                of_fresh,
            )


@_compiled
def _close_block(
    zero: Table, one: Table, out: Table, of_low: Table, of_zero: float, of_one: float, of_fresh: Table
) -> None:
    copies = of_fresh.shape[1]
    low_zero, low_one = of_low[0], of_low[1]
    if copies == 1:
        for v in range(len(zero)):
            out[v] = zero[v] * (of_zero * low_zero[v]) + one[v] * (of_one * low_one[v])
    elif copies == 2:
        a, b = of_zero * of_fresh[0, 0], of_zero * of_fresh[0, 1]
        c, d = of_one * of_fresh[1, 0], of_one * of_fresh[1, 1]
        for v in range(len(zero)):
            from_zero, from_one = zero[v] * low_zero[v], one[v] * low_one[v]
            out[2 * v] = from_zero * a + from_one * c
            out[2 * v + 1] = from_zero * b + from_one * d
    else:
        for v in range(len(zero)):
            from_zero, from_one = of_zero * zero[v] * low_zero[v], of_one * one[v] * low_one[v]
            for k in range(copies):
                out[copies * v + k] = from_zero * of_fresh[0, k] + from_one * of_fresh[1, k]


@_compiled
def _edge_factors(
    plan: SweepPlan,
    n: int,
    half: int,
    bit: int,
    of_low: Table,
    of_high: Table,
    of_fresh: Table,
    open_F: Ints,
    f: int,
    low: int,
    fresh: int,
) -> None:
    """The edges' factor for one value of n's bit and of the observable's: a product over the other bits."""
    of_low[:] = 1.0
    of_high[:] = 1.0
    of_fresh[:] = 1.0
    for e in range(plan.edge_start_N[n], plan.edge_start_N[n + 1]):
        odd = bit ^ (half & plan.edge_flip_E[e])
        chi = plan.edge_chi_E[e]
        if plan.edge_other_E[e] == NONE:
            if odd:
                of_high *= chi
            continue
        place = _place(plan.edge_other_E[e], open_F, f)
        if place < fresh:
            _multiply(of_fresh, place, odd, chi)
        elif place < fresh + low:
            _multiply(of_low, place - fresh, odd, chi)
        else:
            _multiply(of_high, place - fresh - low, odd, chi)


@_compiled
def _multiply(table: Table, place: int, odd: int, chi: float) -> None:
    for j in range(len(table)):
        if (j >> place & 1) ^ odd:
            table[j] *= chi
