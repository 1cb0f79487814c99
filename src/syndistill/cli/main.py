"""The command line, a verb a file: train a Teacher, distil a Student, judge decoders on the same shots, look around.

Exit codes: 0 done, 2 bad input (one line `error: ...` on stderr), 130 interrupted. PyTorch is loaded by the verbs, not
by --help.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from syndistill import __version__
from syndistill.cli.ablate import ablate
from syndistill.cli.bench import bench
from syndistill.cli.distill import distill
from syndistill.cli.evaluate import evaluate
from syndistill.cli.export import export
from syndistill.cli.info import info
from syndistill.cli.report import report
from syndistill.cli.shared import BAD_INPUT
from syndistill.cli.show import show
from syndistill.cli.train import train
from syndistill.errors import SyndistillError

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


def _version(wanted: bool) -> None:
    if wanted:
        print(f"syndistill {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, exit.")] = False,
) -> None:
    pass


for verb in (train, distill, evaluate, bench, export, show, ablate, report, info):
    app.command()(verb)


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
