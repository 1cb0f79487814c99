"""Where each detector of a circuit sits: which slice, which stabiliser of the canonical layout, which way round; and
how much the circuit is like home, the noise that a network was trained on.

Coordinates propose, the error model decides. Coordinates say which detectors are of one stabiliser, in which order, and
how the stabilisers lie. Of the ways to carry them onto the layout, the one is right whose error mechanisms look like
those that the network was trained on; and every detector must have the errors that belong to its place.

Axes: N detectors in Stim order, S stabilisers, P places, O observables, M mechanisms, U shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.experiment import NOISES, Experiment
from syndistill.circuits.lattice import (
    Places,
    ToGrid,
    distance_of,
    fitting,
    odd_one_out,
    places_by_coordinates,
    places_by_measurements,
)
from syndistill.circuits.layout import BASES, Layout, answered
from syndistill.circuits.mechanisms import MOST_DISTANCE, Mechanisms, Shapes, mechanisms_of, shapes_of
from syndistill.circuits.observables import observables_of
from syndistill.circuits.rearrange import (
    agreement,
    closing_exchanged,
    coupled,
    expected_couplings,
    in_space,
    in_time,
    strangers,
    typed,
)
from syndistill.circuits.training_noise import ROUNDS, SOME_RATE, Pattern, Placed, TrainingNoise, training_noise
from syndistill.errors import SyndistillError

Ways = tuple[tuple[str, float], ...]

NEAR_SHARE, NEAR_NATS = 0.995, 0.25
"""The least share of known shapes, and the most nats for each error, that are no cause for a warning. Of 62 circuits
the Students lose to plain matching on 7, all above .25 nats (docs/circuits.md, scripts/far_from_home.py)."""


@dataclass(frozen=True)
class Fit:
    """How much a circuit's errors are like those of the training noise.

    share: of all probability of errors, the part in mechanisms that the training noise has too, 0 to 1. p: the rate at
    which the training noise has as much of them. nats: by how much the errors differ from the training noise at that
    rate (Kullback-Leibler, for each expected error); a network cannot know of it, and decodes as if it were 0. ways:
    basis and share of every way round that coordinates leave open, the best first.
    """

    share: float
    p: float
    nats: float
    ways: Ways


def far_from(home: TrainingNoise, placement: Placement) -> str | None:
    """One line on how far a circuit is from a network's training noise; None where it is near."""
    fit = placement.fit
    if fit is None:
        return None
    faults = []
    if fit.share < NEAR_SHARE:
        faults.append("errors of other shapes (another schedule of gates?)")
    if fit.nats > NEAR_NATS:
        faults.append("errors of other strengths")
    # Of two rounds most errors are at an end, which has more of them: p comes out up to 1.2 times too high.
    if fit.p > home.p_max * (1.1 if placement.rounds > 2 else 1.3):
        faults.append("more of them than it has seen")
    return f"{described(home, placement)}: {', '.join(faults)}" if faults else None


def described(home: TrainingNoise, placement: Placement) -> str:
    """What a network was trained on, and what of it a circuit has."""
    fit = placement.fit
    errors = "has no errors"
    if fit is not None:
        errors = f"shares {fit.share:.1%} of its errors' shapes, {home.strength(fit.p)}"
    return f"trained on {home}; this circuit {errors}"


