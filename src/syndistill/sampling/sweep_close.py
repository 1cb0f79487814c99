"""Closing a detector in the sweep of sweep_kernel.py, which says what a state is.

numba's cache looks at the file of a function alone: a change here, while callers' files stay, needs their caches
(`__pycache__/*.nbi`) deleted.
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
