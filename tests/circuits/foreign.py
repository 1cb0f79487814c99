"""Memories as others write them: one circuit of the project's own or of Stim's generator, changed in one way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import stim

from syndistill.circuits.experiment import uniform_memory

Coordinates = list[float]


def generated(basis: str, distance: int, rounds: int, p: float = 0.004) -> stim.Circuit:
    """Stim's own, uniform noise."""
    return uniform_memory(distance, rounds, basis, p)


def recoordinated(
    circuit: stim.Circuit,
    detector: Callable[[int, Coordinates], Coordinates],
    qubit: Callable[[float, float], tuple[float, float]] | None = None,
) -> stim.Circuit:
    """With other detector coordinates (a function of the detector's number and its coordinates), and qubit
    coordinates; SHIFT_COORDS are written out."""
    coords = circuit.get_detector_coordinates()
    result, n = stim.Circuit(), 0
    for i in circuit.flattened():
        if i.name == "DETECTOR":
            result.append("DETECTOR", i.targets_copy(), detector(n, coords[n]))
            n += 1
        elif i.name == "QUBIT_COORDS" and qubit is not None:
            x, y = i.gate_args_copy()[:2]
            result.append("QUBIT_COORDS", i.targets_copy(), qubit(x, y))
        elif i.name != "SHIFT_COORDS":
            result.append(i)
    return result


def moved(circuit: stim.Circuit, move: Callable[[float, float], tuple[float, float]]) -> stim.Circuit:
    """All coordinates on another lattice."""
    return recoordinated(circuit, lambda _, c: [*move(c[0], c[1]), *c[2:]], move)


def reordered(circuit: stim.Circuit, seed: int) -> tuple[stim.Circuit, np.ndarray]:
    """All detectors at the circuit's end in another order, and for each of them its number before."""
    coords = circuit.get_detector_coordinates()
    result, measured, detectors = stim.Circuit(), 0, []
    for i in circuit.flattened():
        if i.name == "DETECTOR":
            detectors.append([measured + t.value for t in i.targets_copy()])
        elif i.name != "SHIFT_COORDS":
            result.append(i)
            measured += i.num_measurements
    order = np.random.default_rng(seed).permutation(len(detectors))
    for n in order.tolist():
        result.append("DETECTOR", [stim.target_rec(r - measured) for r in detectors[n]], coords[n])
    return result, order


def observing(circuit: stim.Circuit, *observables: list[int]) -> stim.Circuit:
    """With these observables in place of its own, each a list of the last measurements (-1 is the last); a number that
    comes twice is read twice."""
    result = stim.Circuit()
    for i in circuit.flattened():
        if i.name != "OBSERVABLE_INCLUDE":
            result.append(i)
    for o, records in enumerate(observables):
        result.append("OBSERVABLE_INCLUDE", [], o)
        for record in records:
            result.append("OBSERVABLE_INCLUDE", [stim.target_rec(record)], o)
    return result


def with_empty_detectors(circuit: stim.Circuit) -> stim.Circuit:
    """Off-basis detectors of the first and the last slice are there, and compare nothing."""
    coords = circuit.get_detector_coordinates()
    first, last = min(c[2] for c in coords.values()), max(c[2] for c in coords.values())
    on = {tuple(c[:2]) for c in coords.values() if c[2] == first}
    off = sorted({tuple(c[:2]) for c in coords.values()} - on)
    result = stim.Circuit()
    for t in (first, last):
        for place in off:
            result.append("DETECTOR", [], [*place, t])
    return result + recoordinated(circuit, lambda _, c: c)


def without_coordinates(circuit: stim.Circuit, qubits_too: bool) -> stim.Circuit:
    """Detectors without coordinates; qubits keep theirs unless told."""
    result = stim.Circuit()
    for i in circuit.flattened():
        if i.name == "DETECTOR":
            result.append("DETECTOR", i.targets_copy(), [])
        elif i.name != "SHIFT_COORDS" and not (qubits_too and i.name == "QUBIT_COORDS"):
            result.append(i)
    return result


def in_x_gates_only(circuit: stim.Circuit) -> stim.Circuit:
    """Preparation and readout in X by H and Z-basis operations: what RX and MX are, without them."""
    result = stim.Circuit()
    for i in circuit.flattened():
        targets = i.targets_copy()
        if i.name == "RX":
            result.append("R", targets)
            result.append("H", targets)
        elif i.name == "MX":
            result.append("H", targets)
            result.append("M", targets, i.gate_args_copy())
            result.append("H", targets)
        else:
            result.append(i)
    return result
