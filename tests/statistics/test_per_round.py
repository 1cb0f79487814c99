"""Logical error per round."""

import numpy as np
import pytest

from syndistill.errors import SyndistillError
from syndistill.statistics.rates import fit_per_round, late_error_per_round

ROUNDS = list(range(1, 26, 2))


def rate(eps, fidelity_at_zero, rounds):
    return (1 - fidelity_at_zero * (1 - 2 * eps) ** np.asarray(rounds)) / 2


def test_exact_decay_is_recovered():
    shots = 10**12
    errors = np.round(rate(0.03, 0.97, ROUNDS) * shots).astype(int)
    fit = fit_per_round(ROUNDS, errors, [shots] * len(ROUNDS))
    assert fit.epsilon == pytest.approx(0.03, rel=1e-6)
    assert fit.fidelity_at_zero == pytest.approx(0.97, rel=1e-6)
    assert fit.r_squared == pytest.approx(1, abs=1e-9)
    assert fit.counts
    assert fit.low < fit.epsilon < fit.high


def test_one_round_is_dropped_and_order_does_not_matter():
    shots = [10**6] * len(ROUNDS)
    errors = np.round(rate(0.02, 0.99, ROUNDS) * 10**6).astype(int).tolist()
    fit = fit_per_round(ROUNDS, errors, shots)
    assert fit.rounds == tuple(ROUNDS[1:])
    assert fit_per_round(ROUNDS, [400_000, *errors[1:]], shots) == fit
    backwards = fit_per_round(ROUNDS[::-1], errors[::-1], shots)
    assert backwards.epsilon == pytest.approx(fit.epsilon, rel=1e-12)


def test_coverage():
    """3000 simulated fits at nominal 95 %: true coverage .95 leaves [.93, .97] less than once in 1e6."""
    rng = np.random.default_rng(2)
    rounds, shots = [3, 5, 9, 15, 25], 20_000
    draws = rng.binomial(shots, rate(0.01, 0.98, rounds), size=(3000, 5))
    covered = 0
    for errors in draws.tolist():
        fit = fit_per_round(rounds, errors, [shots] * 5)
        covered += fit.low <= 0.01 <= fit.high
    assert 0.93 < covered / 3000 < 0.97


def test_the_late_error_is_that_of_late_rounds_alone():
    """Of a decoder that errs twice as often a round from round 25 on."""
    shots, rounds = 10**9, [3, 9, 25, 50, 100, 200]
    fidelity = [(1 - 0.02) ** min(r, 25) * (1 - 0.04) ** max(0, r - 25) for r in rounds]
    errors = [round((1 - f) / 2 * shots) for f in fidelity]
    late = late_error_per_round(rounds, errors, [shots] * 6)
    assert late.rounds == (25, 50, 100)
    assert late.epsilon == pytest.approx(0.02, rel=1e-4)
    assert fit_per_round(rounds[:3], errors[:3], [shots] * 3).epsilon == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(SyndistillError, match="2 numbers of rounds from 25 to 100"):
        late_error_per_round([3, 9, 25, 50, 200], [1, 2, 3, 4, 5], [100] * 5)


def test_a_bad_fit_does_not_count():
    fit = fit_per_round([3, 5, 7, 9], [3000, 1000, 3000, 1500], [10_000] * 4)
    assert fit.r_squared < 0.9
    assert not fit.counts


def test_a_point_without_errors_does_not_decide_alone():
    fit = fit_per_round([3, 5, 7], [0, 4, 8], [1000] * 3)
    assert np.isfinite([fit.epsilon, fit.low, fit.high]).all()
    assert 0 < fit.epsilon < 0.01


@pytest.mark.parametrize(
    ("rounds", "errors", "shots", "message"),
    [
        ([1, 3, 5], [1, 2, 3], [100] * 3, "at least 3"),
        ([3, 5, 7], [1, 2, 50], [100] * 3, "after 7 rounds"),
        ([3, 5, 7], [1, 2, 3], [100, 0, 100], "after 5 rounds"),
        ([3, 3, 7], [1, 2, 3], [100] * 3, "each number of rounds"),
        ([3, 5, 7], [1, 2], [100] * 3, "each number of rounds"),
    ],
)
def test_bad_input(rounds, errors, shots, message):
    with pytest.raises(SyndistillError, match=message):
        fit_per_round(rounds, errors, shots)
