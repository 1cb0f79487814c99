"""Targets, adapters and feature losses, against values worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.signals.features import (
    Adapter,
    FeatureLoss,
    TargetSpec,
    TargetStatistics,
    cosine,
    gram,
    measure_targets,
    needs_adapter,
    normalised_mse,
    seeded_adapter,
)
from syndistill.distill.signals.teacher import Answer, FrozenTeacher, Teacher
from syndistill.distill.terms import FeatureTerm
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import save_tensors


class Given(Teacher):
    """A Teacher whose feature is given, by basis."""

    offers = frozenset({"final", "temporal"})
    layout, output = Layout(3), "two_channel"

    def __init__(self, **features):
        self.features = features

    def key(self):
        return "given"

    def answer(self, shots, want=()):
        feature = self.features[shots.basis]
        return Answer(torch.zeros(len(feature), 1, 1, 1), {"temporal": feature})


def statistics_of(components, every_rounds=1, **features):
    spec = TargetSpec("temporal", components, every_rounds)
    batches = [SimpleNamespace(basis=basis) for basis in features]
    return measure_targets(Given(**features), batches, {"temporal": spec})["temporal"]


def test_targets_are_centred_standardised_and_reduced():
    # two channels, fully correlated after standardisation: (a, 10 a + 5); a third that no shot moves
    a = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    feature = torch.stack([a, 10 * a + 5, torch.full_like(a, 3.0)], -1)[:, None, None, :]  # B 4, R 1, S 1, D 3
    statistics = statistics_of(1, z=feature)
    torch.testing.assert_close(statistics.std_D[:2], torch.tensor([1.0, 10.0]))
    # correlation matrix [[1, 1], [1, 1]]: eigenvalue 2, direction (1, 1) / sqrt 2, positive by convention
    torch.testing.assert_close(statistics.variance_P, torch.tensor([2.0]))
    torch.testing.assert_close(statistics.directions_DP[:2, 0], torch.full((2,), math.sqrt(0.5)))
    torch.testing.assert_close(statistics.target(feature, "z")[:, 0, 0, 0], math.sqrt(2) * a)
    torch.testing.assert_close(statistics.range_P, torch.tensor([1.25 * math.sqrt(2)]))
    # what lies beyond the range is clipped
    assert float(statistics.target(100 * feature, "z").abs().max()) == pytest.approx(1.25 * math.sqrt(2))


def test_what_no_shot_changes_is_no_part_of_a_target():
    """Tables by basis, round and stabiliser, ten times as large as what depends on the shot, change nothing."""
    generator = torch.Generator().manual_seed(0)
    per_shot = {b: torch.randn(500, 3, 8, 4, generator=generator) for b in "xz"}
    tables = {b: 10 * torch.randn(3, 8, 4, generator=generator) for b in "xz"}
    plain = statistics_of(4, **per_shot)
    moved = statistics_of(4, **{b: x + tables[b] for b, x in per_shot.items()})
    torch.testing.assert_close(moved.variance_P, plain.variance_P, rtol=1e-4, atol=0)
    for basis, x in per_shot.items():
        expected, found = plain.target(x, basis), moved.target(x + tables[basis], basis)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
        assert float(found.mean(0).abs().max()) < 1e-4
    # fewer rounds than were measured are the first of them, more are refused, and so is another basis
    torch.testing.assert_close(moved.target((per_shot["x"] + tables["x"])[:, :2], "x"), moved.target(
        per_shot["x"] + tables["x"], "x")[:, :2])  # fmt: skip
    with pytest.raises(SyndistillError, match="of x, z with 3 rounds compared, these shots of x with 4"):
        moved.target(torch.randn(5, 4, 8, 4), "x")
    with pytest.raises(SyndistillError, match="these shots of both"):
        moved.target(per_shot["x"], "both")


def test_the_number_of_components_can_follow_the_variance():
    torch.manual_seed(0)
    feature = torch.randn(4000, 1, 1, 2) @ torch.tensor([[1.0, 0.0, 1.0, 0.02], [0.0, 1.0, 0.02, 1.0]])
    statistics = statistics_of(0, z=feature)
    assert len(statistics.variance_P) == 2
    assert statistics.held > 0.99
    with pytest.raises(SyndistillError, match="5 components asked of the signal temporal, which is 4 wide"):
        statistics_of(5, z=feature)
    with pytest.raises(SyndistillError, match="is 3 wide, its statistics are of 4"):
        statistics.target(feature[..., :3], "z")


def test_rounds_are_thinned():
    feature = torch.randn(8, 5, 2, 3)
    statistics = statistics_of(3, every_rounds=2, z=feature)
    assert statistics.target(feature, "z").shape == (8, 3, 2, 3)
    by_hand = (feature[:, 2] / statistics.std_D) @ statistics.directions_DP
    torch.testing.assert_close(statistics.target(feature, "z")[:, 1], by_hand - by_hand.mean(0))


def test_codes_are_half_a_step_off_at_most(tmp_path, small, taught):
    teacher = FrozenTeacher(small("transformer", seed=7))
    shots = taught(n_shots=256).shots
    statistics = measure_targets(teacher, [shots], {"spatial": TargetSpec("spatial", 4, 1)})["spatial"]
    other = teacher.answer(taught(n_shots=256, seed=99).shots, ["spatial"]).signals["spatial"]
    live = statistics.target(other, "z")
    gap_P = (statistics.decode(statistics.encode(live)) - live).abs().flatten(0, -2).amax(0)
    assert (gap_P <= statistics.range_P / 254 * 1.0001).all()
    # so the error's variance is far below the target's
    assert ((statistics.range_P / 254) ** 2 / statistics.variance_P).max() < 0.01
    statistics.save(tmp_path / "s.safetensors")
    again = TargetStatistics.load(tmp_path / "s.safetensors")
    assert again.sha256 == statistics.sha256
    assert again.spec == statistics.spec
    moved = TargetStatistics(**{**vars(statistics), "centres": {"z": statistics.centres["z"] + 1e-6}})
    assert moved.sha256 != statistics.sha256


def test_statistics_of_earlier_versions_are_refused_in_one_line(tmp_path):
    save_tensors(tmp_path / "s.safetensors", {"mean_D": torch.zeros(2)}, {"what": "syndistill target statistics"})
    with pytest.raises(SyndistillError, match=r"earlier version.*not centred.*delete its folder") as caught:
        TargetStatistics.load(tmp_path / "s.safetensors")
    assert "\n" not in str(caught.value)


def test_the_losses_by_hand():
    x, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    # squares: (1, 0), (4, 16); means (2.5, 8); over variances 2 + 5
    assert float(normalised_mse(x, target, torch.tensor([2.0, 5.0]))) == pytest.approx(10.5 / 7)
    # predicting the mean of a target of that variance costs 1.0
    torch.manual_seed(0)
    noise = torch.randn(100_000, 2) * torch.tensor([3.0, 0.5])
    variance = torch.tensor([9.0, 0.25])
    assert float(normalised_mse(torch.zeros_like(noise), noise, variance)) == pytest.approx(1.0, abs=0.02)
    # cosines: 4 / (sqrt 5 * 2), 3 / (3 * sqrt 17)
    assert float(cosine(x, target)) == pytest.approx(1 - (4 / (2 * math.sqrt(5)) + 1 / math.sqrt(17)) / 2)
    assert float(cosine(3 * target, target)) == pytest.approx(0.0, abs=1e-6)
    # Gram matrices of two stabilisers: [[1, 0], [0, 1]] / sqrt 2 and [[1, 1], [1, 1]] / 2
    apart, together = torch.eye(2)[None, None], torch.ones(1, 1, 2, 1)
    expected = 2 * (math.sqrt(0.5) - 0.5) ** 2 + 2 * 0.25
    assert float(gram(apart, together)) == pytest.approx(expected)
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    features = torch.randn(3, 2, 8, 5)
    assert float(gram(7 * features @ rotation, features)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "target", "weights"),
    [((8, 6), (8, 4), (4, 6)), ((6,), (8, 4), (32, 6)), ((8, 6), (4,), (4, 48)), ((6,), (4,), (4, 6))],
)
def test_adapters_map_any_state_to_any_target(student, target, weights):
    for bases in (("every",), ("x", "z")):
        adapter = seeded_adapter("spatial", 3, student, target, bases)
        assert {name: m.weight.shape for name, m in adapter.maps.items()} == dict.fromkeys(bases, weights)
        x = torch.randn(2, 3, *student)
        assert adapter(x, "x").shape == (2, 3, *target)
        assert torch.equal(adapter(x, "x"), adapter(x, "z"))  # all begin alike
        with pytest.raises(SyndistillError, match="belongs to another Student"):
            adapter(torch.randn(2, 3, *student[:-1], student[-1] + 1), "x")
    with pytest.raises(SyndistillError, match="maps for x, z, these shots are of both"):
        adapter(x, "both")


def weights_of(name, seed):
    return seeded_adapter(name, seed, (6,), (8, 4)).maps["every"].weight


def test_adapters_start_from_seeds_of_their_own():
    state = torch.random.get_rng_state()
    a, b = (weights_of(name, 1) for name in ("spatial", "temporal"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(a, b)
    assert torch.equal(a, weights_of("spatial", 1))
    assert not torch.equal(a, weights_of("spatial", 2))
    with pytest.raises(SyndistillError, match="another number of stabilisers"):
        Adapter((8, 6), (24, 6))


def test_only_the_gram_loss_of_stabilisers_needs_no_adapter():
    assert not needs_adapter("gram", (8, 6), (8, 4))
    assert needs_adapter("gram", (6,), (8, 4))
    assert needs_adapter("cosine", (8, 6), (8, 4))
    with pytest.raises(SyndistillError, match="this Teacher's state is flat"):
        needs_adapter("gram", (8, 6), (4,))


def test_rounds_that_are_left_out_are_left_out_of_both():
    """Of rounds 1, 3 and 5 each is compared with its own: a Student whose state is the target's map has a loss of 0."""
    torch.manual_seed(0)
    feature = torch.randn(64, 5, 2, 3)
    statistics = statistics_of(3, every_rounds=2, z=feature)
    student = (feature / statistics.std_D) @ statistics.directions_DP
    loss = FeatureLoss(FeatureTerm(components=3, every_rounds=2), "temporal", statistics, None)
    assert float(loss(student, statistics.target(feature, "z"), "z")) < 1e-6
