"""Intervals and tests: known values, and coverage by simulation with fixed seeds."""

import math

import numpy as np
import pytest

from syndistill.errors import SyndistillError
from syndistill.statistics.rates import ler_ratio, mcnemar, wilson


def test_wilson_by_its_formula():
    errors, shots, z = 13, 400, 1.959963984540054
    p = errors / shots
    centre = (p + z * z / (2 * shots)) / (1 + z * z / shots)
    half = z / (1 + z * z / shots) * math.sqrt(p * (1 - p) / shots + z * z / (4 * shots * shots))
    assert wilson(errors, shots) == pytest.approx((centre - half, centre + half))


def test_ends():
    assert wilson(0, 100).low == 0
    assert 0.02 < wilson(0, 100).high < 0.06
    assert wilson(100, 100).high == 1
    for errors, shots in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(SyndistillError, match="0 <= errors <= shots"):
            wilson(errors, shots)


def test_mcnemar_is_the_fair_coin():
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(1, 9) == mcnemar(9, 1)
    assert mcnemar(500, 500) == 1
    with pytest.raises(SyndistillError):
        mcnemar(-1, 3)


def test_ratio_values():
    ratio, low, high = ler_ratio(only_a_wrong=30, only_b_wrong=60, both_wrong=70)
    assert ratio == pytest.approx(100 / 130)
    half = 1.959963984540054 * math.sqrt(90 / (100 * 130))
    assert (low, high) == pytest.approx((ratio * math.exp(-half), ratio * math.exp(half)))
    assert ler_ratio(0, 0, 5) == (1, 1, 1)
    for counts in ((0, 5, 0), (5, 0, 0), (0, 0, 0)):
        with pytest.raises(SyndistillError, match="errors on both sides"):
            ler_ratio(*counts)


def test_ratio_coverage():
    """4000 paired experiments: nominal 95 %; a coverage of .95 leaves [.93, .97] less than once in 1e6."""
    rng = np.random.default_rng(5)
    shots, cells = 20_000, [0.008, 0.012, 0.03]  # only a, only b, both
    truth = (cells[0] + cells[2]) / (cells[1] + cells[2])
    counts = rng.multinomial(shots, [*cells, 1 - sum(cells)], size=4000)
    covered = 0
    for only_a, only_b, both, _ in counts.tolist():
        found = ler_ratio(only_a, only_b, both)
        covered += found.low <= truth <= found.high
    assert 0.93 < covered / 4000 < 0.97
