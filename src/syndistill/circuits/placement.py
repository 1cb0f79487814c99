"""Where each detector of a circuit sits: which slice, which stabiliser of the canonical layout.

Axes: N detectors in Stim order, S stabilisers, T = rounds + 1 slices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import stim

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Placement:
    """A circuit's detectors in the canonical layout.

    slice_N, stabiliser_N: int64 (N,). Slices 0..rounds-1 are the measured rounds, slice `rounds` is the one
    computed from the data readout. lines: the line of each observable, or None where it is not known
    (a bare DEM does not say which data qubits an observable holds).
    """

    layout: Layout
    rounds: int
    basis: str
    slice_N: np.ndarray
    stabiliser_N: np.ndarray
    lines: tuple[int | None, ...]


def place_circuit(circuit: stim.Circuit, basis: str | None = None) -> Placement:
    """Place the detectors of a rotated surface code memory circuit by their coordinates.

    Understands Stim's generated circuits, Google's (lattice units, fourth coordinate) and the 45-degree
    lattice of the Sycamore recordings. `basis` ("x", "z" or "both") overrides what the circuit seems to say.
    Raises SyndistillError naming the detector that does not fit.
    """
    finder = _circuit_finder(circuit, basis)
    points = circuit.get_final_qubit_coordinates()
    supports = enumerate(_observable_supports(circuit))
    return finder.placement(tuple(_line_of(finder, o, support, points) for o, support in supports))


def place_dem(dem: stim.DetectorErrorModel, basis: str | None = None) -> Placement:
    """As `place_circuit` from a DEM alone; the observables' lines stay unknown (None).

    A DEM without fourth coordinates does not say its basis: it is taken for z unless `basis` says x.
    """
    coords = dem.get_detector_coordinates()
    finder = _Finder(coords, dem.num_detectors, basis or _basis_from_kinds(coords) or "z")
    return finder.placement((None,) * dem.num_observables)


def canonical_qubits(circuit: stim.Circuit, basis: str | None = None) -> tuple[list[int], list[int]]:
    """The ancilla of each stabiliser, and the data qubits row by row, as the circuit numbers them."""
    finder = _circuit_finder(circuit, basis)
    d = finder.layout.distance
    qubit_at: dict[Point, int] = {}
    for qubit, point in circuit.get_final_qubit_coordinates().items():
        row, col = finder.to_grid.exact((point[0], point[1]))
        qubit_at[round(row, 3), round(col, 3)] = qubit
    ancillas = [qubit_at[row, col] for row, col in finder.layout.cells_S2.tolist()]
    data = [qubit_at[i + 0.5, j + 0.5] for i in range(d) for j in range(d)]
    return ancillas, data


def _circuit_finder(circuit: stim.Circuit, basis: str | None) -> _Finder:
    coords = circuit.get_detector_coordinates()
    return _Finder(coords, circuit.num_detectors, basis or _basis_of(circuit, coords))


class _Finder:
    """Finds the symmetry that carries a circuit's coordinates onto the canonical grid."""

    def __init__(self, coords: dict[int, list[float]], n_detectors: int, basis: str) -> None:
        if n_detectors == 0:
            raise SyndistillError("the circuit has no detectors; annotate it with DETECTOR(x, y, t) instructions")
        needed, names = (4, "(x, y, t, kind)") if basis == "both" else (3, "(x, y, t)")
        for detector in range(n_detectors):
            if len(coords.get(detector, [])) < needed:
                raise SyndistillError(
                    f"detector D{detector} lacks coordinates {names}; add them, the geometry is read from there"
                )
        self.coords = [coords[n] for n in range(n_detectors)]
        self.basis = basis
        times = sorted({c[2] for c in self.coords})
        self.rounds = len(times) - 1
        if self.rounds < 1:
            raise SyndistillError(
                f"all detectors, from {self._name(0)} on, are at one time; a memory experiment has at least two "
                "slices, its rounds and the one computed from the data readout"
            )
        self.slice_N = np.array([times.index(c[2]) for c in self.coords])
        self.layout, self.to_grid = self._find()

    def _find(self) -> tuple[Layout, _ToGrid]:
        points = {(c[0], c[1]) for c in self.coords}
        half = self.rounds == 1 and self.basis != "both"  # then no off-basis stabiliser has a detector
        expected = "(d*d - 1)/2" if half else "d*d - 1"
        distance = math.isqrt(len(points) * (2 if half else 1) + 1)
        if distance < 3 or distance % 2 == 0 or (distance**2 - 1) != len(points) * (2 if half else 1):
            raise SyndistillError(
                f"detectors sit at {len(points)} places, where a rotated surface code of odd distance d has "
                f"{expected}; the odd one out may be {self._odd_one_out()}"
            )
        layout = Layout(distance)
        cells_S2 = layout.cells_S2[layout.on_basis_S(self.basis)] if half else layout.cells_S2
        cells = {tuple(cell) for cell in cells_S2}
        on_grid = [g for g in _symmetries(points, cells_S2, distance) if {g(p) for p in points} == cells]
        if not on_grid:
            raise SyndistillError(
                f"the detectors' places are not those of a rotated surface code of distance {distance}; "
                f"check the coordinates of {self._odd_one_out()}"
            )
        defined = {tuple(cell) for cell in layout.cells_S2[layout.on_basis_S(self.basis)]}
        firsts = {(c[0], c[1]) for c, t in zip(self.coords, self.slice_N, strict=True) if t == 0}
        fitting = [g for g in on_grid if {g(p) for p in firsts} == defined]
        if not fitting:
            raise SyndistillError(
                f"the detectors of the first round, from {self._name(0)} on, are not the {len(defined)} "
                f"stabilisers that a memory in basis {self.basis} defines there; add the missing, or name the basis"
            )
        to_grid = min(fitting, key=lambda g: len(self._wrong_kinds(g)))
        if wrong := self._wrong_kinds(to_grid):
            raise SyndistillError(
                f"the fourth coordinate of detector {self._name(wrong[0])} is not the type of the stabiliser there; "
                "0, 1, 2 mean X and 3, 4, 5 mean Z"
            )
        return layout, to_grid

    def _wrong_kinds(self, to_grid: _ToGrid) -> list[int]:
        """Detectors of a two-observable circuit (elsewhere the first slice tells the types) of the other type."""
        if self.basis != "both":
            return []
        return [n for n, c in enumerate(self.coords) if sum(to_grid((c[0], c[1])) or ()) % 2 != (c[3] < 3)]

    def _odd_one_out(self) -> str:
        """The detector farthest from where the others suggest: off their lattice, or at the rarest place."""
        visits = Counter((c[0], c[1]) for c in self.coords)
        axes = [sorted({p[axis] for p in visits}) for axis in (0, 1)]
        gaps = Counter(round(b - a, 6) for values in axes for a, b in pairwise(values) if b - a > 1e-6)
        pitch = gaps.most_common(1)[0][0] if gaps else 1.0
        residue = {p: (round(p[0] % pitch, 6), round(p[1] % pitch, 6)) for p in visits}
        common = Counter(residue.values())
        neighbours = {p: sum(abs(p[0] - q[0]) + abs(p[1] - q[1]) < 2.1 * pitch for q in visits) for p in visits}
        stranger = min(visits, key=lambda p: (common[residue[p]], visits[p], neighbours[p]))
        return self._name(next(n for n, c in enumerate(self.coords) if (c[0], c[1]) == stranger))

    def _name(self, detector: int) -> str:
        return f"D{detector} at ({', '.join(f'{v:g}' for v in self.coords[detector])})"

    def placement(self, lines: tuple[int | None, ...]) -> Placement:
        index = {tuple(cell): s for s, cell in enumerate(self.layout.cells_S2)}
        stabiliser_N = np.array([index[self.to_grid((c[0], c[1])) or (-1, -1)] for c in self.coords])
        on_basis_S = self.layout.on_basis_S(self.basis)
        seen: dict[tuple[int, int], int] = {}
        for n, (t, s) in enumerate(zip(self.slice_N.tolist(), stabiliser_N.tolist(), strict=True)):
            if (t, s) in seen:
                raise SyndistillError(
                    f"detector {self._name(n)} stands where D{seen[t, s]} already is: "
                    f"one detector per stabiliser and round, please"
                )
            if t in (0, self.rounds) and not on_basis_S[s]:
                raise SyndistillError(f"detector {self._name(n)} is off-basis, and such a slice has none of those")
            seen[t, s] = n
        for t, s in product(range(self.rounds + 1), range(self.layout.n_stabilisers)):
            if (t, s) not in seen and (on_basis_S[s] or 0 < t < self.rounds):
                row, col = self.layout.cells_S2[s]
                raise SyndistillError(
                    f"slice {t} of {self.rounds + 1} lacks the detector of the stabiliser in grid cell "
                    f"({row}, {col}); every stabiliser needs one DETECTOR per round"
                )
        return Placement(self.layout, self.rounds, self.basis, self.slice_N, stabiliser_N, lines)


