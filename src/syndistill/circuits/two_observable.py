"""Memory experiments that track the X and the Z observable at once, between noiseless ends.

All stabilisers are measured noiselessly before the first and after the last round, so every stabiliser has a
detector in every slice, and both observables are Pauli products of the state rather than of a readout.
Hardware reads one of them per circuit: these circuits are for simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import stim

from syndistill.circuits.layout import Layout
from syndistill.circuits.si1000 import Cycle
from syndistill.circuits.uniform import uniform_memory, uniform_qubits, uniform_rounds


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
    noisy = NOISY_ROUNDS[noise](distance, rounds, p)
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
    noisy = NOISY_ROUNDS[noise](distance, rounds, p)
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


# noise name -> the rounds. A new noise model that is to have two observables is one more entry.
NOISY_ROUNDS = {"si1000": _si1000_rounds, "uniform": _uniform_rounds}


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
