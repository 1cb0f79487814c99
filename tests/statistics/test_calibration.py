"""Calibration: formulas, generated labels, and sums that add up."""

import json

import numpy as np
import pytest
from scipy.special import expit

from syndistill.errors import SyndistillError
from syndistill.statistics.calibration import (
    CalibrationSums,
    best_temperature,
    ece,
    nll,
    reliability,
)


@pytest.fixture(scope="module")
def true_logits():
    return np.random.default_rng(0).normal(-3, 3, size=200_000)


@pytest.fixture(scope="module")
def labels(true_logits):
    return np.random.default_rng(1).random(true_logits.shape) < expit(true_logits)


def test_nll_by_its_formula():
    p, y = np.array([[0.2], [0.9], [0.5]]), np.array([[0], [1], [1]])
    expected = -(np.log(0.8) + np.log(0.9) + np.log(0.5)) / 3
    assert nll(p, y) == pytest.approx(expected)


def test_nll_of_certain_and_wrong_is_finite():
    assert nll([0.0, 1.0], [1, 0]) == pytest.approx(-np.log(1e-15), rel=1e-3)
    assert nll([0.0, 1.0], [0, 1]) < 1e-14


def test_calibrated_probabilities_have_small_ece(true_logits, labels):
    """200 k labels in 15 bins: each bin's deviation is below 6 standard errors of at most .5/sqrt(n_bin)."""
    p = expit(true_logits)
    bound = 6 * 0.5 * np.sqrt(15 / 200_000)
    assert ece(p, labels) < bound
    assert ece(expit(true_logits / 0.4), labels) > 2 * bound


def test_ece_by_hand():
    p, y = np.array([0.1, 0.1, 0.1, 0.1, 0.8, 0.8]), np.array([0, 0, 0, 1, 1, 0])
    expected = (4 * abs(0.1 - 0.25) + 2 * abs(0.8 - 0.5)) / 6
    assert ece(p, y) == pytest.approx(expected)


def test_reliability_bins_have_equal_mass_and_keep_ties_together(true_logits, labels):
    found = reliability(expit(true_logits), labels)
    assert found.counts_G.sum() == 200_000
    assert abs(found.counts_G - 200_000 / 15).max() <= 1
    assert (np.diff(found.predicted_G) > 0).all()
    p, y = np.repeat([0.1, 0.6], [70, 30]), np.zeros(100)
    tied = reliability(p, y)
    assert sorted(tied.counts_G[tied.counts_G > 0]) == [30, 70]


def test_reliability_bins_of_equal_width():
    found = reliability([0.01, 0.05, 0.5, 1.0], [0, 1, 1, 1], equal_mass=False)
    assert found.counts_G.tolist() == [2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert (found.predicted_G[0], found.observed_G[0]) == pytest.approx((0.03, 0.5))


def test_ece_does_not_depend_on_order():
    rng = np.random.default_rng(3)
    p, y = rng.integers(0, 5, 1000) / 5, rng.random(1000) < 0.3
    order = rng.permutation(1000)
    assert ece(p, y) == pytest.approx(ece(p[order], y[order]), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_best_temperature_undoes_scaling(true_logits, labels, temperature):
    """The labels tell log T to a standard deviation of .0047 (Fisher information): 5.5 of them are .026."""
    assert best_temperature(true_logits * temperature, labels) == pytest.approx(temperature, rel=0.026)
    ours = best_temperature(true_logits * temperature, labels) / temperature
    assert ours == pytest.approx(best_temperature(true_logits, labels), rel=1e-4)


def test_sums_agree_with_the_functions(true_logits, labels):
    p = expit(1.5 * true_logits)
    sums = CalibrationSums.of(p, labels)
    assert sums.nll() == pytest.approx(nll(p, labels), rel=1e-9)
    assert sums.ece() == pytest.approx(ece(p, labels), abs=5e-4)
    assert sums.best_temperature() == pytest.approx(best_temperature(1.5 * true_logits, labels), rel=2e-3)


def test_sums_add_up_and_survive_json(true_logits, labels):
    p = expit(true_logits)
    whole = CalibrationSums.of(p, labels)
    parts = [CalibrationSums.of(p[i::3], labels[i::3]) for i in range(3)]
    total = parts[0].add(parts[1]).add(CalibrationSums.from_json(json.loads(json.dumps(parts[2].to_json()))))
    np.testing.assert_array_equal(total.cells, whole.cells)
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert total.nll() == pytest.approx(whole.nll(), rel=1e-12)
    assert total.ece() == pytest.approx(whole.ece(), rel=1e-9)
    assert total.best_temperature() == pytest.approx(whole.best_temperature(), rel=1e-6)


def test_damaged_sums_are_refused():
    good = CalibrationSums.of([0.2, 0.7], [0, 1]).to_json()
    for change in ({"cells": [3]}, {"counts": [1.0, float("nan")]}, {"counts": [0.0, 1.0]}, {"cells": [-1, 4]}):
        with pytest.raises(ValueError, match="calibration sums"):
            CalibrationSums.from_json(good | change)


def test_bad_input():
    for p, y in (([0.5], [0, 1]), ([], []), ([float("nan")], [0]), ([1.2], [0])):
        with pytest.raises(SyndistillError):
            nll(p, y)