@dataclass(frozen=True)
class _ToGrid:
    """An axis-aligned or 45-degree lattice, shifted, scaled and reflected onto the grid 0..d."""

    rotated: bool
    swap: bool
    flips: tuple[bool, bool]
    starts: Point
    pitch: float
    distance: int

    def exact(self, point: Point) -> Point:
        u, v = _axes(point, self.rotated)
        a, b = (u - self.starts[0]) / self.pitch, (v - self.starts[1]) / self.pitch
        a, b = (self.distance - a if self.flips[0] else a), (self.distance - b if self.flips[1] else b)
        return (b, a) if self.swap else (a, b)

    def __call__(self, point: Point) -> tuple[int, int] | None:
        a, b = self.exact(point)
        if abs(a - round(a)) > 1e-6 or abs(b - round(b)) > 1e-6:
            return None
        return round(a), round(b)


def _axes(point: Point, rotated: bool) -> Point:
    x, y = point
    return (x + y, x - y) if rotated else (x, y)


def _symmetries(points: Iterable[Point], cells_S2: np.ndarray, distance: int) -> Iterable[_ToGrid]:
    """Candidate maps, the identity first: those that carry the points' bounding box onto the cells'."""
    low, high = cells_S2.min(0), cells_S2.max(0)  # symmetric: low + high = distance
    for rotated in (False, True):
        uv = np.array([_axes(p, rotated) for p in points])
        for swap, *flips in product((False, True), repeat=3):
            order = [1, 0] if swap else [0, 1]
            pitch = float(((uv.max(0) - uv.min(0)) / (high - low)[order]).max())
            starts = uv.min(0) - low[order] * pitch
            yield _ToGrid(rotated, swap, (flips[0], flips[1]), (float(starts[0]), float(starts[1])), pitch, distance)


