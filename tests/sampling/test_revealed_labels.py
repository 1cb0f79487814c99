"""Revealed labels: against a sum over all patterns, against the exact posterior, and against drawn labels.

Means are compared within 5.6 standard errors: with all comparisons of this file, a false alarm below 1e-6.
"""

import sys
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_experiment
from syndistill.errors import SyndistillError
from syndistill.sampling import revealed_labels
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.exact_posterior import flips, slice_chain
from syndistill.sampling.revealed_labels import RevealedEnds, RevealedLabels, revealed_shots
from syndistill.sampling.stream import SimulatedSource
from syndistill.sampling.sweep_plan import common_detectors

pytest.importorskip("numba")

LIMIT = 5.6


def experiment(distance=3, rounds=3, basis="z", noise="si1000", p=0.004):
    return Experiment(distance, rounds, basis, noise, p)


def assert_mean_zero(values):
    assert abs(values.mean()) <= LIMIT * values.std() / len(values) ** 0.5


def soft_and_drawn(shots, line):
    soft_B = shots.posterior_BKLP[:, 0, line, 1].double().numpy()
    return soft_B, shots.labels_BKLO[:, 0, line, 0].double().numpy()


@lru_cache
def with_exact(rounds, basis, shots=10_000):
    """(revealed, drawn, exact posterior), each (B,)."""
    of = experiment(rounds=rounds, basis=basis)
    drawn = revealed_shots(of, shots, seed=11)
    circuit = of.circuit()
    placed = place_experiment(of)
    slices_BTS = torch.cat([drawn.events_BRS, drawn.last_BKS], 1).long()
    patterns_BT = (slices_BTS * (1 << torch.arange(8))).sum(-1).numpy()
    chain = slice_chain(circuit.detector_error_model(), placed.slice_N, placed.stabiliser_N, 8)
    return *soft_and_drawn(drawn, placed.lines[0]), chain.posterior(patterns_BT)[:, 1]


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("rounds", [3, 5])
def test_unbiased_whatever_the_exact_posterior(rounds, basis):
    soft_B, _, exact_B = with_exact(rounds, basis)
    assert_mean_zero(soft_B - exact_B)
    for low, high in ((0, 0.02), (0.02, 0.5), (0.5, 0.98), (0.98, 1.01)):
        inside_B = (exact_B >= low) & (exact_B < high)
        assert inside_B.sum() > 30
        assert_mean_zero((soft_B - exact_B)[inside_B])


@pytest.mark.parametrize("basis", ["x", "z"])
def test_one_round_has_nothing_to_reveal(basis):
    soft_B, _, exact_B = with_exact(1, basis)
    np.testing.assert_allclose(soft_B, exact_B, rtol=0, atol=1e-6)


@pytest.mark.parametrize("basis", ["x", "z"])
def test_scatter_is_an_eighth_of_a_drawn_label_s(basis):
    soft_B, drawn_B, exact_B = with_exact(3, basis)
    assert ((soft_B - exact_B) ** 2).mean() * 8 < ((drawn_B - exact_B) ** 2).mean()


class AllPatterns:
    """The posterior from the Walsh-Hadamard characters of all on-basis patterns at once."""

    def __init__(self, of):
        circuit = of.circuit()
        self.placed = place_experiment(of)
        self.on_D = self.placed.layout.on_basis_S(of.basis)[self.placed.stabiliser_N]
        self.bit_D = np.cumsum(self.on_D) - 1
        self.n = int(self.on_D.sum())
        self.characters = np.arange(2 << self.n)
        self.errors, self.classes, self.free = [], {}, np.ones(2 << self.n)
        for q, detectors, observable in flips(circuit.detector_error_model()):
            x = observable << self.n | sum(1 << int(self.bit_D[k]) for k in detectors if self.on_D[k])
            z = tuple(sorted(k for k in detectors if not self.on_D[k]))
            if z:
                self.classes.setdefault(z, []).append(len(self.errors))
            else:
                self.free *= np.where(self.sign(x) < 0, 1 - 2 * q, 1)
            self.errors.append((x, q / (1 - q), z))

    def sign(self, x):
        return 1 - 2 * (np.bitwise_count(self.characters & x) & 1).astype(float)

    def flipped(self, events_D, fired):
        weights, known = self.free.copy(), 0
        for z in {self.errors[i][2] for i in fired} - {()}:
            of_class = [i for i in fired if self.errors[i][2] == z]
            if len(of_class) == 1:
                odds = sum(self.errors[i][1] for i in self.classes[z])
                weights *= sum(self.errors[i][1] / odds * self.sign(self.errors[i][0]) for i in self.classes[z])
            else:
                known ^= np.bitwise_xor.reduce([self.errors[i][0] for i in of_class])
        seen = sum(1 << int(self.bit_D[k]) for k in np.flatnonzero(events_D & self.on_D)) ^ known
        amplitudes = weights * self.sign(seen)
        flipped = (amplitudes * self.sign(1 << self.n)).sum()
        return flipped / (amplitudes.sum() + flipped)


