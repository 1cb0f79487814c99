"""The exact posterior as a Teacher: what distillation can give at best, nothing unknown.

Axes: B shots, T slices (rounds + 1), S stabilisers, N detectors in Stim's order, O observables, C logit channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement, place_experiment
from syndistill.decoders.optimal import ExactPosterior
from syndistill.distill.losses import LEAST, posterior_logits
from syndistill.distill.signals.teacher import Answer, PosteriorTeacher, Teacher
from syndistill.errors import SyndistillError
from syndistill.files.families import OutputForm
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.shots import Shots, detectors_of
from syndistill.sampling.stored import dem_of_circuit


def exact_teacher(experiment: Experiment) -> PosteriorTeacher:
    """Answers about shots of this one experiment with its exact posterior; offers "final" alone.

    Seconds to make at d=3, rounds=3, the largest that fits. Raises SyndistillError for larger ones, and when asked
    about shots of another basis or number of rounds.
    """
    circuit = experiment.circuit()
    placement = place_experiment(experiment)
    posterior = ExactPosterior(dem_of_circuit(circuit))
    both = experiment.basis == "both"

    def logits(shots: Shots) -> torch.Tensor:
        packed = np.packbits(_detectors(shots, experiment, placement), axis=1, bitorder="little")
        if not both:
            return torch.from_numpy(posterior.log_odds(packed))
        # I, X, Z, Y: observable 0 is the x line, flipped by Z and Y; observable 1 the z line, flipped by X and Y.
        classes_BC = posterior.class_probabilities(packed)[:, [0, 2, 1, 3]]
        return torch.from_numpy(np.log(np.maximum(classes_BC, LEAST)))

    key = hashlib.sha256(f"exact posterior\n{circuit}".encode()).hexdigest()
    return PosteriorTeacher(logits, key, placement.layout, "joint4" if both else "two_channel")


def _detectors(shots: Shots, experiment: Experiment, placement: Placement) -> NDArray[np.bool_]:
    """(B, N) as the experiment's circuit counts them. SyndistillError for shots of another one."""
    if (shots.basis, shots.rounds) != (experiment.basis, experiment.rounds):
        raise SyndistillError(
            f"this Teacher is of basis {experiment.basis} and {experiment.rounds} rounds, these shots are of "
            f"{shots.basis} and {shots.rounds}; train on that experiment alone"
        )
    return detectors_of(shots, placement)


class ExactEveryEnd(Teacher):
    """The exact posterior of every line after every round, of shots at one error rate: offers "final" and "readout".

    Distance 3, any number of rounds. Shots must be simulated ones with all their ends; a line's label is
    read only to tell the line from the experiment's, which the shot shows too (`sampling.exact_labels`).
    """

    offers = frozenset({"final", "readout"})

    def __init__(self, noise: str, p: float, output: OutputForm = "two_channel") -> None:
        self.noise, self.p, self.output = noise, p, output
        self.layout = Layout(3)

    def key(self) -> str:
        bases = ("both",) if self.output == "joint4" else ("x", "z")
        circuits = [str(Experiment(3, 6, basis, self.noise, self.p).circuit()) for basis in bases]
        return hashlib.sha256("\n".join(["exact posterior of every end", *circuits]).encode()).hexdigest()

    @torch.no_grad()
    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        self.require(want, "this question")
        if (shots.basis == "both") != (self.output == "joint4"):
            raise SyndistillError(
                f"this exact Teacher of every end has output {self.output}, these shots are of basis {shots.basis}; "
                "two_channel answers x and z, joint4 both"
            )
        experiment = Experiment(3, shots.rounds, shots.basis, self.noise, self.p)
        return Answer(posterior_logits(with_exact_labels(shots, experiment, dtype="float64"), self.output))
