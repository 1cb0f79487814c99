"""The verb `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syndistill.errors import SyndistillError


def show(
    circuit: Annotated[Path, typer.Argument(metavar="FILE", help="A .stim circuit, or a .dem error model.")],
    network: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Read it as this network does. Default: as one of SI1000.")
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="OUT", help="Draw it: .svg, .png or .pdf.")] = None,
) -> None:
    """Show what was understood of a circuit: code, way round, slices, observables, and how far from training it is.

    [bold]Example:[/bold] syndistill show mine.stim --network student-d3 --svg mine.svg
    """
    from syndistill.circuits.files import load_memory
    from syndistill.circuits.placement import place, si1000_noise
    from syndistill.circuits.shown import draw, summary
    from syndistill.circuits.training_noise import noise_in
    from syndistill.files.network_file import read_header

    if svg is not None and svg.suffix not in (".svg", ".png", ".pdf"):
        raise SyndistillError(f"--svg {svg}: a picture is .svg, .png or .pdf; name it so")
    source = load_memory(circuit)
    header = None if network is None else read_header(network)
    home = None if header is None else noise_in(header.metadata)
    placement = place(source, home)
    if header is not None and header.dials.distance != placement.layout.distance:
        raise SyndistillError(
            f"{network} decodes distance {header.dials.distance}, the circuit has distance "
            f"{placement.layout.distance}; take a network of that distance"
        )
    home = home or si1000_noise(placement.layout.distance)
    if svg is not None:
        draw(source, placement, home, str(circuit), svg)
    print("\n".join([str(circuit), *summary(source, placement, home), *([] if svg is None else [str(svg)])]))
