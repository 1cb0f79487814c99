"""Probes, z_fuse, and the report that says what it is worth."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.fuse import (
    FuseRun,
    best_temperature,
    calibration_error,
    fuse_report,
    nll_B,
    train_fusion,
    wrong_B,
)
from syndistill.distill.signals.fusion import Fusion, FusionConfig, ProbeObjective, fit_weights, load_fusion
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, save_network
from syndistill.models.tensors_file import load_tensors
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig


def coin_flips(n, seed=0):
    """Log-odds z of labels drawn from them, (B, 1, 1, 1) each."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, 1, 1, 1, generator=generator)
    return z, (torch.rand(z.shape, generator=generator) < torch.sigmoid(z)).to(torch.uint8)


def test_fitted_weights_find_the_truth():
    """Of the true log-odds at a third of their size, and of noise. 5.5 standard errors of a logistic regression."""
    z, labels = coin_flips(40_000)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    weights = fit_weights(torch.stack([z / 3, noise]), labels)
    p = torch.sigmoid(z)
    for found, true, path in zip(weights, (3.0, 0.0), (z / 3, noise), strict=True):
        assert abs(float(found) - true) < 5.5 / math.sqrt(float((p * (1 - p) * path**2).sum()))


def test_fitted_weights_of_four_classes():
    generator = torch.Generator().manual_seed(0)
    z = 1.5 * torch.randn(20_000, 1, 1, 4, generator=generator)
    classes = torch.distributions.Categorical(logits=z[:, 0, 0]).sample()
    labels = torch.stack([classes // 2, classes % 2], -1)[:, None, None].to(torch.uint8)
    (weight,) = fit_weights((z / 2)[None], labels)
    assert float(weight) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_z_fuse_is_the_weighted_sum_at_every_end_and_line(teacher_file, taught, output):
    teacher = FrozenTeacher(load_network(teacher_file(output))[0])
    shots = taught("both" if output == "joint4" else "x").shots
    config = FusionConfig(mode="fixed", weights=(0.5, 0.25, 2.0))
    fusion = Fusion(config, teacher.layout, output, {"transformer": 8, "state": 8})
    assert fusion.wants == {"ends", "temporal", "readout"}
    answer = teacher.answer(shots, fusion.wants)
    paths = fusion.path_logits(shots, answer)
    assert paths.shape == (3, 32, 3, 3, 4 if output == "joint4" else 1)
    torch.testing.assert_close(fusion(shots, answer), 0.5 * paths[0] + 0.25 * paths[1] + 2 * paths[2])
    torch.testing.assert_close(paths[2], answer.logits_BKLC)
    assert len({tuple(p.flatten().tolist()) for p in paths}) == 3
    mean = Fusion(FusionConfig(mode="mean"), teacher.layout, output, {"transformer": 8, "state": 8})
    mean.probes.load_state_dict(fusion.probes.state_dict())
    torch.testing.assert_close(mean(shots, answer), paths.mean(0))


def test_a_label_needs_the_last_slice(teacher_file, taught):
    """The state's probe sees it: events of the last slice change its logits, those of no stabiliser do not."""
    teacher = FrozenTeacher(load_network(teacher_file())[0])
    shots = taught("z").shots
    fusion = Fusion(FusionConfig(paths=("state",)), teacher.layout, "two_channel", {"state": 8})
    answer = teacher.answer(shots, fusion.wants)
    before = fusion(shots, answer)
    on_basis = torch.from_numpy(shots.layout.on_basis_S("z"))
    for defined in (True, False):
        flipped = torch.where(on_basis == defined, 1 - shots.last_BKS, shots.last_BKS)
        after = fusion(type(shots)(**{**vars(shots), "last_BKS": flipped}), answer)
        assert torch.equal(before, after) == (not defined)


def test_probes_learn_and_the_teacher_does_not(teacher_file, taught):
    teacher = FrozenTeacher(load_network(teacher_file())[0])
    fusion = Fusion(FusionConfig(), teacher.layout, "two_channel", {"transformer": 8, "state": 8})
    loss, values = ProbeObjective(teacher)(fusion, taught("z").shots)
    loss.backward()
    assert set(values) == {"transformer.kl", "transformer.nll", "state.kl", "state.nll"}
    assert all(p.grad is None for p in teacher.network.parameters())
    basis_and_rounds = [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()]
    assert basis_and_rounds == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"paths": ()}, "at least one"),
        ({"paths": ("state", "state")}, "once"),
        ({"mode": "fixed"}, "belong to mode fixed"),
        ({"weights": (1.0, 1.0, 1.0)}, "belong to mode fixed"),
        ({"mode": "fixed", "weights": (1.0,)}, "1 weights for 3 paths"),
    ],
)
def test_inconsistent_fusions_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FusionConfig(**wrong)


def test_scores_by_hand():
    logits, labels = torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([[1], [1], [0]])
    assert wrong_B(logits, labels).tolist() == [False, True, True]
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(1 + math.exp(3))]
    torch.testing.assert_close(nll_B(logits, labels), torch.tensor(expected, dtype=torch.float64))
    # I, X, Z, Y; label (x line, z line) = (1, 0) is Z
    four, truth = torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([[1, 0]])
    assert wrong_B(four, truth).tolist() == [False]
    assert float(nll_B(four, truth)) == pytest.approx(math.log(3 + math.e) - 1)
    # one prediction of 0.5 for 30 shots, 20 of which flipped
    half, flips = torch.zeros(30, 1), torch.tensor([[1]] * 20 + [[0]] * 10)
    assert calibration_error(half, flips) == pytest.approx(1 / 6)
    z, drawn = coin_flips(40_000)
    z, drawn = z[:, 0, 0], drawn[:, 0, 0]
    assert best_temperature(3 * z, drawn) == pytest.approx(3.0, rel=0.1)
    assert calibration_error(z, drawn) < 0.02 < calibration_error(3 * z, drawn)


