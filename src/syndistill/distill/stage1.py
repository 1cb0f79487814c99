"""The second stage: what the baseline learns from, and every signal of the Teacher's inside beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from syndistill.distill.student import STUDENT_FILE, Shared, StudentRun
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

    def run(self, shared: Shared, folder: Path) -> StudentRun:
        """folder: of the road, whose baseline it may begin from."""
        start = None if self.start == "fresh" else str(folder / "baseline" / STUDENT_FILE)
        return StudentRun(**shared._asdict(), terms=self.terms, training=self.training, start_from=start)
