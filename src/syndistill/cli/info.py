"""The verb `info`."""

from __future__ import annotations

from typing import Annotated

import typer


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
