"""Error rate against kept fraction."""

import numpy as np
import pytest

from syndistill.errors import SyndistillError
from syndistill.statistics.calibration import kept_curve


def test_the_most_certain_are_kept():
    flips = np.array([[0.01], [0.9], [0.4], [0.55], [0.999]])
    labels = np.array([[0], [0], [1], [1], [1]], bool)  # wrong: the second and the third
    found = kept_curve(flips, labels, (1.0, 0.8, 0.6, 0.4, 0.2, 0.01))
    assert [(kept.shots, kept.errors) for kept in found] == [(5, 2), (4, 2), (3, 1), (2, 0), (1, 0), (1, 0)]
    assert (found[2].fraction, found[2].ler) == (0.6, 1 / 3)
    low, high = found[2].interval
    assert low < 1 / 3 < high


def test_a_shot_is_as_certain_as_its_least_certain_observable():
    flips = np.array([[0.001, 0.45], [0.2, 0.2], [0.9, 0.001]])
    labels = np.array([[0, 1], [0, 0], [1, 0]], bool)
    found = kept_curve(flips, labels, (1 / 3, 2 / 3, 1.0))
    assert [kept.errors for kept in found] == [0, 0, 1]


def test_a_calibrated_decoder_errs_as_it_says():
    rng = np.random.default_rng(5)
    flips = rng.beta(0.3, 0.9, (200_000, 1))
    labels = rng.random(flips.shape) < flips
    expected = np.sort(np.minimum(flips, 1 - flips), axis=0)
    for kept in kept_curve(flips, labels, (1.0, 0.7, 0.4)):
        low, high = kept.interval
        mean = expected[: kept.shots].mean()
        assert low - (high - low) < mean < high + (high - low)


def test_bad_input():
    flips, labels = np.full((4, 1), 0.3), np.zeros((4, 1), bool)
    for wrong in ((flips[:0], labels[:0], [1.0]), (flips, labels[:3], [1.0]), (flips, labels, [0.0]),
                  (flips, labels, [1.1])):  # fmt: skip
        with pytest.raises(SyndistillError):
            kept_curve(*wrong)
