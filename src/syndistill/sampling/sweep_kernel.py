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

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_close import LOW, Ints, Table, close, compiled, place_of
from syndistill.sampling.sweep_plan import NONE, SweepPlan


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
        while True:
            begin(plan, one, opened_N)
            p = go_to_end(plan, seen_N, fired_GM_of[:g, 0], most_open, one, two, open_F, opened_N, 0, 0, 0)
            if g == 0 or not np.isnan(p):
                break
            turned ^= _reveal_widest(plan, seen_N, fired_GM_of[:g])
            g -= 1
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
        close(plan, n, seen_N[n], state, spare, open_F, f, f - old)
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
            if n != NONE and place_of(n, involved, k) == NONE:
                involved[k] = n
                k += 1
    factor = np.zeros(2 << k)
    for m in range(first, last):
        x = np.int64(plan.member_flip_M[m]) << k
        for end in range(2):
            n = plan.member_ends_M2[m, end]
            if n != NONE:
                x ^= 1 << place_of(n, involved, k)
        factor[x] += plan.member_weight_M[m]
    _walsh_hadamard(factor)
    low = min(f, LOW)
    of_low, of_high = np.zeros(1 << low, np.uint64), np.zeros(1 << (f - low), np.uint64)
    for i in range(k):
        bit, place = 1 << (k - 1 - i), place_of(involved[i], open_F, f)
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
