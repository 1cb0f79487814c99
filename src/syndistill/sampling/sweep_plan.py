"""An error model of one basis as a sweep over its on-basis detectors: which errors to apply when.

An error is known by x, the on-basis detectors it flips (none, one or two) and the observable, and by z, the off-basis
detectors it flips.  Errors with z = 0 are edges; those with the same z != 0 form a class.

Legend: N on-basis detectors in closing order, E edges, C classes, M members of classes, A errors of the model.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import flips
from syndistill.circuits.placement import Placement
from syndistill.errors import SyndistillError

NONE = -1


class SweepPlan(NamedTuple):
    """Errors as flat arrays, detectors numbered in the order in which they close.

    edge_start_N: int64 (N + 1,), edges edge_start_N[n] to edge_start_N[n + 1] touch detector n first.
    edge_other_E: int64 (E,), the later detector, NONE for an edge of one. edge_flip_E: uint8, flips the observable.
    edge_chi_E: 1 - 2 q. unseen_chi: the product of 1 - 2 q of the edges that flip the observable alone.
    class_start_C: int64 (C + 1,). class_first_C: int64 (C,), the first detector that its members touch, N for none.
    class_width_C: int64 (C,), how many detectors they touch.
    member_ends_M2: int64 (M, 2), its detectors or NONE. member_flip_M: uint8. member_weight_M: the chance of each
    member, given that one of its class fired.
    """

    edge_start_N: NDArray[np.int64]
    edge_other_E: NDArray[np.int64]
    edge_flip_E: NDArray[np.uint8]
    edge_chi_E: NDArray[np.float64]
    unseen_chi: float
    class_start_C: NDArray[np.int64]
    class_first_C: NDArray[np.int64]
    class_width_C: NDArray[np.int64]
    member_ends_M2: NDArray[np.int64]
    member_flip_M: NDArray[np.uint8]
    member_weight_M: NDArray[np.float64]


class SweepModel(NamedTuple):
    """A plan, and how Stim's samples map to it.

    detector_N: int64 (N,), the Stim index of each detector of the plan. error_M: int64 (M,), that of each member.
    class_M: int64 (M,), each member's class.
    """

    plan: SweepPlan
    detector_N: NDArray[np.int64]
    error_M: NDArray[np.int64]
    class_M: NDArray[np.int64]


class SweepProblem(NamedTuple):
    """Shots to sweep over.

    seen_BN: uint8, events without the shifts of errors that are known, in the plan's order. start_B: int64 (B + 1,).
    fired_GM: int64 (G, 2), the classes that fired once, start_B[b] to start_B[b + 1] in shot b and by first detector,
    each with the member that fired. turned_B: uint8, whether what is known flips the observable.
    """

    plan: SweepPlan
    seen_BN: NDArray[np.uint8]
    start_B: NDArray[np.int64]
    fired_GM: NDArray[np.int64]
    turned_B: NDArray[np.uint8]


class _Error(NamedTuple):
    number: int
    chance: float
    ends: tuple[int, ...]
    flip: int


def sweep_model(dem: stim.DetectorErrorModel, placed: Placement) -> SweepModel:
    """The plan of a memory experiment in basis x or z.

    Raises SyndistillError for an error that flips more than two on-basis detectors.
    """
    on_N = placed.layout.on_basis_S(placed.basis)[placed.stabiliser_N]
    by_z: dict[tuple[int, ...], list[_Error]] = {}
    for number, (q, detectors, observables) in enumerate(flips(dem)):
        ends = tuple(sorted(n for n in detectors if on_N[n]))
        if len(ends) > 2:
            raise SyndistillError(f"revealed labels: an error flips {len(ends)} detectors of one basis; two are taken")
        if q > 0:
            z = tuple(sorted(n for n in detectors if not on_N[n]))
            by_z.setdefault(z, []).append(_Error(number, q, ends, observables & 1))
    edges = by_z.pop((), [])
    order_N = _closing_order(placed, np.flatnonzero(on_N), edges)
    rank = {int(n): k for k, n in enumerate(order_N)}
    classes = [members for _, members in sorted(by_z.items())]
    members = [member for some in classes for member in some]
    plan = SweepPlan(*_edges(edges, rank), *_classes(classes, rank))
    error_M = np.array([member.number for member in members], np.int64)
    return SweepModel(plan, order_N, error_M, np.repeat(np.arange(len(classes)), [len(some) for some in classes]))


def common_detectors(a: SweepPlan, b: SweepPlan) -> int:
    """How many of the first detectors both plans close alike: by the same edges and classes."""
    if _digits(a.unseen_chi) != _digits(b.unseen_chi):
        return 0
    pairs = list(zip(_contents(a), _contents(b), strict=False))
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))


def _contents(plan: SweepPlan) -> list[tuple[list, list]]:
    """For each detector the edges and the classes that touch it first, in an order that tells equal ones."""
    weights = [_digits(w) for w in plan.member_weight_M.tolist()]
    members = list(zip(*plan.member_ends_M2.T.tolist(), plan.member_flip_M.tolist(), weights, strict=True))
    chis = [_digits(chi) for chi in plan.edge_chi_E.tolist()]
    edges = list(zip(plan.edge_other_E.tolist(), plan.edge_flip_E.tolist(), chis, strict=True))
    classes: dict[int, list] = {}
    for first, (i, j) in zip(plan.class_first_C.tolist(), pairwise(plan.class_start_C.tolist()), strict=True):
        classes.setdefault(first, []).append(sorted(members[i:j]))
    starts = pairwise(plan.edge_start_N.tolist())
    return [(sorted(edges[i:j]), sorted(classes.get(n, []))) for n, (i, j) in enumerate(starts)]


def _digits(number: float) -> str:
    """Nine: the last ones of equal errors in two models differ."""
    return f"{number:.9g}"


def _closing_order(placed: Placement, on_basis: NDArray[np.int64], edges: list[_Error]) -> NDArray[np.int64]:
    """Slice by slice and along the grid, in the direction that keeps the fewest patterns at once."""
    cells_N2 = placed.layout.cells_S2[placed.stabiliser_N[on_basis]]
    slice_N = placed.slice_N[on_basis]
    orders = []
    for swap, *signs in product((False, True), (1, -1), (1, -1)):
        first, second = (signs[k] * cells_N2[:, 1 - k if swap else k] for k in (0, 1))
        orders.append(on_basis[np.lexsort((second, first, slice_N))])
    return min(orders, key=lambda order: _patterns(order, edges))


def _patterns(order: NDArray[np.int64], edges: list[_Error]) -> int:
    """The sum over closings of 2^(detectors open)."""
    rank = {int(n): k for k, n in enumerate(order)}
    opened = list(range(len(order)))
    for edge in edges:
        if edge.ends:
            first, *rest = sorted(rank[n] for n in edge.ends)
            for n in rest:
                opened[n] = min(opened[n], first)
    return sum(1 << sum(opened[n] <= k for n in range(k, len(order))) for k in range(len(order)))


def _edges(edges: list[_Error], rank: dict[int, int]) -> tuple[NDArray, NDArray, NDArray, NDArray, float]:
    of_first: list[list[tuple[int, int, float]]] = [[] for _ in rank]
    unseen = 1.0
    for edge in edges:
        chi = 1 - 2 * edge.chance
        ends = sorted(rank[n] for n in edge.ends)
        if ends:
            of_first[ends[0]].append((ends[1] if len(ends) == 2 else NONE, edge.flip, chi))
        elif edge.flip:
            unseen *= chi
    flat = [edge for some in of_first for edge in some]
    return (
        np.cumsum([0, *map(len, of_first)]),
        np.array([other for other, _, _ in flat], np.int64),
        np.array([flip for _, flip, _ in flat], np.uint8),
        np.array([chi for _, _, chi in flat], np.float64),
        unseen,
    )


def _classes(
    classes: list[list[_Error]], rank: dict[int, int]
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray, NDArray]:
    members = [member for some in classes for member in some]
    ends_M2 = np.full((len(members), 2), NONE, np.int64)
    for m, member in enumerate(members):
        ends_M2[m, : len(member.ends)] = [rank[n] for n in member.ends]
    start_C = np.cumsum([0, *map(len, classes)])
    odds_M = np.array([member.chance / (1 - member.chance) for member in members])
    weight_M = odds_M.copy()
    first_C = np.full(len(classes), len(rank), np.int64)
    width_C = np.zeros(len(classes), np.int64)
    for c, (i, j) in enumerate(pairwise(start_C.tolist())):
        weight_M[i:j] /= odds_M[i:j].sum()
        touched = set(ends_M2[i:j].ravel().tolist()) - {NONE}
        first_C[c], width_C[c] = min(touched, default=len(rank)), len(touched)
    return start_C, first_C, width_C, ends_M2, np.array([member.flip for member in members], np.uint8), weight_M
