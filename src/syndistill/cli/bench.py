"""The verb `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syndistill.cli.shared import (
    CircuitFile,
    Simulated,
    chosen_subject,
    print_table,
    require_writable,
    resumable,
    use_threads,
)


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

    require_writable(json, force)
    subject = chosen_subject(Subject, circuit, None, experiment, None)
    use_threads(1)
    with resumable("nothing was written"):
        found, speeds = bench_subject(subject, decoders or [], shots, seed, seconds)
    print_table(speed_table(found, speeds, subject.label))
    if json is not None:
        from syndistill.safe_files import write_json

        write_json(json, report(found, speeds))
