"""Names of decoders: the references here, and whatever other modules register (networks)."""

from __future__ import annotations

from collections.abc import Callable

import stim

from syndistill.decoders.contract import Decoder
from syndistill.errors import SyndistillError

DecoderFactory = Callable[[stim.DetectorErrorModel, stim.Circuit | None], Decoder]
"""Makes a decoder for an error model; the circuit is None when only the model is known."""

Lookup = Callable[[str], DecoderFactory | None]
"""Finds a factory for a name that is not registered (a checkpoint's path), None if the name is not of its kind."""


def _pymatching(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
    from syndistill.decoders.matching import MatchingDecoder

    return MatchingDecoder(dem)


def _pymatching_correlated(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
    from syndistill.decoders.matching import MatchingDecoder

    return MatchingDecoder(dem, correlated=True)


def _tesseract(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
    from syndistill.decoders.tesseract import TesseractDecoder

    return TesseractDecoder(dem)


def _belief_matching(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
    from syndistill.decoders.belief import BeliefMatchingDecoder

    return BeliefMatchingDecoder(dem)


def _optimal(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
    from syndistill.decoders.optimal import OptimalDecoder

    return OptimalDecoder(dem)


_factories: dict[str, DecoderFactory] = {
    "pymatching": _pymatching,
    "pymatching-correlated": _pymatching_correlated,
    "tesseract": _tesseract,
    "belief-matching": _belief_matching,
    "optimal": _optimal,
}
_lookups: list[Lookup] = []


def register(name: str, factory: DecoderFactory) -> None:
    """Adds a decoder under a name; a name that is taken is an error."""
    if name in _factories:
        raise SyndistillError(f"a decoder named {name} is registered already: choose another name")
    _factories[name] = factory


def register_lookup(lookup: Lookup) -> None:
    """Adds a second way to find decoders, asked in order of registration when a name is not registered."""
    if lookup not in _lookups:
        _lookups.append(lookup)


def decoder_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_factories)


def build_decoder(name: str, dem: stim.DetectorErrorModel, circuit: stim.Circuit | None = None) -> Decoder:
    """The decoder of that name (or found by a lookup) made for an error model.

    Raises SyndistillError for an unknown name, listing the known ones, or when the decoder cannot serve the model.
    """
    factory = _factories.get(name)
    for lookup in _lookups:
        factory = factory or lookup(name)
    if factory is None:
        raise SyndistillError(f"unknown decoder '{name}': take {', '.join(decoder_names())}, or a checkpoint's path")
    return factory(dem, circuit)
