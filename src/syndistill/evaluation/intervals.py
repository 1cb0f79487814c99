"""Intervals and tests for counts of logical errors.  Pure functions of counts."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.stats import binomtest, norm

from syndistill.errors import SyndistillError


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def _check_counts(errors: int, shots: int) -> None:
    if shots <= 0 or not 0 <= errors <= shots:
        raise SyndistillError(f"{errors} errors in {shots} shots: an interval needs shots > 0 and 0 <= errors <= shots")


def wilson(errors: int, shots: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a logical error rate: the default for one rate."""
    _check_counts(errors, shots)
    found = binomtest(errors, shots).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def clopper_pearson(errors: int, shots: int, confidence: float = 0.95) -> Interval:
    """The exact (conservative) interval of Clopper and Pearson: covers at least `confidence` for every rate."""
    _check_counts(errors, shots)
    found = binomtest(errors, shots).proportion_ci(confidence, method="exact")
    return Interval(float(found.low), float(found.high))


def mcnemar(only_a_wrong: int, only_b_wrong: int) -> float:
    """Exact two-sided McNemar p-value for two decoders on the same shots.

    Under equal error rates each discordant shot is a fair coin; without discordant shots the answer is 1.
    """
    if min(only_a_wrong, only_b_wrong) < 0:
        raise SyndistillError(f"negative counts of discordant shots ({only_a_wrong}, {only_b_wrong}): give counts >= 0")
    discordant = only_a_wrong + only_b_wrong
    if discordant == 0:
        return 1.0
    return float(binomtest(only_a_wrong, discordant, 0.5).pvalue)


class Ratio(NamedTuple):
    """A ratio of two logical error rates with its interval."""

    ratio: float
    low: float
    high: float


def ler_ratio(only_a_wrong: int, only_b_wrong: int, both_wrong: int, confidence: float = 0.95) -> Ratio:
    """LER(a) / LER(b) on the same shots, with an interval that uses the pairing.

    Delta method on the log for matched pairs: with e_a and e_b the errors of each, Var log(e_a / e_b) =
    (only_a_wrong + only_b_wrong) / (e_a e_b).  Good from some ten errors on each side.  Raises SyndistillError when
    either decoder made no error: the ratio then has no such interval.
    """
    if min(only_a_wrong, only_b_wrong, both_wrong) < 0:
        raise SyndistillError(f"negative counts ({only_a_wrong}, {only_b_wrong}, {both_wrong}): give counts >= 0")
    errors_a, errors_b = both_wrong + only_a_wrong, both_wrong + only_b_wrong
    if errors_a == 0 or errors_b == 0:
        raise SyndistillError(f"{errors_a} and {errors_b} errors: a ratio needs errors on both sides, take more shots")
    half = norm.ppf(0.5 + confidence / 2) * math.sqrt((only_a_wrong + only_b_wrong) / (errors_a * errors_b))
    ratio = errors_a / errors_b
    return Ratio(ratio, ratio * math.exp(-half), ratio * math.exp(half))
