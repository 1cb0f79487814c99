"""The independent errors of an experiment with what each flips at every end: one error model for all its ends.

A detector error model knows one end. Here each elementary error of `circuits.experiment` runs alone in a lane of
`stim.FlipSimulator`; those that show the same at every end are one.

Axes: F elementary errors of the circuit, J joint errors, R rounds, S stabilisers, K = R ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.experiment import Experiment, every_end
from syndistill.errors import SyndistillError
from syndistill.sampling.simulate import shots_from_flips

_LANES = 8192
_PAULIS = {"X_ERROR": ["X"], "Y_ERROR": ["Y"], "Z_ERROR": ["Z"], "DEPOLARIZE1": ["X", "Y", "Z"]}
_PAIRS = [a + b for a, b in product("_XYZ", repeat=2)][1:]
_READS = {"M": "X", "MX": "Z", "MR": "X"}  # the Pauli that turns a result

_SOME_RATE = 0.001


class JointErrors(NamedTuple):
    """joint_F: int64 (F,), the joint error that an elementary one is part of, -1 for none (it shows nowhere).

    events_JRS, last_JKS, label_JK: uint8, what each flips, the label being the line's (`line`) in the experiment's
    basis. None of them depends on the error rate.
    """

    joint_F: NDArray[np.int64]
    events_JRS: NDArray[np.uint8]
    last_JKS: NDArray[np.uint8]
    label_JK: NDArray[np.uint8]


def joint_errors(experiment: Experiment, line: int) -> JointErrors:
    """The errors of an experiment in basis x or z, whatever its rate. Raises SyndistillError for unknown noise."""
    return _joint_errors(replace(experiment, p=_SOME_RATE), line)


def joint_chances(experiment: Experiment, errors: JointErrors) -> NDArray[np.float64]:
    """The probability of each joint error, (J,)."""
    chance_F = np.concatenate([chances for _, _, _, chances in _noise(every_end(experiment))])
    shows_F = errors.joint_F >= 0
    # an odd number of the elementary ones: 1 - 2 q multiplies
    log_chi_J = np.bincount(errors.joint_F[shows_F], np.log1p(-2 * chance_F[shows_F]), minlength=len(errors.events_JRS))
    return -np.expm1(log_chi_J) / 2


@lru_cache(maxsize=64)
def _joint_errors(experiment: Experiment, line: int) -> JointErrors:
    circuit = every_end(experiment)
    faults = [
        (position, group, pauli)
        for position, groups, paulis, _ in _noise(circuit)
        for group in groups
        for pauli in paulis
    ]
    rows_FX = np.concatenate(
        [_symptoms(experiment, circuit, faults[i : i + _LANES], line) for i in range(0, len(faults), _LANES)]
    )
    unique_JX, joint_F = np.unique(rows_FX, axis=0, return_inverse=True)
    shown = np.cumsum(unique_JX.any(1)) - 1
    joint_F = np.where(unique_JX.any(1), shown, -1)[joint_F.reshape(-1)]
    n_bits = experiment.rounds * (2 * (experiment.distance**2 - 1) + 1)
    bits = np.unpackbits(unique_JX[unique_JX.any(1)], axis=1, count=n_bits)
    events, last, label = np.split(bits, [(n_bits - experiment.rounds) // 2, n_bits - experiment.rounds], axis=1)
    shape = (len(bits), experiment.rounds, -1)
    return JointErrors(joint_F, events.reshape(shape), last.reshape(shape), label)


def _noise(
    circuit: stim.Circuit,
) -> Iterator[tuple[int, list[list[int]], list[str], NDArray[np.float64]]]:
    """Each noisy instruction's position, qubits, Paulis, and the chances of them all as independent errors."""
    for position, instruction in enumerate(circuit):
        arguments = instruction.gate_args_copy()
        if not arguments:
            continue
        p, name = arguments[0], instruction.name
        groups = [[target.value for target in group] for group in instruction.target_groups()]
        if name == "DEPOLARIZE2":
            paulis, q = _PAIRS, (1 - (1 - 16 * p / 15) ** (1 / 8)) / 2
        elif name == "DEPOLARIZE1":
            paulis, q = _PAULIS[name], (1 - (1 - 4 * p / 3) ** 0.5) / 2
        elif name in _PAULIS:
            paulis, q = _PAULIS[name], p
        elif name in _READS:
            paulis, q = [_READS[name]], p
        else:
            raise SyndistillError(f"revealed labels: noise {name} of the circuit is unknown; ends=1 does without it")
        yield position, groups, paulis, np.full(len(groups) * len(paulis), q)


def _symptoms(
    experiment: Experiment, circuit: stim.Circuit, faults: list[tuple[int, list[int], str]], line: int
) -> NDArray[np.uint8]:
    """Packed bits of what each error alone flips: events, last slices, labels of the line."""
    simulator = stim.FlipSimulator(
        batch_size=len(faults), disable_stabilizer_randomization=True, num_qubits=circuit.num_qubits
    )
    at: dict[int, list[tuple[int, list[int], str]]] = {}
    for lane, (position, qubits, pauli) in enumerate(faults):
        at.setdefault(position, []).append((lane, qubits, pauli))
    for position, instruction in enumerate(circuit):
        reads = instruction.name in _READS
        for lane, qubits, pauli in at.get(position, []):
            for qubit, letter in zip(qubits, pauli, strict=True):
                simulator.set_pauli_flip(letter, qubit_index=qubit, instance_index=lane)
        if reads:
            simulator.do(stim.CircuitInstruction(instruction.name, instruction.targets_copy()))
            for lane, qubits, _ in at.get(position, []):  # the result was wrong, not the qubit
                simulator.set_pauli_flip("_", qubit_index=qubits[0], instance_index=lane)
        elif not instruction.gate_args_copy():
            simulator.do(instruction)
    flips = np.ascontiguousarray(simulator.get_measurement_flips()).view(np.uint8)
    shots = shots_from_flips(experiment, flips.reshape(experiment.rounds, -1, len(faults)))
    assert shots.labels_BKLO is not None
    parts = shots.events_BRS, shots.last_BKS, shots.labels_BKLO[:, :, line, 0]
    return np.packbits(np.concatenate([part.flatten(1).numpy() for part in parts], 1), axis=1)
