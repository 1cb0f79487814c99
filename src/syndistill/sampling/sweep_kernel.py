"""P(observable flipped | on-basis detectors, fired classes), summed over everything else, in compiled code.

In the Walsh-Hadamard domain an error multiplies: characters a (one bit a detector, one for the observable) of an edge
get (1 - 2 q)^(a.x), of a fired class the sum over its members of weight * (-1)^(a.x). Only the characters of open
detectors are held, 2^12 at d=5 and seldom many more: a detector opens as two copies, and closes by the sum over its
bit with the sign of what was seen. Nothing is pruned. Rounding (1e-16 of all patterns) would count only for shots
less likely than that, which are not drawn.

A state is float64 (2, 2^F): the observable's character bit, then the F open detectors', the oldest uppermost.

The ends of a shot differ in their last slices alone: the longest one's sweep is made once, and every other leaves it
where their plans part. All shots go in one call: a thread that comes back to Python for each waits for the lock there.

Axes: B shots, K ends, N detectors in closing order, F open detectors, E edges, G classes that fired once (GM: class,
member that fired), of all shots one after the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_plan import NONE, SweepPlan, SweepProblem

try:
    from numba import njit
except ImportError:  # the caller says so; this module must import without it
    njit = None  # type: ignore[assignment]

LOW = 9  # bits of the contiguous innermost loop

Table = NDArray[np.float64]
Ints = NDArray[np.int64]


def compiled(function: Any) -> Any:
    return function if njit is None else njit(cache=True, nogil=True)(function)


class Work(NamedTuple):
    """A state with room for the next one, the open detectors (room for one more than may be open), and whether each
    detector was opened yet."""

    state: Table
    spare: Table
    open_F: Ints
    opened_N: Ints


class Reached(NamedTuple):
    """How many detectors are closed, how many open, how many of the shot's classes applied. More are open than may be
    where a sweep ended for want of room."""

    closed: int
    open: int
    applied: int


@compiled
def place_of(n: int, open_F: Ints, f: int) -> int:
    """The bit of an open detector."""
    for k in range(f):
        if open_F[k] == n:
            return f - 1 - k
    return NONE


@compiled
def close(plan: SweepPlan, n: int, seen: int, state: Table, out: Table, open_F: Ints, f: int, fresh: int) -> None:
    """Apply the edges that touch n first, sum over its bit, take it from the open ones, and divide by the P before.

    The `fresh` newest open detectors are not in `state` yet; they open on the way.
    """
    at = place_of(n, open_F, f)
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
        place_E[e] = place_of(plan.edge_other_E[first + e], open_F, f)
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
    work = _room(most_open, n)
    for shot in range(b):
        fired_GM_of = fired_GM[fired_start_B[shot] : fired_start_B[shot + 1]].copy()
        seen_N, turned, g = seen_BN[shot].copy(), 0, len(fired_GM_of)
        while True:
            p = go_to_end(plan, seen_N, fired_GM_of[:g, 0], work, begin(plan, work))
            if g == 0 or not np.isnan(p):
                break
            turned ^= _reveal_widest(plan, seen_N, fired_GM_of[:g])
            g -= 1
        out_B[shot] = 1.0 - p if turned else p
    return out_B


@compiled
def _room(most_open: int, n_detectors: int) -> Work:
    state, spare = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
    return Work(state, spare, np.empty(most_open + 1, np.int64), np.empty(n_detectors, np.int64))


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
def begin(plan: SweepPlan, work: Work) -> Reached:
    work.opened_N[:] = 0
    work.state[0, 0], work.state[1, 0] = 1.0, plan.unseen_chi
    return Reached(0, 0, 0)


@compiled
def advance(
    plan: SweepPlan, seen_N: NDArray[np.uint8], fired: Ints, work: Work, at: Reached, until: int
) -> tuple[Reached, Work]:
    """Closes the detectors from `at` on up to `until`, the shot's fired classes on the way."""
    state, spare, open_F, opened_N = work
    f, g, most_open = at.open, at.applied, len(open_F) - 1
    for n in range(at.closed, until):
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
            return Reached(n, f, g), Work(state, spare, open_F, opened_N)
        if old > before:
            _open(state, spare, before, old - before)
            state, spare = spare, state
        for c in fired[g:h]:
            _apply_class(plan, c, state, open_F, old)
        g = h
        close(plan, n, seen_N[n], state, spare, open_F, f, f - old)
        state, spare = spare, state
        f -= 1
    return Reached(until, f, g), Work(state, spare, open_F, opened_N)


@compiled
def go_to_end(plan: SweepPlan, seen_N: NDArray[np.uint8], fired: Ints, work: Work, at: Reached) -> float:
    """P(observable flipped) after `advance` to the last detector; NaN for want of room."""
    at, work = advance(plan, seen_N, fired, work, at, len(seen_N))
    if at.open > len(work.open_F) - 1:
        return np.nan
    for c in fired[at.applied :]:
        _apply_class(plan, c, work.state, work.open_F, 0)
    return min(1.0, max(0.0, 0.5 - 0.5 * work.state[1, 0] / work.state[0, 0]))


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


def flipped_alone(problem: SweepProblem, most_open: int) -> NDArray[np.float64]:
    """P(observable flipped), float64 (B,)."""
    flipped_B = sweep(problem.plan, problem.seen_BN, problem.start_B, problem.fired_GM, most_open)
    return np.where(problem.turned_B, 1 - flipped_B, flipped_B)


def flipped_together(problems: list[SweepProblem], common_K: list[int], most_open: int) -> NDArray[np.float64]:
    """The same at the ends of the same shots, shortest first: float64 (K, B).

    common_K: how many detectors the last problem's plan closes as each of the others does.
    """
    plans, seen, starts, fired, turned = zip(*problems, strict=True)
    flipped_KB = _together(plans, seen, starts, fired, np.array(common_K, np.int64), most_open)
    return np.where(np.stack(turned), 1 - flipped_KB, flipped_KB)


@compiled
def _together(
    plans: tuple[SweepPlan, ...],
    seen: tuple[NDArray[np.uint8], ...],
    starts: tuple[Ints, ...],
    fired: tuple[Ints, ...],
    common_K: Ints,
    most_open: int,
) -> Table:
    """Before what is known turns them: float64 (K, B)."""
    last, shots, n_detectors = len(common_K) - 1, len(seen[0]), seen[-1].shape[1]
    out_KB = np.empty((last + 1, shots))
    trunk, branch = _room(most_open, n_detectors), _room(most_open, n_detectors)
    for b in range(shots):
        at = begin(plans[last], trunk)
        fired_of_last = fired[last][starts[last][b] : starts[last][b + 1]]
        for k in range(last + 1):
            plan, seen_N, until = plans[k], seen[k][b], common_K[k]
            fired_GM_of = fired[k][starts[k][b] : starts[k][b + 1]]
            p = np.nan
            if at.open <= most_open:
                at, trunk = advance(plans[last], seen[last][b], fired_of_last[:, 0], trunk, at, until)
            if at.open <= most_open:
                branch.state[:, : 1 << at.open] = trunk.state[:, : 1 << at.open]
                branch.open_F[:], branch.opened_N[:] = trunk.open_F, trunk.opened_N
                p = go_to_end(plan, seen_N, fired_GM_of[:, 0], branch, at)
            if np.isnan(p):  # too many open at once: more is to be revealed, which may be something of before
                whole = np.array([0, len(fired_GM_of)])
                p = sweep(plan, seen[k][b : b + 1], whole, fired_GM_of, most_open)[0]
            out_KB[k, b] = p
    return out_KB
