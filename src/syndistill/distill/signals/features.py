"""How far a Student's hidden states are from a Teacher's, and the train-only maps that make them comparable.

Axes: B shots, Q rounds compared, S stabilisers, D the Student's width, P components of the target.
"""

from __future__ import annotations

import copy
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.signals.teacher import Answer, Target, Teacher
from syndistill.distill.terms import EyesTerm, FeatureTerm, Projector, Terms
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, TurnableNetwork
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.shots import Shots

HELD_VARIANCE = 0.95
LEAST_STD = 1e-3
"""Of a channel's root mean square: what depends less than this on the shot is not blown up."""
WHAT = "syndistill centred target statistics"
LEAST_VARIANCE = 1e-6
"""Of a direction, as a share of the largest: whitening does not blow up what is less."""
GRADIENT_SHOTS = 32
"""Asked at a time: a graph of 25 rounds at d=5 holds some 20 MB a shot."""
HEADROOM = 1.25  # beyond the largest magnitude that was measured; what lies further is clipped
CODES = 127
EYES = "eyes"
EVERY_BASIS = "every"
"""Name of the map of an adapter that has one for all bases."""
ENSEMBLE = 3
LEAST_FOURTH = 1e-8
"""Added to a mean fourth power before its logarithm, which else has no least value."""


class TargetSpec(NamedTuple):
    """A signal and what to make of it (see `terms.FeatureTerm`). directions: "all" leaves it as wide as it is."""

    signal: str
    components: int
    every_rounds: int
    directions: Literal["variance", "answer", "all"] = "variance"

    def said(self) -> tuple[object, ...]:
        """As files and hashes have it: those of principal directions are from before there were others."""
        return tuple(self) if self.directions != "variance" else tuple(self)[:3]


WHOLE_STATE = TargetSpec("temporal", 0, 1, "all")
"""What the Student's state is mapped to before the Teacher's readout looks at it."""


def target_specs(terms: Terms) -> dict[str, TargetSpec]:
    """Of the feature terms that are on, by name."""
    return {
        name: TargetSpec(terms.teacher_signal(name), term.components, term.every_rounds, term.directions)
        for name, term in terms.features.items()
    }


@dataclass(frozen=True, eq=False)
class TargetStatistics:
    """Target of a feature x: (x / std_D) @ directions_DP - centres[basis], clipped to +-range_P.

    centres: by basis, the mean of the first part over shots, (Q, S, P) or, of a flat feature, (Q, P). variance_P: of
    the target's components over shots; in falling order. Directions of the answer are those of the whitened feature in
    which the Teacher's logit has the largest mean square of its gradient, and their variances are its shares: a
    component counts as much as it moves the answer. A cache keeps int8 codes of step range_P / 127, so live and
    cached targets differ by half a step at most.
    """

    spec: TargetSpec
    std_D: torch.Tensor
    directions_DP: torch.Tensor
    variance_P: torch.Tensor
    range_P: torch.Tensor
    centres: dict[str, torch.Tensor]

    def target(self, x_BRxD: torch.Tensor, basis: str) -> torch.Tensor:
        """(B, Q, S, P) of a whole signal (B, R, S, D) of shots of this basis; a flat one (B, R, D) gives (B, Q, P)."""
        x = x_BRxD[:, :: self.spec.every_rounds]
        if x.shape[-1] != len(self.std_D):
            raise SyndistillError(
                f"the signal {self.spec.signal} is {x.shape[-1]} wide, its statistics are of {len(self.std_D)}; "
                "they belong to another Teacher"
            )
        measured = self.centres.get(basis)
        if measured is None or len(measured) < x.shape[1]:
            raise SyndistillError(
                f"the statistics of {self.spec.signal} are of {', '.join(self.centres)} with "
                f"{len(next(iter(self.centres.values())))} rounds compared, these shots of {basis} with {x.shape[1]}; "
                "measure them on shots like these"
            )
        target = (x / self.std_D) @ self.directions_DP - measured[: x.shape[1]]
        return target.clamp(-self.range_P, self.range_P)

    def whole(self, target_BQxP: torch.Tensor, basis: str) -> torch.Tensor:
        """The signal of a target of all directions, its inverse but for the bounds."""
        return (target_BQxP + self.centres[basis][: target_BQxP.shape[1]]) * self.std_D

    def encode(self, target_xP: torch.Tensor) -> torch.Tensor:
        """int8 codes."""
        return (target_xP * (CODES / self.range_P)).round().to(torch.int8)

    def decode(self, codes_xP: torch.Tensor) -> torch.Tensor:
        return codes_xP.float().mul_(self.step_P)

    @property
    def step_P(self) -> torch.Tensor:
        return self.range_P / CODES

    @property
    def held(self) -> float:
        """Share of the standardised feature's variance over shots that the components hold, or of the answer's."""
        return float(self.variance_P.sum() / len(self.std_D))

    def to(self, device: torch.device | str) -> TargetStatistics:
        return self._of(self.spec, {name: x.to(device) for name, x in self._tensors().items()})

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr(self.spec.said()).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        save_tensors(path, self._tensors(), {"what": WHAT, "spec": list(self.spec.said())})

    @classmethod
    def load(cls, path: Path) -> TargetStatistics:
        tensors, metadata = load_tensors(path)
        spec = metadata.get("spec")
        if metadata.get("what") == "syndistill target statistics":
            raise SyndistillError(
                f"{path} is of an earlier version, whose targets were not centred by basis, round and stabiliser; "
                "delete its folder (in a cache the logits beside it stay), it is then made anew"
            )
        if metadata.get("what") != WHAT or not isinstance(spec, list):
            raise SyndistillError(f"{path} holds no target statistics; delete it, they are then measured again")
        return cls._of(TargetSpec(*spec), tensors)

    @classmethod
    def _of(cls, spec: TargetSpec, tensors: Mapping[str, torch.Tensor]) -> TargetStatistics:
        centres = {name.removeprefix(_CENTRE): x for name, x in tensors.items() if name.startswith(_CENTRE)}
        return cls(spec, **{name: tensors[name] for name in _NAMES}, centres=centres)

    def _tensors(self) -> dict[str, torch.Tensor]:
        of_basis = {_CENTRE + basis: centre for basis, centre in self.centres.items()}
        return {name: getattr(self, name) for name in _NAMES} | of_basis


