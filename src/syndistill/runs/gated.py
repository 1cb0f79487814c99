"""Whatever is distilled, behind the Teacher gate: a Student's run or legs, the fuse stage, or the whole road."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from syndistill.distill.cache.source import StudentData, shots_in
from syndistill.distill.fuse import FuseRun, train_fusion
from syndistill.distill.legs import Legs, result_of
from syndistill.distill.road import RoadRun, is_finished, walk_road
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.teacher import Teacher
from syndistill.distill.student import STUDENT_FILE, StudentRun, student_hashes, train_student
from syndistill.errors import SyndistillError
from syndistill.evaluation.gate import ROUNDS, SHOTS, GateReport, P, judge_on_files, judge_teacher
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import json_sha256, replacing, write_sealed
from syndistill.training.config import DataConfig
from syndistill.training.distributed import join_world
from syndistill.training.run_folder import open_run
from syndistill.training.source import own_files

GATE_FILE = "gate.json"


def distil_gated(
    run: StudentRun | FuseRun | RoadRun | Legs,
    folder: Path,
    *,
    cache: Path | None = None,
    accept_any_teacher: bool = False,
    gate_shots: int = SHOTS,
    reporter: Reporter = SILENT,
) -> Path:
    """Judge the Teacher once per folder (gate.json keeps the report), then distil; returns the result's path.

    A run from labels alone learns nothing from the Teacher, and has no gate.

    Raises SyndistillError when the gate refuses the Teacher and accept_any_teacher is not set; the folder then holds
    the run and the report, and the same call with accept_any_teacher goes on from there.
    """
    distil = partial(
        _distil,
        accept_any_teacher=accept_any_teacher,
        gate_shots=gate_shots,
        reporter=reporter,
    )
    if not isinstance(run, Legs):
        return distil(run, _teacher_of(run), folder, cache)
    if cache is not None:
        raise SyndistillError("legs ask for other shots each, and keep each its own cache; leave --cache out")
    return _distil_legs(run, folder, distil, reporter)


def _teacher_of(run: StudentRun | FuseRun | RoadRun) -> Teacher:
    precision = run.teacher_precision if isinstance(run, StudentRun) else "fp32"
    return teacher_named(run.teacher, precision, shots_in(run.data))


def _distil(
    run: StudentRun | FuseRun | RoadRun,
    teacher: Teacher,
    folder: Path,
    cache: Path | None,
    *,
    accept_any_teacher: bool,
    gate_shots: int,
    reporter: Reporter,
) -> Path:
    def gate() -> None:
        if not isinstance(run, StudentRun) or run.terms.needs_teacher:
            pass_gate(run.teacher, run.data, folder, accept_any_teacher, gate_shots, reporter)

    if isinstance(run, RoadRun):
        return walk_road(run, folder, cache, reporter, teacher, gate)
    if isinstance(run, FuseRun):
        return train_fusion(run, folder, reporter, teacher, gate)
    return train_student(run, folder, cache, reporter, teacher, gate)


def _distil_legs(legs: Legs, folder: Path, distil: Callable[..., Path], reporter: Reporter) -> Path:
    """Each leg in a folder of its own; one that is finished is not run again. The last one's Student is the result."""
    world = join_world(torch.device(legs.legs[legs.last].training.device))
    result = folder / STUDENT_FILE
    with open_run(folder, legs, {}, STUDENT_FILE, world):
        for name in legs.legs:
            run = legs.leg(name, folder)
            teacher = _teacher_of(run)
            if not is_finished(folder / name, STUDENT_FILE, run, student_hashes(run, teacher), reporter):
                reporter.say(f"leg {name}")
                distil(run, teacher, folder / name, None)
        if world.is_first:
            with replacing(result) as beside:
                shutil.copyfile(result_of(legs.last, folder), beside)
    return result


def pass_gate(
    name: str,
    data: StudentData | DataConfig,
    folder: Path,
    accept_any_teacher: bool,
    shots: int = SHOTS,
    reporter: Reporter = SILENT,
) -> GateReport:
    """The report on the Teacher of that name, made once and kept in the folder. SyndistillError when it is refused."""
    teacher = teacher_named(name, data=shots_in(data))
    judged_on = _judged_on(data) | {"shots": shots}
    report = _kept(folder / GATE_FILE, teacher, json_sha256(judged_on))
    if report is None:
        reporter.say(f"judging the Teacher {name} against matching")
        report = _judge(data, teacher, shots, reporter).model_copy(update={"judged_on": json_sha256(judged_on)})
        write_sealed(folder / GATE_FILE, report.to_json())
    if not report.passed and not accept_any_teacher:
        raise SyndistillError(
            f"the gate refuses the Teacher {name}: {'; '.join(report.faults)}; train it further, or pass "
            f"--accept-any-teacher (report: {folder / GATE_FILE})"
        )
    passes, refuses = "the Teacher passes the gate", "the gate refuses the Teacher, which is accepted as told"
    reporter.say(passes if report.passed else refuses)
    return report


def _kept(path: Path, teacher: Teacher, judged_on: str) -> GateReport | None:
    """A folder may hold several plans' runs, whose gates judge on other noise or on other rounds."""
    if not path.exists():
        return None
    report = GateReport.load(path)
    return report if (report.teacher, report.judged_on) == (teacher.key(), judged_on) else None


def _judge(data: StudentData | DataConfig, teacher: Teacher, shots: int, reporter: Reporter) -> GateReport:
    if (own := own_files(shots_in(data))) is not None:
        return judge_on_files(teacher, own, shots=shots, reporter=reporter)
    return judge_teacher(teacher, **_judged_on(data), shots=shots, reporter=reporter)


def _judged_on(data: StudentData | DataConfig) -> dict[str, Any]:
    """The noise, bases and rounds that the Student will learn from (the default ones where they lie within)."""
    simulated, cut = shots_in(data), data.cut_rounds if isinstance(data, StudentData) else ()
    if (own := own_files(simulated)) is not None:
        return {"files": own.sha256}
    learned = cut or [r for phase in simulated.curriculum.rounds for r in phase.rounds]
    return {
        "noise": simulated.noise,
        "p": min(max(P, simulated.curriculum.p_min), simulated.curriculum.p_max),
        "rounds": tuple(min(r, max(learned)) for r in ROUNDS),
        "bases": simulated.bases,
    }
