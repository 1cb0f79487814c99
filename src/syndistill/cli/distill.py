"""The verb `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syndistill.cli.shared import Changes, Out, Run, resumable
from syndistill.errors import SyndistillError


def distill(
    run: Run,
    out: Out,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The Teacher's answers, shared by runs that ask the same. Default: those of --from, else in --out.",
        ),
    ] = None,
    set_: Changes = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Of a road, this stage alone: no_kd, baseline, stage1, fuse or stage2."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="With --stage: the folder of a road whose results it takes up."),
    ] = None,
    accept_any_teacher: Annotated[
        bool, typer.Option("--accept-any-teacher", help="Go on even if the gate refuses the Teacher.")
    ] = False,
) -> None:
    """Distil a Student from a frozen Teacher, after the gate: one stage, or the whole road.

    The gate judges the Teacher on paired shots first (gate.json): it must be better than plain matching, with a best
    temperature in [0.8, 1.25]. Killed or interrupted, the same command goes on. The folder then holds
    student.safetensors: the Student alone; after a road a folder for each stage, and road.json, which lists them.

    [bold]Examples:[/bold] syndistill distill baseline-d3 --out runs/baseline --set data.cached_shots=200000

    syndistill distill road-d3 --out runs/road --set stage1.spatial.weight=0

    syndistill distill road-d3 --stage stage2 --from runs/road --out runs/warm --set stage2.fused.temperature=2
    """
    from syndistill.runs.choose import chosen_distillation, stage_alone
    from syndistill.runs.console import terminal_reporter
    from syndistill.runs.gated import distil_gated

    chosen = chosen_distillation(run, set_ or [])
    if stage is not None:
        chosen = stage_alone(chosen, stage, from_)
    elif from_ is not None:
        raise SyndistillError("--from belongs to --stage; name the stage that takes up what is there")
    if cache is None and from_ is not None and (from_ / "cache").is_dir():
        cache = from_ / "cache"
    with resumable(f"the same command goes on from what {out} holds"), terminal_reporter() as reporter:
        path = distil_gated(chosen, out, cache=cache, accept_any_teacher=accept_any_teacher, reporter=reporter)
    print(path)
