"""The whole road for one Student: baseline -> stage 1 -> fuse -> stage 2, each in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from syndistill.distill.fuse import FUSION_FILE, REPORT_FILE, FuseRun, train_fusion
from syndistill.distill.fusion import FusionConfig
from syndistill.distill.run import STUDENT_FILE, StudentRun, check_fit, student_hashes, train_student
from syndistill.distill.student_data import Count, Say, StudentData
from syndistill.distill.teacher import FrozenTeacher, Teacher
from syndistill.distill.terms import FeatureTerm, FinalTerm, FusedTerm, LabelTerm, ReadoutTerm, SpatialTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.models.zoo import load_any
from syndistill.training.config import Strict, TrainingConfig
from syndistill.training.loop import Progress
from syndistill.training.run import AnyNetworkConfig
from syndistill.training.run_folder import open_run, read_run, write_json

ROAD_FILE = "road.json"
Stage = Literal["no_kd", "baseline", "stage1", "fuse", "stage2"]
STAGES: tuple[Stage, ...] = ("no_kd", "baseline", "stage1", "fuse", "stage2")
Bar = Callable[[str, int], AbstractContextManager[Progress | None]]
"""(stage, batch size) -> a context that gives the progress report of that stage."""


class Baseline(Terms):
    """Labels and the Teacher's final logits."""

    training: TrainingConfig


class Stage1(Terms):
    """The baseline's terms and every signal of the Teacher."""

    readout: ReadoutTerm = ReadoutTerm(weight=1.0)
    spatial: SpatialTerm = SpatialTerm(weight=1.0)
    temporal: FeatureTerm = FeatureTerm(weight=1.0)
    start: Literal["fresh", "baseline"] = "fresh"
    """fresh: the baseline's own first weights, so that the two differ by the signals alone."""
    training: TrainingConfig


class Fuse(Strict):
    """Probes and z_fuse."""

    fusion: FusionConfig = FusionConfig()
    fit_shots: int = Field(default=8192, gt=0)
    report_shots: int = Field(default=16384, gt=1)
    training: TrainingConfig


class Stage2(Terms):
    """Mainly z_fuse, from the stage-1 checkpoint; feature terms are off, or fade."""

    labels: LabelTerm = LabelTerm(weight=0.2)
    final: FinalTerm = FinalTerm(weight=0.0)
    fused: FusedTerm = FusedTerm(weight=1.0)
    training: TrainingConfig


class RoadRun(Strict):
    """Everything the road depends on; a section to a stage."""

    kind: Literal["road"] = "road"
    network: AnyNetworkConfig
    teacher: str
    """A shipped network's name or a path."""
    data: StudentData
    no_kd: TrainingConfig | None = None
    """The same Student from labels alone, on fresh shots, to compare with; None: leave it out."""
    baseline: Baseline
    stage1: Stage1
    fuse: Fuse
    stage2: Stage2

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in STAGES if stage != "no_kd" or self.no_kd is not None)

    def student_run(self, stage: Stage, folder: Path) -> StudentRun:
        """The run of one stage, its inputs where the road in `folder` leaves them."""
        base: dict[str, Any] = {"network": self.network, "teacher": self.teacher, "data": self.data}
        if stage == "no_kd":
            assert self.no_kd is not None
            terms = Terms(labels=self.baseline.labels, final=FinalTerm(weight=0.0))
            # Labels are free, so this control repeats no shot.
            fresh = self.data.model_copy(update={"cached_shots": 0})
            return StudentRun(**base | {"data": fresh}, terms=terms, training=self.no_kd)
        if stage == "baseline":
            return StudentRun(**base, terms=_terms(self.baseline), training=self.baseline.training)
        if stage == "stage1":
            start = None if self.stage1.start == "fresh" else str(folder / "baseline" / STUDENT_FILE)
            return StudentRun(
                **base, kind="stage1", terms=_terms(self.stage1), training=self.stage1.training, start_from=start
            )
        return StudentRun(
            **base,
            kind="stage2",
            terms=_terms(self.stage2),
            training=self.stage2.training,
            start_from=str(folder / "stage1" / STUDENT_FILE),
            fusion=str(folder / "fuse" / FUSION_FILE),
        )

    def fuse_run(self) -> FuseRun:
        return FuseRun(
            teacher=self.teacher,
            data=self.data.simulated,
            fusion=self.fuse.fusion,
            fit_shots=self.fuse.fit_shots,
            report_shots=self.fuse.report_shots,
            training=self.fuse.training,
        )


def _terms(section: Terms) -> Terms:
    return Terms(**{name: getattr(section, name) for name in Terms.model_fields})


def walk_road(
    run: RoadRun,
    folder: Path,
    cache: Path | None = None,
    bar: Bar = lambda *_: nullcontext(),
    cache_progress: Count | None = None,
    say: Say = lambda _: None,
    teacher: Teacher | None = None,
) -> Path:
    """All stages in order, one cache for all; returns the path of road.json, which says where each stage's file is.

    A stage that `folder` holds finished is not run again, so a killed road goes on where it stopped.
    """
    teacher = teacher or FrozenTeacher(load_any(run.teacher)[0])
    check_fit(run.network, teacher, run.teacher)
    open_run(folder, run, {"teacher": teacher.key()}, ROAD_FILE)
    files: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for stage in run.stages:
        began = time.monotonic()
        files[stage] = str(_stage(run, stage, folder, cache or folder / "cache", bar, cache_progress, say, teacher))
        seconds[stage] = round(time.monotonic() - began, 1)
    result = folder / ROAD_FILE
    write_json(result, {"stages": files, "fuse_report": str(folder / "fuse" / REPORT_FILE), "seconds": seconds})
    return result


def _stage(
    run: RoadRun,
    stage: Stage,
    folder: Path,
    cache: Path,
    bar: Bar,
    cache_progress: Count | None,
    say: Say,
    teacher: Teacher,
) -> Path:
    own = folder / stage
    if stage == "fuse":
        fuse = run.fuse_run()
        if _is_finished(own, FUSION_FILE, fuse, {"teacher": teacher.key()}, say):
            return own / FUSION_FILE
        with bar(stage, fuse.training.batch_size) as progress:
            return train_fusion(fuse, own, progress, say, teacher)
    student = run.student_run(stage, folder)
    if _is_finished(own, STUDENT_FILE, student, student_hashes(student, teacher), say):
        return own / STUDENT_FILE
    with bar(stage, student.training.batch_size) as progress:
        return train_student(student, own, cache, progress, cache_progress, say, teacher)


def _is_finished(folder: Path, result: str, wanted: Strict, hashes: dict[str, str], say: Say) -> bool:
    """Whether the folder holds this very stage, done. SyndistillError when it holds another one."""
    if not (folder / result).exists():
        return False
    found = read_run(folder / "run.json")
    if found["config"] != wanted.model_dump(mode="json") or found["hashes"] != hashes:
        raise SyndistillError(
            f"{folder} holds a finished stage of another road; move it away or choose another --out"
        )
    say(f"{folder.name} is finished")
    return True
