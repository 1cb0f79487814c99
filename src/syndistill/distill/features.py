"""How far a Student's hidden states are from a Teacher's, and the train-only maps that make them comparable.

Axes: B shots, Q rounds compared, S stabilisers, D the Student's width, P components of the target.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from syndistill.distill.statistics import TargetStatistics
from syndistill.distill.terms import FeatureTerm
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, TurnableNetwork

EVERY_BASIS = "every"
"""Name of the map of an adapter that has one for all bases."""


class Adapter(nn.Module):
    """Linear maps from the Student's inside to the target's components; they exist in training only.

    From a state per stabiliser to a target per stabiliser a map is shared by all stabilisers; where either side is flat
    it sees, or fills, all stabilisers at once. bases: where a state means another thing in each basis, there is a map
    for each of them, and all begin alike. No bias: both sides are centred.
    """

    def __init__(
        self, student_shape: tuple[int, ...], target_shape: tuple[int, ...], bases: Sequence[str] = (EVERY_BASIS,)
    ) -> None:
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
        first = nn.Linear(n_in, n_out, bias=False)
        self.maps = nn.ModuleDict({basis: copy.deepcopy(first) for basis in bases})

    def forward(self, x_BQx: torch.Tensor, basis: str) -> torch.Tensor:
        """(B, Q, *student_shape) of shots of this basis to (B, Q, *target_shape)."""
        if tuple(x_BQx.shape[2:]) != self.student_shape:
            raise SyndistillError(
                f"this adapter takes states of shape {self.student_shape}, these are {tuple(x_BQx.shape[2:])}; it "
                "belongs to another Student"
            )
        name = EVERY_BASIS if EVERY_BASIS in self.maps else basis
        if name not in self.maps:
            raise SyndistillError(f"this adapter has maps for {', '.join(self.maps)}, these shots are of {basis}")
        if self.shared:
            mapped: torch.Tensor = self.maps[name](x_BQx)
            return mapped
        filled: torch.Tensor = self.maps[name](x_BQx.flatten(2)).unflatten(-1, self.target_shape)
        return filled


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def seeded_adapter(
    name: str,
    seed: int,
    student_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    bases: Sequence[str] = (EVERY_BASIS,),
) -> Adapter:
    """Initial weights as a function of its own name and the run's seed: no other term can change them."""
    with torch.random.fork_rng(devices=[]):
        own = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(own) >> 1)
        return Adapter(student_shape, target_shape, bases)


class FeatureLoss:
    """One feature term's loss. source: which of the Student's signals it reads; adapter: what it needs, or None.

    orders: by basis, the order in which a flat Student sees the stabilisers, where it is not the layout's. What depends
    on no shot is taken from both sides: of a batch, which is of one basis, the mean over its shots in each round, at
    each stabiliser, of each component.
    """

    def __init__(
        self,
        term: FeatureTerm,
        source: str,
        statistics: TargetStatistics,
        adapter: Adapter | None,
        orders: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.loss, self.source, self.statistics, self.adapter = term.loss, source, statistics, adapter
        self.orders = orders or {}

    def __call__(self, student_BRx: torch.Tensor, target_BQx: torch.Tensor, basis: str) -> torch.Tensor:
        """student: the whole signal, (B, R, S, D) or flat (B, R, D); target as `TargetStatistics.target` gives it."""
        x = student_BRx[:, :: self.statistics.spec.every_rounds]
        if self.adapter is not None:
            x = self.adapter(x, basis)
        if basis in self.orders:
            target_BQx = target_BQx[:, :, self.orders[basis]]
        x, target = centred(x.float()), centred(target_BQx)
        if self.loss == "gram":
            return gram(x, target)
        if self.loss == "cosine":
            return cosine(x, target)
        return normalised_mse(x, target, self.statistics.variance_P)


def centred(x_Bx: torch.Tensor) -> torch.Tensor:
    """Without the mean over the batch."""
    return x_Bx - x_Bx.mean(0)


def state_orders(network: DecoderNetwork, bases: Sequence[str]) -> dict[str, torch.Tensor]:
    """By basis, the order in which a network sees the stabilisers inside, where it is not the layout's."""
    if not isinstance(network, TurnableNetwork):
        return {}
    turned_S = torch.from_numpy(network.layout.turned_S)
    return {basis: turned_S for basis in bases if network.frame(basis) != basis}


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
