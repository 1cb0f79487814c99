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
    """Write the report of an ablation from its rows alone: one HTML page, and Markdown.

    Answers first, with intervals; where the rows do not suffice it says so.

    [bold]Example:[/bold] syndistill report runs/ablation-tiny
    """
    from syndistill.ablation.page import write_report

    for path in write_report(source, html, markdown):
        print(path)
