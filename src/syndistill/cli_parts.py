"""What the verbs of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

BAD_INPUT = 2
INTERRUPTED = 130

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
