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


def compiled(function: Any) -> Any:
    return function if njit is None else njit(cache=True, nogil=True)(function)


@compiled
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


@compiled
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


@compiled
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
    begin(plan, state, opened_N)
    return go_to_end(plan, seen_N, fired, most_open, state, spare, open_F, opened_N, 0, 0, 0)


@compiled
def begin(plan: SweepPlan, state: Table, opened_N: Ints) -> None:
    opened_N[:] = 0
    state[0, 0], state[1, 0] = 1.0, plan.unseen_chi


@compiled
def advance(
    plan: SweepPlan,
    seen_N: NDArray[np.uint8],
    fired: Ints,
    most_open: int,
    state: Table,
    spare: Table,
    open_F: Ints,
    opened_N: Ints,
    first: int,
    until: int,
    f: int,
    g: int,
) -> tuple[int, int, bool]:
    """Close the detectors `first` to `until`, after the first g of `fired` with f open.

    Returns f, g and whether the new state lies in `spare`; f is above `most_open` where it ended for want of room.
    """
    swapped = False
    for n in range(first, until):
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
            return f, g, swapped
        if old > before:
            _open(state, spare, before, old - before)
            state, spare, swapped = spare, state, not swapped
        for c in fired[g:h]:
            _apply_class(plan, c, state, open_F, old)
        g = h
        _close(plan, n, seen_N[n], state, spare, open_F, f, f - old)
        state, spare, swapped = spare, state, not swapped
        f -= 1
    return f, g, swapped


@compiled
def go_to_end(
    plan: SweepPlan,
    seen_N: NDArray[np.uint8],
    fired: Ints,
    most_open: int,
    state: Table,
    spare: Table,
    open_F: Ints,
    opened_N: Ints,
    first: int,
    f: int,
    g: int,
) -> float:
    """P(observable flipped) after `advance` from `first` on; NaN for want of room."""
    f, g, swapped = advance(
        plan, seen_N, fired, most_open, state, spare, open_F, opened_N, first, len(seen_N), f, g
    )  # fmt: skip
    if f > most_open:
        return np.nan
    last = spare if swapped else state
    for c in fired[g:]:
        _apply_class(plan, c, last, open_F, 0)
    return min(1.0, max(0.0, 0.5 - 0.5 * last[1, 0] / last[0, 0]))


@compiled
def _want(n: int, open_F: Ints, f: int, opened_N: Ints, most_open: int) -> int:
    """Add a detector to the open ones; returns how many they are."""
    if n == NONE or opened_N[n] or f > most_open:
        return f
    opened_N[n] = 1
    open_F[f] = n
    return f + 1


@compiled
def _place(n: int, open_F: Ints, f: int) -> int:
    """The bit of an open detector."""
    for k in range(f):
        if open_F[k] == n:
            return f - 1 - k
    return NONE


@compiled
def _open(state: Table, out: Table, f: int, more: int) -> None:
    """Copy for each value of `more` new bits, the lowest."""
    for half in range(2):
        for i in range(1 << f):
            out[half, i << more : (i + 1) << more] = state[half, i]


@compiled
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
    of_low, of_high = np.zeros(1 << low, np.uint64), np.zeros(1 << (f - low), np.uint64)
    for i in range(k):
        bit, place = 1 << (k - 1 - i), _place(involved[i], open_F, f)
        table, at = (of_low, place) if place < low else (of_high, place - low)
        for j in range(len(table)):
            table[j] |= np.uint64(bit * (j >> at & 1))
    for half in range(2):
        state_X = state[half]
        for u in range(len(of_high)):
            start, of_u = np.uint64(u << low), of_high[u] | np.uint64(half << k)
            for v in range(np.uint64(1 << low)):
                state_X[start + v] *= factor[of_u | of_low[v]]


@compiled
def _walsh_hadamard(values: Table) -> None:
    step = 1
    while step < len(values):
        for i in range(0, len(values), 2 * step):
            for j in range(i, i + step):
                a, b = values[j], values[j + step]
                values[j], values[j + step] = a + b, a - b
        step *= 2


@compiled
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
    place_E = _edge_places(plan, n, open_F, f)
    scale = 1.0 / state[0, 0]
    for half in range(2):
        for bit in range(2):
            first = -scale if bit and seen else scale
            of_fresh[bit, 0], of_low[bit, 0] = 1.0, 1.0
            of_high[bit, 0] = first * _lone_factor(plan, n, half, bit, place_E)
            _edge_factors(plan, n, half, bit, place_E, 0, of_fresh[bit])
            _edge_factors(plan, n, half, bit, place_E, fresh, of_low[bit])
            _edge_factors(plan, n, half, bit, place_E, fresh + low, of_high[bit])
        if fresh == 0:
            _close_alone(state[half], out[half], at - low, low, of_low, of_high)
        elif fresh == 1:
            _close_opening_one(state[half], out[half], at - low, low, of_low, of_high, of_fresh)
        else:
            _close_opening(state[half], out[half], at - low, low, of_low, of_high, of_fresh)


