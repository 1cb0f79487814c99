"""What the Teacher says of a batch: asked live, or read from a cache; the terms cannot tell which.

Axes: B shots, Q rounds compared, K ends, S stabilisers, L lines, C logit channels, P components.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from syndistill.distill.fusion import Fusion
from syndistill.distill.statistics import TargetStatistics
from syndistill.distill.targets import TaughtShots
from syndistill.distill.teacher import Teacher
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError

FUSED = "fused"


@dataclass(frozen=True, eq=False)
class Lesson:
    """The targets of one batch: teacher_BKLC, fused_BKLC, and features (B, Q, S, P) by the term's name."""

    teacher_BKLC: torch.Tensor | None = None
    fused_BKLC: torch.Tensor | None = None
    features: dict[str, torch.Tensor] = field(default_factory=dict)


class Lessons:
    """Gives the lesson of each batch. What no term needs is neither asked nor read."""

    def __init__(
        self,
        terms: Terms,
        teacher: Teacher | None,
        statistics: Mapping[str, TargetStatistics] | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        self.teacher, self.fusion = teacher, fusion
        self.statistics = dict(statistics or {})
        self.shuffled = [name for name, term in terms.features.items() if term.placebo == "shuffled"]
        self.needs_logits = any(term.weight > 0 for term in (terms.final, terms.readout, terms.eyes))
        self.needs_fused = terms.fused.weight > 0
        if self.needs_fused and fusion is None:
            raise SyndistillError("the fused term needs a fusion; name the fuse stage's file, or set fused.weight=0")
        if missing := sorted(terms.features.keys() - self.statistics.keys()):
            raise SyndistillError(f"the terms {', '.join(missing)} have no target statistics; measure them first")
        if teacher is not None:
            teacher.require(terms.asked, "a term of this run")

    def of(self, taught: TaughtShots, terms: Collection[str] | None = None) -> Lesson:
        """terms: whose features are looked at; None: those of all."""
        wanted = {name: s for name, s in self.statistics.items() if terms is None or name in terms}
        answered = self._read(taught, wanted)
        lesson = answered if answered is not None else self._asked(taught, wanted)
        for name in lesson.features.keys() & set(self.shuffled):
            # shots lie in a drawn order, so the next one is any other
            lesson.features[name] = lesson.features[name].roll(1, 0)
        return lesson

    def _read(self, taught: TaughtShots, statistics: Mapping[str, TargetStatistics]) -> Lesson | None:
        """From the cache; None when the batch holds nothing of what is needed."""
        needed = {*statistics, *([FUSED] if self.needs_fused else [])}
        held = needed & taught.signals.keys()
        if not held and (taught.teacher_BKLC is None or not self.needs_logits) and (needed or self.needs_logits):
            return None
        if missing := sorted(needed - held) + (["final"] if self.needs_logits and taught.teacher_BKLC is None else []):
            raise SyndistillError(f"the cache holds no {', '.join(missing)}; write one for this run's terms")
        features = {
            name: one.to(taught.signals[name].device).decode(taught.signals[name]) for name, one in statistics.items()
        }
        fused = taught.signals[FUSED].float() if self.needs_fused else None
        return Lesson(taught.teacher_BKLC if self.needs_logits else None, fused, features)

    def _asked(self, taught: TaughtShots, statistics: Mapping[str, TargetStatistics]) -> Lesson:
        if self.teacher is None:
            raise SyndistillError("no Teacher and no cached Teacher logits; give one of them")
        wanted = {one.spec.signal for one in statistics.values()}
        if self.needs_fused:
            assert self.fusion is not None
            wanted |= self.fusion.wants
        answer = self.teacher.answer(taught.shots, wanted)
        device = answer.logits_BKLC.device
        features = {
            name: one.to(device).target(answer.signals[one.spec.signal], taught.shots.basis)
            for name, one in statistics.items()
        }
        fused = None
        if self.needs_fused:
            assert self.fusion is not None
            with torch.no_grad():
                fused = self.fusion.to(device)(taught.shots, answer)
        return Lesson(answer.logits_BKLC, fused, features)
