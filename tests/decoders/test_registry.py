"""Names of decoders."""

import pytest
import stim

from syndistill.decoders import registry
from syndistill.decoders.matching import MatchingDecoder
from syndistill.errors import SyndistillError

DEM = stim.DetectorErrorModel("error(0.1) D0 L0")


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.setattr(registry, "_lookups", list(registry._lookups))


def named(name):
    return lambda dem, circuit: MatchingDecoder(dem, name=name)


def test_references_are_known():
    references = {"pymatching", "pymatching-correlated", "tesseract", "belief-matching", "optimal"}
    assert references <= set(registry.decoder_names())


def test_unknown_name_lists_the_known():
    with pytest.raises(SyndistillError, match=r"unknown decoder 'nonesuch'.*belief-matching.*pymatching-correlated"):
        registry.build_decoder("nonesuch", DEM)


def test_register():
    registry.register("mine", named("mine"))
    assert registry.build_decoder("mine", DEM).name == "mine"
    assert "mine" in registry.decoder_names()
    with pytest.raises(SyndistillError, match="already"):
        registry.register("pymatching", named("pymatching"))


def test_lookups_are_asked_in_order_after_the_names():
    registry.register_lookup(lambda name: named("first") if name == "a" else None)
    registry.register_lookup(lambda name: named("second") if name in ("a", "b", "pymatching") else None)
    assert registry.build_decoder("a", DEM).name == "first"
    assert registry.build_decoder("b", DEM).name == "second"
    assert registry.build_decoder("pymatching", DEM).name == "pymatching"
    with pytest.raises(SyndistillError, match="unknown decoder 'c'"):
        registry.build_decoder("c", DEM)
