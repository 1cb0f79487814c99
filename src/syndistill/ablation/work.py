"""What a sweep is made of: tasks that need each other, each of them safe to be killed and begun again.

A task's work is a plain function of picklable arguments, so that any process, here or elsewhere, can do it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError

from syndistill.ablation.jobs import (
    Job,
    Part,
    cache_folder,
    first_half,
    fuse_run,
    fusion_folder,
    fusion_hash,
    jobs_of,
    parts_of,
    targets_of,
)
from syndistill.ablation.judge import (
    TEACHER,
    has_answers,
    judge_reference,
    judge_student,
    reference_run,
    reference_shots,
    references_of,
    teacher_of,
)
from syndistill.ablation.plan import Plan, Target
from syndistill.ablation.rows import REFERENCE, Failure, Fused, Row, Rows
from syndistill.distill.cache.source import fill_cache
from syndistill.distill.fuse import FUSED, REPORT_FILE, check_fuse, stopped_improving, train_fusion
from syndistill.distill.road import is_finished
from syndistill.distill.signals.exact import ExactEveryEnd
from syndistill.distill.signals.fusion import FUSION_FILE
from syndistill.distill.signals.teacher import Teacher
from syndistill.distill.stage import check_student_signals
from syndistill.distill.student import STUDENT_FILE, StudentRun, check_fit, first_weights, student_hashes, train_student
from syndistill.errors import SyndistillError
from syndistill.models.networks import fresh_network
from syndistill.runs.gated import pass_gate
from syndistill.safe_files import read_sealed, write_sealed
from syndistill.training.config import Strict
from syndistill.training.loop import make_optimiser

SECONDS_FILE = "seconds.json"


class _Seconds(Strict):
    training: float


@dataclass(frozen=True)
class Task:
    """needs: names of the tasks that must be done before; run, job: as a failure is recorded."""

    name: str
    needs: tuple[str, ...]
    work: Callable[[], Sequence[Row]]
    run: str
    job: Job

    def failure(self, attempt: int, error: str) -> Failure:
        return Failure(run=self.run, **self.job._asdict(), attempt=attempt, error=error)


def teacher_keys(plan: Plan) -> dict[str, str]:
    """Of each who answers; SyndistillError where the plan's Teacher does not exist or does not fit."""
    keys = {"teacher": teacher_of(plan).key()}
    return keys | ({"oracle": _asked(plan, "oracle").key()} if plan.oracle else {})


def tasks_of(plan: Plan, out: Path, rows: Rows, keys: Mapping[str, str], accept_any_teacher: bool) -> list[Task]:
    """What is left to do, in the order of the plan. Empty when the rows hold everything."""
    cases = [(str(experiment), shots) for experiment, shots in plan.experiments()]
    jobs = [(job, parts_of(plan, job, out, keys)) for job in jobs_of(plan)]
    left = [(job, parts) for job, parts in jobs if not rows.has(parts[-1].hash, cases)]
    references = _references(plan, out, rows, keys["teacher"], judging=bool(left))
    unsaid = [t for t in targets_of(plan) if fusion_hash(plan, t, keys["teacher"]) not in rows.fused]
    if not left and not references and not unsaid:
        return []
    tasks = [_other("gate", (), partial(do_gate, plan, out, accept_any_teacher))]
    tasks += references
    tasks += _fusions(plan, out, targets_of(plan) if left else unsaid)
    if left:
        tasks += _prepare(plan, out, [job for job, _ in left])
        tasks += _students(plan, out, left, [task.name for task in references if f"-{TEACHER}-" in task.name])
    return tasks


def check_tasks(plan: Plan, out: Path, keys: Mapping[str, str]) -> None:
    """All that a task would refuse before it begins to work: SyndistillError that names the arm."""
    teachers = {asked: _asked(plan, asked) for asked in keys}
    seen: set[tuple[str, str]] = set()
    for target in targets_of(plan):
        _refused_as(f"the target {target}", partial(check_fuse, fuse_run(plan, target), teachers["teacher"]))
    for job in jobs_of(plan):
        if (job.student, job.arm) not in seen:
            seen.add((job.student, job.arm))
            teacher = teachers[plan.settings(job.arm).asks]
            parts = _refused_as(f"{job.student} {job.arm}", partial(parts_of, plan, job, out, keys))
            if plan.settings(job.arm).start_from is not None:
                _refused_as(f"{job.student} {job.arm}", partial(first_weights, parts[0].run, teacher))
            for part in parts:
                _refused_as(f"{job.student} {job.arm}", partial(_check_part, part.run, teacher))
    for experiment, _ in plan.experiments():
        _refused_as(f"judging {experiment}", experiment.circuit)