def test_a_gain_of_temperature_alone_does_not_pass_the_gate():
    """z_fuse = final / T is better than final and no better than the calibrated final logit."""
    z, labels = coin_flips(20_000)
    z, labels = z[:, 0, 0], labels[:, 0, 0]
    temperature = best_temperature(3 * z, labels)
    report = fuse_report({"state": z}, 3 * z, 3 * z / temperature, labels, temperature, {"state": 1.0})
    assert report["paths"]["z_fuse"]["nll"]["value"] < report["paths"]["final"]["nll"]["low"]
    assert not report["better"]
    blurred = z + torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    better = fuse_report({"state": z}, blurred, z, labels, best_temperature(blurred, labels), {"state": 1.0})
    assert better["better"]
    found = better["nll_fused_minus_calibrated"]
    assert found["low"] < found["value"] < found["high"] < 0
    row = better["paths"]["state"]
    assert set(row) == {"ler", "nll", "ece", "best_temperature", "agreement_with_final"}
    assert 0.5 < row["agreement_with_final"] < 1
    assert better["paths"]["final"]["agreement_with_final"] == 1
    assert row["ler"]["low"] < row["ler"]["value"] < row["ler"]["high"]
    with pytest.raises(SyndistillError, match="needs more"):
        fuse_report({}, z[:1], z[:1], labels[:1], 1.0, {})


def fuse_run(teacher, output="two_channel", **changes):
    bases = ("both",) if output == "joint4" else ("x", "z")
    phases = (RoundsPhase(from_shots=0, rounds=(2,)),)
    curriculum = Curriculum(p_min=0.004, p_max=0.01, rounds=phases, rates_per_chunk=1)
    return FuseRun(
        **{
            "teacher": teacher,
            "data": DataConfig(distance=3, bases=bases, curriculum=curriculum),
            "fit_shots": 512,
            "report_shots": 512,
            "training": TrainingConfig(
                steps=3, batch_size=32, threads=1, optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=2)
            ),
        }
        | changes
    )


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
@pytest.mark.parametrize("mode", ["mean", "nll"])
def test_the_fuse_stage(tmp_path, teacher_file, taught, output, mode):
    run = fuse_run(teacher_file(output), output, fusion=FusionConfig(mode=mode))
    path = train_fusion(run, tmp_path / "fuse")
    teacher = FrozenTeacher(load_network(teacher_file(output))[0])
    fusion, said = load_fusion(path, teacher)
    report = json.loads((tmp_path / "fuse" / "fuse_report.json").read_text())
    assert set(report["paths"]) == {"transformer", "state", "final", "calibrated final", "z_fuse"}
    assert said["better"] == report["better"]
    every = report["every_end_and_line"]["nll_fused_minus_calibrated"]
    assert every["low"] < every["value"] < every["high"]
    assert report["better"] == (every["high"] < 0)
    np.testing.assert_allclose(list(report["weights"].values()), fusion.weights_P.numpy())
    assert (mode == "mean") == np.allclose(fusion.weights_P.numpy(), 1 / 3)
    assert not any(p.requires_grad for p in fusion.parameters())
    again = train_fusion(run, tmp_path / "again")
    (expected, header), (found, other) = load_tensors(path), load_tensors(again)
    assert header == other
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    with pytest.raises(SyndistillError, match="holds a finished run"):
        train_fusion(run, tmp_path / "fuse")
    other = FrozenTeacher(load_network(teacher_file(output, seed=8))[0])
    with pytest.raises(SyndistillError, match="fused from another Teacher"):
        load_fusion(path, other)
    with pytest.raises(SyndistillError, match="holds no fusion"):
        load_fusion(Path(teacher_file(output)), teacher)


def test_probes_learn_from_files_of_the_users_own(tmp_path, teacher_file):
    (tmp_path / "mine.stim").write_text(str(Experiment(3, 2, "z", "si1000", 0.008).circuit()))
    files = {"noise": "files", "files": (str(tmp_path / "mine.stim"),), "bases": ("z",)}
    phases = (RoundsPhase(from_shots=0, rounds=(2,)),)
    curriculum = Curriculum(p_min=1.0, p_max=1.0, tilt=0.0, n_rates=2, rounds=phases)
    run = fuse_run(teacher_file("two_channel"), data=DataConfig(distance=3, curriculum=curriculum, **files))
    train_fusion(run, tmp_path / "fuse")
    report = json.loads((tmp_path / "fuse" / "fuse_report.json").read_text())
    assert set(report["paths"]) >= {"transformer", "state", "z_fuse"}


def test_paths_that_the_teacher_cannot_give_are_named(tmp_path, small):
    save_network(tmp_path / "flat.safetensors", small("flat_gru"), {})
    run = fuse_run(str(tmp_path / "flat.safetensors"))
    with pytest.raises(SyndistillError, match="the fuse stage needs the signal ends"):
        train_fusion(run, tmp_path / "fuse")
    state = run.model_copy(update={"fusion": FusionConfig(paths=("state", "readout"))})
    with pytest.raises(SyndistillError, match="temporal is flat"):
        train_fusion(state, tmp_path / "fuse2")
