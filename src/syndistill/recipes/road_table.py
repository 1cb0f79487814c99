"""What each stage of the road is worth: two Students, four arms, several seeds, at equal steps, judged on equal shots.

    python -m syndistill.recipes.road_table --out runs/road-table --rows results/road-d3.jsonl --page docs/road.md

The Teacher is judged by the gate and asked once: one fusion and one cache serve every run. Then worker processes of one
thread each train and judge. Finished runs are in the rows file and are not run again, so a killed call goes on; with
nothing left to do the page is written again, from the rows alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from syndistill.circuits.experiment import Experiment
from syndistill.distill.fuse import FUSION_FILE, train_fusion
from syndistill.distill.one_pass import check_cache, fill_cache
from syndistill.distill.road import RoadRun, check_road, is_finished
from syndistill.distill.run import StudentRun
from syndistill.distill.targets import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.recipes.console import Bars, progress_bars
from syndistill.recipes.gated import pass_gate
from syndistill.recipes.road_page import page
from syndistill.recipes.road_plan import TOY, Plan
from syndistill.recipes.road_scores import (
    REFERENCE,
    Score,
    ScoresFile,
    do_job,
    has_answers,
    judge_references,
    key_of,
)
from syndistill.safe_files import locked_folder, write_text
from syndistill.training.run import validated

Task = Callable[[], list[Score]]


def make_table(plan: Plan, out: Path, rows: Path, workers: int, accept_any_teacher: bool) -> ScoresFile:
    """Everything that the rows file lacks, in `out`."""
    teacher = FrozenTeacher(load_network(plan.teacher)[0])
    file = ScoresFile(rows)
    file.require_teacher(teacher.key())
    left = [job for job in plan.jobs if any(key_of(job, case) not in file.scores for case in plan.cases)]
    if not left:
        return file
    with locked_folder(out, "folder of a table"), progress_bars() as bars:
        _ask_teacher(plan, teacher, out, accept_any_teacher, bars)
        cases = [case for case in plan.cases if not has_answers(case, out, teacher.key())]
        references = [partial(judge_references, plan, case, out) for case in cases]
        _do(references, workers, file, bars, "references")
        _do([partial(do_job, plan, job, out) for job in left], workers, file, bars, "runs")
    return file


def _ask_teacher(plan: Plan, teacher: FrozenTeacher, out: Path, accept_any_teacher: bool, bars: Bars) -> None:
    """The gate, the fusion and the cache."""
    road, cache = plan.road(plan.jobs[0]), out / "cache"
    check_road(road, teacher, cache)
    gate = bars.counting("gate: shots")
    pass_gate(plan.teacher, road.data, out, accept_any_teacher, plan.gate_shots, gate, bars.say)
    fuse, folder = road.fuse_run(), out / "fuse"
    if not is_finished(folder, FUSION_FILE, fuse, {"teacher": teacher.key()}, bars.say):
        with bars.stage("fuse", fuse.training.batch_size) as progress:
            train_fusion(fuse, folder, progress, bars.say, teacher)
    check_cache(road.data, teacher, cache)
    terms = [run.terms for run in _stages(road)]
    fill_cache(road.data, teacher, cache, terms, [folder / FUSION_FILE], bars.counting("Teacher's answers"), bars.say)


def _stages(road: RoadRun) -> list[StudentRun]:
    return [road.student_run("stage1", Path()), road.student_run("stage2", Path())]


def _do(tasks: Sequence[Task], workers: int, file: ScoresFile, bars: Bars, what: str) -> None:
    """Rows are kept as they come in."""
    bar = bars.counting(what)
    for done, scores in enumerate(_results(tasks, workers), start=1):
        file.append(scores)
        bars.say(_line(scores))
        bar(done, len(tasks))


def _line(scores: Sequence[Score]) -> str:
    first = scores[0]
    reference = first.student == REFERENCE
    who = "" if reference else f"{first.student} {first.arm}, {first.steps:,} steps, seed {first.seed}: "
    found = [(Experiment.parse(score.experiment), score) for score in scores]
    lers = [f"{score.arm + ' ' if reference else ''}{e.basis} r={e.rounds} LER {score.ler:.5f}" for e, score in found]
    return who + ", ".join(lers)


def _results(tasks: Sequence[Task], workers: int) -> Iterator[list[Score]]:
    """In the order in which they are done."""
    if workers == 1:
        yield from (task() for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a forked PyTorch may hang
    pool = ProcessPoolExecutor(workers, context, _leave_interrupts_to_the_parent)
    try:
        for future in as_completed([pool.submit(task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise SyndistillError(
            "a worker process was killed, perhaps for want of memory; the same command with fewer --workers goes on"
        ) from None
    except BaseException:
        # A run goes on for minutes otherwise; what it has learned is in its last checkpoint.
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def plan_of(given: argparse.Namespace) -> Plan:
    """The Plan that the arguments ask for."""
    content: dict[str, Any] = {"teacher": given.teacher, **(TOY if given.toy else {})}
    asked = {key: getattr(given, key) for key in ("steps", "seeds", "students", "cached_shots")}
    content |= {key: value for key, value in asked.items() if value is not None}
    plan: Plan = validated(Plan, content, "this plan")
    for job in plan.jobs:
        plan.parts(job, given.out)  # an unknown Student is found now, not in a worker
    return plan


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m syndistill.recipes.road_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the cache they share")
    parser.add_argument("--rows", type=Path, required=True, help="rows file, appended to")
    parser.add_argument("--page", type=Path, required=True, help="Markdown page to write")
    parser.add_argument("--teacher", default="teacher-d3", help="shipped name or path (default: teacher-d3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--steps", type=int, help="of each arm")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--students", nargs="+", help="presets")
    parser.add_argument("--cached-shots", type=int, help="that the Teacher is asked about, once for all runs")
    parser.add_argument("--toy", action="store_true", help="a minute's toy: shows the way, not its end")
    parser.add_argument("--accept-any-teacher", action="store_true", help="go on even if the gate refuses the Teacher")
    return parser.parse_args(arguments)


def command_of(rows: Path, shown: Path) -> str:
    """What made a page, as the page says it."""
    return f"python -m syndistill.recipes.road_table --out runs/road-table --rows {rows} --page {shown}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 for bad input, 130 when interrupted."""
    given = arguments_of(arguments)
    try:
        if given.workers < 1:
            raise SyndistillError(f"--workers {given.workers}: take 1 or more")
        if not given.page.parent.is_dir():
            raise SyndistillError(f"--page {given.page}: there is no folder {given.page.parent}; choose another place")
        file = make_table(plan_of(given), given.out, given.rows, given.workers, given.accept_any_teacher)
        text = page(file.scores.values(), command_of(given.rows, given.page))
        write_text(given.page, text)
    except SyndistillError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from what is there", file=sys.stderr)
        return 130
    print(given.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
