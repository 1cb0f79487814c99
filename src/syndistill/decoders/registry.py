"""The reference decoders by name; networks are decoders by `network.on_circuit`."""

from __future__ import annotations

import stim

from syndistill.decoders.contract import Decoder
from syndistill.errors import SyndistillError
from syndistill.files.network_file import EXACT, members_in

REFERENCES = ("belief-matching", "optimal", "pymatching", "pymatching-correlated", "tesseract")


def decoder_names() -> list[str]:
    """Sorted."""
    return list(REFERENCES)


def decoders_in(name: str) -> list[str]:
    """The decoders that a name lists between commas; `exact`, as a Teacher's list has it, is the decoder `optimal`."""
    members = members_in(name)
    return members if len(members) == 1 else ["optimal" if member == EXACT else member for member in members]


def build_decoder(name: str, dem: stim.DetectorErrorModel) -> Decoder:
    """The decoder of that name made for an error model.

    Raises SyndistillError for an unknown name, listing the known ones, or when the decoder cannot serve the model.
    """
    # Here, as it takes time to load what packages they need.
    from syndistill.decoders.matching import BeliefMatchingDecoder, MatchingDecoder
    from syndistill.decoders.optimal import OptimalDecoder
    from syndistill.decoders.tesseract import TesseractDecoder

    match name:
        case "belief-matching":
            return BeliefMatchingDecoder(dem)
        case "optimal":
            return OptimalDecoder(dem)
        case "pymatching" | "pymatching-correlated":
            return MatchingDecoder(dem, correlated=name == "pymatching-correlated")
        case "tesseract":
            return TesseractDecoder(dem)
    raise SyndistillError(f"unknown decoder '{name}': take {', '.join(REFERENCES)}, or a checkpoint's path")