class FeatureTarget(Target):
    """Of a feature term: (B, Q, S, P), kept as int8 codes."""

    def __init__(self, name: str, statistics: TargetStatistics) -> None:
        self.name, self.statistics = name, statistics
        self.wants, self.every_rounds = frozenset({statistics.spec.signal}), statistics.spec.every_rounds

    @property
    def content(self) -> str:
        return self.statistics.sha256

    def of(self, shots: Shots, answer: Answer) -> torch.Tensor:
        signal = answer.signals[self.statistics.spec.signal]
        return self.statistics.to(signal.device).target(signal, shots.basis)

    def encode(self, target: torch.Tensor) -> torch.Tensor:
        return self.statistics.encode(target)

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        return self.statistics.to(kept.device).decode(kept)

    def bytes_per_shot(self, rounds: int, layout: Layout, channels: int) -> int:
        return self.kept(rounds) * layout.n_stabilisers * len(self.statistics.range_P)


_NAMES, _CENTRE = ("std_D", "directions_DP", "variance_P", "range_P"), "centre."


def measure_targets(
    teacher: Teacher, shots: Sequence[Shots], specs: Mapping[str, TargetSpec]
) -> dict[str, TargetStatistics]:
    """Statistics of each named target over these batches of shots; two passes of the Teacher, and a third one with
    gradients for directions of the answer."""
    wanted = [spec.signal for spec in specs.values()]
    sums = {name: _Sums() for name in specs}
    for batch in shots:
        answer = teacher.answer(batch, wanted)
        for name, spec in specs.items():
            sums[name].add(answer.signals[spec.signal][:, :: spec.every_rounds], batch.basis)
    if moving := {name: spec for name, spec in specs.items() if spec.directions == "answer"}:
        generator = torch.Generator().manual_seed(0)
        for part in (batch.take(rows) for batch in shots for rows in _slices(len(batch))):
            gradients = _gradients(teacher, part, {spec.signal for spec in moving.values()}, generator)
            for name, spec in moving.items():
                sums[name].add_gradient(gradients[spec.signal][:, :: spec.every_rounds])
    found = {name: sums[name].reduce(spec) for name, spec in specs.items()}
    reach = {name: torch.zeros_like(statistics.range_P) for name, statistics in found.items()}
    for batch in shots:
        answer = teacher.answer(batch, wanted)
        for name, statistics in found.items():
            target = statistics.target(answer.signals[statistics.spec.signal], batch.basis)
            reach[name] = torch.maximum(reach[name], target.abs().flatten(0, -2).amax(0))
    return {
        name: TargetStatistics(**{**vars(statistics), "range_P": (HEADROOM * reach[name]).clamp(min=1e-6)})
        for name, statistics in found.items()
    }


def _slices(n_shots: int) -> list[slice]:
    return [slice(start, start + GRADIENT_SHOTS) for start in range(0, n_shots, GRADIENT_SHOTS)]


