"""The verb `info`."""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME_OR_PATH]", help="A shipped or saved network, a recipe, or a preset.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Of one: all of it, as JSON.")] = False,
) -> None:
    """List networks, recipes, decoders and presets, or describe one in a few lines.

    With --json of a network: card, configuration, parameters, multiply-adds a round and hash; of a recipe: the whole
    run.
    """
    from syndistill.runs.describe import describe, overview

    print(overview() if name is None else describe(name, json))
