"""PyMatching, plain and correlated."""

import numpy as np
import pymatching
import pytest
import stim

from syndistill.decoders.contract import decisions
from syndistill.decoders.matching import MatchingDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.rates import mcnemar

P = 0.008


@pytest.fixture(scope="module")
def shots():
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=5,
        rounds=5,
        after_clifford_depolarization=P,
        before_round_data_depolarization=P,
        before_measure_flip_probability=P,
        after_reset_flip_probability=P,
    )
    return StoredShots.sample(circuit, 20_000, seed=3)


@pytest.mark.parametrize("correlated", [False, True])
def test_equals_pymatching_shot_by_shot(shots, correlated):
    matching = pymatching.Matching.from_detector_error_model(shots.dem, enable_correlations=correlated)
    part = shots.take(0, 300)
    expected = [matching.decode(bits, enable_correlations=correlated) for bits in part.detectors()]
    found_BO = MatchingDecoder(shots.dem, correlated=correlated).decode(part)
    np.testing.assert_array_equal(found_BO, np.array(expected, float))


def test_correlations_help(shots):
    """Correlated matching makes clearly fewer errors here; a tie would be called a gain less than once in 1e6."""
    flips_BO = shots.observables()
    plain = decisions(MatchingDecoder(shots.dem).decode(shots)) != flips_BO
    correlated = decisions(MatchingDecoder(shots.dem, correlated=True).decode(shots)) != flips_BO
    only_plain, only_correlated = int((plain & ~correlated).sum()), int((correlated & ~plain).sum())
    assert only_plain > only_correlated
    assert mcnemar(only_plain, only_correlated) < 1e-6


def test_undecomposed_model_is_refused():
    dem = stim.DetectorErrorModel("error(0.1) D0 D1 D2 L0")
    for correlated in (False, True):
        with pytest.raises(SyndistillError, match="at most two detectors"):
            MatchingDecoder(dem, correlated=correlated)


def test_decomposed_hyperedge_is_accepted():
    dem = stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.1) D0 ^ D1 D2 L0\nerror(0.1) D1 D2 L0")
    assert MatchingDecoder(dem).n_detectors == 3


def test_ids_tell_models_and_algorithms_apart(shots):
    other = shots.dem.copy()
    other.append("error", 0.01, [stim.target_relative_detector_id(0)])
    ids = {MatchingDecoder(dem, correlated=c).content_id for dem in (shots.dem, other) for c in (False, True)}
    assert len(ids) == 4
