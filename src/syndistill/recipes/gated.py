"""A Student's run behind the Teacher gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syndistill.distill.run import STUDENT_FILE, StudentRun, check_fit, student_hashes, train_student
from syndistill.distill.targets import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.evaluation.gate import ROUNDS, SHOTS, GateReport, P, judge_teacher
from syndistill.models.contract import DecoderNetwork
from syndistill.models.saving import weights_hash
from syndistill.models.zoo import load_any
from syndistill.training.loop import Progress
from syndistill.training.run_folder import open_run, write_json

GATE_FILE = "gate.json"
Count = Callable[[int, int], None]


def distil_gated(
    run: StudentRun,
    folder: Path,
    *,
    cache: Path | None = None,
    accept_any_teacher: bool = False,
    gate_shots: int = SHOTS,
    gate_progress: Count | None = None,
    cache_progress: Count | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Judge the Teacher once per folder (gate.json keeps the report), then distil; returns the Student's path.

    A run from labels alone learns nothing from the Teacher, and has no gate.

    Raises SyndistillError when the gate refuses the Teacher and accept_any_teacher is not set; the folder then holds
    the run and the report, and the same call with accept_any_teacher goes on from there.
    """
    teacher, _ = load_any(run.teacher)
    frozen = FrozenTeacher(teacher)
    check_fit(run.network, frozen, run.teacher)
    open_run(folder, run, student_hashes(run, frozen), STUDENT_FILE)
    if not run.terms.needs_teacher:
        return train_student(run, folder, cache, progress, cache_progress, say)
    report = _kept(folder / GATE_FILE, teacher)
    if report is None:
        say(f"judging the Teacher {run.teacher} against plain matching")
        report = _judge(run, teacher, gate_shots, gate_progress)
        write_json(folder / GATE_FILE, report.to_json())
    if not report.passed and not accept_any_teacher:
        raise SyndistillError(
            f"the gate refuses the Teacher {run.teacher}: {'; '.join(report.faults)}; train it further, or pass "
            f"--accept-any-teacher (report: {folder / GATE_FILE})"
        )
    say("the Teacher passes the gate" if report.passed else "the gate refuses the Teacher, which is accepted as told")
    return train_student(run, folder, cache, progress, cache_progress, say)


def _kept(path: Path, teacher: DecoderNetwork) -> GateReport | None:
    if not path.exists():
        return None
    report = GateReport.load(path)
    return report if report.teacher == weights_hash(teacher) else None


def _judge(run: StudentRun, teacher: DecoderNetwork, shots: int, progress: Count | None) -> GateReport:
    """On the noise, bases and rounds that the Student will learn from (the default ones where they lie within)."""
    simulated = run.data.simulated
    learned = run.data.cut_rounds or [r for phase in simulated.curriculum.rounds for r in phase.rounds]
    return judge_teacher(
        teacher,
        noise=simulated.noise,
        p=min(max(P, simulated.curriculum.p_min), simulated.curriculum.p_max),
        rounds=tuple(min(r, max(learned)) for r in ROUNDS),
        bases=simulated.bases,
        shots=shots,
        progress=progress,
    )
