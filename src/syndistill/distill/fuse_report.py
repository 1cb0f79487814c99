"""Is z_fuse worth more than the Teacher's final logit? Each path, z_fuse and the calibrated final logit, compared.

A plain mean of weak probes once won by its temperature alone, so z_fuse is held against the final logit *after* its
best temperature. All of the last end and the experiment's line. The scores are made here and not taken from
`evaluation`, a room that may not be known here, because a joint4 posterior has four classes.
Axes: B shots, P paths, C logit channels, O observables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest

from syndistill.distill.signals.fusion import exact_label_loss
from syndistill.errors import SyndistillError
from syndistill.statistics.calibration import fitted_temperature
from syndistill.training.objective import joint_class

BINS = 15
TWO_SIDED_95 = 1.959964
CALIBRATED = "calibrated final"
FUSED = "z_fuse"
SAME = "the same target"
SAME_TARGET = 0.999
"""Where z_fuse decides as the final logit on more than this share of shots, it is no other target."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def verdict_of(better: bool, agreement: float) -> str:
    """agreement: of z_fuse's decisions with the final logit's, as a share of shots."""
    if agreement > SAME_TARGET:
        return SAME
    return "better" if better else "not better"


def best_temperature(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> float:
    """The T of the least NLL of logits / T; 1 for a calibrated posterior."""
    return fitted_temperature(lambda t: float(nll_B(logits_BC / t, labels_BO).mean()))


def nll_B(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> torch.Tensor:
    """Nats per shot."""
    return exact_label_loss(logits_BC.double()[:, None, None], labels_BO[:, None, None])[:, 0, 0]


def decisions(logits_BC: torch.Tensor) -> torch.Tensor:
    """What is decided: (B, 1) the class, or (B, C) whether each observable flipped."""
    return logits_BC.argmax(-1, keepdim=True) if logits_BC.shape[-1] == 4 else logits_BC > 0


def wrong_B(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> torch.Tensor:
    """Whether any observable is decided wrongly, bool."""
    truth = joint_class(labels_BO)[:, None] if logits_BC.shape[-1] == 4 else labels_BO.bool()
    return (decisions(logits_BC) != truth).any(-1)


def calibration_error(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> float:
    """ECE over 15 bins of equal mass of the predicted probability: of a flip, or for joint4 of each class.

    Equal predictions stay in one bin, so that the order of the shots does not matter.
    """
    if logits_BC.shape[-1] == 4:
        p, hit = torch.softmax(logits_BC.double(), -1), torch.nn.functional.one_hot(joint_class(labels_BO), 4)
    else:
        p, hit = torch.sigmoid(logits_BC.double()), labels_BO
    _, which, counts = torch.unique(p.flatten(), return_inverse=True, return_counts=True)
    middle = (counts.cumsum(0) - counts / 2) / p.numel()
    bins = (middle * BINS).long().clamp(max=BINS - 1)[which]
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, (p - hit).flatten())
    return float(gaps.abs().sum() / p.numel())


def fuse_report(
    paths: Mapping[str, torch.Tensor],
    final_BC: torch.Tensor,
    fused_BC: torch.Tensor,
    labels_BO: torch.Tensor,
    temperature: float,
    weights: Mapping[str, float],
) -> dict[str, Any]:
    """Scores of each path, of z_fuse and of final / temperature, and the paired NLL difference that the gate judges.

    temperature: fitted on other shots than these. "better" is whether z_fuse's NLL is lower with 95 % confidence.
    """
    if len(labels_BO) < 2:
        raise SyndistillError(f"{len(labels_BO)} shots: a report needs more")
    calibrated_BC = final_BC / temperature
    rows = dict(paths) | {"final": final_BC, CALIBRATED: calibrated_BC, FUSED: fused_BC}
    difference = mean_interval(nll_B(fused_BC, labels_BO) - nll_B(calibrated_BC, labels_BO))
    return {
        "shots": len(labels_BO),
        "weights": dict(weights),
        "calibration_temperature": temperature,
        "paths": {name: _scores(logits, labels_BO, final_BC) for name, logits in rows.items()},
        "nll_fused_minus_calibrated": difference._asdict(),
        "better": difference.high < 0,
    }


def _scores(logits_BC: torch.Tensor, labels_BO: torch.Tensor, final_BC: torch.Tensor) -> dict[str, Any]:
    wrong = wrong_B(logits_BC, labels_BO)
    errors, shots = int(wrong.sum()), len(wrong)
    ler = binomtest(errors, shots).proportion_ci(method="wilson")
    return {
        "ler": Interval(errors / shots, float(ler.low), float(ler.high))._asdict(),
        "nll": mean_interval(nll_B(logits_BC, labels_BO))._asdict(),
        "ece": calibration_error(logits_BC, labels_BO),
        "best_temperature": best_temperature(logits_BC, labels_BO),
        "agreement_with_final": float((decisions(logits_BC) == decisions(final_BC)).all(-1).double().mean()),
    }


def mean_interval(values_B: torch.Tensor) -> Interval:
    """With a normal interval."""
    mean = float(values_B.mean())
    half = TWO_SIDED_95 * float(values_B.std()) / math.sqrt(len(values_B))
    return Interval(mean, mean - half, mean + half)
