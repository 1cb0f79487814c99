"""What a Teacher's feature is made into before a Student is held against it: standardised, reduced, bounded.

The statistics are measured once, on shots that neither training nor reports use, and then fixed.
Axes: B shots, R rounds, Q rounds compared, S stabilisers, D width, P components; * any leading axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from syndistill.distill.teacher import Teacher
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.shots import Shots

HELD_VARIANCE = 0.95
HEADROOM = 1.25  # beyond the largest magnitude that was measured; what lies further is clipped
CODES = 127


class TargetSpec(NamedTuple):
    """A signal and what to make of it (see `terms.FeatureTerm`)."""

    signal: str
    components: int
    every_rounds: int


def target_specs(terms: Terms) -> dict[str, TargetSpec]:
    """Of the feature terms that are on, by name."""
    return {
        name: TargetSpec(terms.teacher_signal(name), term.components, term.every_rounds)
        for name, term in terms.features.items()
    }


@dataclass(frozen=True, eq=False)
class TargetStatistics:
    """Target of a feature x: ((x - mean_D) / std_D) @ directions_DP, clipped to +-range_P.

    variance_P: of the target's components over shots, rounds and stabilisers; in falling order. A cache keeps int8
    codes of step range_P / 127, so live and cached targets differ by half a step at most.
    """

    spec: TargetSpec
    mean_D: torch.Tensor
    std_D: torch.Tensor
    directions_DP: torch.Tensor
    variance_P: torch.Tensor
    range_P: torch.Tensor

    def target(self, x_BRxD: torch.Tensor) -> torch.Tensor:
        """(B, Q, S, P) of a whole signal (B, R, S, D); a flat one (B, R, D) gives (B, Q, P)."""
        x = x_BRxD[:, :: self.spec.every_rounds]
        if x.shape[-1] != len(self.mean_D):
            raise SyndistillError(
                f"the signal {self.spec.signal} is {x.shape[-1]} wide, its statistics are of {len(self.mean_D)}; "
                "they belong to another Teacher"
            )
        target = ((x - self.mean_D) / self.std_D) @ self.directions_DP
        return target.clamp(-self.range_P, self.range_P)

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
        """Share of the standardised feature's variance that the components hold."""
        return float(self.variance_P.sum() / len(self.mean_D))

    def to(self, device: torch.device | str) -> TargetStatistics:
        return TargetStatistics(self.spec, **{name: x.to(device) for name, x in self._tensors().items()})

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.spec)).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        save_tensors(path, self._tensors(), {"what": "syndistill target statistics", "spec": list(self.spec)})

    @classmethod
    def load(cls, path: Path) -> TargetStatistics:
        tensors, metadata = load_tensors(path)
        spec = metadata.get("spec")
        if metadata.get("what") != "syndistill target statistics" or not isinstance(spec, list):
            raise SyndistillError(f"{path} holds no target statistics; delete it, they are then measured again")
        return cls(TargetSpec(*spec), **tensors)

    def _tensors(self) -> dict[str, torch.Tensor]:
        names = ("mean_D", "std_D", "directions_DP", "variance_P", "range_P")
        return {name: getattr(self, name) for name in names}


def measure_targets(
    teacher: Teacher, shots: Sequence[Shots], specs: Mapping[str, TargetSpec]
) -> dict[str, TargetStatistics]:
    """Statistics of each named target over these batches of shots; two passes of the Teacher."""
    wanted = [spec.signal for spec in specs.values()]
    sums = {name: _Sums() for name in specs}
    for batch in shots:
        answer = teacher.answer(batch, wanted)
        for name, spec in specs.items():
            sums[name].add(answer.signals[spec.signal][:, :: spec.every_rounds])
    found = {name: sums[name].reduce(spec) for name, spec in specs.items()}
    reach = {name: torch.zeros_like(statistics.range_P) for name, statistics in found.items()}
    for batch in shots:
        answer = teacher.answer(batch, wanted)
        for name, statistics in found.items():
            target = statistics.target(answer.signals[statistics.spec.signal])
            reach[name] = torch.maximum(reach[name], target.abs().flatten(0, -2).amax(0))
    return {
        name: TargetStatistics(**{**vars(statistics), "range_P": (HEADROOM * reach[name]).clamp(min=1e-6)})
        for name, statistics in found.items()
    }


class _Sums:
    """Sums of a feature and of its products, float64."""

    def __init__(self) -> None:
        self.count, self.sum_D, self.products_DD = 0, torch.zeros(()), torch.zeros(())

    def add(self, x_xD: torch.Tensor) -> None:
        flat = x_xD.flatten(0, -2).double().cpu()
        self.count += len(flat)
        self.sum_D = self.sum_D + flat.sum(0)
        self.products_DD = self.products_DD + flat.T @ flat

    def reduce(self, spec: TargetSpec) -> TargetStatistics:
        mean_D = self.sum_D / self.count
        covariance_DD = self.products_DD / self.count - torch.outer(mean_D, mean_D)
        # A channel that never moves has no target: it becomes 0, not noise blown up.
        std_D = covariance_DD.diagonal().clamp(min=1e-12).sqrt()
        variance_D, directions_DD = torch.linalg.eigh(covariance_DD / torch.outer(std_D, std_D))
        variance_D, directions_DD = variance_D.flip(0).clamp(min=0), directions_DD.flip(1)
        # The sign of an eigenvector is anyone's choice: its largest entry is made positive.
        largest = directions_DD.gather(0, directions_DD.abs().argmax(0, keepdim=True))
        directions_DD = directions_DD * largest.sign()
        n = spec.components or _components_that_hold(variance_D, HELD_VARIANCE)
        if n > len(mean_D):
            raise SyndistillError(
                f"{n} components asked of the signal {spec.signal}, which is {len(mean_D)} wide; ask for fewer, or 0"
            )
        unbounded = torch.full((n,), torch.inf)
        return TargetStatistics(
            spec, mean_D.float(), std_D.float(), directions_DD[:, :n].float(), variance_D[:n].float(), unbounded
        )


def _components_that_hold(variance_D: torch.Tensor, share: float) -> int:
    held = variance_D.cumsum(0) / variance_D.sum()
    return int((held < share).sum()) + 1
