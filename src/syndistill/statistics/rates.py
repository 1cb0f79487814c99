"""Intervals and tests for counts of logical errors, and the logical error per round. Pure functions of counts.

With E(n) the logical error rate after n rounds, the fidelity F(n) = 1 - 2 E(n) decays as
log F = log F0 + n log(1 - 2 eps); eps is the logical error per round (Bausch et al., Nature 2024).

Legend: Q experiments, one for each number of rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm

from syndistill.errors import SyndistillError

CONFIDENCE = 0.95
"""Of every interval."""


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def _check_counts(errors: int, shots: int) -> None:
    if shots <= 0 or not 0 <= errors <= shots:
        raise SyndistillError(f"{errors} errors in {shots} shots: an interval needs shots > 0 and 0 <= errors <= shots")


def wilson(errors: int, shots: int) -> Interval:
    """Wilson's 95 % score interval of a logical error rate: the default for one rate."""
    _check_counts(errors, shots)
    found = binomtest(errors, shots).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


def mcnemar(only_a_wrong: int, only_b_wrong: int, alternative: str = "two-sided") -> float:
    """Exact McNemar p-value for two decoders on the same shots; alternative "less": of "a is not better".

    Under equal error rates each discordant shot is a fair coin; without discordant shots the answer is 1.
    """
    if min(only_a_wrong, only_b_wrong) < 0:
        raise SyndistillError(f"negative counts of discordant shots ({only_a_wrong}, {only_b_wrong}): give counts >= 0")
    discordant = only_a_wrong + only_b_wrong
    if discordant == 0:
        return 1.0
    return float(binomtest(only_a_wrong, discordant, 0.5, alternative).pvalue)


class Ratio(NamedTuple):
    """A ratio of two logical error rates with its interval."""

    ratio: float
    low: float
    high: float


