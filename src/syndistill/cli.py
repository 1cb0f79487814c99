"""The command line: train a Teacher, distil a Student, judge decoders on the same shots, look at what there is.

Exit codes: 0 done, 2 bad input (one line `error: ...` on stderr), 130 interrupted. PyTorch is loaded by the verbs, not
by --help.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from syndistill import __version__, cli_ablation, cli_show
from syndistill.cli_parts import BAD_INPUT, Changes, resumable
from syndistill.errors import SyndistillError

if TYPE_CHECKING:
    from rich.table import Table

    from syndistill.evaluation.compare import Comparison
    from syndistill.evaluation.subject import Subject


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # of typer's own click, or of the installed one

app = typer.Typer(
    name="syndistill",
    help="Distil an AlphaQubit Teacher into small Students for quantum error correction, and judge every decoder on "
    "the same shots.",
    epilog="Start with: syndistill info",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[str, typer.Argument(metavar="RECIPE_OR_RUN_JSON", help="A recipe's name, or a run.json to repeat.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder; goes on if it holds the same run.")]
CircuitFile = Annotated[Path | None, typer.Option(metavar="FILE.stim", help="A noisy memory circuit.")]
Simulated = Annotated[
    str | None, typer.Option(metavar="d=3,rounds=3,basis=z,noise=si1000,p=0.004", help="A simulated experiment.")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads of networks; 0 leaves PyTorch's default.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"syndistill {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, exit.")] = False,
) -> None:
    pass


@app.command()
def train(run: Run, out: Out, set_: Changes = None) -> None:
    """Train a Teacher on labels of fresh simulated shots.

    Killed or interrupted, the same command goes on from the last checkpoint, to the bit. The folder then holds
    run.json, metrics.jsonl, state.safetensors and teacher.safetensors (the averaged weights).

    [bold]Example:[/bold] syndistill train teacher-tiny --out runs/teacher-tiny --set training.steps=200
    """
    from syndistill.runs.choose import chosen_run
    from syndistill.runs.console import progress_bars
    from syndistill.training.run import TeacherRun, train_teacher

    chosen = chosen_run(TeacherRun, run, set_ or [])
    how = f"the same command goes on from the last checkpoint in {out}"
    with resumable(how), progress_bars() as bars:
        path = train_teacher(chosen, out, bars.training("Teacher", chosen.training.batch_size))
    print(path)


@app.command()
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
    from syndistill.runs.console import progress_bars
    from syndistill.runs.gated import distil_gated

    chosen = chosen_distillation(run, set_ or [])
    if stage is not None:
        chosen = stage_alone(chosen, stage, from_)
    elif from_ is not None:
        raise SyndistillError("--from belongs to --stage; name the stage that takes up what is there")
    if cache is None and from_ is not None and (from_ / "cache").is_dir():
        cache = from_ / "cache"
    with resumable(f"the same command goes on from what {out} holds"), progress_bars() as bars:
        path = distil_gated(
            chosen,
            out,
            cache=cache,
            accept_any_teacher=accept_any_teacher,
            gate_progress=bars.counting("gate: shots"),
            cache_progress=bars.counting("Teacher's answers"),
            bar=bars.stage,
            say=bars.say,
        )
    print(path)


@app.command()
def evaluate(
    decoders: Annotated[
        list[str],
        typer.Argument(
            metavar="DECODER...",
            help="pymatching, pymatching-correlated, tesseract, belief-matching, optimal, a shipped network's name, or "
            "the path of a saved one. With --recorded a reference may end in @pij or @rl (default: @circuit).",
        ),
    ],
    circuit: CircuitFile = None,
    recorded: Annotated[Path | None, typer.Option(metavar="DIR", help="A recorded experiment's folder.")] = None,
    experiment: Simulated = None,
    shots: Annotated[int | None, typer.Option(help="Shots to sample, or of the recording (default: all).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampled shots. Default: 0.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write rows and pairs here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --json overwrite a file.")] = False,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep counted batches here; what it holds is not decoded again.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Shots decoded and kept at a time.")] = 25_000,
    threads: Threads = 0,
) -> None:
    """Judge decoders on the same shots: LER, NLL, calibration, time, and exact paired tests.

    Name exactly one of --circuit, --recorded and --experiment. A decoder that cannot serve them, or whose package is
    missing, is left out with a warning, and the others go on.

    [bold]Example:[/bold] syndistill evaluate pymatching tesseract --shots 100000 --experiment
    d=3,rounds=3,basis=z,noise=si1000,p=0.004
    """
    from syndistill.evaluation.subject import Subject

    _require_writable(json, force)
    subject = _subject(Subject, circuit, recorded, experiment, seed)
    from syndistill.runs.console import progress_bars  # loads PyTorch: bad input is said before

    _use_threads(threads)
    how = f"the same command goes on from the batches in {rows}" if rows else "with --rows FILE it can go on from there"
    with resumable(how), progress_bars() as bars:
        bar = bars.counting("shots")
        found = subject.compare(decoders, shots, seed or 0, batch=batch, rows_file=rows, progress=bar, say=bars.say)
    for line in subject.understood([row.decoder for row in found.rows]):
        print(line)
    _show(found, subject.label)
    if json is not None:
        from syndistill.safe_files import write_json

        write_json(json, found.to_json())


def _subject(
    kinds: type[Subject], circuit: Path | None, recorded: Path | None, experiment: str | None, seed: int | None
) -> Subject:
    if sum(source is not None for source in (circuit, recorded, experiment)) != 1:
        raise SyndistillError("name exactly one of --circuit, --recorded and --experiment to judge on")
    if circuit is not None:
        return kinds.from_file(circuit)
    if experiment is not None:
        return kinds.from_experiment(experiment)
    if seed is not None:
        raise SyndistillError("--seed has no meaning for recorded shots; leave it out")
    assert recorded is not None
    return kinds.from_recording(recorded)


def _require_writable(path: Path | None, force: bool) -> None:
    """Before the work is done, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise SyndistillError(f"--json {path} is a folder; name a file")
    if path.exists() and not force:
        raise SyndistillError(f"--json {path} exists; choose another name, or pass --force to overwrite it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SyndistillError(f"--json {path}: {path.parent} is no folder that can be written to; choose another place")


def _use_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _show(found: Comparison, label: str) -> None:
    from syndistill.evaluation.tables import pairs_table, rows_table

    _print(rows_table(found, label))
    if found.pairs:
        _print(pairs_table(found))


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


@app.command()
def bench(
    decoders: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DECODER]...",
            help="As for evaluate; a network may end in :compiled, :int8, :onnx or :pytorch. Default: matching and the "
            "shipped networks of this distance.",
        ),
    ] = None,
    circuit: CircuitFile = None,
    experiment: Simulated = None,
    shots: Annotated[int, typer.Option(min=100, help="Shots to sample for the error rate.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shots.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time of each measurement, for each decoder.")] = 1.0,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the figures here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --json overwrite a file.")] = False,
) -> None:
    """Where decoders stand on this machine: error rate, microseconds per shot and round, latency. One thread.

    [bold]Example:[/bold] syndistill bench pymatching-correlated student-d3 student-d3:int8 --experiment
    d=3,rounds=9,basis=z,noise=si1000,p=0.004
    """
    from syndistill.deploy.bench import bench_subject, report, speed_table
    from syndistill.evaluation.subject import Subject

    _require_writable(json, force)
    subject = _subject(Subject, circuit, None, experiment, None)
    _use_threads(1)
    with resumable("nothing was written"):
        found, speeds = bench_subject(subject, decoders or [], shots, seed, seconds)
    _print(speed_table(found, speeds, subject.label))
    if json is not None:
        from syndistill.safe_files import write_json

        write_json(json, report(found, speeds))


