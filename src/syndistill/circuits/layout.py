"""The canonical geometry of a rotated surface code: one per distance, shared by every network.

Axes: S stabilisers (d*d - 1), L lines (d).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from syndistill.errors import SyndistillError

BASES = ("x", "z", "both")


def answered(basis: str) -> tuple[str, ...]:
    """The bases whose observables shots of `basis` have."""
    return ("x", "z") if basis == "both" else (basis,)


@dataclass(frozen=True)
class Layout:
    """Canonical order and place of the stabilisers of the distance-`distance` rotated surface code.

    Stabilisers sit on a (d+1) x (d+1) grid, data qubit (i, j) between grid cells (i, j) and (i+1, j+1).
    A stabiliser is of type X where row + column is odd. X-type boundary stabilisers are in columns 0 and d,
    Z-type ones in rows 0 and d. Line l of basis x is data row l (a logical X), of basis z data column l.
    Two circuits of one distance share this object; only `placement.Placement` knows their coordinates.
    """

    distance: int

    def __post_init__(self) -> None:
        if self.distance < 3 or self.distance % 2 == 0:
            raise SyndistillError(f"distance {self.distance} is not an odd number >= 3; pick 3, 5, 7, ...")

    @cached_property
    def cells_S2(self) -> np.ndarray:
        """Grid (row, column) of each stabiliser, int64 (S, 2), sorted by row, then column."""
        d = self.distance
        return np.array([(r, c) for r in range(d + 1) for c in range(d + 1) if self._has_stabiliser(r, c)])

    def _has_stabiliser(self, row: int, col: int) -> bool:
        d = self.distance
        on_row_edge, on_col_edge = row in (0, d), col in (0, d)
        if on_row_edge and on_col_edge:
            return False
        is_x = (row + col) % 2 == 1
        return (not on_row_edge or not is_x) and (not on_col_edge or is_x)

    @property
    def n_stabilisers(self) -> int:
        return self.distance**2 - 1

    @property
    def n_lines(self) -> int:
        return self.distance

    @cached_property
    def is_x_S(self) -> np.ndarray:
        """True where the stabiliser is of type X, bool (S,)."""
        return self.cells_S2.sum(1) % 2 == 1

    def on_basis_S(self, basis: str) -> np.ndarray:
        """Stabilisers whose first and last value a memory experiment in `basis` defines, bool (S,)."""
        if basis not in BASES:
            raise SyndistillError(f"basis {basis!r} is unknown; pick one of x, z, both")
        if basis == "both":
            return np.ones(self.n_stabilisers, dtype=bool)
        return self.is_x_S if basis == "x" else ~self.is_x_S

    @cached_property
    def supports(self) -> list[list[int]]:
        """For each stabiliser the data qubits it touches; data qubit (i, j) is number i*d + j."""
        d = self.distance
        return [
            [i * d + j for i in (row - 1, row) for j in (col - 1, col) if 0 <= i < d and 0 <= j < d]
            for row, col in self.cells_S2.tolist()
        ]

    @cached_property
    def stabiliser_at(self) -> dict[tuple[int, int], int]:
        """The stabiliser of each grid cell (row, column) that has one."""
        return {(r, c): s for s, (r, c) in enumerate(self.cells_S2.tolist())}

    @cached_property
    def turned_S(self) -> np.ndarray:
        """For each stabiliser the one that a quarter turn moves onto it, int64 (S,): the other type, line l to line l.

        events[:, turned_S] of an X memory experiment look like those of a Z one. They are not quite distributed alike:
        at d=3, SI1000, error mechanisms of 15 % of all probability differ.
        """
        return np.array([self.stabiliser_at[c, self.distance - r] for r, c in self.cells_S2.tolist()])

    @cached_property
    def turned_back_S(self) -> np.ndarray:
        """The inverse of `turned_S`, int64 (S,)."""
        return self.turned_S.argsort()

    @cached_property
    def places_SS(self) -> np.ndarray:
        """Where each stabiliser (second axis) is in the 3 x 3 cells around another (first axis), int64 (S, S).

        Row by row, 4 is itself, 9 for none of them. Neighbours are those that share a data qubit.
        """
        steps_SS2 = self.cells_S2[None] - self.cells_S2[:, None]
        near_SS = (np.abs(steps_SS2) <= 1).all(-1)
        return np.where(near_SS, 3 * (steps_SS2[..., 0] + 1) + steps_SS2[..., 1] + 1, 9)

    @cached_property
    def blocks_SS(self) -> np.ndarray:
        """Which weights a target (first axis) hears a source with, where those of one type of target are shared: its
        place in `places_SS`, 9 more where the target is of type X, 18 for none; int64 (S, S)."""
        return np.where(self.places_SS < 9, 9 * self.is_x_S[:, None] + self.places_SS, 18)

    @cached_property
    def corners_Q4(self) -> np.ndarray:
        """The stabilisers up left, up right, down left, down right of each data qubit, int64 (d*d, 4), S for none."""
        d = self.distance
        corners = [
            [self.stabiliser_at.get((i + a, j + b), self.n_stabilisers) for a in (0, 1) for b in (0, 1)]
            for i in range(d)
            for j in range(d)
        ]
        return np.array(corners)

    def line_data(self, basis: str, line: int) -> list[int]:
        """The data qubits of a line: row `line` for basis x, column `line` for basis z."""
        d = self.distance
        return [line * d + k if basis == "x" else k * d + line for k in range(d)]

    def line_stabilisers(self, basis: str) -> list[np.ndarray]:
        """For l = 0..d-2 the stabilisers whose product is line l times line l+1 (`basis` is x or z)."""
        axis = {"x": 0, "z": 1}[basis]
        on_basis_S = self.on_basis_S(basis)
        return [np.flatnonzero(on_basis_S & (self.cells_S2[:, axis] == line + 1)) for line in range(self.distance - 1)]

    def line_matrix(self, basis: str) -> np.ndarray:
        """uint8 (S, L): label of line l XOR label of line 0 = final stabiliser values times this, mod 2."""
        matrix_SL = np.zeros((self.n_stabilisers, self.n_lines), dtype=np.uint8)
        for line, members in enumerate(self.line_stabilisers(basis)):
            matrix_SL[members, line + 1 :] = 1
        return matrix_SL

    def strip_matrix(self, basis: str) -> np.ndarray:
        """uint8 (S, L - 1): 1 for the stabilisers between lines l and l + 1, which `line_stabilisers` lists."""
        matrix_SL = self.line_matrix(basis)
        strips_SK: np.ndarray = matrix_SL[:, 1:] ^ matrix_SL[:, :-1]
        return strips_SK
