"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syndistill.cli.shared import CircuitFile, Simulated, chosen_subject
from syndistill.errors import SyndistillError


def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A flat or local GRU's shipped name or path.")],
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
    subject = chosen_subject(Subject, circuit, None, experiment, None)
    print(export_onnx(network, subject.circuit, subject.label, out))