@pytest.mark.parametrize(("noise", "basis"), [("si1000", "z"), ("si1000", "x"), ("uniform", "z")])
def test_equal_to_the_sum_over_all_patterns(noise, basis):
    of = experiment(rounds=2, basis=basis, noise=noise, p=0.02)  # several errors of one class in many shots
    labels, reference = RevealedLabels(of), AllPatterns(of)
    events_BD, _, errors_BA = labels.dem.compile_sampler(seed=3).sample(200, return_errors=True)
    expected_B = [reference.flipped(e, np.flatnonzero(f)) for e, f in zip(events_BD, errors_BA, strict=True)]
    np.testing.assert_allclose(labels.flipped(events_BD, errors_BA), expected_B, rtol=0, atol=1e-9)


def test_unbiased_where_memory_is_short(monkeypatch):
    """The widest classes' errors are known then: more scatter, no bias."""
    soft_B, _, exact_B = with_exact(3, "z")
    monkeypatch.setattr(revealed_labels, "MOST_OPEN", 5)
    of = experiment()
    again_B, _ = soft_and_drawn(revealed_shots(of, 10_000, seed=11), place_experiment(of).lines[0])
    assert 0.05 < (again_B != soft_B).mean() < 0.5
    assert_mean_zero(again_B - exact_B)
    assert ((again_B - exact_B) ** 2).mean() > ((soft_B - exact_B) ** 2).mean()


@pytest.mark.parametrize(("noise", "basis"), [("si1000", "x"), ("si1000", "z"), ("uniform", "x"), ("uniform", "z")])
def test_distance_5_is_calibrated_by_its_drawn_labels(noise, basis):
    shots = revealed_shots(experiment(5, 5, basis, noise), 1_000, seed=7)
    for line in range(5):
        soft_B, drawn_B = soft_and_drawn(shots, line)
        assert ((soft_B >= 0) & (soft_B <= 1)).all()
        assert_mean_zero(drawn_B - soft_B)
        assert_mean_zero((drawn_B - soft_B) ** 2 - soft_B * (1 - soft_B))


