"""What is measured once at a stage's start and then fixed: the scales of feature terms, and the readout term's gate.

Axes: B shots, K ends, L lines, O observables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from syndistill.distill.features import FeatureLoss
from syndistill.distill.lessons import Lessons
from syndistill.distill.objective import MAIN, StudentObjective, gradient_shares
from syndistill.distill.targets import TaughtShots
from syndistill.distill.teacher import Teacher
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.safe_files import read_sealed, write_sealed
from syndistill.sampling.shots import Shots
from syndistill.training.objective import joint_class, label_loss

WEIGHTS_FILE = "weights.json"
BATCHES = 4


class Weighting(NamedTuple):
    """scales: by a feature term's name, the factor that makes weight 1 its share. gate: by the number of rounds."""

    scales: dict[str, float]
    gate: dict[int, float] | None

    def save(self, path: Path, said: Mapping[str, object]) -> None:
        gate = None if self.gate is None else {str(end): weight for end, weight in self.gate.items()}
        write_sealed(path, {"scales": self.scales, "gate": gate, **said})

    @classmethod
    def load(cls, path: Path) -> Weighting:
        remedy = "start the stage in a fresh folder"
        content = read_sealed(path, remedy)
        try:
            gate = content["gate"]
            return cls(
                {name: float(scale) for name, scale in content["scales"].items()},
                None if gate is None else {int(end): float(weight) for end, weight in gate.items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SyndistillError(f"{path} is damaged; {remedy}") from None


def measure_scales(
    terms: Terms,
    model: DecoderNetwork,
    lessons: Lessons,
    features: Mapping[str, FeatureLoss],
    gate: Mapping[int, float] | None,
    batches: Sequence[TaughtShots],
) -> dict[str, float]:
    """share / (gradient norm of the term over the main terms'), a mean over batches; for terms with a share.

    The main terms are labels, final and fused with their weights, so no signal changes another one's scale.
    """
    wanted = {name: term.share for name, term in terms.features.items() if term.share is not None}
    if not wanted:
        return {}
    objective = StudentObjective(terms, None, lessons, features, gate=gate)
    weights = {term.name: term.weight if term.name in MAIN else 1.0 for term in objective.terms}
    if not weights.keys() & set(MAIN):
        raise SyndistillError(
            f"{', '.join(wanted)} are weighed against labels, final and fused, which all have weight 0; give one of "
            f"them a weight, or set {next(iter(wanted))}.share=null"
        )
    sums = dict.fromkeys(wanted, 0.0)
    for taught in batches:
        _, losses = objective.losses(model, taught)
        compared = {name: weights[name] * losses[name] for name in weights if name in MAIN or name in wanted}
        shares = gradient_shares(model, compared)
        for name in wanted:
            sums[name] += shares.get(name, 0.0) / len(batches)
    if still := [name for name, total in sums.items() if total == 0]:
        raise SyndistillError(f"{', '.join(still)} moves none of the Student's weights; set its weight to 0")
    return {name: share / sums[name] for name, share in wanted.items()}


def measure_gate(teacher: Teacher, batches: Sequence[Shots]) -> dict[int, float]:
    """For each number of rounds a weight proportional to (entropy of the base rate - the Teacher's NLL), of mean 1.

    Where the Teacher knows no more than the base rate, the weight is 0. batches: of the longest experiments, all ends.
    """
    ends = batches[0].ends
    nll_K = torch.zeros(len(ends), dtype=torch.float64)
    entropy_K = torch.zeros_like(nll_K)
    for basis in sorted({shots.basis for shots in batches}):
        of_basis = [shots for shots in batches if shots.basis == basis]
        labels = torch.cat([s.labels_BKLO for s in of_basis if s.labels_BKLO is not None])
        logits = torch.cat([teacher.logits(shots) for shots in of_basis])
        nll_K += label_loss(logits, labels).double().mean((0, 2))
        entropy_K += _base_rate_entropy(labels, logits.shape[-1])
    gain_K = (entropy_K - nll_K).clamp(min=0)
    if gain_K.sum() == 0:
        raise SyndistillError(
            "the gate finds no end where the Teacher beats the base rate; train it further, or set readout.gated=false"
        )
    return dict(zip(ends, (gain_K / gain_K.mean()).tolist(), strict=True))


def _base_rate_entropy(labels_BKLO: torch.Tensor, channels: int) -> torch.Tensor:
    """Nats, (K,), mean over lines and channels: the NLL of always answering with the frequencies."""
    if channels == 4:
        classes = torch.nn.functional.one_hot(joint_class(labels_BKLO), 4).double()
        return _entropy(classes.mean(0)).sum(-1).mean(-1)
    p_KLO = labels_BKLO.double().mean(0)
    return (_entropy(p_KLO) + _entropy(1 - p_KLO)).mean((1, 2))


def _entropy(p: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(p, p)
