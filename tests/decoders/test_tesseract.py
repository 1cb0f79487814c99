"""Tesseract with the short beam."""

import sys

import numpy as np
import pytest
import stim

from syndistill.decoders.tesseract import SHORT_BEAM, TesseractDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

tesseract_decoder = pytest.importorskip("tesseract_decoder")


def test_settings_are_the_packages_short_beam():
    preset = tesseract_decoder.make_tesseract_sinter_decoders_dict()["tesseract-short-beam"]
    assert {name: getattr(preset, name) for name in SHORT_BEAM} == SHORT_BEAM
    assert preset.det_order_method == tesseract_decoder.utils.DetOrder.DetIndex


def test_finds_the_likeliest_error():
    """All four detectors: one error of .1 flips L0 with them; without it four errors of .05 are needed."""
    dem = stim.DetectorErrorModel(
        "error(0.1) D0 D1 L0 ^ D2 D3\nerror(0.05) D0\nerror(0.05) D1\nerror(0.05) D2\nerror(0.05) D3"
    )
    shots = StoredShots.from_bits(np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool), np.zeros((2, 1), bool), dem)
    np.testing.assert_array_equal(TesseractDecoder(dem).decode(shots), [[1.0], [0.0]])


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tesseract_decoder", None)
    with pytest.raises(SyndistillError, match=r"pip install 'syndistill\[tesseract\]'"):
        TesseractDecoder(stim.DetectorErrorModel("error(0.1) D0 L0"))
