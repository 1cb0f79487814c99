"""Uniform circuit-level depolarising noise, as `stim.Circuit.generated` makes it."""

from __future__ import annotations

import stim

from syndistill.circuits.placement import canonical_qubits


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


def uniform_rounds(distance: int, rounds: int, basis: str, p: float) -> tuple[stim.Circuit, list[stim.Circuit]]:
    """The operations of `uniform_memory`: the preparation of all qubits, then one circuit per round.

    Each round ends with its measurement of the ancillas, here in canonical order; the errors of the reset
    that belongs to it open the next one.
    """
    memory = uniform_memory(distance, rounds, basis, p)
    ancillas, _ = canonical_qubits(memory, basis)
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
    _, data = canonical_qubits(uniform_memory(distance, 1, basis, p), basis)
    circuit, parts = uniform_rounds(distance, rounds, basis, p)
    for part in parts:
        circuit += part
        circuit.append("MX" if basis == "x" else "M", data, p)
    return circuit
