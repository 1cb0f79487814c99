"""The verb `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from syndistill.cli.shared import Changes, Out, print_table, resumable
from syndistill.errors import SyndistillError


def distill(
    out: Out,
    run: Annotated[
        str | None, typer.Argument(metavar="[RECIPE_OR_RUN_JSON]", help="A recipe's name, or a run.json to repeat.")
    ] = None,
    circuit: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.stim", help="A Student for this noisy memory circuit. Repeatable: both bases."),
    ] = None,
    dem: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.dem", help="A Student for this error model. Repeatable: other lengths, both bases."),
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="A Student for recorded experiments, their models and shots. Repeatable."),
    ] = None,
    distance: Annotated[int | None, typer.Option(min=3, help="Of --recorded: recordings of this distance.")] = None,
    center: Annotated[
        str | None, typer.Option(metavar="ROW,COL", help="Of --recorded: the patch with this centre.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="circuit|pij|rl", help="Of --recorded: the error model to learn from. Default: circuit."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="Of training for own files. Default: 10 at distance 3, else 45.")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Rounds to learn. Default: the files' own, up to 25.")
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="The files' noise times a factor in this range. Default: 0.8,1.25."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="For own files: begin from this Student. Default: shipped.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="For own files: tune this Teacher, and learn from it too."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1000, help="For own files: shots to be judged on, of each. Default: 200,000.")
    ] = None,
    learn_shots: Annotated[
        int | None,
        typer.Option(min=0, help="Of --recorded: learn each one's first N shots. Default: half, if 10,000 or more."),
    ] = None,
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

    [bold]For your own circuit[/bold] there is no recipe to name: a shipped Student learns that noise, and is judged on
    it beside all else (comparison.png, report.html). Labels come from the circuit's errors: exact at distance 3.

    syndistill distill --circuit mine.stim --out runs/mine
    """
    of_own = {
        "model": model, "minutes": minutes, "rounds": _numbers(rounds, "--rounds", int),
        "factors": _numbers(factors, "--factors", float), "student": student, "teacher": teacher, "shots": shots,
        "learn_shots": learn_shots,
    }  # fmt: skip
    asked = {name: value for name, value in of_own.items() if value is not None}
    if own_files := [*(circuit or []), *(dem or []), *(recorded or [])]:
        if run is not None or stage is not None or from_ is not None:
            raise SyndistillError(f"{run or '--stage'} and own files ({own_files[0]}) are two runs; give one")
        if cache is not None:
            raise SyndistillError("--cache is for recipes: a Student of own files asks no Teacher twice; leave it out")
        if not recorded and (distance is not None or center is not None or model is not None):
            raise SyndistillError("--distance, --center and --model are of recordings; name these with --recorded")
        where = _numbers(center, "--center", float)
        asked["changes"] = tuple(set_ or ())
        _distill_own([*(circuit or []), *(dem or [])], recorded or [], distance, where, asked, out, accept_any_teacher)
        return
    if run is None:
        raise SyndistillError("name a recipe or a run.json, or own files with --circuit, --dem or --recorded")
    chooses = {"distance": distance, "center": center}
    if given := [*asked, *(name for name, value in chooses.items() if value is not None)]:
        option = given[0].replace("_", "-")
        raise SyndistillError(f"--{option} is for own files (--circuit, --dem, --recorded); of a recipe use --set")
    if run.endswith((".stim", ".dem")):
        option = "--circuit" if run.endswith(".stim") else "--dem"
        raise SyndistillError(f"{run} is no recipe; a file of one's own is named with {option} {run}")
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


def _numbers(text: str | None, option: str, kind: type) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise SyndistillError(f"{option} {text!r} is no list of numbers with commas between them") from None


def _distill_own(
    files: list[str],
    recorded: list[str],
    distance: int | None,
    center: tuple[float, float] | None,
    asked: dict[str, Any],
    out: Path,
    accept_any_teacher: bool,
) -> None:
    from syndistill.runs.console import terminal_reporter
    from syndistill.runs.own import distil_own, recordings_of
    from syndistill.runs.own_plan import Asked
    from syndistill.training.changes import validated

    if recorded:
        files = [*files, *recordings_of(recorded, distance, center)]
    wanted = validated(Asked, {**asked, "files": tuple(files)}, "distill")
    with resumable(f"the same command goes on from what {out} holds"), terminal_reporter() as reporter:
        found = distil_own(wanted, out, reporter, accept_any_teacher)
    for table in found.tables:
        print_table(table)
    print(found.verdict)
    print(f"Student: {found.student}; report: {out / 'report.html'}")
    if circuits := [*filter(None, map(_noisy_circuit, wanted.files))]:
        print(
            f"In sinter:\nSYNDISTILL_DECODERS=mine={found.student} sinter collect --circuits {circuits[0]} --decoders "
            "mine pymatching --custom_decoders_module_function syndistill.sinter_plugin:decoders --max_shots 100000 "
            "--processes 2"
        )


def _noisy_circuit(file: str) -> Path | None:
    """The Stim circuit of a file or a recording; an error model has none."""
    from syndistill.sampling.recorded import RecordingProperties

    if Path(file).is_dir():
        return RecordingProperties.load(file).noisy_circuit
    return None if file.endswith(".dem") else Path(file)
