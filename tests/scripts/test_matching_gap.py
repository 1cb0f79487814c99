"""The matching gap: decisions of matching, and a probability from the weights of the two best corrections."""

import numpy as np
import pytest
import stim
from matching_gap import MatchingGapDecoder
from scipy.special import expit

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import decisions
from syndistill.decoders.matching import MatchingDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


@pytest.mark.parametrize(("distance", "basis"), [(3, "z"), (3, "x"), (5, "z")])
def test_it_decides_as_matching_does(distance, basis):
    circuit = Experiment(distance, 3, basis, "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 2000, 3)
    flips = MatchingGapDecoder(shots.dem).decode(shots)
    hard = MatchingDecoder(shots.dem).decode(shots)
    close = np.abs(flips - 0.5) < 1e-4  # the two corrections weigh the same
    np.testing.assert_array_equal(decisions(flips)[~close], decisions(hard)[~close])
    assert close.mean() < 0.01
    certain = np.abs(flips - 0.5) > 0.49
    wrong = decisions(flips) != shots.observables()
    assert wrong[certain].mean() < 0.2 * wrong[~certain].mean()


def test_weights_of_a_chain():
    """Events at both ends of a chain of three edges: explained inside, or by the two boundaries, one of which flips."""
    dem = stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.2) D0 D1\nerror(0.05) D1")
    shots = StoredShots.from_bits(np.array([[1, 1], [1, 0], [0, 0]], bool), np.zeros((3, 1), bool), dem)
    left, middle, right = (np.log((1 - p) / p) for p in (0.1, 0.2, 0.05))
    gaps = [middle - (left + right), (middle + right) - left, -(left + middle + right)]  # no flip minus flip
    np.testing.assert_allclose(MatchingGapDecoder(dem).decode(shots)[:, 0], expit(gaps), atol=1e-3)


def test_what_it_cannot_do():
    with pytest.raises(SyndistillError, match="for one observable, the model has 2"):
        MatchingGapDecoder(stim.DetectorErrorModel("error(0.1) D0 L0 L1"))
    with pytest.raises(SyndistillError, match="needs an observable along a boundary"):
        MatchingGapDecoder(stim.DetectorErrorModel("error(0.1) D0 D1 L0"))
    with pytest.raises(SyndistillError, match="at most two detectors"):
        MatchingGapDecoder(stim.DetectorErrorModel("error(0.1) D0 D1 D2\nerror(0.1) D0 L0"))