def _gradients(teacher: Teacher, shots: Shots, want: set[str], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Of the logits of all ends at once, each with a sign drawn by lot: the mean of their products is then the sum over
    ends of each one's own, for the price of one pass. Of four classes only differences are an answer."""
    channels = 4 if teacher.output == "joint4" else 2 if shots.basis == "both" else 1
    size = (len(shots), len(shots.ends), channels)
    signs_BKC = 2.0 * torch.randint(0, 2, size, generator=generator) - 1
    return teacher.gradients(shots, want, signs_BKC - signs_BKC.mean(-1, keepdim=True) if channels == 4 else signs_BKC)


class _Sums:
    """Sums of a feature by basis and round, and of its products and its gradient's, float64."""

    def __init__(self) -> None:
        self.products_DD = torch.zeros(())
        self.gradients_DD = torch.zeros(())
        self.of_group: dict[str, dict[int, tuple[int, torch.Tensor]]] = {}

    def add(self, x_BQxD: torch.Tensor, basis: str) -> None:
        x_BQxD = x_BQxD.double().cpu()
        flat = x_BQxD.flatten(0, -2)
        self.products_DD = self.products_DD + flat.T @ flat
        groups = self.of_group.setdefault(basis, {})
        for q, sum_xD in enumerate(x_BQxD.sum(0)):
            n, before_xD = groups.get(q, (0, torch.zeros(())))
            groups[q] = (n + len(x_BQxD), before_xD + sum_xD)

    def add_gradient(self, gradient_BQxD: torch.Tensor) -> None:
        flat = gradient_BQxD.double().cpu().flatten(0, -2)
        self.gradients_DD = self.gradients_DD + flat.T @ flat

    def reduce(self, spec: TargetSpec) -> TargetStatistics:
        sizes = [(n, sum_xD / n) for groups in self.of_group.values() for n, sum_xD in groups.values()]
        count = sum(n * mean_xD[..., 0].numel() for n, mean_xD in sizes)
        products_DD = self.products_DD
        for n, mean_xD in sizes:
            flat = mean_xD.reshape(-1, mean_xD.shape[-1])
            products_DD = products_DD - n * flat.T @ flat
        covariance_DD = products_DD / count
        # A channel that no shot moves has no target: it becomes 0, not noise blown up.
        least_D = (LEAST_STD**2 * self.products_DD.diagonal() / count).clamp(min=1e-12)
        std_D = covariance_DD.diagonal().maximum(least_D).sqrt()
        correlation_DD = covariance_DD / torch.outer(std_D, std_D)
        if spec.directions == "all":
            variance_D, directions_DD = correlation_DD.diagonal(), torch.eye(len(std_D), dtype=torch.float64)
        elif spec.directions == "answer":
            variance_D, directions_DD = _of_the_answer(correlation_DD, self.gradients_DD * torch.outer(std_D, std_D))
        else:
            variance_D, directions_DD = _falling(correlation_DD)
        # The sign of an eigenvector is anyone's choice: its largest entry is made positive.
        largest = directions_DD.gather(0, directions_DD.abs().argmax(0, keepdim=True))
        directions_DD = directions_DD * largest.sign()
        whole = len(std_D) if spec.directions == "all" else _components_that_hold(variance_D, HELD_VARIANCE)
        n = spec.components or whole
        if n > len(std_D):
            raise SyndistillError(
                f"{n} components asked of the signal {spec.signal}, which is {len(std_D)} wide; ask for fewer, or 0"
            )
        directions_DP, unbounded = directions_DD[:, :n], torch.full((n,), torch.inf)
        centres = {
            basis: torch.stack([(sum_xD / m / std_D) @ directions_DP for m, sum_xD in groups.values()]).float()
            for basis, groups in self.of_group.items()
        }
        return TargetStatistics(spec, std_D.float(), directions_DP.float(), variance_D[:n].float(), unbounded, centres)


def _falling(matrix_DD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues in falling order, none below 0, and the eigenvectors as columns."""
    values_D, vectors_DD = torch.linalg.eigh(matrix_DD)
    return values_D.flip(0).clamp(min=0), vectors_DD.flip(1)


def _of_the_answer(correlation_DD: torch.Tensor, gradients_DD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(variances, directions) for a standardised feature u and the products of the logit's gradient in u.

    In w = C^-1/2 u, C the correlation of u, every direction has variance 1, and the gradient is C^1/2 times that in u:
    its eigenvectors say how far the logit moves where the feature does as usual. Their shares of the whole, times D,
    become the components' variances. Directions in which C has nothing are left out.
    """
    values_D, vectors_DD = _falling(correlation_DD)
    root_D = values_D.sqrt()
    inverse_D = torch.where(values_D > LEAST_VARIANCE * values_D[0], 1 / root_D.clamp(min=1e-12), 0.0)
    root_DD, inverse_DD = (vectors_DD * x_D @ vectors_DD.T for x_D in (root_D, inverse_D))
    moved_D, axes_DD = _falling(root_DD @ gradients_DD @ root_DD)
    if moved_D.sum() == 0:
        raise SyndistillError("the Teacher's answer does not depend on this signal; take directions=variance")
    variance_D = len(moved_D) * moved_D / moved_D.sum()
    return variance_D, inverse_DD @ axes_DD * variance_D.sqrt()


def _components_that_hold(variance_D: torch.Tensor, share: float) -> int:
    held = variance_D.cumsum(0) / variance_D.sum()
    return int((held < share).sum()) + 1


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

    def __call__(self, student_BRx: torch.Tensor, shots: Shots, teacher_BKLC: torch.Tensor) -> torch.Tensor:
        shots = shots if self.term.where == "every" else shots.only_last_end()
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
    return {basis: turned_S for basis in bases if network.read_as(basis) != basis}


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
