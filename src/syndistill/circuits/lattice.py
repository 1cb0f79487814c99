"""From coordinates to places: which detectors are of one stabiliser, in which order, and how the places lie.

Axes: N detectors, P places, S stabilisers. A place is all detectors of one stabiliser, whatever its name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError

Point = tuple[float, float]

_DIGITS = 2e-5
"""Of a coordinate's size: Stim writes six digits, so that two thirds read from a file are off by as much."""


@dataclass(frozen=True, eq=False)
class Places:
    """Detectors sorted by place and by order in time there.

    place_N, order_N: int64, and how many detectors each place has, count_P. points: where the places are, None where
    nothing says it. names: what a message calls each detector.
    """

    place_N: NDArray[np.int64]
    order_N: NDArray[np.int64]
    points: list[Point] | None
    names: list[str]

    @property
    def count_P(self) -> NDArray[np.int64]:
        return np.bincount(self.place_N)

    @property
    def n_places(self) -> int:
        return int(self.place_N.max()) + 1


def places_by_coordinates(coords: dict[int, list[float]], n_detectors: int, time_axis: int) -> Places:
    """Coordinates are two of space and one of time, which is number `time_axis`; more of them are ignored.

    Times only order the detectors of a place: their unit, and where they begin, do not matter. Detectors of one place
    and time keep Stim's order.
    """
    names = [f"D{n} at ({', '.join(f'{v:g}' for v in coords.get(n, []))})" for n in range(n_detectors)]
    space = [axis for axis in range(3) if axis != time_axis]
    for n in range(n_detectors):
        if len(coords.get(n, [])) < 3:
            raise SyndistillError(
                f"detector D{n} lacks coordinates (x, y, t), where its place is read from; add them, if this is a "
                "memory of a rotated surface code: nothing else can be decoded"
            )
    table_N3 = np.array([coords[n][:3] for n in range(n_detectors)], np.float64)
    whole = [_merged(table_N3[:, axis]) for axis in range(3)]
    keys = list(zip(whole[space[0]].tolist(), whole[space[1]].tolist(), strict=True))
    order = sorted(range(n_detectors), key=lambda n: (whole[time_axis][n], n))
    labels = sorted(set(keys))
    return _sorted(keys, order, labels, names, [(float(x), float(y)) for x, y in labels])


def places_by_measurements(circuit: stim.Circuit) -> Places:
    """For detectors without coordinates: a place is the ancilla that they compare, at its qubit's coordinates if it has
    some. SyndistillError where a detector compares no one ancilla."""
    measured: list[int] = []
    compared: list[list[int]] = []
    for instruction in circuit.flattened():
        if instruction.name == "DETECTOR":
            compared.append([measured[t.value] for t in instruction.targets_copy()])
        elif stim.gate_data(instruction.name).produces_measurements:
            measured += [g[0].value if len(g) == 1 else -1 for g in instruction.target_groups()]
    ancillas = {qubits[0] for qubits in compared if qubits and set(qubits) == {qubits[0]}} - {-1}
    keys = []
    for n, qubits in enumerate(compared):
        of = set(qubits) & ancillas
        if len(of) != 1:
            raise SyndistillError(
                f"detector D{n} has no coordinates and compares the results of {len(of)} ancillas; "
                "add coordinates (x, y, t)"
            )
        keys.append(of.pop())
    points = circuit.get_final_qubit_coordinates()
    known = all(len(points.get(key, [])) >= 2 for key in keys)
    names = [f"D{n} of qubit {key}" for n, key in enumerate(keys)]
    labels = sorted(set(keys))
    at = [(points[key][0], points[key][1]) for key in labels] if known else None
    return _sorted(keys, range(len(keys)), labels, names, at)


