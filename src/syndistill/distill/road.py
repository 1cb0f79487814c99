"""The whole road for one Student: baseline -> stage 1 -> fuse -> stage 2, each in a folder of its own.

The fuse stage needs no Student and is walked first: one pass of the Teacher over the cached shots then answers all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError, model_validator

from syndistill.distill.baseline import Baseline
from syndistill.distill.cache.source import StudentData, check_cache, fill_cache
from syndistill.distill.fuse import REPORT_FILE, Fuse, FuseRun, check_fuse, train_fusion
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.fusion import FUSION_FILE
from syndistill.distill.signals.teacher import Teacher
from syndistill.distill.stage import check_student_signals
from syndistill.distill.stage1 import Stage1
from syndistill.distill.stage2 import Stage2
from syndistill.distill.student import STUDENT_FILE, Shared, StudentRun, check_fit, student_hashes, train_student
from syndistill.errors import SyndistillError
from syndistill.files.tensors import read_sealed
from syndistill.models.device import usable_device
from syndistill.models.networks import fresh_network
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import write_json
from syndistill.training.config import Name, Strict, TrainingConfig
from syndistill.training.distributed import join_world
from syndistill.training.run_folder import is_of_config, open_run, read_run
from syndistill.training.start import AnyDials

ROAD_FILE = "road.json"
Stage = Literal["no_kd", "baseline", "stage1", "fuse", "stage2"]
STAGES: tuple[Stage, ...] = ("no_kd", "baseline", "stage1", "fuse", "stage2")
STUDENTS: tuple[Stage, ...] = tuple(stage for stage in STAGES if stage != "fuse")


class RoadRun(Strict):
    """Everything the road depends on; a section to a stage."""

    kind: Literal["road"] = "road"
    network: AnyDials
    teacher: Name
    """A shipped network's name, a path, or an ensemble: several of them, or `exact` beside them, between commas."""
    data: StudentData
    no_kd: TrainingConfig | None = None
    """The same Student from labels alone, on fresh shots, to compare with; None: leave it out."""
    baseline: Baseline
    stage1: Stage1
    fuse: Fuse
    stage2: Stage2

    @model_validator(mode="after")
    def _every_stage_fits(self) -> RoadRun:
        for stage in self.stages:
            try:
                self.stage_run(stage, Path())
            except ValidationError as error:
                raise ValueError(f"{stage}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in STAGES if stage != "no_kd" or self.no_kd is not None)

    def earlier(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages whose results a stage takes up."""
        if stage == "stage1":
            return ("baseline",) if self.stage1.start == "baseline" else ()
        return (self.stage2.start, "fuse") if stage == "stage2" else ()

    def stage_run(self, stage: Stage, folder: Path) -> StudentRun | FuseRun:
        """One stage as a run of its own."""
        return self.fuse_run() if stage == "fuse" else self.student_run(stage, folder)

    def student_run(self, stage: Stage, folder: Path) -> StudentRun:
        """The run of one stage, its inputs where the road in `folder` leaves them."""
        shared = Shared(self.network, self.teacher, self.data)
        if stage == "no_kd":
            assert self.no_kd is not None
            return self.baseline.control(shared, self.no_kd)
        if stage == "baseline":
            return self.baseline.run(shared)
        return self.stage1.run(shared, folder) if stage == "stage1" else self.stage2.run(shared, folder)

    def fuse_run(self) -> FuseRun:
        return self.fuse.run(self.teacher, self.data.simulated)


def result_file(stage: Stage, folder: Path) -> Path:
    """Where a road in `folder` leaves what a stage made."""
    return folder / stage / (FUSION_FILE if stage == "fuse" else STUDENT_FILE)


def check_road(run: RoadRun, teacher: Teacher, cache: Path) -> None:
    """All that can be refused before the first stage begins."""
    check_fit(run.network, teacher, run.teacher)
    network = fresh_network(run.network, 0)
    for stage in run.stages:
        wanted = run.stage_run(stage, Path())
        if isinstance(wanted, FuseRun):
            check_fuse(wanted, teacher)
        else:
            usable_device(wanted.training.device)
            teacher.require(wanted.terms.asked, stage)
            check_student_signals(network, wanted.terms)
    check_cache(run.data, teacher, cache)


def walk_road(
    run: RoadRun,
    folder: Path,
    cache: Path | None = None,
    reporter: Reporter = SILENT,
    teacher: Teacher | None = None,
    first: Callable[[], None] = lambda: None,
) -> Path:
    """All stages, one cache for all; returns the path of road.json, which says where each stage's file is.

    A stage that `folder` holds finished is not run again, so a killed road goes on where it stopped. first: called once
    the road has its folder, before a stage learns.
    """
    teacher = teacher or teacher_named(run.teacher, data=run.data.simulated)
    cache = cache or folder / "cache"
    check_road(run, teacher, cache)
    world = join_world(torch.device(run.baseline.training.device))
    with open_run(folder, run, {"teacher": teacher.key()}, ROAD_FILE, world):
        first()
        return _walk(run, folder, cache, reporter, teacher)


def _walk(run: RoadRun, folder: Path, cache: Path, reporter: Reporter, teacher: Teacher) -> Path:
    walk = _Walk(run, folder, cache, reporter, teacher)
    seconds: dict[str, float] = {}
    parts: dict[str, Callable[[], None]] = {"fuse": walk.fuse, "cache": walk.fill}
    parts |= {stage: partial(walk.student, stage) for stage in STUDENTS if stage in run.stages}
    for name, part in parts.items():
        began = time.monotonic()
        part()
        seconds[name] = round(time.monotonic() - began, 1)
    result = folder / ROAD_FILE
    files = {stage: str(result_file(stage, folder)) for stage in run.stages}
    write_json(result, {"stages": files, "fuse_report": str(folder / "fuse" / REPORT_FILE), "seconds": seconds})
    return result


@dataclass(frozen=True, eq=False)
class _Walk:
    """The parts of a road."""

    run: RoadRun
    folder: Path
    cache: Path
    reporter: Reporter
    teacher: Teacher

    def fuse(self) -> None:
        fuse, own = self.run.fuse_run(), self.folder / "fuse"
        if not is_finished(own, FUSION_FILE, fuse, {"teacher": self.teacher.key()}, self.reporter):
            train_fusion(fuse, own, self.reporter, self.teacher)

    def fill(self) -> None:
        if self.run.data.cached_shots:
            terms = [self.run.stage1.terms, self.run.stage2.terms]
            fusion = result_file("fuse", self.folder)
            fill_cache(self.run.data, self.teacher, self.cache, terms, [fusion], self.reporter)

    def student(self, stage: Stage) -> None:
        student, own = self.run.student_run(stage, self.folder), self.folder / stage
        if not is_finished(own, STUDENT_FILE, student, student_hashes(student, self.teacher), self.reporter):
            train_student(student, own, self.cache, self.reporter, self.teacher)


def is_finished(folder: Path, result: str, wanted: Strict, hashes: dict[str, str], reporter: Reporter = SILENT) -> bool:
    """Whether the folder holds this very stage, done. SyndistillError for another one and for a damaged result."""
    if not (folder / result).exists():
        return False
    read_sealed(folder / result)
    found = read_run(folder / "run.json")
    if not is_of_config(found, wanted) or found["hashes"] != hashes:
        raise SyndistillError(f"{folder} holds a finished stage of another road; move it away or choose another --out")
    reporter.say(f"{folder.name} is finished")
    return True
