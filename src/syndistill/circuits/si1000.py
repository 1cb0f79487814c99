"""SI1000 memory circuits of the rotated surface code in CZ gates, after Google's reference circuits.

Noise and layers: Gidney, Newman, McEwen, arXiv 2108.10457. A round is H, CZ, H, CZ, CZ, H, CZ, H, M, R, each a
layer; Hadamards of data qubits between rounds cancel, so a data qubit may rest in either frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout

Schedule = Mapping[bool, tuple[tuple[int, int], ...]]
"""Data qubit that a stabiliser (of type X: True) touches at CZ step 1..4, (row, column) next to its cell's corner."""

CZ_STEPS: Schedule = {
    True: ((0, -1), (-1, -1), (0, 0), (-1, 0)),  # type X
    False: ((0, -1), (0, 0), (-1, -1), (-1, 0)),  # type Z
}


@dataclass
class Cycle:
    """Writes the layers of one experiment; `frames` says which data qubits rest behind a Hadamard.

    Data qubit (i, j) is number i*d + j, the ancilla of stabiliser s is number d*d + s.
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


def si1000_memory(
    distance: int, rounds: int, basis: str, p: float, schedule: Schedule = CZ_STEPS
) -> stim.Circuit:
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
        cycle.after_measurement(cycle.ancillas)
        cycle.reset(cycle.ancillas)
    return cycle.circuit


def si1000_places(distance: int, rounds: int, basis: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slice and stabiliser of each detector of `si1000_memory`, in its order, both int64 (N,)."""
    every_S = np.arange(distance**2 - 1)
    defined_S = every_S[Layout(distance).on_basis_S(basis)]
    members = [defined_S, *[every_S] * (rounds - 1), defined_S]
    return np.repeat(np.arange(rounds + 1), [len(m) for m in members]), np.concatenate(members)
