"""Stage 1: the same Student also learns from the Teacher's inside: space, time and readout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from syndistill.distill.run import STUDENT_FILE, StudentRun
from syndistill.distill.terms import FeatureTerm, ReadoutTerm, SpatialTerm, Terms
from syndistill.training.config import TrainingConfig


class Stage1(Terms):
    """The baseline's terms and every signal of the Teacher."""

    readout: ReadoutTerm = ReadoutTerm(weight=1.0)
    spatial: SpatialTerm = SpatialTerm(weight=1.0, share=0.5, fade=0.5)
    temporal: FeatureTerm = FeatureTerm(weight=1.0, share=0.5, fade=0.5)
    """Features fade over the first half: so they are worth 6 % of LER at d=5 (docs/inside-d5.md); what stays harms."""
    start: Literal["fresh", "baseline"] = "fresh"
    """fresh: the baseline's own first weights, so that the two differ by the signals alone."""
    training: TrainingConfig

    def student_run(self, shared: dict[str, Any], folder: Path) -> StudentRun:
        """shared: network, teacher and data of the road in `folder`."""
        start = None if self.start == "fresh" else str(folder / "baseline" / STUDENT_FILE)
        return StudentRun(**shared, kind="stage1", terms=self.terms_alone(), training=self.training, start_from=start)