def _sorted(
    keys: Sequence[Hashable],
    order: Sequence[int],
    labels: Sequence[Hashable],
    names: list[str],
    points: list[Point] | None,
) -> Places:
    number = {label: place for place, label in enumerate(labels)}
    place_N = np.array([number[key] for key in keys], np.int64)
    order_N = np.zeros(len(keys), np.int64)
    seen: Counter[int] = Counter()
    for n in order:
        place = int(place_N[n])
        order_N[n] = seen[place]
        seen[place] += 1
    return Places(place_N, order_N, points, names)


def _merged(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values that differ by less than their digits can say become one."""
    sorted_N = np.sort(values_N)
    close = np.diff(sorted_N) <= _DIGITS * max(1.0, float(np.abs(values_N).max()))
    group_N = np.concatenate([[0], np.cumsum(~close)])
    means = np.bincount(group_N, sorted_N) / np.bincount(group_N)
    return means[group_N[np.searchsorted(sorted_N, values_N)]]


@dataclass(frozen=True)
class ToGrid:
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
        """The grid cell, None for a point between cells."""
        a, b = self.exact(point)
        u, v = _axes(point, self.rotated)
        digits = 2 * _DIGITS * max(1.0, abs(u), abs(v), abs(self.starts[0]), abs(self.starts[1])) / self.pitch
        if abs(a - round(a)) > digits or abs(b - round(b)) > digits:
            return None
        return round(a), round(b)


def fitting(points: list[Point], layout: Layout, cells: set[tuple[int, int]]) -> Iterator[ToGrid]:
    """The maps that carry the points one to one onto these cells of the layout, the plainest first."""
    for rotated in (False, True):
        uv = np.array([_axes(p, rotated) for p in points])
        extent = uv.max(0) - uv.min(0)
        # On-basis stabilisers alone do not reach two of the four sides.
        span_cells = np.array(sorted(cells))
        for swap, *flips in product((False, True), repeat=3):
            order = [1, 0] if swap else [0, 1]
            spans = (span_cells.max(0) - span_cells.min(0))[order]
            pitch = float((extent / spans).max())
            if pitch <= 0:
                continue
            edge = span_cells.min(0)[order]
            far = layout.distance - span_cells.max(0)[order]
            starts = uv.min(0) - np.where(flips, far, edge) * pitch
            to_grid = ToGrid(
                rotated, swap, (flips[0], flips[1]), (float(starts[0]), float(starts[1])), pitch, layout.distance
            )
            found = {to_grid(p) for p in points}
            if found == cells and len(points) == len(cells):
                yield to_grid


def _axes(point: Point, rotated: bool) -> Point:
    x, y = point
    return (x + y, x - y) if rotated else (x, y)


def odd_one_out(places: Places) -> str:
    """The detector farthest from where the others suggest: off their lattice, or at the rarest place."""
    assert places.points is not None
    visits = dict(zip(places.points, places.count_P.tolist(), strict=True))
    axes = [sorted({p[axis] for p in visits}) for axis in (0, 1)]
    gaps = Counter(round(b - a, 6) for values in axes for a, b in pairwise(values) if b - a > 1e-6)
    pitch = gaps.most_common(1)[0][0] if gaps else 1.0
    residue = {p: (round(p[0] % pitch, 6), round(p[1] % pitch, 6)) for p in visits}
    common = Counter(residue.values())
    neighbours = {p: sum(abs(p[0] - q[0]) + abs(p[1] - q[1]) < 2.1 * pitch for q in visits) for p in visits}
    stranger = min(visits, key=lambda p: (common[residue[p]], visits[p], neighbours[p]))
    return places.names[int(np.flatnonzero(places.place_N == places.points.index(stranger))[0])]


def distance_of(n_places: int, half: bool) -> int | None:
    """The odd distance of a rotated code with so many stabilisers (half: of one type), None where there is none."""
    both = n_places * (2 if half else 1)
    distance = math.isqrt(both + 1)
    return distance if distance >= 3 and distance % 2 and distance**2 - 1 == both else None
