"""Uniform circuit-level depolarising noise, as `stim.Circuit.generated` makes it."""

from __future__ import annotations

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout


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
    number = {(2.0 * row, 2.0 * col): s for s, (row, col) in enumerate(Layout(distance).cells_S2.tolist())}
    placed = [(int(t), number[x, y]) for _, (x, y, t) in sorted(coords.items())]
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
    return circuit
