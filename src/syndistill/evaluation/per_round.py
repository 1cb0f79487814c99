"""Logical error per round.

With E(n) the logical error rate after n rounds, the fidelity F(n) = 1 - 2 E(n) decays as
log F = log F0 + n log(1 - 2 eps); eps is the logical error per round (Bausch et al., Nature 2024).

Legend: Q experiments, one for each number of rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from syndistill.errors import SyndistillError
from syndistill.evaluation.intervals import Interval, wilson


@dataclass(frozen=True)
class PerRoundFit:
    """A fit of the logical error per round.

    `low`, `high`: interval of eps.  `fidelity_at_zero`: F0.  `rounds`: the numbers of rounds that were fitted.
    """

    epsilon: float
    low: float
    high: float
    fidelity_at_zero: float
    r_squared: float
    rounds: tuple[int, ...]

    @property
    def counts(self) -> bool:
        """Whether the fit may be quoted: R^2 > 0.9, the rule of the paper."""
        return self.r_squared > 0.9


def _epsilon_of_slope(slope: float) -> float:
    return -math.expm1(slope) / 2


def fit_per_round(
    rounds: Sequence[int], errors: Sequence[int], shots: Sequence[int], confidence: float = 0.95
) -> PerRoundFit:
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
    if len(kept) < 3:
        raise SyndistillError(
            f"{len(kept)} numbers of rounds above 1: a per-round fit needs at least 3, add experiments"
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
    half = float(norm.ppf(0.5 + confidence / 2)) / math.sqrt(spread)
    return PerRoundFit(
        epsilon=_epsilon_of_slope(slope),
        low=_epsilon_of_slope(slope + half),
        high=_epsilon_of_slope(slope - half),
        fidelity_at_zero=math.exp(y_mean - slope * n_mean),
        r_squared=1 - float((weight_Q * residual_Q**2).sum()) / total if total > 0 else 0.0,
        rounds=tuple(int(n) for n in n_Q),
    )


def ler_per_round(ler: float, rounds: int) -> float:
    """eps from one number of rounds, F0 taken as 1: (1 - (1 - 2E)^(1/n)) / 2.  Raises SyndistillError for E > 1/2."""
    if not 0 <= ler <= 0.5 or rounds < 1:
        raise SyndistillError(f"error rate {ler} after {rounds} rounds: take 0 <= E <= 1/2, rounds >= 1")
    return (1 - (1 - 2 * ler) ** (1 / rounds)) / 2


def ler_per_round_interval(errors: int, shots: int, rounds: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of the error rate, mapped through `ler_per_round` (its ends cut at 1/2)."""
    low, high = wilson(errors, shots, confidence)
    return Interval(ler_per_round(min(low, 0.5), rounds), ler_per_round(min(high, 0.5), rounds))
