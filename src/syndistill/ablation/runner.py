"""Does what a plan asks and the rows lack: many at a time, killed at any moment, failed arms on record.

Rows are written by this one process. A task that fails is tried once more, then what needs it is given up; the same
command tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from syndistill.ablation.backends import Backend
from syndistill.ablation.jobs import fusion_hash, jobs_of, parts_of, targets_of
from syndistill.ablation.plan import Plan
from syndistill.ablation.rows import ROWS_FILE, Fused, PlanLine, Row, Rows, Score, fusion_name
from syndistill.ablation.work import Task, check_tasks, tasks_of, teacher_keys
from syndistill.errors import SyndistillError
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import locked_folder, remove_stale

ATTEMPTS = 2


class Outcome:
    """Of a call: how many tasks were done, and what was given up, by name."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: dict[str, str] = {}


def run_plan(
    plan: Plan,
    out: Path,
    backend: Callable[[], Backend],
    rows_file: Path | None = None,
    accept_any_teacher: bool = False,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Everything that the rows lack; `out` holds the runs, the fusions and the caches.

    SyndistillError for a Teacher that is missing or that the gate refuses, for damaged rows, and when another call is
    at work in `out`.
    """
    out = out.resolve()
    keys = teacher_keys(plan)
    with locked_folder(out, "folder of a sweep"):
        remove_stale(out)
        rows = Rows(rows_file or out / ROWS_FILE, mend=True)
        check_tasks(plan, out, keys)
        runs = {str(job): parts_of(plan, job, out, keys)[-1].hash for job in jobs_of(plan)}
        runs |= {fusion_name(target): fusion_hash(plan, target, keys["teacher"]) for target in targets_of(plan)}
        line = PlanLine(plan=plan, teachers=keys, runs=runs)
        if rows.plan is None or (rows.plan.plan, rows.plan.teachers, rows.plan.runs) != (plan, keys, runs):
            rows.append([line])
        tasks = tasks_of(plan, out, rows, keys, accept_any_teacher)
        if not tasks:
            return Outcome()
        workers = backend()
        try:
            return _do(tasks, workers, rows, reporter)
        finally:
            workers.close()


def _do(tasks: list[Task], backend: Backend, rows: Rows, reporter: Reporter) -> Outcome:
    left, done, attempts = list(tasks), set[str](), dict[str, int]()
    begun: set[str] = set()
    outcome, bar = Outcome(), reporter.bar("tasks", len(tasks))
    known = {task.name for task in tasks}
    while left or begun:
        for task in [t for t in left if all(need in done or need not in known for need in t.needs)]:
            if len(begun) == backend.workers:
                break
            left.remove(task)
            begun.add(task.name)
            backend.start(task)
        if not begun:
            _give_up(left, outcome, rows)
            break
        task, found = backend.next_done()
        begun.remove(task.name)
        attempts[task.name] = attempts.get(task.name, 0) + 1
        if not isinstance(found, Exception):
            rows.append(found)
            done.add(task.name)
            outcome.done += 1
            reporter.say(_line(task, found))
        elif task.name == "gate" and isinstance(found, SyndistillError):
            raise found
        else:
            error = " ".join(str(found).split()) or type(found).__name__
            rows.append([task.failure(attempts[task.name], error)])
            reporter.say(f"FAILED {task.job if task.name.startswith('run') else task.name}: {error}")
            if attempts[task.name] < ATTEMPTS:
                left.insert(0, task)
            else:
                outcome.failed[task.name] = error
        bar.to(len(done) + len(outcome.failed))
    return outcome


def _give_up(left: list[Task], outcome: Outcome, rows: Rows) -> None:
    """What needs a task that failed."""
    for task in left:
        error = f"it needs {', '.join(need for need in task.needs if need in outcome.failed) or 'what failed'}"
        outcome.failed[task.name] = error
        rows.append([task.failure(ATTEMPTS, error)])


def _line(task: Task, rows: Sequence[Row]) -> str:
    if fused := [row for row in rows if isinstance(row, Fused)]:
        return f"{task.name} done: {fused[0].verdict}"
    scores = [row for row in rows if isinstance(row, Score)]
    if not scores:
        return f"{task.name} done"
    lers = ", ".join(f"{s.experiment.split('basis=')[1][0]} r={s.rounds} {s.ler:.5f}" for s in scores)
    return f"{task.job}: LER {lers}"
