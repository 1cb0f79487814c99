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

from syndistill.distill.losses import posterior_divergence
from syndistill.distill.statistics import TargetStatistics
from syndistill.distill.targets import TaughtShots
from syndistill.distill.teacher import Teacher
from syndistill.distill.terms import EyesTerm, FeatureTerm, Projector
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, TurnableNetwork

EVERY_BASIS = "every"
"""Name of the map of an adapter that has one for all bases."""
ENSEMBLE = 3
LEAST_FOURTH = 1e-8
"""Added to a mean fourth power before its logarithm, which else has no least value."""


class Orthogonal(nn.Module):
    """A map whose rows, or where there are more of them its columns, are orthonormal, times one learned factor
    (VkD, arXiv 2403.06213): it can turn and scale, not pick out or blow up."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.turn = nn.utils.parametrizations.orthogonal(nn.Linear(n_in, n_out, bias=False))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned: torch.Tensor = self.turn(x)
        return self.log_scale.exp() * turned


class Ensemble(nn.Module):
    """The mean of a few linear maps that begin differently (PEFD, arXiv 2210.15274)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Linear(n_in, n_out, bias=False) for _ in range(ENSEMBLE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


def projector_of(kind: Projector, n_in: int, n_out: int) -> nn.Module:
    if kind == "orthogonal":
        return Orthogonal(n_in, n_out)
    return Ensemble(n_in, n_out) if kind == "ensemble" else nn.Linear(n_in, n_out, bias=False)


class Adapter(nn.Module):
    """Linear maps from the Student's inside to the target's components; they exist in training only.

    From a state per stabiliser to a target per stabiliser a map is shared by all stabilisers; where either side is flat
    it sees, or fills, all stabilisers at once. bases: where a state means another thing in each basis, there is a map
    for each of them, and all begin alike. No bias: both sides are centred.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        target_shape: tuple[int, ...],
        bases: Sequence[str] = (EVERY_BASIS,),
        projector: Projector = "linear",
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
        first = projector_of(projector, n_in, n_out)
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
    projector: Projector = "linear",
) -> Adapter:
    """Initial weights as a function of its own name and the run's seed: no other term can change them."""
    with torch.random.fork_rng(devices=[]):
        own = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(own) >> 1)
        return Adapter(student_shape, target_shape, bases, projector)


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
        if self.loss == "gram_shots":
            return gram(*(side.flatten(2).transpose(0, 1) for side in (x, target)))
        if self.loss == "log4":
            return log4(x, target, self.statistics.variance_P)
        if self.loss == "cosine":
            return cosine(x, target)
        return normalised_mse(x, target, self.statistics.variance_P)


class EyesLoss:
    """The eyes term: divergence from the Teacher's answer of its frozen readout on the adapted state of the Student.

    statistics: of the Teacher's whole state. As in `FeatureLoss` the adapter gives what depends on the shot; what does
    not is the Teacher's own mean in that round, at that stabiliser.
    """

    source = "temporal"

    def __init__(
        self,
        term: EyesTerm,
        teacher: Teacher,
        statistics: TargetStatistics,
        adapter: Adapter,
        orders: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.term, self.teacher, self.statistics, self.adapter = term, teacher, statistics, adapter
        self.orders = orders or {}

    def __call__(
        self, student_BRx: torch.Tensor, taught: TaughtShots, teacher_BKLC: torch.Tensor
    ) -> torch.Tensor:
        shots = taught.shots if self.term.where == "every" else taught.shots.only_last_end()
        x = centred(self.adapter(student_BRx, shots.basis).float())
        if shots.basis in self.orders:
            x = x[:, :, self.orders[shots.basis].argsort()]
        states_BRSD = self.statistics.whole(x, shots.basis)
        seen_BKLC = self.teacher.answer_from(shots, states_BRSD[:, [end - 1 for end in shots.ends]])
        answered_BKLC = teacher_BKLC[:, -len(shots.ends) :]
        return posterior_divergence(seen_BKLC[:, :, 0], answered_BKLC[:, :, 0], self.term.temperature).mean()


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
    """Gram matrices are free of widths; of stabilisers a flat state has none before it is mapped."""
    if loss != "gram":
        return loss != "gram_shots"
    if len(target_shape) < 2:
        raise SyndistillError("the Gram loss compares stabilisers, this Teacher's state is flat; take normalised_mse")
    return len(student_shape) < 2


def normalised_mse(x: torch.Tensor, target: torch.Tensor, variance_P: torch.Tensor) -> torch.Tensor:
    """sum_p mean (x_p - target_p)^2 / sum_p variance_p: 0 is perfect, 1.0 is predicting the mean. Shapes (*, P)."""
    return F.mse_loss(x.float(), target) * (len(variance_P) / variance_P.sum())


def log4(x: torch.Tensor, target: torch.Tensor, variance_P: torch.Tensor) -> torch.Tensor:
    """log of the mean fourth power of (x - target) in units of the target's deviation (arXiv 2303.11098): the largest
    errors count most, and the gradient does not fall with the loss. Shapes (*, P)."""
    return ((x.float() - target).square() / variance_P.mean()).square().mean().add(LEAST_FOURTH).log()


def cosine(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos over everything but the components: 0 is perfect, 1 unrelated. Shapes (*, P)."""
    return 1 - F.cosine_similarity(x.float(), target, dim=-1).mean()


def gram(x_BQSD: torch.Tensor, target_BQSP: torch.Tensor) -> torch.Tensor:
    """Mean over shots and rounds of |G/|G| - H/|H||^2, G and H the (S, S) Gram matrices of Student and target.

    0 where the stabilisers' features are alike up to a rotation and a scale, at most 2; widths may differ. Of shots
    (gram_shots) the same with (Q, B, S * D): how alike any two shots are after each round.
    """
    difference = _unit_gram(x_BQSD.float()) - _unit_gram(target_BQSP)
    return difference.square().sum((-2, -1)).mean()


def _unit_gram(x_BQSD: torch.Tensor) -> torch.Tensor:
    products = x_BQSD @ x_BQSD.transpose(-1, -2)
    return products / products.flatten(-2).norm(dim=-1)[..., None, None].clamp(min=1e-12)
