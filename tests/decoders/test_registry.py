"""Names of decoders."""

import pytest
import stim

from syndistill.decoders.registry import build_decoder, decoder_names
from syndistill.errors import SyndistillError

DEM = stim.DetectorErrorModel("error(0.1) D0 L0")


@pytest.mark.parametrize("name", decoder_names())
def test_every_name_makes_a_decoder_of_that_name(name):
    assert build_decoder(name, DEM).name == name


def test_unknown_name_lists_the_known():
    with pytest.raises(SyndistillError, match=r"unknown decoder 'nonesuch'.*belief-matching.*pymatching-correlated"):
        build_decoder("nonesuch", DEM)