def _check_part(run: StudentRun, teacher: Teacher) -> None:
    check_fit(run.network, teacher, run.teacher)
    teacher.require(run.terms.asked, run.kind)
    check_student_signals(fresh_network(run.network, 0), run.terms)
    make_optimiser([torch.nn.Parameter(torch.zeros(1, 1))], run.training.optimiser)
    if run.training.device != "cpu" and not torch.cuda.is_available():
        raise SyndistillError(f"device {run.training.device} is not here; set base.device=cpu")


Found = TypeVar("Found")


def _refused_as(what: str, check: Callable[[], Found]) -> Found:
    try:
        return check()
    except SyndistillError as error:
        raise SyndistillError(f"{what}: {error}") from None
    except ValidationError as error:
        raise SyndistillError(f"{what}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _other(name: str, needs: tuple[str, ...], work: Callable[[], Sequence[Row]]) -> Task:
    return Task(name, needs, work, name, Job(REFERENCE, name, 0.0, 0))


def _references(plan: Plan, out: Path, rows: Rows, key: str, judging: bool) -> list[Task]:
    found = []
    for experiment, shots in plan.experiments():
        for name in references_of(plan):
            row = (reference_run(name, key), str(experiment), reference_shots(plan, name, shots))
            lacks_answers = name == TEACHER and judging and not has_answers(plan, experiment, shots, out, key)
            if row not in rows.scores or lacks_answers:
                work = partial(judge_reference, plan, name, experiment, shots, out, key)
                found.append(_other(f"reference-{name}-{experiment}", ("gate",), work))
    return found


def _fusions(plan: Plan, out: Path, targets: list[Target]) -> list[Task]:
    return [_other(_fuse_task(target), ("gate",), partial(do_fusion, plan, target, out)) for target in targets]


def _fuse_task(target: Target) -> str:
    return f"fuse-{target}"


def _prepare(plan: Plan, out: Path, jobs: list[Job]) -> list[Task]:
    tasks, needs = [], ("gate", *map(_fuse_task, targets_of(plan)))
    kinds = {_cache_of(plan, job) for job in jobs} | {("teacher", plan.base.data.simulated.labels)}
    for asked, labels in sorted(kinds):
        name = cache_folder(Path(), asked, labels).name
        work = partial(do_cache, plan, asked, labels, out)
        tasks.append(_other(f"cache-{name}", needs if asked == "teacher" else ("gate",), work))
    return tasks


def _cache_of(plan: Plan, job: Job) -> tuple[str, str]:
    """(who is asked, labels) of the shots that a job reads."""
    settings = plan.settings(job.arm)
    return settings.asks, settings.data.simulated.labels


def _students(plan: Plan, out: Path, left: list[tuple[Job, list[Part]]], answers: list[str]) -> list[Task]:
    tasks: dict[str, Task] = {}
    for job, parts in left:
        cache = f"cache-{cache_folder(Path(), *_cache_of(plan, job)).name}"
        *halves, last = parts
        for half in halves:
            name = f"half-{half.hash[:16]}"
            tasks.setdefault(name, Task(name, (cache,), partial(do_half, plan, job, out), half.hash, job))
        needs = (cache, *answers, *(f"half-{half.hash[:16]}" for half in halves))
        name = f"run-{last.hash[:16]}"
        if name not in tasks:
            tasks[name] = Task(name, needs, partial(do_job, plan, job, out), last.hash, job)
    return list(tasks.values())


def do_gate(plan: Plan, out: Path, accept_any_teacher: bool) -> Sequence[Row]:
    torch.set_num_threads(1)
    pass_gate(plan.teacher, plan.base.data, out, accept_any_teacher, plan.gate_shots)
    return []


def do_fusion(plan: Plan, target: Target, out: Path) -> Sequence[Row]:
    torch.set_num_threads(1)
    teacher, run, folder = teacher_of(plan), fuse_run(plan, target), fusion_folder(out, target)
    if not is_finished(folder, FUSION_FILE, run, {"teacher": teacher.key()}):
        train_fusion(run, folder, teacher=teacher)
    return [fused_row(plan, target, teacher.key(), folder / REPORT_FILE)]


def fused_row(plan: Plan, target: Target, teacher_key: str, report_file: Path) -> Fused:
    """What the fuse stage said of its target."""
    try:
        report = json.loads(report_file.read_text())
    except (OSError, ValueError):
        folder = report_file.parent
        raise SyndistillError(f"{report_file} is lost or damaged; delete {folder}, it is made again") from None
    scores = report["paths"] | {"readout": report["paths"]["final"]}
    lers = {path: scores[path]["ler"]["value"] for path in report["weights"]}
    low, high = (report["every_end_and_line"]["nll_fused_minus_calibrated"][end] for end in ("low", "high"))
    looks = report["probes"]
    steps = looks[-1]["step"] * (len(looks) + 1) // len(looks) if looks else 0  # of the last part none is told
    return Fused(
        run=fusion_hash(plan, target, teacher_key), target=target, verdict=report["verdict"],
        weights=report["weights"], lers=lers, agreement=report["paths"][FUSED]["agreement_with_final"],
        nll=(low, high), steps=steps,
        still_improving=bool(looks) and not stopped_improving(looks),
    )  # fmt: skip


def do_cache(plan: Plan, asked: str, labels: str, out: Path) -> Sequence[Row]:
    """One pass for everything that any arm of the plan reads."""
    torch.set_num_threads(1)
    arms = [plan.settings(name) for name in dict.fromkeys(job.arm for job in jobs_of(plan))]
    arms = [arm for arm in arms if (arm.asks, arm.data.simulated.labels) == (asked, labels)]
    cached = [arm for arm in arms if arm.data.cached_shots]
    terms = [arm.terms for arm in cached] + [first_half(plan, arm) for arm in cached if arm.start != "scratch"]
    fusions = [fusion_folder(out, target) / FUSION_FILE for target in targets_of(plan)] if asked == "teacher" else []
    if cached:
        fill_cache(cached[0].data, _asked(plan, asked), cache_folder(out, asked, labels), terms, fusions)
    return []


def do_half(plan: Plan, job: Job, out: Path) -> Sequence[Row]:
    _train(plan, job, out, _parts(plan, job, out)[0])
    return []


def do_job(plan: Plan, job: Job, out: Path) -> Sequence[Row]:
    """Train what is not trained yet, on one thread, and judge its end on every case."""
    parts = _parts(plan, job, out)
    for part in parts:
        _train(plan, job, out, part)
    steps = sum(part.run.training.steps for part in parts)
    shots = sum(part.run.training.steps * part.run.training.batch_size for part in parts)
    seconds = sum(_seconds(part) for part in parts)
    return judge_student(plan, job, parts[-1], steps, shots, seconds, out, teacher_of(plan).key())


def _parts(plan: Plan, job: Job, out: Path) -> list[Part]:
    return parts_of(plan, job, out, teacher_keys(plan))


def _train(plan: Plan, job: Job, out: Path, part: Part) -> None:
    torch.set_num_threads(1)
    asked = plan.settings(job.arm).asks
    teacher = _asked(plan, asked)
    if is_finished(part.folder, STUDENT_FILE, part.run, student_hashes(part.run, teacher)):
        return
    began = time.monotonic()
    train_student(part.run, part.folder, cache_folder(out, *_cache_of(plan, job)), teacher=teacher)
    write_sealed(part.folder / SECONDS_FILE, {"training": time.monotonic() - began})


def _seconds(part: Part) -> float:
    """0 where a kill took the measurement."""
    path = part.folder / SECONDS_FILE
    return float(read_sealed(path, "delete it", _Seconds).training) if path.is_file() else 0.0


def _asked(plan: Plan, asked: str) -> Teacher:
    if asked == "teacher":
        return teacher_of(plan)
    simulated = plan.base.data.simulated
    return ExactEveryEnd(simulated.noise, simulated.curriculum.p_max, plan.output)
