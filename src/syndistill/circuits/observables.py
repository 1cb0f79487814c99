"""What an observable is, told by the errors that flip it: a logical line, times checks.

An error on one data qubit flips for good the stabilisers around it, and every observable that holds the qubit. So the
errors say which qubits an observable holds, whatever measurement records its definition names; and that is line 0 of a
basis times the product of some stabilisers, whose values every shot shows.

Axes: U different (shape, flips) pairs, K detectors of one, S stabilisers, O observables, Q data qubits.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.circuits.mechanisms import Mechanisms
from syndistill.errors import SyndistillError

Left = frozenset[int]
"""Stabilisers that an error leaves flipped for good."""


class Observables(NamedTuple):
    """holds_O2: whether an observable holds line 0 of basis x, of basis z. turn_OS: uint8, the stabilisers whose final
    values tell it from those lines."""

    holds_O2: NDArray[np.bool_]
    turn_OS: NDArray[np.uint8]


def observables_of(
    mechanisms: Mechanisms, stabiliser_N: NDArray[np.int64], layout: Layout, basis: str
) -> Observables:
    """Of an experiment in `basis`. SyndistillError where the errors say of an observable that it is no line times
    checks; one that nothing flips holds nothing."""
    votes = _votes(mechanisms, stabiliser_N, layout, basis)
    n_observables = mechanisms.flips_MO.shape[1]
    holds_O2 = np.zeros((n_observables, 2), bool)
    turn_OS = np.zeros((n_observables, layout.n_stabilisers), np.uint8)
    for o in range(n_observables):
        for b, name in enumerate(("x", "z")):
            if basis in (name, "both"):
                holds_O2[o, b], turn_S = _solved(layout, name, o, votes)
                turn_OS[o] ^= turn_S
        if _flipped_alone(mechanisms, stabiliser_N, layout.on_basis_S(basis), o):
            raise SyndistillError(
                f"observable L{o} is flipped by errors that leave all stabilisers as they were (results of ancillas "
                "in it?); give an observable of data qubits alone"
            )
    return Observables(holds_O2, turn_OS)


def _flipped_alone(
    mechanisms: Mechanisms, stabiliser_N: NDArray[np.int64], defined_S: NDArray[np.bool_], observable: int
) -> bool:
    """Whether errors that leave every stabiliser as it was flip it more often than not: no single error does that to an
    operator of data qubits, but a wrong result of an ancilla does to one that the result is part of."""
    total: dict[tuple[int, ...], float] = defaultdict(float)
    rows = zip(mechanisms.detectors_MK.tolist(), mechanisms.flips_MO[:, observable], mechanisms.p_M, strict=True)
    for detectors, flips, p in rows:
        left: set[int] = set()
        for n in detectors:
            if n >= 0 and defined_S[stabiliser_N[n]]:
                left ^= {int(stabiliser_N[n])}
        if not left:
            total[tuple(detectors)] += p if flips else -p
    return any(difference > 0 for difference in total.values())


def _votes(
    mechanisms: Mechanisms, stabiliser_N: NDArray[np.int64], layout: Layout, basis: str
) -> dict[Left, NDArray[np.float64]]:
    """By what errors leave flipped: the probability that they keep and that they flip each observable, (O, 2)."""
    defined_S = layout.on_basis_S(basis)
    there_MK = mechanisms.detectors_MK >= 0
    stabiliser_MK = np.where(there_MK, stabiliser_N[mechanisms.detectors_MK], -1)
    stabiliser_MK = np.where(there_MK & defined_S[stabiliser_MK], stabiliser_MK, -1)
    rows_MX = np.column_stack([np.sort(stabiliser_MK, axis=1), mechanisms.flips_MO])
    unique_UX, inverse_M = np.unique(rows_MX, axis=0, return_inverse=True)
    total_U = np.bincount(inverse_M.reshape(-1), mechanisms.p_M, minlength=len(unique_UX))
    width = stabiliser_MK.shape[1]
    votes: dict[Left, NDArray[np.float64]] = defaultdict(lambda: np.zeros((mechanisms.flips_MO.shape[1], 2)))
    for row, total in zip(unique_UX.tolist(), total_U.tolist(), strict=True):
        left: set[int] = set()
        for stabiliser in row[:width]:
            if stabiliser >= 0:
                left ^= {stabiliser}
        for o, flips in enumerate(row[width:]):
            votes[frozenset(left)][o, flips] += total
    return votes


def _solved(
    layout: Layout, basis: str, observable: int, votes: dict[Left, NDArray[np.float64]]
) -> tuple[bool, NDArray[np.uint8]]:
    """Whether it holds line 0 of this basis, and the checks, uint8 (S,), that make the rest of it: linear algebra
    modulo 2 with a row for each data qubit."""
    on_basis = np.flatnonzero(layout.on_basis_S(basis)).tolist()
    around: list[set[int]] = [set() for _ in range(layout.distance**2)]
    for stabiliser in on_basis:
        for qubit in layout.supports[stabiliser]:
            around[qubit].add(stabiliser)
    line = set(layout.line_data(basis, 0))
    rows = []  # bit 0: the line, bit 1 + i: the i-th check, last bit: whether the qubit's errors flip the observable
    for qubit, neighbours in enumerate(around):
        kept, flipped = votes[frozenset(neighbours)][observable]
        if kept or flipped:
            row = int(qubit in line) | sum(2 << i for i, s in enumerate(on_basis) if s in neighbours)
            rows.append(row | int(flipped > kept) << len(on_basis) + 1)
    turn_S = np.zeros(layout.n_stabilisers, np.uint8)
    solution = _solve(rows, len(on_basis) + 1)
    if solution is None:
        raise SyndistillError(
            f"observable L{observable} is no line of data qubits times checks, as far as the errors in basis {basis} "
            "tell; name the logical qubit's own observable"
        )
    turn_S[[s for i, s in enumerate(on_basis) if solution >> i + 1 & 1]] = 1
    return bool(solution & 1), turn_S


def _solve(rows: list[int], n_unknowns: int) -> int | None:
    """Bits of a solution of equations modulo 2 (free unknowns 0, the last ones first to be free); None for none."""
    pivots: dict[int, int] = {}
    for row in rows:
        for bit in range(n_unknowns):
            if row >> bit & 1:
                if bit not in pivots:
                    pivots[bit] = row
                    break
                row ^= pivots[bit]
        else:
            if row:
                return None
    solution = 0
    for bit in sorted(pivots, reverse=True):
        row = pivots[bit]
        value = row >> n_unknowns & 1
        for other in range(bit + 1, n_unknowns):
            value ^= (row >> other & 1) & (solution >> other & 1)
        solution |= value << bit
    return solution