@pytest.mark.parametrize(("noise", "basis"), [("si1000", "x"), ("si1000", "z"), ("uniform", "x"), ("uniform", "z")])
def test_joint_errors_are_those_of_every_end_s_own_model(noise, basis):
    ends = RevealedEnds(experiment(rounds=4, basis=basis, noise=noise, p=0.007))
    chi_J = 1 - 2 * ends.errors.chance_J
    for end in range(1, 5):
        own = RevealedLabels(replace(ends.experiment, rounds=end))
        column_J = ends._columns(end)
        chi_A = np.ones(own.dem.num_errors)
        np.multiply.at(chi_A, column_J[column_J >= 0], chi_J[column_J >= 0])
        np.testing.assert_allclose((1 - chi_A) / 2, [q for q, _, _ in flips(own.dem)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("basis", ["x", "z"])
def test_unbiased_at_every_end(basis):
    of = experiment(rounds=3, basis=basis)
    shots = revealed_shots(of, 10_000, seed=13, ends=(1, 2, 3))
    exact_BKLP = with_exact_labels(shots, of).posterior_BKLP
    torch.testing.assert_close(shots.posterior_BKLP[:, 0], exact_BKLP[:, 0], rtol=0, atol=2e-6)
    for k, line in product((1, 2), range(3)):
        soft_B, exact_B = (
            posterior[:, k, line, 1].double().numpy() for posterior in (shots.posterior_BKLP, exact_BKLP)
        )
        drawn_B = shots.labels_BKLO[:, k, line, 0].double().numpy()
        assert_mean_zero(soft_B - exact_B)
        assert_mean_zero(drawn_B - exact_B)
        assert ((soft_B - exact_B) ** 2).mean() * 8 < ((drawn_B - exact_B) ** 2).mean()


def test_fewer_ends_of_the_same_shots():
    every = revealed_shots(experiment(), 1_100, seed=2, ends=(1, 2, 3)).at_ends([1, 2])
    two = revealed_shots(experiment(), 1_100, seed=2, ends=(2, 3))
    assert two.ends == every.ends == (2, 3)
    for name in ("events_BRS", "last_BKS", "labels_BKLO", "posterior_BKLP"):
        assert torch.equal(getattr(two, name), getattr(every, name))


@pytest.mark.parametrize(("basis", "most_open"), [("x", 18), ("z", 18), ("z", 5)])
def test_ends_answered_together_are_those_answered_alone(monkeypatch, basis, most_open):
    """Also where memory is short, in the trunk or in a branch, and more has to be revealed."""
    monkeypatch.setattr(revealed_labels, "MOST_OPEN", most_open)
    ends = RevealedEnds(experiment(rounds=8, basis=basis, p=0.01))
    assert ends._common(5, 8) > 8  # 4 on-basis detectors a slice: some slices are swept once for both
    together = ends.draw(300, 4, (1, 3, 5, 8))
    alone = [ends.draw(300, 4, (end,)) for end in (1, 3, 5, 8)]
    for k, one in enumerate(alone):
        torch.testing.assert_close(together.posterior_BKLP[:, k], one.posterior_BKLP[:, 0], rtol=0, atol=1e-6)


def test_plans_part_where_their_rates_differ():
    of = ((6, 0.004), (6, 0.004), (6, 0.005), (4, 0.004))
    plans = [RevealedLabels(experiment(rounds=rounds, p=p)).model.plan for rounds, p in of]
    assert common_detectors(plans[0], plans[1]) == 4 * 7
    assert common_detectors(plans[0], plans[2]) == 0
    assert 8 <= common_detectors(plans[0], plans[3]) < 4 * 5


def test_lines_differ_by_what_the_shot_shows():
    shots = revealed_shots(experiment(5, 2), 50, seed=1)
    shown_BL = shots.labels_BKLO[:, 0, :, 0] ^ shots.labels_BKLO[:, 0, :1, 0]
    soft_BL = shots.posterior_BKLP[:, 0, :, 1]
    turned_BL = torch.where(shown_BL.bool(), 1 - soft_BL, soft_BL)
    torch.testing.assert_close(turned_BL, soft_BL[:, :1].expand_as(turned_BL), rtol=0, atol=1e-6)
    torch.testing.assert_close(shots.posterior_BKLP.sum(-1), torch.ones(50, 1, 5))


@pytest.mark.parametrize("ends", [(), (2, 3)])
def test_chosen_shots_are_those_of_the_draw_that_are_chosen(ends):
    def chosen(shots):
        return shots.events_BRS.sum((1, 2)) > 3

    every = revealed_shots(experiment(), 4 * 1_024, 2, ends)  # whole blocks, which the seed fixes
    wanted = np.flatnonzero(chosen(every).numpy())[:500]
    found = revealed_shots(experiment(), 500, 2, ends, chosen=chosen)
    kept_N = np.arange(3, 500, 7)
    some = revealed_shots(experiment(), 500, 2, ends, kept_N, chosen)
    assert len(found) == 500 < len(every)
    for of, shots in ((wanted, found), (wanted[kept_N], some)):
        for name in ("events_BRS", "last_BKS", "labels_BKLO", "posterior_BKLP"):
            assert torch.equal(getattr(every, name)[torch.from_numpy(of)], getattr(shots, name)), name


def test_a_function_of_the_seed():
    one, again, other = (revealed_shots(experiment(), 1_500, seed=s) for s in (1, 1, 2))
    for name in ("events_BRS", "last_BKS", "labels_BKLO", "posterior_BKLP"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert not torch.equal(one.events_BRS, other.events_BRS)


def test_a_source_of_them():
    class OneRate:
        def draw(self, shots_seen, rng):
            return 3, [0.004, 0.006]

    source = SimulatedSource(5, "si1000", ("x", "z"), OneRate(), 8, 0, 2, labels="revealed", ends=2)
    shots = source.chunk(0)
    assert [s.basis for s in shots] == ["x", "z"]
    assert shots[0].ends in ((1, 3), (2, 3))
    assert shots[0].ends == shots[1].ends
    assert shots[0].posterior_BKLP.shape == (8, 2, 5, 2)
    assert torch.equal(source.chunk(0)[1].posterior_BKLP, shots[1].posterior_BKLP)


def test_what_is_refused(monkeypatch):
    with pytest.raises(SyndistillError, match="distance 7"):
        RevealedLabels(experiment(7))
    with pytest.raises(SyndistillError, match="both"):
        RevealedLabels(experiment(basis="both"))
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(SyndistillError, match=r"syndistill\[labels\]"):
        revealed_shots(experiment(), 1, seed=0)
