"""What the verbs of the command line share: their options, and what they do before and after the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from syndistill.errors import SyndistillError

if TYPE_CHECKING:
    from rich.table import Table

    from syndistill.evaluation.subject import Subject

BAD_INPUT = 2
INTERRUPTED = 130

Run = Annotated[str, typer.Argument(metavar="RECIPE_OR_RUN_JSON", help="A recipe's name, or a run.json to repeat.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder; goes on if it holds the same run.")]
CircuitFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A noisy memory circuit (.stim), or an error model (.dem).")
]
Simulated = Annotated[
    str | None, typer.Option(metavar="d=3,rounds=3,basis=z,noise=si1000,p=0.004", help="A simulated experiment.")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads of networks that PyTorch runs; 0: its default.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one setting, e.g. training.steps=1000. Repeatable."),
]


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Ctrl-C ends with exit code 130 and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: {how}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def chosen_subject(
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


def require_writable(path: Path | None, force: bool) -> None:
    """Before the work is done, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise SyndistillError(f"--json {path} is a folder; name a file")
    if path.exists() and not force:
        raise SyndistillError(f"--json {path} exists; choose another name, or pass --force to overwrite it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SyndistillError(f"--json {path}: {path.parent} is no folder that can be written to; choose another place")


def use_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def print_table(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
