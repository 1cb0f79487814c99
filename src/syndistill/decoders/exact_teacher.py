"""The exact posterior of a small experiment as a Teacher: what distillation can give at best, with nothing unknown.

Axes: B shots, T slices (rounds + 1), S stabilisers, N detectors in Stim's order, O observables, C logit channels.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_circuit
from syndistill.decoders.optimal import posterior_table
from syndistill.distill.teacher import PosteriorTeacher
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots
from syndistill.sampling.stored import dem_of_circuit

LEAST = 1e-15  # of a class probability, before its logarithm


def exact_teacher(experiment: Experiment) -> PosteriorTeacher:
    """Answers about shots of this one experiment with its exact posterior; offers "final" alone.

    Seconds to make at d=3, rounds=3, the largest that fits. Raises SyndistillError for larger ones, and when asked
    about shots of another basis or number of rounds.
    """
    circuit = experiment.circuit()
    placement = place_circuit(circuit)
    posterior = posterior_table(dem_of_circuit(circuit))
    both = experiment.basis == "both"

    def logits(shots: Shots) -> torch.Tensor:
        if (shots.basis, shots.rounds) != (experiment.basis, experiment.rounds):
            raise SyndistillError(
                f"the exact Teacher is of basis {experiment.basis} and {experiment.rounds} rounds, these shots are of "
                f"{shots.basis} and {shots.rounds}; train on that experiment alone"
            )
        slices_BTS = torch.cat([shots.events_BRS, shots.last_BKS[:, -1:]], 1).cpu().numpy()
        detectors_BN = slices_BTS[:, placement.slice_N, placement.stabiliser_N]
        packed = np.packbits(detectors_BN, axis=1, bitorder="little")
        if not both:
            return torch.from_numpy(posterior.log_odds(packed))
        # I, X, Z, Y: observable 0 is the x line, flipped by Z and Y; observable 1 the z line, flipped by X and Y.
        classes_BC = posterior.class_probabilities(packed)[:, [0, 2, 1, 3]]
        return torch.from_numpy(np.log(np.maximum(classes_BC, LEAST)))

    key = hashlib.sha256(f"exact posterior\n{circuit}".encode()).hexdigest()
    return PosteriorTeacher(logits, key, placement.layout, "joint4" if both else "two_channel")
