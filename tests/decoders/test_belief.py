"""Belief matching."""

import sys

import numpy as np
import pytest
import stim

from syndistill.decoders.matching import MAX_BP_ITERATIONS, BeliefMatchingDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

beliefmatching = pytest.importorskip("beliefmatching")


def test_equals_the_package_with_ten_iterations():
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=4, after_clifford_depolarization=0.02
    )
    shots = StoredShots.sample(circuit, 500, seed=5)
    assert MAX_BP_ITERATIONS == 10
    package = beliefmatching.BeliefMatching(shots.dem, max_bp_iters=10)
    expected_BO = np.array([package.decode(bits) for bits in shots.detectors()], float)
    np.testing.assert_array_equal(BeliefMatchingDecoder(shots.dem).decode(shots), expected_BO)


def test_undecomposed_model_is_refused():
    with pytest.raises(SyndistillError, match="at most two detectors"):
        BeliefMatchingDecoder(stim.DetectorErrorModel("error(0.1) D0 D1 D2 L0"))


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "beliefmatching", None)
    with pytest.raises(SyndistillError, match=r"pip install 'syndistill\[belief\]'"):
        BeliefMatchingDecoder(stim.DetectorErrorModel("error(0.1) D0 L0"))
