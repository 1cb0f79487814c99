"""How far a Student's hidden states are from a Teacher's, and the train-only maps that make them comparable.

Axes: B shots, Q rounds compared, S stabilisers, D the Student's width, P components of the target.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from syndistill.distill.statistics import TargetStatistics
from syndistill.distill.terms import FeatureTerm
from syndistill.errors import SyndistillError


class Adapter(nn.Module):
    """A linear map from the Student's inside to the target's components; exists in training only.

    From a state per stabiliser to a target per stabiliser it is one map, shared by all stabilisers; where either side
    is flat it sees, or fills, all stabilisers at once.
    """

    def __init__(self, student_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.student_shape, self.target_shape = student_shape, target_shape
        self.shared = len(student_shape) == len(target_shape)
        if self.shared and student_shape[:-1] != target_shape[:-1]:
            raise SyndistillError(
                f"a Student's state of shape {student_shape} for a target of {target_shape}: another number of "
                "stabilisers; take a Teacher of the Student's distance"
            )
        n_in = student_shape[-1] if self.shared else _count(student_shape)
        n_out = target_shape[-1] if self.shared else _count(target_shape)
        self.map = nn.Linear(n_in, n_out)

    def forward(self, x_BQx: torch.Tensor) -> torch.Tensor:
        """(B, Q, *student_shape) to (B, Q, *target_shape)."""
        if tuple(x_BQx.shape[2:]) != self.student_shape:
            raise SyndistillError(
                f"this adapter takes states of shape {self.student_shape}, these are {tuple(x_BQx.shape[2:])}; it "
                "belongs to another Student"
            )
        if self.shared:
            mapped: torch.Tensor = self.map(x_BQx)
            return mapped
        return self.map(x_BQx.flatten(2)).unflatten(-1, self.target_shape)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def seeded_adapter(
    name: str, seed: int, student_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> Adapter:
    """Initial weights as a function of its own name and the run's seed: no other term can change them."""
    with torch.random.fork_rng(devices=[]):
        own = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(own) >> 1)
        return Adapter(student_shape, target_shape)


class FeatureLoss:
    """One feature term's loss. source: which of the Student's signals it reads; adapter: what it needs, or None."""

    def __init__(
        self, term: FeatureTerm, source: str, statistics: TargetStatistics, adapter: Adapter | None
    ) -> None:
        self.loss, self.source, self.statistics, self.adapter = term.loss, source, statistics, adapter

    def __call__(self, student_BRx: torch.Tensor, target_BQx: torch.Tensor) -> torch.Tensor:
        """student: the whole signal, (B, R, S, D) or flat (B, R, D); target as `TargetStatistics.target` gives it."""
        x = student_BRx[:, :: self.statistics.spec.every_rounds]
        if self.adapter is not None:
            x = self.adapter(x)
        if self.loss == "gram":
            return gram(x, target_BQx)
        if self.loss == "cosine":
            return cosine(x, target_BQx)
        return normalised_mse(x, target_BQx, self.statistics.variance_P)


def needs_adapter(loss: str, student_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> bool:
    """Gram matrices of stabilisers are free of widths; a flat state has none before it is mapped."""
    if loss != "gram":
        return True
    if len(target_shape) < 2:
        raise SyndistillError("the Gram loss compares stabilisers, this Teacher's state is flat; take normalised_mse")
    return len(student_shape) < 2


def normalised_mse(x: torch.Tensor, target: torch.Tensor, variance_P: torch.Tensor) -> torch.Tensor:
    """sum_p mean (x_p - target_p)^2 / sum_p variance_p: 0 is perfect, 1.0 is predicting the mean. Shapes (*, P)."""
    return F.mse_loss(x.float(), target) * (len(variance_P) / variance_P.sum())


def cosine(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos over everything but the components: 0 is perfect, 1 unrelated. Shapes (*, P)."""
    return 1 - F.cosine_similarity(x.float(), target, dim=-1).mean()


def gram(x_BQSD: torch.Tensor, target_BQSP: torch.Tensor) -> torch.Tensor:
    """Mean over shots and rounds of |G/|G| - H/|H||^2, G and H the (S, S) Gram matrices of Student and target.

    0 where the stabilisers' features are alike up to a rotation and a scale, at most 2; widths may differ.
    """
    difference = _unit_gram(x_BQSD.float()) - _unit_gram(target_BQSP)
    return difference.square().sum((-2, -1)).mean()


def _unit_gram(x_BQSD: torch.Tensor) -> torch.Tensor:
    products = x_BQSD @ x_BQSD.transpose(-1, -2)
    return products / products.flatten(-2).norm(dim=-1)[..., None, None].clamp(min=1e-12)
