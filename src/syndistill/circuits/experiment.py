"""Memory experiments of the rotated surface code by their parameters: the one place that knows
which noise models there are.

si1000: Google's reference circuits in CZ gates. Noise and layers: Gidney, Newman, McEwen, arXiv 2108.10457. A round is
H, CZ, H, CZ, CZ, H, CZ, H, M, R, each a layer; Hadamards of data qubits between rounds cancel, so a data qubit may rest
in either frame. uniform: circuit-level depolarising noise, as `stim.Circuit.generated` makes it.

Basis "both" tracks the X and the Z observable at once, between noiseless ends: all stabilisers are measured noiselessly
before the first and after the last round, so every stabiliser has a detector in every slice, and both observables are
Pauli products of the state rather than of a readout. Hardware reads one of them per circuit: these are for simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.files import MAX_DETECTORS
from syndistill.circuits.layout import BASES, Layout
from syndistill.errors import SyndistillError

Schedule = Mapping[bool, tuple[tuple[int, int], ...]]
"""Data qubit that a stabiliser (of type X: True) touches at CZ step 1..4, (row, column) next to its cell's corner."""

CZ_STEPS: Schedule = {
    True: ((0, -1), (-1, -1), (0, 0), (-1, 0)),  # type X
    False: ((0, -1), (0, 0), (-1, -1), (-1, 0)),  # type Z
}


