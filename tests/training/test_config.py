"""Learning rate schedule and curricula, and what a config refuses."""

import numpy as np
import pytest
from pydantic import ValidationError

from syndistill.training.config import Curriculum, OptimiserConfig, RoundsPhase, TrainingConfig

PHASES = (RoundsPhase(from_shots=0, rounds=(3,)), RoundsPhase(from_shots=1000, rounds=(6, 12)))


def test_learning_rate_warms_up_stays_and_cools_down():
    config = OptimiserConfig(learning_rate=2.0, warmup_steps=4, decay_steps=5)
    rates = [config.rate_at(step, 15) for step in range(15)]
    assert rates == pytest.approx([0.5, 1, 1.5, 2, 2, 2, 2, 2, 2, 2, 2, 1.6, 1.2, 0.8, 0.4])
    assert OptimiserConfig(learning_rate=2.0, warmup_steps=0).rate_at(0, 1) == 2.0


def test_rounds_follow_their_phases():
    curriculum = Curriculum(p_min=0.001, p_max=0.006, rounds=PHASES)
    rng = np.random.default_rng(0)
    assert {curriculum.draw(999, rng)[0] for _ in range(50)} == {3}
    assert {curriculum.draw(1000, rng)[0] for _ in range(50)} == {6, 12}  # one missing: 2 * 2^-50


@pytest.mark.parametrize(("tilt", "mean"), [(0.0, 0.004), (1.0, 0.004 / np.log(3))])
def test_rates_are_uniform_or_tilted(tilt, mean):
    curriculum = Curriculum(p_min=0.002, p_max=0.006, rounds=PHASES, tilt=tilt, rates_per_chunk=20_000)
    _, rates = curriculum.draw(0, np.random.default_rng(0))
    assert len(rates) == 20_000
    assert (min(rates), max(rates)) == pytest.approx((0.002, 0.006))
    # Standard deviation 0.0012 at most; 6 sigma of the mean are false once in 5e8. The grid of 51 rates weighs its
    # two ends fully where an integral would by half: up to 0.00002 (from the log-uniform one).
    assert np.mean(rates) == pytest.approx(mean, abs=6 * 0.0012 / 20_000**0.5 + 0.00002)


def test_rates_come_from_a_grid_of_the_size_asked_for():
    curriculum = Curriculum(p_min=0.001, p_max=0.006, rounds=PHASES, n_rates=6, rates_per_chunk=1000)
    _, rates = curriculum.draw(0, np.random.default_rng(0))  # the rarest, tilted, has .07: missing 3e-32
    assert sorted(set(rates)) == pytest.approx([0.001, 0.002, 0.003, 0.004, 0.005, 0.006])


@pytest.mark.parametrize(("seen", "share"), [(0, 0.018), (500_000, 0.5), (1_000_000, 0.982)])
def test_noise_centre_moves_up_a_logistic(seen, share):
    """Centre = low + (1 - low) / (1 + exp(-4 (seen / midpoint - 1))), in units of p_max."""
    curriculum = Curriculum(
        p_min=0.001, p_max=0.01, rounds=PHASES, tilt=0.0, noise_weight=1e6, noise_width=0.02, rates_per_chunk=4000
    )
    _, rates = curriculum.draw(seen, np.random.default_rng(1))
    centre = 0.001 + 0.009 * share
    # Cut by the ends of the range, the mean of a Gaussian moves inwards by less than a width.
    assert np.mean(rates) == pytest.approx(centre, abs=0.02 * 0.01)
    assert np.std(rates) < 0.025 * 0.01


def test_a_draw_is_a_function_of_its_generator():
    curriculum = Curriculum(p_min=0.001, p_max=0.006, rounds=PHASES, noise_weight=1.0)
    first, again, other = (curriculum.draw(5000, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curriculum(p_min=0.01, p_max=0.001, rounds=PHASES),
        lambda: Curriculum(p_min=0.0, p_max=0.001, rounds=PHASES),
        lambda: Curriculum(p_min=0.001, p_max=0.01, rounds=PHASES[1:]),
        lambda: Curriculum(p_min=0.001, p_max=0.01, rounds=()),
        lambda: TrainingConfig(steps=0),
        lambda: TrainingConfig(steps=1, stepps=2),
        lambda: OptimiserConfig(name="sgd"),
    ],
)
def test_what_cannot_be_meant_is_refused(make):
    with pytest.raises(ValidationError):
        make()
