"""Directions that the Teacher's answer depends on: its gradient, what is made of it, and who cannot give one."""

import copy
from types import SimpleNamespace

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.signals.features import FeatureTarget, TargetSpec, TargetStatistics, measure_targets
from syndistill.distill.signals.teacher import Answer, FrozenTeacher, PosteriorTeacher, Teacher
from syndistill.distill.stage import stage_statistics
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.blocks import SyndromeTransformerLayer
from syndistill.models.networks import build

from .conftest import SIZES, STUDENT_SIZES

FEATURE = {"weight": 1.0, "components": 2, "directions": "answer"}


def network_of(family="transformer", turned=False, layers=2):
    torch.manual_seed(7)
    sizes = SIZES["transformer"] | {"layers": layers, "turn_x": turned}
    network = build(dials_of({"family": family, "distance": 3, **(sizes if family == "transformer" else
                                                                      STUDENT_SIZES[family])}))  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.double()


@pytest.mark.parametrize(
    ("turned", "name", "layer"), [(False, "spatial", 0), (True, "spatial", 0), (True, "temporal", 1)]
)
def test_the_gradient_is_that_of_a_small_change_of_the_signal(taught, turned, name, layer, monkeypatch):
    """In one round, at one stabiliser, of one channel; it acts in all later rounds and at all ends."""
    torch.set_default_dtype(torch.float64)
    try:
        teacher = FrozenTeacher(network_of(turned=turned))
        shots = taught("x", rounds=3, n_shots=4).shots
        towards = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(0))

        def aim():
            with torch.no_grad():
                return (teacher.network(shots).logits_BKLC[:, :, 0] * towards).sum((1, 2))

        before = copy.deepcopy(teacher.network.state_dict())
        found = teacher.gradients(shots, [name], towards)[name]
        assert found.shape == (4, 3, 8, 8)
        assert all(torch.equal(before[n], x) and x.grad is None for n, x in teacher.network.named_parameters())
        calls, plain = [], SyndromeTransformerLayer.forward
        step, stabiliser, channel = 1e-6, 5, 3
        inside = torch.from_numpy(shots.layout.turned_back_S).tolist()[stabiliser] if turned else stabiliser

        def moved(self, *args):
            x = plain(self, *args)
            if self is teacher.network.layers[layer]:
                calls.append(0)
                if len(calls) == 2:  # the second round
                    x = x.clone()
                    x[:, inside, channel] += step
            return x

        aims = [aim()]
        monkeypatch.setattr(SyndromeTransformerLayer, "forward", moved)
        if name == "temporal":  # the last layer's pass is not one call: its convolutions are
            monkeypatch.undo()
            convolutions = teacher.network.layers[layer].convolutions
            of_convolutions = type(convolutions).forward

            def moved_last(self, *args):
                x = of_convolutions(self, *args)
                if self is convolutions:
                    calls.append(0)
                    if len(calls) == 2:
                        x = x.clone()
                        x[:, inside, channel] += step
                return x

            monkeypatch.setattr(type(convolutions), "forward", moved_last)
        aims.append(aim())
        expected_B = (aims[1] - aims[0]) / step
        assert float(expected_B.abs().max()) > 1e-4
        torch.testing.assert_close(found[:, 1, stabiliser, channel].double(), expected_B, rtol=1e-3, atol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


class Given(Teacher):
    """A Teacher with a feature, whose logit is what `aim` says of it."""

    offers = frozenset({"final", "temporal", "gradients"})
    layout, output = Layout(3), "two_channel"

    def __init__(self, feature, aim):
        self.feature, self.aim = feature, aim

    def key(self):
        return "given"

    def answer(self, shots, want=()):
        return Answer(torch.zeros(len(shots.rows), 1, 1, 1), {"temporal": self.feature[shots.rows]})

    def gradients(self, shots, want, towards_BKC):
        x = self.feature[shots.rows].clone().requires_grad_(True)
        (found,) = torch.autograd.grad((self.aim(x) * towards_BKC[:, 0, 0]).sum(), x)
        return {"temporal": found}


class Rows(SimpleNamespace):
    basis, ends = "z", (1,)

    def __len__(self):
        return len(self.rows)

    def take(self, rows):
        return Rows(rows=self.rows[rows])


def measured(feature, aim, components=1):
    shots = [Rows(rows=torch.arange(len(feature)))]
    spec = TargetSpec("temporal", components, 1, "answer")
    return measure_targets(Given(feature, aim), shots, {"temporal": spec})["temporal"]


def test_the_direction_is_the_one_that_the_logit_reads_however_little_it_varies():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2000, 1, 2, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    reads = torch.tensor([0.0, 1.0, 0.0, -2.0, 0.5])
    statistics = measured(feature, lambda x: (x @ reads).sum((1, 2)))
    target, said = statistics.target(feature, "z")[..., 0], feature @ reads
    both = torch.stack([target.flatten(), (said - said.mean(0)).flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) > 0.9999
    assert statistics.held == pytest.approx(1.0, abs=1e-5)  # one direction says all
    # what counts is how far the logit moves when the feature does as usual: 3 a against b of thrice its gradient
    a, b = (torch.randn(4000, 1, 1, generator=generator) for _ in range(2))
    feature = torch.stack([3 * a, b / 10], -1)
    two = measured(feature, lambda x: x[..., 0].sum((1, 2)) + 3 * x[..., 1].sum((1, 2)), components=2)
    ratio = (two.variance_P[1] / two.variance_P[0]).sqrt()
    assert float(ratio) < 1e-3  # the logit is linear: its gradient is one direction, whatever its parts
    said = 3 * a + 3 * b / 10
    both = torch.stack([two.target(feature, "z")[..., 0].flatten(), (said - said.mean(0)).flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) > 0.9999
    with pytest.raises(SyndistillError, match="does not depend on this signal"):
        measured(feature, lambda x: 0 * x.sum((1, 2, 3)))


def test_components_have_the_variance_that_is_said_and_none_is_like_another():
    generator = torch.Generator().manual_seed(1)
    feature = torch.randn(4000, 1, 2, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    statistics = measured(feature, lambda x: (x[..., 0] ** 2 + x[..., 1] * x[..., 2]).sum((1, 2)), components=3)
    target = statistics.target(feature, "z").flatten(0, -2)
    covariance = torch.cov(target.T)
    torch.testing.assert_close(covariance.diagonal(), statistics.variance_P, rtol=0.01, atol=1e-3)
    assert float((covariance - covariance.diagonal().diag()).abs().max()) < 0.01
    assert (statistics.variance_P.diff() <= 0).all()


def test_files_and_hashes_tell_both_kinds_apart_and_those_of_before_stay(tmp_path, stage1_run, teacher, taught):
    shots = [taught(n_shots=64).shots]
    specs = {kind: TargetSpec("temporal", 2, 2, kind) for kind in ("variance", "answer")}
    found = {kind: measure_targets(teacher, shots, {"temporal": spec})["temporal"] for kind, spec in specs.items()}
    keys = {FeatureTarget("temporal", statistics).key for statistics in found.values()}
    assert len(keys) == 2
    assert specs["variance"].said() == ("temporal", 2, 2)
    for kind, statistics in found.items():
        statistics.save(tmp_path / kind)
        again = TargetStatistics.load(tmp_path / kind)
        assert (again.spec, again.sha256) == (specs[kind], statistics.sha256)
    terms = {kind: Terms(temporal=FEATURE | {"directions": kind}) for kind in specs}
    stage_statistics(terms["variance"], teacher, shots, tmp_path)
    with pytest.raises(SyndistillError, match="this run asks for temporal reduced to 2 directions of answer"):
        stage_statistics(terms["answer"], teacher, shots, tmp_path)


def test_a_stage_runs_on_them_and_a_teacher_without_gradients_is_refused_by_name(tmp_path, stage1_run, taught):
    terms = Terms(temporal=FEATURE, spatial=FEATURE | {"components": 0, "placebo": "random"})
    assert train_student(stage1_run("local_gru", terms=terms), tmp_path / "run").is_file()
    assert len(list((tmp_path / "run" / "cache" / "signals").iterdir())) == 2
    black_box = PosteriorTeacher(lambda shots: torch.zeros(len(shots), 1), "k", Layout(3))
    flat = FrozenTeacher(build(dials_of({"family": "flat_gru", "distance": 3, **SIZES["flat_gru"]})))
    for teacher in (black_box, flat):
        with pytest.raises(SyndistillError, match=r"needs the signal gradients.*this Teacher does not offer"):
            train_student(stage1_run(terms=Terms(temporal=FEATURE)), tmp_path / "no", teacher=teacher)
    with pytest.raises(NotImplementedError, match="PosteriorTeacher offers no gradients"):
        black_box.gradients(taught().shots, ["temporal"], torch.zeros(1))
