"""The verb `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syndistill.cli.shared import (
    CircuitFile,
    Simulated,
    Threads,
    chosen_subject,
    print_table,
    require_writable,
    resumable,
    use_threads,
)


def evaluate(
    decoders: Annotated[
        list[str],
        typer.Argument(
            metavar="DECODER...",
            help="pymatching, pymatching-correlated, tesseract, belief-matching, optimal, a shipped network's name, or "
            "the path of a saved one. Several between commas are an ensemble: teacher-d5,belief-matching. "
            "With --recorded a reference may end in @pij or @rl (default: @circuit).",
        ),
    ],
    circuit: CircuitFile = None,
    recorded: Annotated[Path | None, typer.Option(metavar="DIR", help="A recorded experiment's folder.")] = None,
    experiment: Simulated = None,
    shots: Annotated[int | None, typer.Option(help="Shots to sample, or of the recording (default: all).")] = None,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many of the recording's first shots.")] = 0,
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
    from syndistill.evaluation.tables import pairs_table, rows_table

    require_writable(json, force)
    subject = chosen_subject(Subject, circuit, recorded, experiment, seed)
    from syndistill.runs.console import terminal_reporter  # loads PyTorch: bad input is said before

    use_threads(threads)
    how = f"the same command goes on from the batches in {rows}" if rows else "with --rows FILE it can go on from there"
    with resumable(how), terminal_reporter() as reporter:
        found = subject.compare(
            decoders, shots, seed or 0, skip=skip, batch=batch, rows_file=rows, leave_out=True, reporter=reporter
        )
    for line in subject.understood([row.decoder for row in found.rows]):
        print(line)
    print_table(rows_table(found, subject.label))
    if found.pairs:
        print_table(pairs_table(found))
    if json is not None:
        from syndistill.safe_files import write_json

        write_json(json, found.to_json())
