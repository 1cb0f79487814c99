"""What a stage needs before its first step: statistics, adapters, scales, gate; measured once, kept in its folder.

Axes: B shots, R rounds, K ends, S stabilisers, L lines, O observables, D width, P components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from syndistill.distill.objective import MAIN, CosineGates, HeldScales, Lessons, StudentObjective, gradient_shares
from syndistill.distill.signals.features import (
    EVERY_BASIS,
    EYES,
    WHOLE_STATE,
    Adapter,
    EyesLoss,
    FeatureLoss,
    FeatureTarget,
    TargetSpec,
    TargetStatistics,
    measure_targets,
    needs_adapter,
    seeded_adapter,
    state_orders,
    target_specs,
)
from syndistill.distill.signals.fusion import FusedTarget, Fusion
from syndistill.distill.signals.teacher import Target, TaughtShots, Teacher
from syndistill.distill.terms import Terms, numbered
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.tensors_file import save_tensors
from syndistill.safe_files import read_sealed, write_sealed
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import BatchSource
from syndistill.training.config import TrainingConfig
from syndistill.training.objective import joint_class, label_loss

WEIGHTS_FILE = "weights.json"
BATCHES = 4
ADAPTERS_FILE = "adapters.safetensors"


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


HELD, GATES = "held", "gates"  # beside the adapters, which have the names of terms


def stage_statistics(
    terms: Terms,
    teacher: Teacher,
    shots: Sequence[Shots],
    folder: Path,
    known: Mapping[str, TargetStatistics] | None = None,
) -> dict[str, TargetStatistics]:
    """Of the feature terms that are on, and of the Teacher's whole state for the eyes term, by name: as the folder
    holds them, or those known, or measured on `shots`."""
    specs = target_specs(terms) | ({EYES: WHOLE_STATE} if terms.eyes.weight else {})
    paths = {name: folder / f"targets-{name}.safetensors" for name in specs}
    if all(path.exists() for path in paths.values()):
        kept = {name: TargetStatistics.load(path) for name, path in paths.items()}
        for name, statistics in kept.items():
            if statistics.spec != specs[name]:
                raise SyndistillError(
                    f"{paths[name]} are statistics of {_said(statistics.spec)}, this run asks for "
                    f"{_said(specs[name])}; start the stage in a fresh folder"
                )
        return kept
    found = {name: statistics for name, statistics in (known or {}).items() if name in specs}
    if lacking := {name: spec for name, spec in specs.items() if name not in found}:
        found |= measure_targets(teacher, shots, lacking)
    for name, statistics in found.items():
        statistics.save(paths[name])
    return {name: found[name] for name in specs}


def _said(spec: TargetSpec) -> str:
    kind = "" if spec.directions == "variance" else f" directions of {spec.directions}"
    return f"{spec.signal} reduced to {spec.components or 'as many as needed'}{kind}, every {spec.every_rounds} rounds"


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage that is ready to be trained. adapters: by the term's name, for those that have one."""

    objective: StudentObjective
    adapters: dict[str, Adapter]
    sources: dict[str, str]
    """Which of the Student's signals each feature term reads."""

    @property
    def extra(self) -> nn.ModuleDict | None:
        """All that exists in training only and is saved with its state; None where nothing is."""
        measured = {HELD: self.objective.held, GATES: self.objective.gates}
        modules: dict[str, nn.Module] = {**self.adapters, **{n: m for n, m in measured.items() if m is not None}}
        return nn.ModuleDict(modules) if modules else None

    def save_adapters(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """In a file of their own: no Student ships with them. weights: averaged ones of `extra`."""
        kept = {name: x for name, x in weights.items() if name.partition(".")[0] in self.adapters}
        if kept:
            save_tensors(folder / ADAPTERS_FILE, kept, {"what": "syndistill adapters", "sources": self.sources})


@dataclass(frozen=True, eq=False)
class StageInputs:
    """What a stage is made from. shots: that the gate and the adapters' shapes are measured on.

    said: what else to keep in weights.json, which is written where anything was measured.
    """

    terms: Terms
    teacher: Teacher
    statistics: dict[str, TargetStatistics]
    shots: Sequence[Shots]
    training: TrainingConfig
    fusion: Fusion | None = None
    said: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def targets(self) -> list[Target]:
        """Of the terms that are on, beside logits."""
        features: list[Target] = [FeatureTarget(name, self.statistics[name]) for name in self.terms.features]
        return features if self.fusion is None else [*features, FusedTarget(self.fusion, self.teacher.key())]


def prepare_stage(given: StageInputs, network: DecoderNetwork, source: BatchSource[TaughtShots], folder: Path) -> Stage:
    """network: as the stage starts it. source: of the stage's batches, the first of which weigh the feature terms."""
    terms, teacher, statistics, shots = given.terms, given.teacher, given.statistics, given.shots
    device = torch.device(given.training.device)
    network.to(device)
    sources = {name: student_signal(network, terms, name) for name in terms.features}
    if terms.eyes.weight:
        sources[EYES] = EyesLoss.source
    adapters = _adapters(given, network, sources)
    orders = {basis: x.to(device) for basis, x in state_orders(network, _bases(shots)).items()}
    features = {
        name: FeatureLoss(
            term, sources[name], statistics[name].to(device), adapters[name].to(device) if name in adapters else None,
            _orders_of(adapters.get(name), orders),
        )
        for name, term in terms.features.items()
    }  # fmt: skip
    eyes = None
    if terms.eyes.weight:
        adapter = adapters[EYES].to(device)
        eyes = EyesLoss(terms.eyes, teacher, statistics[EYES].to(device), adapter, _orders_of(adapter, orders))
    lessons = Lessons(terms, teacher, given.targets)
    weighting = Weighting({}, None)
    if features or terms.readout.weight or terms.fused.weight:
        path = folder / WEIGHTS_FILE
        if path.exists():
            weighting = Weighting.load(path)
        else:
            gate = measure_gate(teacher, shots) if terms.readout.weight and terms.readout.gated else None
            batches = [taught.to(device) for taught in source.chunk(0)[:BATCHES]] if features else []
            scales = measure_scales(terms, network, lessons, features, gate, batches)
            weighting = Weighting(scales, gate)
            weighting.save(path, {"student_signals": sources, **given.said})
    shares = {name: term.share for name, term in terms.features.items() if term.held and term.share is not None}
    fixed = {name: scale for name, scale in weighting.scales.items() if name not in shares}
    gated = [name for name, term in terms.features.items() if term.gate == "cosine"]
    if gated and not any(getattr(terms, name).weight for name in MAIN):
        raise SyndistillError(
            f"the gate of {', '.join(gated)} compares with labels, final and fused, which all have weight 0; give one "
            f"of them a weight, or leave {gated[0]}.gate out"
        )
    objective = StudentObjective(
        terms, teacher, lessons, features, fixed, weighting.gate, given.training.steps,
        HeldScales(shares, weighting.scales) if shares else None, CosineGates(gated) if gated else None, eyes,
    )  # fmt: skip
    return Stage(objective, adapters, sources)


def check_student_signals(network: DecoderNetwork, terms: Terms) -> None:
    """SyndistillError for a term that asks the Student for what it has not."""
    network.check_signals([student_signal(network, terms, name) for name in terms.features])
    if terms.eyes.weight:
        network.check_signals([EyesLoss.source])
    if terms.readout.weight and terms.readout.alone and not network.lines_agree:
        raise SyndistillError(
            "readout.alone asks each line before all agree on an answer; "
            f"those of this {network.config.family} network do not: leave it out"
        )


def student_signal(network: DecoderNetwork, terms: Terms, name: str) -> str:
    """Which of the Student's signals answers to a feature term.

    A flat Student has one inside, its state: both terms read it, each through an adapter of its own.
    """
    if name == "spatial" and not network.offers_signal("spatial"):
        if terms.spatial.student_layer is not None:
            raise SyndistillError(
                f"a {network.config.family} Student has no layers inside a round; leave spatial.student_layer out"
            )
        return "temporal"
    return numbered(name, terms.spatial.student_layer if name == "spatial" else None)


def _adapters(given: StageInputs, network: DecoderNetwork, sources: dict[str, str]) -> dict[str, Adapter]:
    terms, statistics, shots = given.terms, given.statistics, given.shots
    found: dict[str, Adapter] = {}
    if not sources:
        return found
    few = shots[0].take(slice(0, 2)).to(next(network.parameters()).device)
    asked = {s.spec.signal for s in statistics.values()}
    answer = given.teacher.answer(few, asked)
    with torch.no_grad():
        inside = network(few, sorted(set(sources.values()))).signals
    for name, source in sources.items():
        student = tuple(inside[source].shape[2:])
        whole = answer.signals[statistics[name].spec.signal]
        target = (*whole.shape[2:-1], len(statistics[name].range_P))
        term = terms.features.get(name)
        if term is None or needs_adapter(term.loss, student, target):
            # A state that is flat, or turned in some bases, means another thing in each of them.
            by_basis = len(student) < 2 or bool(state_orders(network, _bases(shots)))
            maps = _bases(shots) if by_basis else (EVERY_BASIS,)
            projector = "linear" if term is None else term.projector
            found[name] = seeded_adapter(name, given.training.seed, student, target, maps, projector)
    return found


def _orders_of(adapter: Adapter | None, orders: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The orders of stabilisers that what an adapter fills has: only a flat state gives another than the layout's."""
    return {} if adapter is None or adapter.shared or len(adapter.target_shape) < 2 else orders


def _bases(shots: Sequence[Shots]) -> tuple[str, ...]:
    return tuple(sorted({batch.basis for batch in shots}))
