"""The last stage: the same Student from an earlier stage's checkpoint, mainly on z_fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from syndistill.distill.signals.fusion import FUSION_FILE
from syndistill.distill.student import STUDENT_FILE, Shared, StudentRun
from syndistill.distill.terms import FinalTerm, FusedTerm, LabelTerm, Terms
from syndistill.training.config import TrainingConfig


class Stage2(Terms):
    """Mainly z_fuse, from an earlier stage's checkpoint; feature terms are off, or fade."""

    labels: LabelTerm = LabelTerm(weight=0.2)
    final: FinalTerm = FinalTerm(weight=0.0)
    fused: FusedTerm = FusedTerm(weight=1.0)
    start: Literal["baseline", "stage1"] = "stage1"
    training: TrainingConfig

    def run(self, shared: Shared, folder: Path) -> StudentRun:
        """folder: of the road, which holds the stage that it begins from, and the fusion."""
        return StudentRun(
            **shared._asdict(),
            terms=self.terms,
            training=self.training,
            start_from=str(folder / self.start / STUDENT_FILE),
            fusion=str(folder / "fuse" / FUSION_FILE),
        )