# The three below go through blocks of 2^low numbers, u the bits above; copies are side by side, since fresh detectors
# are the lowest bits. They take whole arrays, for a slice of each block took as long as its numbers, and unsigned
# indices, since those that might be negative keep LLVM from vectors (six times slower).


@compiled
def _block(u: int, above: int, low: int) -> np.uint64:
    """Where block u begins in the half of the state whose closing bit, `above` of the bits of u, is 0."""
    return np.uint64(((u >> above) << (above + 1) | u & ((1 << above) - 1)) << low)


@compiled
def _close_alone(state_X: Table, out_X: Table, above: int, low: int, of_low: Table, of_high: Table) -> None:
    for u in range(of_high.shape[1]):
        zero, to = _block(u, above, low), np.uint64(u << low)
        one = zero + np.uint64(1 << (above + low))
        a, b = of_high[0, u], of_high[1, u]
        for v in range(np.uint64(1 << low)):
            out_X[to + v] = state_X[zero + v] * (a * of_low[0, v]) + state_X[one + v] * (b * of_low[1, v])


@compiled
def _close_opening_one(
    state_X: Table, out_X: Table, above: int, low: int, of_low: Table, of_high: Table, of_fresh: Table
) -> None:
    two, next_to = np.uint64(2), np.uint64(1)
    for u in range(of_high.shape[1]):
        zero, to = _block(u, above, low), np.uint64(u << (low + 1))
        one = zero + np.uint64(1 << (above + low))
        a, b = of_high[0, u] * of_fresh[0, 0], of_high[0, u] * of_fresh[0, 1]
        c, d = of_high[1, u] * of_fresh[1, 0], of_high[1, u] * of_fresh[1, 1]
        for v in range(np.uint64(1 << low)):
            from_zero, from_one = state_X[zero + v] * of_low[0, v], state_X[one + v] * of_low[1, v]
            out_X[to + two * v] = from_zero * a + from_one * c
            out_X[to + two * v + next_to] = from_zero * b + from_one * d


@compiled
def _close_opening(
    state_X: Table, out_X: Table, above: int, low: int, of_low: Table, of_high: Table, of_fresh: Table
) -> None:
    copies = np.uint64(of_fresh.shape[1])
    for u in range(of_high.shape[1]):
        zero, to = _block(u, above, low), np.uint64(u * of_fresh.shape[1] << low)
        one = zero + np.uint64(1 << (above + low))
        for v in range(np.uint64(1 << low)):
            from_zero = of_high[0, u] * state_X[zero + v] * of_low[0, v]
            from_one = of_high[1, u] * state_X[one + v] * of_low[1, v]
            for k in range(copies):
                out_X[to + copies * v + k] = from_zero * of_fresh[0, k] + from_one * of_fresh[1, k]


@compiled
def _edge_places(plan: SweepPlan, n: int, open_F: Ints, f: int) -> Ints:
    """The bit at the other end of each edge that touches n first, NONE where there is none."""
    first, last = plan.edge_start_N[n], plan.edge_start_N[n + 1]
    place_E = np.empty(last - first, np.int64)
    for e in range(last - first):
        place_E[e] = _place(plan.edge_other_E[first + e], open_F, f)
    return place_E


@compiled
def _lone_factor(plan: SweepPlan, n: int, half: int, bit: int, place_E: Ints) -> float:
    """Of the edges of n alone."""
    factor = 1.0
    for e in range(len(place_E)):
        edge = plan.edge_start_N[n] + e
        if place_E[e] == NONE and bit ^ (half & plan.edge_flip_E[edge]):
            factor *= plan.edge_chi_E[edge]
    return factor


@compiled
def _edge_factors(
    plan: SweepPlan, n: int, half: int, bit: int, place_E: Ints, lowest: int, table: NDArray[np.float64]
) -> None:
    """The edges' factor over the bits from `lowest` on, for one value of n's bit and of the observable's.

    table[0] is there on entry. Edges multiply bit by bit, so each bit doubles what the table holds.
    """
    place, held = lowest, 1
    while held < len(table):
        if_zero, if_one = 1.0, 1.0
        for e in range(len(place_E)):
            if place_E[e] == place:
                edge = plan.edge_start_N[n] + e
                if bit ^ (half & plan.edge_flip_E[edge]):
                    if_zero *= plan.edge_chi_E[edge]
                else:
                    if_one *= plan.edge_chi_E[edge]
        upper = np.uint64(held)
        for j in range(upper):
            table[upper + j] = table[j] * if_one
            table[j] *= if_zero
        place, held = place + 1, 2 * held
