"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder, or a file of rows.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: report.html beside the rows.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: report.md beside the rows; figures in a folder.")
    ] = None,
) -> None:
    """Say the answers of an ablation from its rows alone, and write them as one HTML page and as Markdown.

    Answers first, with intervals; where the rows do not suffice it says so.

    [bold]Example:[/bold] syndistill report runs/ablation-tiny
    """
    from syndistill.ablation.page import write_report
    from syndistill.runs.console import terminal_reporter

    with terminal_reporter() as reporter:
        paths = write_report(source, html, markdown, reporter)
    for path in paths:
        print(path)
