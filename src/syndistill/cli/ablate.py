"""The verb `ablate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syndistill.cli.shared import Changes, resumable
from syndistill.errors import SyndistillError

if TYPE_CHECKING:
    from syndistill.ablation.backends import Backend


def ablate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in plan, or a plan file (.py or .json).")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Runs, cache, rows; goes on from what it holds.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each. Default: one a core.")] = (
        os.cpu_count() or 1
    ),
    rows: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows file. Default: DIR/rows.jsonl.")] = None,
    on: Annotated[
        str | None, typer.Option(metavar="ray|ray://HOST:PORT", help="A Ray cluster, of this machine or a running one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every task, say how much there is to do, and stop.")
    ] = False,
    set_: Changes = None,
    accept_any_teacher: Annotated[
        bool, typer.Option("--accept-any-teacher", help="Go on even if the gate refuses the Teacher.")
    ] = False,
) -> None:
    """Run a plan: every arm with every seed, trained and judged on the same shots, one row a Student and case.

    What the rows hold is not run again, so a killed or interrupted call goes on. A run is known by the hash of its
    whole configuration; rows of anything else stay out of the report.

    With --on, DIR must be on a disk that all machines of the cluster share.

    [bold]Example:[/bold] syndistill ablate ablation-tiny --out runs/ablation-tiny
    """
    from syndistill.ablation.plans import chosen_plan
    from syndistill.ablation.runner import run_plan
    from syndistill.runs.console import terminal_reporter

    plan = chosen_plan(recipe, set_ or [])
    if dry_run:
        from syndistill.ablation.costs import cost_of
        from syndistill.ablation.rows import ROWS_FILE, Rows
        from syndistill.ablation.work import check_tasks, teacher_keys

        keys = teacher_keys(plan)
        check_tasks(plan, out.resolve(), keys)
        print(cost_of(plan, out.resolve(), Rows(rows or out / ROWS_FILE), keys))
        return
    with resumable(f"the same command goes on from what {out} holds"), terminal_reporter() as reporter:
        outcome = run_plan(plan, out, _backend(workers, on), rows, accept_any_teacher, reporter)
    if outcome.failed:
        raise SyndistillError(
            f"{len(outcome.failed)} of {outcome.done + len(outcome.failed)} tasks failed twice, first "
            f"{next(iter(outcome.failed.values()))}; they are in the rows, the same command tries them again"
        )
    print(rows or out / "rows.jsonl")


def _backend(workers: int, on: str | None) -> Callable[[], Backend]:
    if on is None:
        from syndistill.ablation.backends import Processes

        return lambda: Processes(workers)
    if on != "ray" and not on.startswith("ray://"):
        raise SyndistillError(f"--on {on} is unknown; write --on ray, or --on ray://HOST:PORT")
    from syndistill.ablation.ray_backend import RayCluster

    return lambda: RayCluster(on, workers)
