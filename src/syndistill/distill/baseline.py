"""The baseline: a Student of labels and the Teacher's final logits, all that a black box gives."""

from __future__ import annotations

from typing import Any

from syndistill.distill.run import StudentRun
from syndistill.distill.terms import Terms
from syndistill.training.config import TrainingConfig


class Baseline(Terms):
    """Labels and the Teacher's final logits."""

    training: TrainingConfig

    def student_run(self, shared: dict[str, Any]) -> StudentRun:
        """shared: network, teacher and data of the road."""
        return StudentRun(**shared, terms=self.terms_alone(), training=self.training)