@app.command()
def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A flat GRU's shipped name or path.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")],
    circuit: CircuitFile = None,
    experiment: Simulated = None,
    to: Annotated[str, typer.Option(metavar="onnx", help="The format.")] = "onnx",
) -> None:
    """Write a Student as ONNX graphs (a round, a readout, the whole experiment) with a manifest.

    [bold]Example:[/bold] syndistill export student-d3 --to onnx --out exported/student-d3 --experiment
    d=3,rounds=9,basis=z,noise=si1000,p=0.004
    """
    from syndistill.deploy.export import export_onnx
    from syndistill.evaluation.subject import Subject

    if to != "onnx":
        raise SyndistillError(f"--to {to} is unknown; write --to onnx")
    subject = _subject(Subject, circuit, None, experiment, None)
    print(export_onnx(network, subject.circuit, subject.label, out))


app.command()(cli_show.show)
app.command()(cli_ablation.ablate)
app.command()(cli_ablation.report)


@app.command()
def info(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME_OR_PATH]", help="A shipped or saved network, a recipe, or a preset.")
    ] = None,
) -> None:
    """List networks, recipes, decoders and presets, or describe one.

    For a network: card, configuration, parameters, multiply-adds a round and hash. For a recipe: the whole run.
    """
    from syndistill.runs.describe import describe, overview

    print(overview() if name is None else describe(name))


def run_app(arguments: Sequence[str]) -> int:
    """Run a command line; bad input becomes one line `error: ...` on stderr and exit code 2."""
    try:
        code = app(args=list(arguments), standalone_mode=False)
    except SyndistillError as error:
        return _fail(str(error))
    except OSError as error:  # what no verb foresaw: a name that is too long, a file system that is read-only
        return _fail(f"{error.strerror or error}: {str(error.filename or '')[:200]}; choose another path")
    except _UsageError as error:
        return _fail(f"{error.format_message()} Try --help.")  # type: ignore[attr-defined]
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def main() -> int:
    """The console entry; returns the exit code. A warning is one line."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    return run_app(sys.argv[1:] or ["--help"])