@dataclass(frozen=True, eq=False)
class Placement:
    """A circuit's detectors in the canonical layout.

    slice_N, stabiliser_N: int64 (N,). Slices 0..rounds-1 are the measured rounds, slice `rounds` is the one computed
    from the data readout. holds_O2: whether an observable holds line 0 of basis x, of basis z; turn_OS: uint8, the
    stabilisers whose final values tell it from them.
    """

    layout: Layout
    rounds: int
    basis: str
    slice_N: NDArray[np.int64]
    stabiliser_N: NDArray[np.int64]
    holds_O2: NDArray[np.bool_]
    turn_OS: NDArray[np.uint8]
    fit: Fit | None = None
    """None for a circuit without errors, and for what an exported folder keeps."""
    to_grid: ToGrid | None = None
    """From the circuit's coordinates to the layout's grid, None where they were not believed."""

    @classmethod
    def of_lines(cls, layout: Layout, basis: str, lines: Sequence[int] | None = None) -> Placement:
        """Of no circuit: no detectors, and as observables these lines of data qubits, by default line 0 (basis "both":
        one of x, one of z)."""
        if basis not in BASES:
            raise SyndistillError(f"basis {basis!r} is unknown; pick one of {', '.join(BASES)}")
        bases = answered(basis)
        lines = (0,) * len(bases) if lines is None else lines
        fits = isinstance(lines, Sequence | np.ndarray) and len(lines) == len(bases)
        if not fits or not all(isinstance(n, int | np.integer) and 0 <= n < layout.n_lines for n in lines):
            raise SyndistillError(
                f"lines {lines!r} for basis {basis}; give {len(bases)} of 0..{layout.n_lines - 1}, one each"
            )
        nothing_N = np.zeros(0, np.int64)
        turn_OS = np.array([layout.line_matrix(b)[:, line] for b, line in zip(bases, lines, strict=True)])
        holds_O2 = np.array([[b == "x", b == "z"] for b in bases])
        return cls(layout, 0, basis, nothing_N, nothing_N, holds_O2, turn_OS)

    @property
    def n_observables(self) -> int:
        return len(self.turn_OS)

    @property
    def lines(self) -> tuple[int | None, ...]:
        """The line that each observable is, None for one that is none (a line times checks is one)."""
        return tuple(self._line(o) for o in range(self.n_observables))

    def _line(self, observable: int) -> int | None:
        if self.holds_O2[observable].sum() != 1:
            return None
        basis = "x" if self.holds_O2[observable, 0] else "z"
        columns_SL = self.layout.line_matrix(basis)
        return next((n for n, c in enumerate(columns_SL.T) if (c == self.turn_OS[observable]).all()), None)


_SAME_SHARE = 5e-4

_AGREES = 0.8
"""Cosine of couplings from which places found without coordinates are believed; by chance it is below .6."""


class CoordinatesContradicted(UserWarning):
    """Coordinates say other than the error model, which was believed."""


def place(source: stim.Circuit | stim.DetectorErrorModel, home: TrainingNoise | None = None) -> Placement:
    """Place the detectors of a rotated surface code memory.

    source: a circuit, or its error model alone, which is all that is looked at but for missing coordinates. home: what
    the network was trained on, which decides the way round; None: SI1000.

    Warns (CoordinatesContradicted) where the errors place a detector elsewhere than its coordinates. Raises
    SyndistillError, naming the detector that does not fit, for what is no such memory.
    """
    dem = _model_of(source) if isinstance(source, stim.Circuit) else source
    if dem.num_detectors == 0:
        raise SyndistillError("the circuit has no detectors; annotate it with DETECTOR(x, y, t) instructions")
    mechanisms = mechanisms_of(dem)
    refusal: SyndistillError | None = None
    for read in _readings(source, dem):
        try:
            return _Placing(read(), mechanisms, home).placement()
        except SyndistillError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _model_of(circuit: stim.Circuit) -> stim.DetectorErrorModel:
    """Not decomposed: placing wants whole mechanisms."""
    try:
        return circuit.detector_error_model(approximate_disjoint_errors=True)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise SyndistillError(
            f"Stim finds no detector error model of the circuit ({reason}); give one with deterministic detectors"
        ) from None


def _readings(
    source: stim.Circuit | stim.DetectorErrorModel, dem: stim.DetectorErrorModel
) -> Iterator[Callable[[], Places]]:
    """Ways to read the detectors' labels, the usual one first."""
    coords = dem.get_detector_coordinates()
    if isinstance(source, stim.Circuit) and not any(coords.values()):
        yield partial(places_by_measurements, source)
        return
    for time_axis in (2, 0, 1):
        yield partial(places_by_coordinates, coords, dem.num_detectors, time_axis)


