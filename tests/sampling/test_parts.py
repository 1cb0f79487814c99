"""Parts of long experiments: together they are the experiment, its labels and its order."""

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.parts import PartedSource, parts_of
from syndistill.sampling.shots import simulate
from syndistill.training.config import Curriculum, Informative, RoundsPhase


def curriculum(*rounds, n_rates=3, **options):
    phases = (RoundsPhase(from_shots=0, rounds=rounds),)
    return Curriculum(p_min=0.001, p_max=0.006, rounds=phases, n_rates=n_rates, **options)


def source(*rounds, seed=3, labels="exact", part_rounds=4, **options):
    return PartedSource(
        part_rounds=part_rounds, longest=max(rounds), distance=3, noise="si1000", bases=("x", "z"),
        schedule=curriculum(*rounds), batch_size=6, seed=seed, labels=labels, **options,
    )  # fmt: skip


def test_parts_are_the_experiment_and_its_exact_labels():
    experiment = Experiment(3, 12, "x", "si1000", 0.006)
    whole = with_exact_labels(simulate(experiment, 40, 7), experiment)
    parts = parts_of(whole, 4, lane=2)
    assert [part.part for part in parts] == [(2, 0, False), (2, 4, False), (2, 8, False)]
    assert all(part.ends == (1, 2, 3, 4) for part in parts)
    for name in ("events_BRS", "last_BKS", "labels_BKLO", "posterior_BKLP"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], 1), getattr(whole, name)), name
    shorter = simulate(Experiment(3, 4, "x", "si1000", 0.006), 40, 7)
    assert not torch.equal(shorter.labels_BKLO, parts[2].labels_BKLO)


def test_lanes_come_in_turn_and_each_goes_on_where_it_was():
    made = source(12)
    shots = made.chunk(0)
    assert len(shots) == made.batches_per_chunk == 12
    assert [s.part.lane for s in shots] == [0, 1, 2, 3] * 3
    assert [s.basis for s in shots] == ["x", "z"] * 6
    assert [s.first_round for s in shots] == [0] * 4 + [4] * 4 + [8] * 4
    for lane in range(4):
        first, second, third = (s.events_BRS for s in shots[lane::4])
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)


def test_short_experiments_begin_again_in_their_lane():
    """Each number of rounds has its turn; the lane is full all the same."""
    seen = set()
    for index in range(6):
        shots = source(4, 12).chunk(index)
        assert len(shots) == 12
        for lane in range(4):
            seen.add(tuple(s.first_round for s in shots[lane::4]))
    assert seen == {(0, 0, 0), (0, 4, 8)}  # one missing: 2 * 2^-24


def test_chunks_are_a_function_of_the_seed_and_the_number():
    one, same, other, later = source(12).chunk(5), source(12).chunk(5), source(12, seed=4).chunk(5), source(12).chunk(6)
    for a, b, c, d in zip(one, same, other, later, strict=True):
        assert torch.equal(a.events_BRS, b.events_BRS)
        assert torch.equal(a.posterior_BKLP, b.posterior_BKLP)
        assert not torch.equal(a.events_BRS, c.events_BRS)
        assert not torch.equal(a.events_BRS, d.events_BRS)


def test_a_part_is_taught_at_chosen_ends():
    assert {s.ends for s in source(12, ends=1).chunk(0)} == {(4,)}
    assert {s.ends for s in source(12, end_spacing=2).chunk(0)} == {(2, 4)}
    drawn = {s.ends for index in range(3) for s in source(12, ends=2).chunk(index)}
    assert drawn == {(1, 4), (2, 4), (3, 4)}


def test_what_cannot_be_carried_is_refused():
    with pytest.raises(SyndistillError, match="revealed labels begin at round 0"):
        source(12, labels="revealed")
    with pytest.raises(SyndistillError, match="learned by one process"):
        source(12, share=(0, 2))
    source(12, tell_frame=True, part_rounds=3)
    with pytest.raises(SyndistillError, match="parts of more than 3 rounds"):
        source(12, labels="sampled", tell_frame=True, part_rounds=3)
    with pytest.raises(SyndistillError, match="no frame to tell"):
        parts_of(simulate(Experiment(3, 8, "both", "si1000", 0.006), 4, 1), 4, 0, told=True)


def test_a_told_part_begins_from_a_known_frame():
    """Told or not, the labels of a shot differ by one factor a part, the same at all its ends and lines; the first part
    is as it was, and a later one says more than it did."""
    gained = 0.0
    for told, plain in zip(source(12, tell_frame=True).chunk(0), source(12).chunk(0), strict=True):
        assert told.part.told == (told.first_round > 0)
        mean, before = (2 * shots.posterior_BKLP[..., 1] - 1 for shots in (told, plain))
        if not told.part.told:
            assert torch.equal(mean, before)
            continue
        factor_B11 = mean[:, -1:, :1] / before[:, -1:, :1]
        torch.testing.assert_close(mean, before * factor_B11, rtol=1e-3, atol=1e-5)
        assert (factor_B11.abs() > 1 - 1e-4).all()
        gained += float(mean.abs().mean() - before.abs().mean())
    assert gained > 0.01


def test_drawn_shots_are_told_the_true_frame_three_rounds_late():
    whole = simulate(Experiment(3, 12, "x", "si1000", 0.02), 200, 7)
    first, *later = parts_of(whole, 4, lane=0, told=True)
    assert first.known_BLO is None
    for part in later:
        assert part.part.told
        assert torch.equal(part.known_BLO, whole.frames_BKLO[:, part.first_round - 4])
        assert torch.equal(part.labels_BKLO, whole.labels_BKLO[:, part.first_round :][:, :4])
        assert 0.01 < part.known_BLO.double().mean() < 0.6
        assert torch.equal(part.at_ends([1]).take(slice(5, 9)).known_BLO, part.known_BLO[5:9])
    parts = source(12, labels="sampled", tell_frame=True).chunk(0)
    assert [part.known_BLO is not None for part in parts] == [part.first_round > 0 for part in parts]
    assert all(part.known_BLO is None for part in source(12, labels="sampled").chunk(0))
    assert all(part.known_BLO is None for part in source(12, tell_frame=True).chunk(0))


def test_labels_of_long_experiments_stay_informative():
    """The rule's own promise: with an error per round that falls as p^2, no label is wrong more often than that."""
    rule = Informative(error_per_round=0.025, power=2.0, most_ler=0.25)
    rates = {r: rule.most_rate(r, 0.006) for r in (5, 14, 50, 200)}
    assert rates[5] == 0.006
    for rounds in (50, 200):
        error_per_round = 0.025 * (rates[rounds] / 0.006) ** 2
        assert (1 - (1 - 2 * error_per_round) ** rounds) / 2 == pytest.approx(0.25)
    drawn = curriculum(5, 200, n_rates=51, informative=rule)
    rng = np.random.default_rng(0)
    for rounds, most in rates.items():
        found = [p for _ in range(50) for p in drawn.draw_rates(0, rounds, rng)]
        assert 0.8 * most < max(found) <= most
        assert min(found) == pytest.approx(0.001, rel=0.2)


def test_without_the_rule_rates_are_drawn_as_ever():
    plain, rule = curriculum(5, 12), curriculum(5, 12, informative=Informative(error_per_round=1e-4))
    for seed in range(5):
        assert plain.draw(0, np.random.default_rng(seed)) == rule.draw(0, np.random.default_rng(seed))
