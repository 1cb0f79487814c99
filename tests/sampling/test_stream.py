"""Streams of fresh shots: batch i is a function of the source and i, whoever asks and whenever."""

import itertools
import threading

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.sampling.seeds import ROLES, derived_seed
from syndistill.sampling.shots import simulate
from syndistill.sampling.stored import evaluation_seed
from syndistill.sampling.stream import ShotStream, SimulatedSource


class TwoPhases:
    """Two rounds first, three after 100 shots; two error rates."""

    def draw(self, shots_seen, rng):
        return (2 if shots_seen < 100 else 3), [0.001, 0.05 * (1 + float(rng.random()))]


def source(seed=1, batches_per_chunk=4, bases=("x", "z"), role="train"):
    return SimulatedSource(3, "si1000", bases, TwoPhases(), 10, seed, batches_per_chunk, role)


def batches(stream, n):
    found = list(itertools.islice(stream, n))
    stream.close()
    return found


def same(one, other):
    return one.basis == other.basis and one.rounds == other.rounds and torch.equal(one.events_BRS, other.events_BRS)


@pytest.mark.parametrize("first", [1, 4, 6, 11])
def test_a_resumed_stream_goes_on_where_it_was(first):
    whole = batches(ShotStream(source()), 14)
    resumed = batches(ShotStream(source(), first), 14 - first)
    assert len(resumed) == 14 - first
    assert all(same(a, b) for a, b in zip(whole[first:], resumed, strict=True))
    assert not any(same(a, b) for a, b in itertools.combinations(whole, 2))


def test_batches_follow_schedule_bases_and_size():
    found = batches(ShotStream(source()), 16)
    assert [len(b) for b in found] == [10] * 16
    assert [b.basis for b in found] == ["x", "z"] * 8
    assert [b.rounds for b in found] == [2] * 12 + [3] * 4  # chunk 3 begins at 120 shots
    assert all(b.ends == tuple(range(1, b.rounds + 1)) for b in found)


def test_every_batch_mixes_error_rates():
    """Rates of .001 and .05 to .1, half each: a shot of the second kind has many events, of the first hardly one."""
    noisy = torch.tensor([(b.events_BRS.sum((1, 2)) >= 2).sum() for b in batches(ShotStream(source()), 64)])
    # Hypergeometric, 10 of 20 + 20 shots: none noisy, or all, 2e-4 each a batch; two such batches of 64 of each kind
    # 1e-4, four 2e-9.
    assert ((noisy == 0) | (noisy == 10)).sum() < 4
    assert 0.3 < noisy.float().mean() / 10 < 0.6


class Long:
    def draw(self, shots_seen, rng):
        return 9, [0.003, 0.004, 0.005]


@pytest.mark.parametrize(("labels", "distance"), [("sampled", 3), ("exact", 3), ("revealed", 5)])
def test_the_shares_of_a_batch_are_the_batch(labels, distance):
    def chunk(share):
        return SimulatedSource(
            distance, "si1000", ("x", "z"), Long(), 8, 0, 6, labels=labels, end_spacing=4, share=share
        ).chunk(3)

    for whole, *parts in zip(chunk((0, 1)), chunk((0, 2)), chunk((1, 2)), strict=True):
        assert whole.ends == parts[0].ends == (1, 5, 9)
        for name in ("events_BRS", "last_BKS", "labels_BKLO", "posterior_BKLP"):
            tensor = getattr(whole, name)
            assert (tensor is None) == (name == "posterior_BKLP" and labels == "sampled")
            if tensor is not None:
                assert len(tensor) == 8
                both = torch.cat([getattr(part, name) for part in parts])
                atol = 1e-5 if name == "posterior_BKLP" else 0  # a matrix product's rounding knows its rows
                torch.testing.assert_close(tensor, both, atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("labels", ["sampled", "revealed"])
def test_the_last_of_spaced_ends(labels):
    for ends, expected in ((0, (1, 5, 9)), (2, (5, 9)), (1, (9,)), (7, (1, 5, 9))):
        taught = SimulatedSource(3, "si1000", ("z",), Long(), 8, 0, 2, labels=labels, ends=ends, end_spacing=4).chunk(0)
        assert all(shots.ends == expected for shots in taught)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(SyndistillError, match="batch of 8 does not divide among 3"):
        SimulatedSource(3, "si1000", ("z",), Long(), 8, 0, share=(0, 3))


def test_seeds_and_roles_are_other_shots():
    first = source().chunk(0)
    assert all(same(a, b) for a, b in zip(first, source().chunk(0), strict=True))
    for other in (source().chunk(1), source(seed=2).chunk(0), source(role="select").chunk(0)):
        assert not any(same(a, b) for a, b in zip(first, other, strict=True))


def test_roles_never_share_a_stim_seed():
    keys = list(itertools.product(range(20), range(20)))
    ranges = {role: [derived_seed(role, *key) for key in keys] for role in ROLES}
    ranges["evaluation"] = [evaluation_seed(*key, 1000) for key in keys]
    tops = {role: {seed >> 56 for seed in seeds} for role, seeds in ranges.items()}
    for a, b in itertools.combinations(tops, 2):
        assert not tops[a] & tops[b], (a, b)
    assert all(0 <= seed < 2**63 for seeds in ranges.values() for seed in seeds)
    assert all(len(set(seeds)) == 400 for seeds in ranges.values())
    simulate(Experiment(3, 1, "z", "si1000", 0.01), 1, max(ranges["evaluation"]))  # Stim takes them


class Broken:
    batches_per_chunk = 2

    def chunk(self, index):
        if index == 1:
            raise RuntimeError("the disk is on fire")
        return source().chunk(index)[:2]


def test_an_error_in_the_thread_reaches_the_reader():
    stream = ShotStream(Broken())
    with pytest.raises(RuntimeError, match="the disk is on fire"):
        batches(stream, 5)
    stream.close()


def test_closing_ends_the_thread():
    before = threading.active_count()
    streams = [ShotStream(source()) for _ in range(3)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    assert threading.active_count() == before