class _Placing:
    """One reading of the labels, carried onto the layout."""

    def __init__(self, places: Places, mechanisms: Mechanisms, home: TrainingNoise | None) -> None:
        self.places, self.mechanisms = places, mechanisms
        self.rounds = int(places.count_P.max()) - 1
        if self.rounds < 1:
            raise SyndistillError(
                f"all detectors, from {places.names[0]} on, are at one time; a memory experiment has at least two "
                "slices, its rounds and the one computed from the data readout"
            )
        self.alive_N = np.zeros(len(places.names), bool)
        self.alive_N[mechanisms.detectors_MK[mechanisms.detectors_MK >= 0]] = True
        self.silent = not self.alive_N.any()  # without noise coordinates are all there is
        self.layout, self.half = self._layout()
        self.on_P, self.slice_N = self._slices()
        # Basis x and z are names: which of them a circuit's errors are like is told by the errors, as is the way round.
        self.bases = ("both",) if self.on_P.all() and not self.half else ("z", "x")
        fits = home is not None and home.distance == self.layout.distance  # a decoder refuses another distance itself
        self.home = home if home is not None and fits else si1000_noise(self.layout.distance)

    def _layout(self) -> tuple[Layout, bool]:
        n = self.places.n_places
        half = self.rounds == 1 and distance_of(n, half=True) is not None and self._half_fits(n)
        distance = distance_of(n, half)
        if distance is None:
            expected = "(d*d - 1)/2" if self.rounds == 1 else "d*d - 1"
            odd = "" if self.places.points is None else f"; the odd one out may be {odd_one_out(self.places)}"
            raise SyndistillError(
                f"this is no memory of a rotated surface code: detectors sit at {n} places, and one of odd distance d "
                f"has {expected}{odd}"
            )
        if distance > MOST_DISTANCE:
            raise SyndistillError(f"the code has distance {distance}; circuits up to {MOST_DISTANCE} can be placed")
        return Layout(distance), half

    def _half_fits(self, n_places: int) -> bool:
        """One round of a memory has on-basis detectors alone; 24 places can also be a whole code of distance 5."""
        if distance_of(n_places, half=False) is None or self.places.points is None:
            return True
        whole = Layout(distance_of(n_places, half=False) or 3)
        return not any(fitting(self.places.points, whole, {tuple(c) for c in whole.cells_S2.tolist()}))

    def _slices(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which places are on-basis, and the slice of every detector.

        On-basis places have rounds + 1 detectors, others two less, or more where nothing ever sets off the first or the
        last one.
        """
        places, r = self.places, self.rounds
        first_P = np.zeros(places.n_places, bool)
        last_P = np.zeros(places.n_places, bool)
        alive_N = self.alive_N | self.silent
        first_P[places.place_N[(places.order_N == 0) & alive_N]] = True
        last_P[places.place_N[(places.order_N == places.count_P[places.place_N] - 1) & alive_N]] = True
        on_P = (places.count_P == r + 1) & first_P
        empty_first_P = ~on_P & (places.count_P > r - 1) & ~first_P
        empty_last_P = ~on_P & (places.count_P - empty_first_P > r - 1) & ~last_P
        wrong_P = ~on_P & (places.count_P - empty_first_P - empty_last_P != r - 1)
        n_on = places.n_places if self.half or on_P.all() else places.n_places // 2
        if wrong_P.any() or on_P.sum() != n_on:
            raise self._incomplete(on_P, wrong_P)
        start_P = np.where(on_P | empty_first_P, 0, 1)
        return on_P, places.order_N + start_P[places.place_N]

    def _incomplete(self, on_P: NDArray[np.bool_], wrong_P: NDArray[np.bool_]) -> SyndistillError:
        places, r = self.places, self.rounds
        if not wrong_P.any():
            return SyndistillError(
                f"{int(on_P.sum())} of {places.n_places} stabilisers have a detector in the first slice and the last, "
                "where a memory has all of one type; add the missing, or leave out the others"
            )
        counts = [int(c) for c in places.count_P]
        rare = min(np.flatnonzero(wrong_P).tolist(), key=lambda place: counts.count(counts[place]))
        name = places.names[int(np.flatnonzero(places.place_N == rare)[0])]
        return SyndistillError(
            f"the stabiliser of detector {name} has {counts[rare]} detectors where others have {r + 1}; a memory of "
            f"{r} rounds has {r + 1} of each stabiliser of its basis and {r - 1} of each other one: one a round, please"
        )

    def placement(self) -> Placement:
        self._order_slices()
        start_P = self._by_points()
        if start_P is not None and not any(True for basis in self.bases for _ in self._ways(basis, start_P)):
            start_P = None  # places of two types are exchanged
        found = self._best(self._by_couplings(None) if start_P is None else start_P)
        doubted = self._strangers(found[1])
        if start_P is not None and len(doubted):
            for start in (found[1], None):
                other = self._best(self._by_couplings(start))
                if not len(self._strangers(other[1])):
                    self._contradict(f"of detector {self.places.names[doubted[0]]}, for example")
                    found, doubted = other, doubted[:0]
                    break
        elif start_P is None:
            odd = "" if self.places.points is None else f" (of {odd_one_out(self.places)}?)"
            self._contradict(f"or do not say where detectors are{odd}")
        if len(doubted):
            raise SyndistillError(
                f"the errors that set off detector {self.places.names[doubted[0]]} are not those of its place "
                f"({len(doubted)} such detectors); check its coordinates and what it compares"
            )
        basis, stabiliser_P, ways = found
        stabiliser_N = stabiliser_P[self.places.place_N]
        holds_O2, turn_OS = observables_of(self.mechanisms, stabiliser_N, self.layout, basis)
        return Placement(
            self.layout, self.rounds, basis, self.slice_N, stabiliser_N, holds_O2, turn_OS,
            self._fit(basis, stabiliser_P, ways), self._to_grid(stabiliser_P),
        )  # fmt: skip

    def _fit(self, basis: str, stabiliser_P: NDArray[np.int64], ways: Ways) -> Fit | None:
        if self.silent:
            return None
        pattern, shapes, p_M = self._pattern(basis), self._shapes, self.mechanisms.p_M
        keys_U = shapes.keys_U(stabiliser_P, self.layout.n_stabilisers)
        p = pattern.rate_of(keys_U, shapes)
        return Fit(ways[0][1], p, pattern.divergence(keys_U, shapes, p_M, p) / float(p_M.sum()), ways)

    def _best(self, start_P: NDArray[np.int64]) -> tuple[str, NDArray[np.int64], Ways]:
        """Basis and stabilisers of the way round whose errors are most like the training noise's, and all shares."""
        places, n_stabilisers, shapes, found = self.places, self.layout.n_stabilisers, self._shapes, []
        for basis in [b for b in self.bases if self.home.pattern(b) is not None] or self.bases:
            for stabiliser_P in self._ways(basis, start_P):
                keys_U = shapes.keys_U(stabiliser_P, n_stabilisers)
                share = self._pattern(basis).share(keys_U, shapes.total_U) * (1 - self.mechanisms.too_long)
                found.append((share, basis, stabiliser_P, keys_U))
        if not found:
            raise SyndistillError(
                f"the detectors of the first slice, from {places.names[0]} on, are not the stabilisers of one type; "
                "add the missing"
            )
        found.sort(key=lambda way: -way[0])
        # Ways of one share (of one round all are) differ in how likely their mechanisms are.
        alike = [way for way in found if way[0] > found[0][0] - _SAME_SHARE]
        if len(alike) > 1:
            likeness = [round(self._pattern(way[1]).likeness(way[3], shapes), 6) for way in alike]
            best = likeness.index(max(likeness))
            found.insert(0, found.pop(best))
        _, basis, stabiliser_P, _ = found[0]
        return basis, stabiliser_P, tuple((basis, share) for share, basis, _, _ in found)

    def _ways(self, basis: str, start_P: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """All ways round that put on-basis places where they belong: quarter turns carry the layout onto itself and
        exchange the types."""
        for _ in range(4):
            if (self.layout.on_basis_S(basis)[start_P] == self.on_P).all():
                yield start_P
            start_P = self.layout.turned_back_S[start_P]

    def _contradict(self, where: str) -> None:
        warnings.warn(
            f"coordinates contradict the errors, {where}: the stabilisers are placed by the errors",
            CoordinatesContradicted,
            stacklevel=5,
        )

    def _by_points(self) -> NDArray[np.int64] | None:
        """The stabilisers by where the places are; None where they make no lattice, but errors may help."""
        points, layout = self.places.points, self.layout
        if points is None:
            return None
        for cells in self._cells():
            for to_grid in fitting(points, layout, cells):
                return np.array([layout.stabiliser_at[to_grid(p) or (-1, -1)] for p in points])
        if self.silent or self.half:
            raise SyndistillError(
                f"the detectors' places are not those of a rotated surface code of distance {layout.distance}; "
                f"check the coordinates of {odd_one_out(self.places)}"
            )
        return None

    def _cells(self) -> Iterator[set[tuple[int, int]]]:
        cells_S2 = self.layout.cells_S2
        if not self.half:
            yield {(r, c) for r, c in cells_S2.tolist()}
            return
        for basis in self.bases:
            yield {(r, c) for r, c in cells_S2[self.layout.on_basis_S(basis)].tolist()}

    def _by_couplings(self, stabiliser_P: NDArray[np.int64] | None) -> NDArray[np.int64]:
        coupled_PP = coupled(self.mechanisms, self.places.place_N, self.places.n_places)
        if self.half or not coupled_PP.any():
            raise SyndistillError(
                f"nothing says where the stabilisers of the detectors are, from {self.places.names[0]} on; add "
                "coordinates (x, y, t)"
            )
        pattern = self._pattern(self.bases[0])
        expected_SS = expected_couplings(pattern.codes(self.layout.n_stabilisers), pattern.rate_U, self.layout)
        is_on_S = self.layout.on_basis_S(self.bases[0])
        found_P = in_space(typed(coupled_PP, self.on_P), typed(expected_SS, is_on_S), stabiliser_P)
        if stabiliser_P is None and agreement(coupled_PP, expected_SS, found_P) < _AGREES:
            odd = "" if self.places.points is None else f"; check the coordinates of {odd_one_out(self.places)}"
            raise SyndistillError(
                "neither the detectors' places nor their errors are those of a rotated surface code of distance "
                f"{self.layout.distance}{odd}"
            )
        return found_P

    def _strangers(self, stabiliser_P: NDArray[np.int64]) -> NDArray[np.int64]:
        shapes = self._shapes
        keys_U = shapes.keys_U(stabiliser_P, self.layout.n_stabilisers)
        return strangers(self.mechanisms, np.isin(keys_U, self.home.any_way)[shapes.shape_M])

    @cached_property
    def _shapes(self) -> Shapes:
        """After `_order_slices`."""
        places = self.places
        return shapes_of(self.mechanisms, self.slice_N, places.place_N, places.n_places, self.rounds)

    def _to_grid(self, stabiliser_P: NDArray[np.int64]) -> ToGrid | None:
        """The map of the places that were chosen."""
        points, cells_S2 = self.places.points, self.layout.cells_S2
        if points is None:
            return None
        cells = [tuple(c) for c in cells_S2[stabiliser_P].tolist()]
        for to_grid in fitting(points, self.layout, set(cells)):
            if [to_grid(p) for p in points] == cells:
                return to_grid
        return None

    def _pattern(self, basis: str) -> Pattern:
        pattern = self.home.pattern(basis) or si1000_noise(self.layout.distance).pattern(basis)
        assert pattern is not None
        return pattern

    def _order_slices(self) -> None:
        place_N, r = self.places.place_N, self.rounds
        for place in closing_exchanged(self.mechanisms, place_N, self.places.order_N):
            if self.on_P[place]:
                last_two = (place_N == place) & (self.slice_N >= r - 1)
                self.slice_N = np.where(last_two, 2 * r - 1 - self.slice_N, self.slice_N)
        order_T = in_time(self.mechanisms, self.slice_N, r + 1)
        if order_T is None or (order_T == np.arange(r + 1)).all():
            return
        moved_N = order_T[self.slice_N]
        wrong = int(np.flatnonzero(moved_N != self.slice_N)[0])
        if (moved_N[self.on_P[self.places.place_N] == 0] % self.rounds == 0).any():
            raise SyndistillError(
                f"the errors do not put the slices in the order of their times (detector {self.places.names[wrong]}), "
                "nor in one that a memory can have; check the coordinates of time"
            )
        warnings.warn(
            f"times contradict the errors, from detector {self.places.names[wrong]} on: the errors order the slices",
            CoordinatesContradicted,
            stacklevel=5,
        )
        self.slice_N = moved_N


def place_experiment(experiment: Experiment) -> Placement:
    """Its detectors where `sampling.shots.simulate` has them."""
    e = experiment
    return place(e.circuit(), _home(e.noise, e.distance, (e.basis,), (SOME_RATE, SOME_RATE), 1))


def noise_of(
    noise: str, distance: int, bases: Collection[str], p_range: tuple[float, float], rounds: int
) -> TrainingNoise:
    """The signature of training shots of a named noise model: p in `p_range`, at most so many rounds."""
    models = {basis: [_placed(noise, distance, r, basis) for r in ROUNDS] for basis in sorted(bases)}
    return training_noise(models, noise, distance, SOME_RATE, p_range, rounds)


_home = lru_cache(maxsize=64)(noise_of)


def si1000_noise(distance: int) -> TrainingNoise:
    """What a circuit is compared with where no network says what it was trained on."""
    return _home("si1000", distance, ("x", "z"), (0.001, 0.006), 25)


def _placed(noise: str, distance: int, rounds: int, basis: str) -> Placed:
    dem = Experiment(distance, rounds, basis, noise, SOME_RATE).circuit().detector_error_model()
    if basis == "both":  # every stabiliser in every slice, in the layout's order
        n = distance**2 - 1
        return dem, np.repeat(np.arange(rounds + 1), n), np.tile(np.arange(n), rounds + 1)
    return dem, *NOISES[noise].places(distance, rounds, basis)