def _basis_from_kinds(coords: dict[int, list[float]]) -> str | None:
    """From Google's fourth coordinate, 0-2 for X-type detectors and 3-5 for Z-type ones, in the first slice."""
    if not coords or any(len(c) < 4 for c in coords.values()):
        return None
    first = min(c[2] for c in coords.values())
    kinds = {c[3] >= 3 for c in coords.values() if c[2] == first}
    return "both" if len(kinds) == 2 else ("z" if kinds == {True} else "x")


def _basis_of(circuit: stim.Circuit, coords: dict[int, list[float]]) -> str:
    """Basis from the fourth coordinate, else from an MX readout, else z.

    A ZXXZ circuit says neither; its caller knows (properties.yml) and names the basis.
    """
    if circuit.num_observables == 2:
        return "both"
    if (kind := _basis_from_kinds(coords)) is not None:
        return kind
    return "x" if any(i.name in ("MX", "RX") for i in circuit.flattened()) else "z"


def _observable_supports(circuit: stim.Circuit) -> list[set[int] | None]:
    """Data qubits of each observable: of the measurements it includes, or of its Pauli targets."""
    measured: list[int] = []
    supports: list[set[int] | None] = [set() for _ in range(circuit.num_observables)]
    for instruction in circuit.flattened():
        if instruction.name == "OBSERVABLE_INCLUDE":
            qubits = {
                t.value if t.pauli_type in ("X", "Y", "Z") else measured[t.value] for t in instruction.targets_copy()
            }
            k = int(instruction.gate_args_copy()[0])
            supports[k] = (supports[k] or set()) | qubits
        elif stim.gate_data(instruction.name).produces_measurements:
            groups = instruction.target_groups()
            measured += [g[0].value if len(g) == 1 else -1 for g in groups]
    return [None if support is None or -1 in support else support for support in supports]


def _line_of(finder: _Finder, o: int, support: set[int] | None, points: dict[int, list[float]]) -> int | None:
    """Index of the line that observable `o` is, None when it is none of them."""
    if not support or any(len(points.get(q, [])) < 2 for q in support):
        return None
    cells = [finder.to_grid.exact((points[q][0], points[q][1])) for q in support]
    basis = ("x", "z")[o] if finder.basis == "both" else finder.basis
    along = {round(cell[0 if basis == "x" else 1] - 0.5, 6) for cell in cells}
    if len(cells) != finder.layout.distance or len(along) != 1:
        return None
    line = along.pop()
    return int(line) if line.is_integer() else None
