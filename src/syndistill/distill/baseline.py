"""The first stage: labels and the Teacher's final logits, all that a black-box Teacher gives."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from syndistill.distill.student import Shared, StudentRun
from syndistill.distill.terms import FinalTerm, Terms
from syndistill.training.config import TrainingConfig


class Baseline(Terms):
    """Labels and the Teacher's final logits."""

    training: TrainingConfig

    @model_validator(mode="after")
    def _nothing_of_the_inside(self) -> Self:
        if self.goes_inside:
            raise ValueError("a baseline learns from labels and final alone; the other signals are for stage1")
        return self

    def run(self, shared: Shared) -> StudentRun:
        return StudentRun(**shared._asdict(), terms=self.terms, training=self.training)

    def control(self, shared: Shared, training: TrainingConfig) -> StudentRun:
        """From labels alone, which are free, so that it repeats no shot; it sees the ends that the baseline sees."""
        where = "every" if self.needs_every_end else "last"
        terms = Terms(labels=self.labels.model_copy(update={"where": where}), final=FinalTerm(weight=0.0))
        fresh = shared._replace(data=shared.data.model_copy(update={"cached_shots": 0}))
        return StudentRun(**fresh._asdict(), terms=terms, training=training)
