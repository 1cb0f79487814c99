"""Effects, equivalence, power, Holm, saving: against known numbers, and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel

from syndistill.ablation.plans import CELLS, effect
from syndistill.statistics.paired_seeds import differences, effect_of, holm, log_margin, saving_of

MARGIN = log_margin(0.03)
PLANS = 4_000
OF_CHANCE = 1e-7  # of each bound; the tests below make six


def false_alarms_bounded(alarms, level=0.05):
    """As many as a test of this level gives, and not far fewer: a test that never speaks passes one bound."""
    assert binom.ppf(OF_CHANCE, PLANS, level) <= alarms <= binom.isf(OF_CHANCE, PLANS, level)


@pytest.mark.parametrize("seeds", [3, 5])
def test_with_no_true_effect_the_share_of_false_alarms_is_what_it_claims(seeds):
    rng = np.random.default_rng(7)
    blocks = rng.normal(0, 0.05, (PLANS, seeds))  # what a seed does to all arms drops out
    a, b = (blocks + rng.normal(0, 0.01, (PLANS, seeds)) for _ in range(2))
    false_alarms_bounded(sum(effect_of(row, MARGIN).p_value < 0.05 for row in a - b))


def test_nor_has_the_decomposition_more():
    rng = np.random.default_rng(8)
    values = rng.normal(0, 0.01, (PLANS, 5, len(CELLS)))
    contrast = effect("spatial", "temporal")
    weights = np.array([contrast[cell or "baseline"] for cell in CELLS])
    false_alarms_bounded(sum(effect_of(row, MARGIN).p_value < 0.05 for row in values @ weights))


def test_an_effect_as_large_as_the_margin_is_called_none_in_5_percent():
    rng = np.random.default_rng(9)
    x = rng.normal(MARGIN[1], 0.01, (PLANS, 5))
    false_alarms_bounded(sum(effect_of(row, MARGIN).p_beyond < 0.05 for row in x))


def test_holm_keeps_the_alarms_of_a_whole_family_below_the_level():
    rng = np.random.default_rng(10)
    families = rng.random((PLANS, 20))
    alarms = sum(min(holm(list(family))) < 0.05 for family in families)
    assert alarms <= binom.isf(OF_CHANCE, PLANS, 0.05)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_detectable_effect_is_found_in_80_percent():
    rng = np.random.default_rng(11)
    sd, seeds = 0.01, 5
    true = effect_of(np.array([-1, -0.5, 0, 0.5, 1]), MARGIN).detectable / np.std([-1, -0.5, 0, 0.5, 1], ddof=1) * sd
    x = rng.normal(true, sd, (PLANS, seeds))
    false_alarms_bounded(sum(effect_of(row, MARGIN).p_value < 0.05 for row in x), 0.8)


def test_the_p_value_and_the_interval_are_those_of_the_paired_t_test():
    a, b = np.array([0.1, 0.12, 0.09, 0.13]), np.array([0.09, 0.1, 0.1, 0.11])
    found, known = effect_of(a - b, MARGIN), ttest_rel(a, b)
    assert found.p_value == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(known.confidence_interval(0.95))


@pytest.mark.parametrize("values", [[], [0.1, 0.2], [0.0, 0.0, 0.0], [0.1, 0.2, math.nan]])
def test_no_number_where_there_can_be_no_interval(values):
    assert effect_of(values, MARGIN) is None


def test_differences_are_of_seeds_that_all_arms_have():
    values = {"a": {1: 2.0, 2: 5.0}, "b": {2: 1.0, 3: 9.0}}
    assert differences(values, {"a": 1, "b": -1}) == {2: 4.0}
    assert differences(values, {"a": 1, "c": -1}) == {}


def curve(shots, factor=1.0, shift=0.0):
    return math.log(0.1 * (shots * factor / 1e6) ** -0.3) + shift


def test_the_saving_is_the_factor_between_two_curves():
    rng = np.random.default_rng(1)
    seeds = range(5)
    without = {n: {s: curve(n, shift=0.01 * rng.normal()) for s in seeds} for n in (250_000, 1_000_000, 4_000_000)}
    taught = {s: curve(1_000_000, 2.5, 0.01 * rng.normal()) for s in seeds}
    found = saving_of(taught, without, 1_000_000)
    assert found.low < 2.5 < found.high
    assert found.low < found.factor < found.high
    assert (found.least, found.most) == (0.25, 4.0)


def test_beyond_the_curve_only_a_bound_is_said():
    without = {n: {s: curve(n) for s in range(3)} for n in (250_000, 1_000_000)}
    better = saving_of({s: curve(9_000_000) for s in range(3)}, without, 1_000_000)
    assert better.said(better.factor) == "more than 1.0 times"
    worse = saving_of({s: curve(100_000) for s in range(3)}, without, 1_000_000)
    assert worse.said(worse.factor) == "less than 0.25 times"
    assert saving_of({1: 0.0}, without, 1_000_000) is None
    assert saving_of(dict.fromkeys(range(3), 0.0), {}, 1_000_000) is None
