"""Stage 2: the same Student, from its stage-1 checkpoint, mainly towards z_fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from syndistill.distill.run import STUDENT_FILE, StudentRun
from syndistill.distill.terms import FinalTerm, FusedTerm, LabelTerm, Terms
from syndistill.training.config import TrainingConfig


class Stage2(Terms):
    """Mainly z_fuse, from an earlier stage's checkpoint; feature terms are off, or fade."""

    labels: LabelTerm = LabelTerm(weight=0.2)
    final: FinalTerm = FinalTerm(weight=0.0)
    fused: FusedTerm = FusedTerm(weight=1.0)
    start: Literal["baseline", "stage1"] = "stage1"
    training: TrainingConfig

    def student_run(self, shared: dict[str, Any], folder: Path, fusion: Path) -> StudentRun:
        """shared: network, teacher and data of the road in `folder`; fusion: the fuse stage's file."""
        return StudentRun(
            **shared,
            kind="stage2",
            terms=self.terms_alone(),
            training=self.training,
            start_from=str(folder / self.start / STUDENT_FILE),
            fusion=str(fusion),
        )