@dataclass
class Cycle:
    """Writes the layers of one experiment; `frames` says which data qubits rest behind a Hadamard.

    Data qubit (i, j) is number `i*d + j`, the ancilla of stabiliser s is number `d*d + s`.
    """

    layout: Layout
    basis: str  # "both": nothing is reset or read in either basis, all data qubits start unturned
    p: float
    schedule: Schedule = field(default_factory=lambda: CZ_STEPS)
    circuit: stim.Circuit = field(default_factory=stim.Circuit)

    def __post_init__(self) -> None:
        d = self.layout.distance
        self.data = [i * d + j for i in range(d) for j in range(d)]
        self.ancillas = [d * d + s for s in range(self.layout.n_stabilisers)]
        self.frames = dict.fromkeys(self.data, self.basis == "x")
        self.steps: list[dict[int, int]] = [{} for _ in range(4)]  # data qubit -> stabiliser, per CZ step
        for s, (row, col) in enumerate(self.layout.cells_S2):
            for step, (di, dj) in enumerate(self.schedule[bool(self.layout.is_x_S[s])]):
                i, j = row + di, col + dj
                if 0 <= i < d and 0 <= j < d:
                    self.steps[step][int(i * d + j)] = s

    def coordinates(self) -> None:
        d = self.layout.distance
        for q in self.data:
            self.circuit.append("QUBIT_COORDS", [q], [q // d, q % d])
        for s, (row, col) in enumerate(self.layout.cells_S2):
            self.circuit.append("QUBIT_COORDS", [self.ancillas[s]], [row - 0.5, col - 0.5])

    def reset(self, qubits: list[int]) -> None:
        self.circuit.append("R", qubits)
        self.circuit.append("X_ERROR", qubits, 2 * self.p)
        self._wait_for_readout(sorted(set(self.data) - set(qubits)))
        self.circuit.append("TICK")

    def _wait_for_readout(self, idle: list[int]) -> None:
        if idle:
            self.circuit.append("DEPOLARIZE1", idle, self.p / 10)
            self.circuit.append("DEPOLARIZE1", idle, 2 * self.p)

    def gates(self, last_round: bool) -> None:
        """All layers of a round up to its measurement."""
        self._hadamards(0, last_round)
        for step in range(4):
            pairs = [q for data, s in sorted(self.steps[step].items()) for q in (data, self.ancillas[s])]
            self.circuit.append("CZ", pairs)
            self.circuit.append("DEPOLARIZE2", pairs, self.p)
            idle = sorted(set(self.data + self.ancillas) - set(pairs))
            self.circuit.append("DEPOLARIZE1", idle, self.p / 10)
            self.circuit.append("TICK")
            if step != 1:  # no data qubit changes its frame between steps 2 and 3
                self._hadamards(step + 1, last_round)

    def _hadamards(self, next_step: int, last_round: bool) -> None:
        turned = [q for q in self.data if self._next_frame(q, next_step, last_round) != self.frames[q]]
        for q in turned:
            self.frames[q] = not self.frames[q]
        hadamards = turned + (self.ancillas if next_step in (0, 4) else [])
        if hadamards:
            self.circuit.append("H", hadamards)
        self.circuit.append("DEPOLARIZE1", self.data + self.ancillas, self.p / 10)
        self.circuit.append("TICK")

    def _next_frame(self, qubit: int, next_step: int, last_round: bool) -> bool:
        """Frame in which the next gate (or, in the last round, the readout) wants this data qubit."""
        for step in range(next_step, 4):
            if qubit in self.steps[step]:
                return bool(self.layout.is_x_S[self.steps[step][qubit]])
        if last_round:
            return self.basis == "x"
        return self._next_frame(qubit, 0, False)

    def turned(self) -> set[int]:
        """The data qubits that now rest behind a Hadamard."""
        return {q for q in self.data if self.frames[q]}

    def measure_ancillas(self) -> None:
        self.circuit.append("M", self.ancillas, 5 * self.p)

    def measure_data(self, basis: str, flip: float) -> None:
        """Measure every data qubit in `basis`, whatever its frame; the result is wrong with probability `flip`."""
        for q in self.data:
            self.circuit.append("M" if self.frames[q] == (basis == "x") else "MX", [q], flip)

    def after_measurement(self, measured: list[int]) -> None:
        self.circuit.append("DEPOLARIZE1", measured, self.p)
        self._wait_for_readout(sorted(set(self.data) - set(measured)))
        self.circuit.append("TICK")

    def detectors(self, round_index: int) -> None:
        n = len(self.ancillas)
        on_basis_S = self.layout.on_basis_S(self.basis)
        for s in range(n):
            if round_index > 0 or on_basis_S[s]:
                records = [stim.target_rec(s - n)] + ([stim.target_rec(s - 2 * n)] if round_index > 0 else [])
                self.circuit.append("DETECTOR", records, self.detector_coordinates(s, round_index))

    def last_detectors(self, rounds: int) -> None:
        d, n = self.layout.distance, len(self.ancillas)
        for s in range(n):
            if self.layout.on_basis_S(self.basis)[s]:
                records = [stim.target_rec(q - d * d) for q in self.layout.supports[s]]
                records.append(stim.target_rec(s - n - d * d))
                self.circuit.append("DETECTOR", records, self.detector_coordinates(s, rounds))
        line = [stim.target_rec(q - d * d) for q in self.layout.line_data(self.basis, 0)]
        self.circuit.append("OBSERVABLE_INCLUDE", line, 0)

    def detector_coordinates(self, s: int, slice_index: int) -> tuple[float, float, int, int]:
        """(x, y, t, kind): kind 0 for type X, 3 for type Z (0-2 mean X and 3-5 mean Z in Google's circuits)."""
        row, col = self.layout.cells_S2[s]
        return row - 0.5, col - 0.5, slice_index, 0 if self.layout.is_x_S[s] else 3


def si1000_memory(distance: int, rounds: int, basis: str, p: float, schedule: Schedule = CZ_STEPS) -> stim.Circuit:
    """A memory experiment: `rounds` rounds, then all data qubits measured in `basis` ("x" or "z").

    schedule: another order of gates than the reference circuits', for circuits that are not like them.
    """
    cycle = Cycle(Layout(distance), basis, p, schedule)
    cycle.coordinates()
    cycle.reset(cycle.data + cycle.ancillas)
    for round_index in range(rounds):
        last_round = round_index == rounds - 1
        cycle.gates(last_round)
        cycle.measure_ancillas()
        cycle.detectors(round_index)
        if last_round:
            cycle.measure_data(basis, 5 * p)
            cycle.last_detectors(rounds)
        else:
            cycle.after_measurement(cycle.ancillas)
            cycle.reset(cycle.ancillas)
    return cycle.circuit


def si1000_every_end(distance: int, rounds: int, basis: str, p: float) -> stim.Circuit:
    """The same experiment with the data qubits measured after every round; see `every_end`."""
    cycle = Cycle(Layout(distance), basis, p)
    cycle.reset(cycle.data + cycle.ancillas)
    for _ in range(rounds):
        cycle.gates(last_round=False)
        cycle.measure_ancillas()
        cycle.measure_data(basis, 5 * p)
        cycle.measure_data(basis, 0.0)
        cycle.after_measurement(cycle.ancillas)
        cycle.reset(cycle.ancillas)
    return cycle.circuit


def si1000_places(distance: int, rounds: int, basis: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slice and stabiliser of each detector of `si1000_memory`, in its order, both int64 (N,)."""
    every_S = np.arange(distance**2 - 1)
    defined_S = every_S[Layout(distance).on_basis_S(basis)]
    members = [defined_S, *[every_S] * (rounds - 1), defined_S]
    return np.repeat(np.arange(rounds + 1), [len(m) for m in members]), np.concatenate(members)


def uniform_memory(distance: int, rounds: int, basis: str, p: float) -> stim.Circuit:
    """Stim's generated rotated surface code memory with all four noise arguments equal to `p`."""
    return stim.Circuit.generated(
        f"surface_code:rotated_memory_{basis}",
        distance=distance,
        rounds=rounds,
        after_clifford_depolarization=p,
        before_round_data_depolarization=p,
        before_measure_flip_probability=p,
        after_reset_flip_probability=p,
    )


def uniform_qubits(distance: int) -> tuple[list[int], list[int]]:
    """The ancilla of each stabiliser, and the data qubits row by row, as Stim's generator numbers them: it puts them at
    twice the coordinates of the canonical grid."""
    points = uniform_memory(distance, 1, "z", 0.0).get_final_qubit_coordinates()
    qubit_at = {(point[0], point[1]): qubit for qubit, point in points.items()}
    ancillas = [qubit_at[2.0 * row, 2.0 * col] for row, col in Layout(distance).cells_S2.tolist()]
    return ancillas, [qubit_at[2.0 * i + 1, 2.0 * j + 1] for i in range(distance) for j in range(distance)]


def uniform_places(distance: int, rounds: int, basis: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slice and stabiliser of each detector of `uniform_memory`, in its order, both int64 (N,)."""
    coords = uniform_memory(distance, rounds, basis, 0.0).get_detector_coordinates()
    at = Layout(distance).stabiliser_at  # Stim's grid is twice as wide
    placed = [(int(t), at[int(x) // 2, int(y) // 2]) for _, (x, y, t) in sorted(coords.items())]
    return np.array([t for t, _ in placed]), np.array([s for _, s in placed])


def uniform_rounds(distance: int, rounds: int, basis: str, p: float) -> tuple[stim.Circuit, list[stim.Circuit]]:
    """The operations of `uniform_memory`: the preparation of all qubits, then one circuit per round.

    Each round ends with its measurement of the ancillas, here in canonical order; the errors of the reset
    that belongs to it open the next one.
    """
    memory = uniform_memory(distance, rounds, basis, p)
    ancillas, _ = uniform_qubits(distance)
    parts = [stim.Circuit()]
    for instruction in memory.flattened():
        if instruction.name in ("DETECTOR", "OBSERVABLE_INCLUDE", "SHIFT_COORDS", "QUBIT_COORDS"):
            continue
        if len(parts) == 1 and instruction.name == "TICK":
            parts.append(stim.Circuit())
        if instruction.name == "MR":
            parts[-1].append("MR", ancillas)
            parts.append(stim.Circuit())
        else:
            parts[-1].append(instruction)
    return parts[0], parts[1 : rounds + 1]


def uniform_every_end(distance: int, rounds: int, basis: str, p: float) -> stim.Circuit:
    """The same experiment with the data qubits measured after every round; see `every_end`."""
    _, data = uniform_qubits(distance)
    circuit, parts = uniform_rounds(distance, rounds, basis, p)
    for part in parts:
        circuit += part
        circuit.append("MX" if basis == "x" else "M", data, p)
        circuit.append("MX" if basis == "x" else "M", data, 0.0)
    return circuit


@dataclass(frozen=True)
class _NoisyRounds:
    """Rounds that can be cut: each circuit ends when its ancillas, in canonical order, have been measured.

    points: coordinates of each stabiliser. data: the data qubits row by row.
    turned: the data qubits behind a Hadamard before the first round, and after each round.
    """

    layout: Layout
    qubit_coordinates: stim.Circuit
    points: list[list[float]]
    data: list[int]
    rounds: list[stim.Circuit]
    turned: list[set[int]]


def two_observable_memory(distance: int, rounds: int, noise: str, p: float) -> stim.Circuit:
    """`rounds` noisy rounds; observable 0 is the X string of data row 0, observable 1 the Z string of column 0.

    Detectors are at (x, y, t, kind) with kind 0 for type X and 3 for type Z.
    """
    noisy = NOISES[noise].noisy_rounds(distance, rounds, p)
    circuit = noisy.qubit_coordinates.copy()
    _measure_stabilisers(circuit, noisy, noisy.turned[0])
    for t, operations in enumerate(noisy.rounds):
        circuit += operations
        _detectors(circuit, noisy, t)
    _measure_stabilisers(circuit, noisy, noisy.turned[-1])
    _detectors(circuit, noisy, rounds)
    return circuit


def two_observable_every_end(distance: int, rounds: int, noise: str, p: float) -> stim.Circuit:
    """The same rounds with every data qubit read in X and in Z after each one; see `every_end`."""
    noisy = NOISES[noise].noisy_rounds(distance, rounds, p)
    circuit = stim.Circuit()
    for operations, turned in zip(noisy.rounds, noisy.turned[1:], strict=True):
        circuit += operations
        for basis in ("x", "z"):
            for q in noisy.data:
                circuit.append("M" if (q in turned) == (basis == "x") else "MX", [q])
    return circuit


def _si1000_rounds(distance: int, rounds: int, p: float) -> _NoisyRounds:
    """Rounds that begin with the reset layer: after the last measurement there is none to wait for."""
    cycle = Cycle(Layout(distance), "both", p)
    cycle.coordinates()
    parts, turned = [cycle.circuit], [cycle.turned()]
    for _ in range(rounds):
        cycle.circuit = stim.Circuit()
        cycle.reset(cycle.ancillas)
        cycle.gates(last_round=False)
        cycle.measure_ancillas()
        cycle.after_measurement(cycle.ancillas)
        parts.append(cycle.circuit)
        turned.append(cycle.turned())
    points = [list(cycle.detector_coordinates(s, 0)[:2]) for s in range(cycle.layout.n_stabilisers)]
    return _NoisyRounds(cycle.layout, parts[0], points, cycle.data, parts[1:], turned)


def _uniform_rounds(distance: int, rounds: int, p: float) -> _NoisyRounds:
    """Stim's generated rounds; only the ancillas are reset before the first one."""
    memory = uniform_memory(distance, rounds, "z", p)
    ancillas, data = uniform_qubits(distance)
    coordinates = stim.Circuit()
    points = memory.get_final_qubit_coordinates()
    for qubit, point in points.items():
        coordinates.append("QUBIT_COORDS", [qubit], point)
    first = stim.Circuit()
    first.append("R", ancillas)
    first.append("X_ERROR", ancillas, p)
    _, parts = uniform_rounds(distance, rounds, "z", p)
    parts[0] = first + parts[0]
    unturned: list[set[int]] = [set() for _ in range(rounds + 1)]
    return _NoisyRounds(Layout(distance), coordinates, [points[q] for q in ancillas], data, parts, unturned)


def _measure_stabilisers(circuit: stim.Circuit, noisy: _NoisyRounds, turned: set[int]) -> None:
    """Every stabiliser in canonical order, then both observables, without noise."""
    for is_x, support in zip(noisy.layout.is_x_S, noisy.layout.supports, strict=True):
        circuit.append("MPP", stim.target_combined_paulis(_paulis(noisy, turned, support, is_x)))
    for observable, basis in enumerate(("x", "z")):
        line = noisy.layout.line_data(basis, 0)
        circuit.append("OBSERVABLE_INCLUDE", _paulis(noisy, turned, line, basis == "x"), observable)
    circuit.append("TICK")


def _paulis(noisy: _NoisyRounds, turned: set[int], support: list[int], is_x: bool) -> list[stim.GateTarget]:
    """X or Z on each data qubit of `support`, exchanged behind a Hadamard."""
    qubits = [noisy.data[k] for k in support]
    return [stim.target_pauli(q, "X" if is_x != (q in turned) else "Z") for q in qubits]


def _detectors(circuit: stim.Circuit, noisy: _NoisyRounds, slice_index: int) -> None:
    """The last two blocks of stabiliser records compared, whether ancillas or noiseless products."""
    n = noisy.layout.n_stabilisers
    for s, (point, is_x) in enumerate(zip(noisy.points, noisy.layout.is_x_S, strict=True)):
        records = [stim.target_rec(s - n), stim.target_rec(s - 2 * n)]
        circuit.append("DETECTOR", records, [*point, slice_index, 0 if is_x else 3])


class NoiseModel(NamedTuple):
    """memory: circuit of (distance, rounds, basis x or z, p). places: slice and stabiliser of each of its detectors, by
    which training shots are labelled. every_end: that circuit with the data qubits read after every round.
    noisy_rounds: of (distance, rounds, p), for experiments with both observables."""

    memory: Callable[[int, int, str, float], stim.Circuit]
    places: Callable[[int, int, str], tuple[NDArray[np.int64], NDArray[np.int64]]]
    every_end: Callable[[int, int, str, float], stim.Circuit]
    noisy_rounds: Callable[[int, int, float], _NoisyRounds]


NOISES = {
    "si1000": NoiseModel(si1000_memory, si1000_places, si1000_every_end, _si1000_rounds),
    "uniform": NoiseModel(uniform_memory, uniform_places, uniform_every_end, _uniform_rounds),
}
"""A new noise model is one more entry."""


@dataclass(frozen=True)
class Experiment:
    """A rotated surface code memory: `basis` "x", "z", or "both" (two observables, noiseless ends)."""

    distance: int
    rounds: int
    basis: str
    noise: str
    p: float

    def __post_init__(self) -> None:
        Layout(self.distance)
        if self.rounds < 1:
            raise SyndistillError(f"rounds={self.rounds} is too few; an experiment has at least one round")
        if self.rounds * (self.distance**2 - 1) > MAX_DETECTORS:
            raise SyndistillError(
                f"such a distance and so many rounds make more than {MAX_DETECTORS:,} detectors (rounds * (d*d - 1)), "
                "which is as many as can be worked with; take fewer rounds or a smaller distance"
            )
        if self.basis not in BASES:
            raise SyndistillError(f"basis={self.basis} is unknown; pick one of {', '.join(BASES)}")
        if self.noise not in NOISES:
            raise SyndistillError(f"noise={self.noise} is unknown; pick one of {', '.join(NOISES)}")
        if not 0 <= self.p <= 0.1:
            raise SyndistillError(f"p={self.p} is outside [0, 0.1]; it is the two-qubit gate error probability")

    def circuit(self) -> stim.Circuit:
        """The noisy circuit with detectors and observables."""
        if self.basis == "both":
            return two_observable_memory(self.distance, self.rounds, self.noise, self.p)
        return NOISES[self.noise].memory(self.distance, self.rounds, self.basis, self.p)

    @classmethod
    def parse(cls, text: str) -> Experiment:
        """From "d=3,rounds=3,basis=z,noise=si1000,p=0.004" (any order, all five keys)."""
        kinds = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(cls)}
        names = {"d": "distance", "r": "rounds"}
        shown = text if len(text) <= 100 else f"{text[:97]}..."
        values: dict[str, int | float | str] = {}
        for item in text.split(","):
            key, _, value = item.strip().partition("=")
            key = names.get(key, key)
            if key not in kinds:
                raise SyndistillError(
                    f"experiment key {key[:20]!r} in {shown!r} is unknown; keys: d, rounds, basis, noise, p"
                )
            if key in values:
                raise SyndistillError(f"experiment {shown!r} names {key} twice; name it once")
            try:
                values[key] = kinds[key](value.lower() if key == "basis" else value)
            except ValueError:
                raise SyndistillError(
                    f"experiment value {item[:30]!r} in {shown!r} is no {kinds[key].__name__} that can be worked with"
                ) from None
        if missing := sorted(set(kinds) - set(values)):
            raise SyndistillError(f"experiment {shown!r} lacks {', '.join(missing)}")
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        d = asdict(self)
        return ",".join(f"{'d' if k == 'distance' else k}={v}" for k, v in d.items())


@lru_cache(maxsize=256)  # writing the circuit takes 20 ms, drawing 1000 shots of it 2: a curriculum has 51 rates
def every_end(experiment: Experiment) -> stim.Circuit:
    """A circuit that shows what an experiment would have read, had it ended after any of its rounds; shared by its
    callers, who leave it as it is.

    It runs in `stim.FlipSimulator(disable_stabilizer_randomization=True)`, where a measurement reads the Pauli frame
    and leaves it alone, so that the data qubits can be read after every round without ending anything. Records come in
    one block per round: the ancilla of each stabiliser in canonical order (`d*d - 1` records), then every data qubit
    row by row (`d*d` records) as the readout shows it, and again as it is; for basis "both" read in X, then in Z.
    """
    e = experiment
    if e.basis == "both":
        return two_observable_every_end(e.distance, e.rounds, e.noise, e.p)
    return NOISES[e.noise].every_end(e.distance, e.rounds, e.basis, e.p)