def ler_ratio(only_a_wrong: int, only_b_wrong: int, both_wrong: int) -> Ratio:
    """LER(a) / LER(b) on the same shots, with a 95 % interval that uses the pairing.

    Delta method on the log for matched pairs: with e_a and e_b the errors of each, Var log(e_a / e_b) =
    (only_a_wrong + only_b_wrong) / (e_a e_b).  Good from some ten errors on each side.  Raises SyndistillError when
    either decoder made no error: the ratio then has no such interval.
    """
    if min(only_a_wrong, only_b_wrong, both_wrong) < 0:
        raise SyndistillError(f"negative counts ({only_a_wrong}, {only_b_wrong}, {both_wrong}): give counts >= 0")
    errors_a, errors_b = both_wrong + only_a_wrong, both_wrong + only_b_wrong
    if errors_a == 0 or errors_b == 0:
        raise SyndistillError(f"{errors_a} and {errors_b} errors: a ratio needs errors on both sides, take more shots")
    half = norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt((only_a_wrong + only_b_wrong) / (errors_a * errors_b))
    ratio = errors_a / errors_b
    return Ratio(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def percent(value: float, low: float, high: float) -> str:
    """An error per round and its interval, for a table."""
    return f"{100 * value:.3f} ({100 * low:.3f} to {100 * high:.3f})"


@dataclass(frozen=True)
class PerRoundFit:
    """A fit of the logical error per round.

    `low`, `high`: 95 % interval of eps.  `fidelity_at_zero`: F0.  `rounds`: the numbers of rounds that were fitted.
    """

    epsilon: float
    low: float
    high: float
    fidelity_at_zero: float
    r_squared: float
    rounds: tuple[int, ...]

    @property
    def percent(self) -> str:
        """With its interval."""
        return percent(self.epsilon, self.low, self.high)

    @property
    def counts(self) -> bool:
        """Whether the fit may be quoted: R^2 > 0.9, the rule of the paper."""
        return self.r_squared > 0.9


def _epsilon_of_slope(slope: float) -> float:
    return -math.expm1(slope) / 2


LEAST_LENGTHS = 3
"""Numbers of rounds above 1 that a per-round fit needs."""


def fit_per_round(rounds: Sequence[int], errors: Sequence[int], shots: Sequence[int]) -> PerRoundFit:
    """Fits eps and F0 to counts of errors after different numbers of rounds.

    Weighted least squares on log F, each point weighted by its binomial variance 4 E (1-E) / (shots F^2); the interval
    is the normal one of the slope under these variances (the experiments being independent), mapped to eps.  R^2 uses
    the same weights.  n = 1 is dropped, as in the paper (its boundary rounds are not typical); F0 is free.

    Raises SyndistillError with fewer than 3 numbers of rounds above 1, or for an error rate at or above 1/2 (log F does
    not exist: leave those rounds out, or take more shots).
    """
    if not len(rounds) == len(errors) == len(shots) or len(set(rounds)) != len(rounds):
        raise SyndistillError("a per-round fit needs one count of errors and shots for each number of rounds")
    kept = [(n, k, m) for n, k, m in zip(rounds, errors, shots, strict=True) if n != 1]
    if len(kept) < LEAST_LENGTHS:
        raise SyndistillError(
            f"{len(kept)} numbers of rounds above 1: a per-round fit needs at least {LEAST_LENGTHS}, add experiments"
        )
    n_Q, k_Q, m_Q = np.array(sorted(kept), np.float64).T
    if (m_Q <= 0).any() or (k_Q < 0).any() or (2 * k_Q >= m_Q).any():
        bad = int(n_Q[((m_Q <= 0) | (k_Q < 0) | (2 * k_Q >= m_Q)).argmax()])
        raise SyndistillError(
            f"after {bad} rounds the error rate is not in [0, 1/2): leave {bad} out, or take more shots"
        )
    log_fidelity_Q = np.log1p(-2 * k_Q / m_Q)
    # Half an error is added for the variance alone, so that a point without errors does not get an infinite weight.
    smooth_Q = (k_Q + 0.5) / (m_Q + 1)
    weight_Q = m_Q * (1 - 2 * smooth_Q) ** 2 / (4 * smooth_Q * (1 - smooth_Q))
    n_mean, y_mean = np.average(n_Q, weights=weight_Q), np.average(log_fidelity_Q, weights=weight_Q)
    spread = float((weight_Q * (n_Q - n_mean) ** 2).sum())
    slope = float((weight_Q * (n_Q - n_mean) * (log_fidelity_Q - y_mean)).sum()) / spread
    residual_Q = log_fidelity_Q - y_mean - slope * (n_Q - n_mean)
    total = float((weight_Q * (log_fidelity_Q - y_mean) ** 2).sum())
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) / math.sqrt(spread)
    return PerRoundFit(
        epsilon=_epsilon_of_slope(slope),
        low=_epsilon_of_slope(slope + half),
        high=_epsilon_of_slope(slope - half),
        fidelity_at_zero=math.exp(y_mean - slope * n_mean),
        r_squared=1 - float((weight_Q * residual_Q**2).sum()) / total if total > 0 else 0.0,
        rounds=tuple(int(n) for n in n_Q),
    )


LATE = (25, 100)
"""First and last of the numbers of rounds that the late error per round is fitted over."""


def late_error_per_round(rounds: Sequence[int], errors: Sequence[int], shots: Sequence[int]) -> PerRoundFit:
    """`fit_per_round` over LATE alone: what a round costs once the experiment has run for long. Of a decoder that
    forgets nothing it is the error per round of short experiments. Raises what that does."""
    late = [(n, k, m) for n, k, m in zip(rounds, errors, shots, strict=True) if LATE[0] <= n <= LATE[1]]
    if len(late) < 3:
        raise SyndistillError(
            f"{len(late)} numbers of rounds from {LATE[0]} to {LATE[1]}: the late error per round needs at least 3, "
            "for example 25, 50 and 100"
        )
    n_Q, k_Q, m_Q = zip(*late, strict=True)
    return fit_per_round(n_Q, k_Q, m_Q)


def ler_per_round(ler: float, rounds: int) -> float:
    """eps from one number of rounds, F0 taken as 1: (1 - (1 - 2E)^(1/n)) / 2.  Raises SyndistillError for E > 1/2."""
    if not 0 <= ler <= 0.5 or rounds < 1:
        raise SyndistillError(f"error rate {ler} after {rounds} rounds: take 0 <= E <= 1/2, rounds >= 1")
    return (1 - (1 - 2 * ler) ** (1 / rounds)) / 2
