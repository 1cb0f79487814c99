"""Statistics of paired seeds: effects, equivalence, power, many tests, saving of shots. Pure functions of numbers.

The unit is a training run: a difference is taken seed by seed (blocked), and its spread over seeds is the error. The
judged shots are the same for all, so an interval is given these shots; at some 10^4 errors that adds little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student_t

LEVEL, POWER = 0.05, 0.8
RESAMPLES = 4_000


class Effect(NamedTuple):
    """Of per-seed differences: mean with its 95 % t interval, p of "no difference" (paired t test, two-sided), p of "a
    difference beyond the margin" (TOST: small when there is no effect), the smallest true difference that so many
    seeds of this spread find with 80 % power."""

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float
    p_beyond: float
    detectable: float

    @property
    def seeds(self) -> int:
        return len(self.values)


def effect_of(differences: Sequence[float], margin: tuple[float, float]) -> Effect | None:
    """None where an interval can't be had: fewer than 3 seeds, or no spread between them at all.

    margin: (below, above) 0, in the unit of the differences.
    """
    x = np.asarray(differences, np.float64)
    n = len(x)
    if n < 3 or not np.isfinite(x).all() or x.std(ddof=1) == 0:
        return None
    mean, error = float(x.mean()), _standard_error(x)
    half = _half_width(n, error)
    p_value = 2 * float(student_t.sf(abs(mean) / error, n - 1))
    beyond = [student_t.sf((mean - margin[0]) / error, n - 1), student_t.cdf((mean - margin[1]) / error, n - 1)]
    return Effect(
        tuple(x.tolist()), mean, mean - half, mean + half, p_value, float(max(beyond)), _noncentrality(n) * error
    )


@lru_cache(maxsize=64)
def _noncentrality(n: int) -> float:
    """True difference over its standard error at which a two-sided t test of n pairs has the wanted power."""
    critical = float(student_t.ppf(1 - LEVEL / 2, n - 1))

    def lacking(size: float) -> float:
        return float(nct.sf(critical, n - 1, size) + np.nan_to_num(nct.cdf(-critical, n - 1, size))) - POWER

    return float(brentq(lacking, 0.1, 15.0))


def log_margin(margin: float) -> tuple[float, float]:
    """A margin of a ratio of error rates, in log LER."""
    return math.log1p(-margin), math.log1p(margin)


def differences(values: Mapping[str, Mapping[int, float]], contrast: Mapping[str, float]) -> dict[int, float]:
    """sum over arms of weight * value, for each seed that all arms have; values: arm -> seed -> value."""
    seeds = set.intersection(*(set(values.get(arm, {})) for arm in contrast))
    return {seed: sum(weight * values[arm][seed] for arm, weight in contrast.items()) for seed in sorted(seeds)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for their number (Holm 1979): below 0.05 together wrong in 5 % of cases at most."""
    order = np.argsort(p_values)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class Saving(NamedTuple):
    """How many times the shots are needed without. inf or 0: the curve without ends before, or begins below; it was
    tried from `least` to `most` times."""

    factor: float
    low: float
    high: float
    least: float
    most: float

    def said(self, factor: float) -> str:
        if math.isinf(factor):
            return f"more than {self.most:.1f} times"
        return f"less than {self.least:.2g} times" if factor == 0 else f"{factor:.2g} times"


def saving_of(
    taught: Mapping[int, float], without: Mapping[int, Mapping[int, float]], shots: int
) -> Saving | None:
    """taught: seed -> log LER after `shots` shots with the Teacher; without: shots -> seed -> log LER.

    The shots at which the mean curve without (straight in log LER over log shots) comes down to the mean taught LER,
    over `shots`; the interval is the 95 % percentile bootstrap over seeds, with all that belongs to one seed together.
    None for fewer than 3 seeds or fewer than 2 points of the curve.
    """
    whole = {n: found for n, found in without.items() if found}
    seeds = sorted(set(taught).intersection(*(set(found) for found in whole.values())) if whole else [])
    if len(seeds) < 3 or len(whole) < 2:
        return None
    points = sorted(whole)
    log_n = np.log(points)
    curves_SN = np.array([[whole[n][seed] for n in points] for seed in seeds])
    targets_S = np.array([taught[seed] for seed in seeds])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    logs = [_crossing(log_n, curves_SN[rows].mean(0), float(targets_S[rows].mean())) for rows in drawn]
    middle = _crossing(log_n, curves_SN.mean(0), float(targets_S.mean()))
    low, high = np.quantile(logs, [LEVEL / 2, 1 - LEVEL / 2], method="inverted_cdf")
    factor, least, most = (float(np.exp(value - math.log(shots))) for value in (middle, low, high))
    return Saving(factor, least, most, points[0] / shots, points[-1] / shots)


def _crossing(log_n: NDArray[np.float64], curve_N: NDArray[np.float64], target: float) -> float:
    """log shots where the curve first comes down to the target; -inf if it begins there, inf if it never does."""
    if curve_N[0] <= target:
        return -math.inf
    for i in range(1, len(curve_N)):
        if curve_N[i] <= target:
            share = (curve_N[i - 1] - target) / (curve_N[i - 1] - curve_N[i])
            return float(log_n[i - 1] + share * (log_n[i] - log_n[i - 1]))
    return math.inf


def mean_and_half(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the half width of its 95 % t interval over seeds (None for fewer than 3)."""
    mean = float(np.mean(values))
    if len(values) < 3:
        return mean, None
    return mean, _half_width(len(values), _standard_error(np.asarray(values, np.float64)))


def _standard_error(x: NDArray[np.float64]) -> float:
    return float(x.std(ddof=1) / math.sqrt(len(x)))


def _half_width(n: int, error: float) -> float:
    """Of the 95 % t interval of a mean of n values."""
    return float(student_t.ppf(1 - LEVEL / 2, n - 1)) * error
