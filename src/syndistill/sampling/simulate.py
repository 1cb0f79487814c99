"""Simulated shots with the alternative last slice and the label of every line after every round.

Axes: B shots, R rounds, M measurements of a round, S stabilisers, L lines, Q data qubits, O observables.
"""

from __future__ import annotations

import numpy as np
import stim
import torch

from syndistill.circuits.experiment import Experiment, every_end
from syndistill.circuits.layout import Layout
from syndistill.sampling.shots import Shots


def simulate(experiment: Experiment, n_shots: int, seed: int) -> Shots:
    """Fresh shots whose ends are 1..rounds. Same arguments, Stim version and SIMD width: same shots."""
    return shots_from_flips(experiment, _flips(every_end(experiment), experiment.rounds, n_shots, seed))


def shots_from_flips(experiment: Experiment, flips_RMB: np.ndarray) -> Shots:
    """Shots from how the measurements M of each round of `every_end` differ from the noiseless ones."""
    layout = Layout(experiment.distance)
    measured_RSB, data_RMB = np.split(flips_RMB, [layout.n_stabilisers], axis=1)
    events_RSB = measured_RSB.copy()
    events_RSB[1:] ^= measured_RSB[:-1]
    # An off-basis first value is random in the lab; relative to Stim's reference it would leak noise.
    events_RSB[0, ~layout.on_basis_S(experiment.basis)] = 0
    last_RSB = np.zeros_like(measured_RSB)
    labels: list[np.ndarray] = []
    bases = ("x", "z") if experiment.basis == "both" else (experiment.basis,)
    for basis, data_RQB in zip(bases, np.split(data_RMB, len(bases), axis=1), strict=True):
        values_RSB = _stabiliser_values(data_RQB, layout) ^ measured_RSB
        last_RSB |= values_RSB * layout.on_basis_S(basis)[:, None]
        labels.append(_line_values(data_RQB, layout, basis))
    return Shots(
        layout,
        experiment.basis,
        _shots_first(events_RSB),
        _shots_first(last_RSB),
        torch.stack([_shots_first(labels_RLB) for labels_RLB in labels], dim=-1),
        tuple(range(1, experiment.rounds + 1)),
    )


def _flips(circuit: stim.Circuit, rounds: int, n_shots: int, seed: int) -> np.ndarray:
    """uint8 (R, records per round, B): how each measurement differs from the noiseless one."""
    simulator = stim.FlipSimulator(batch_size=n_shots, disable_stabilizer_randomization=True, seed=seed)
    simulator.do(circuit)
    flips = simulator.get_measurement_flips()
    return np.ascontiguousarray(flips).view(np.uint8).reshape(rounds, -1, n_shots)


def _stabiliser_values(data_RQB: np.ndarray, layout: Layout) -> np.ndarray:
    """Parity of the data qubits around each grid cell, uint8 (R, S, B)."""
    d = layout.distance
    grid = np.zeros((data_RQB.shape[0], d + 2, d + 2, data_RQB.shape[2]), dtype=np.uint8)
    grid[:, 1:-1, 1:-1] = data_RQB.reshape(-1, d, d, data_RQB.shape[2])
    corners = grid[:, :-1, :-1] ^ grid[:, 1:, :-1] ^ grid[:, :-1, 1:] ^ grid[:, 1:, 1:]
    return corners[:, layout.cells_S2[:, 0], layout.cells_S2[:, 1]]


def _line_values(data_RQB: np.ndarray, layout: Layout, basis: str) -> np.ndarray:
    """Parity of the data qubits of each line, uint8 (R, L, B)."""
    d = layout.distance
    grid = data_RQB.reshape(-1, d, d, data_RQB.shape[2])
    return np.bitwise_xor.reduce(grid, axis=2 if basis == "x" else 1)


def _shots_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
