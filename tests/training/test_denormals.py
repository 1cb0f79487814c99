"""Gradients too small to be normal numbers are zeros, in a step and nowhere else."""

import pytest
import torch

from syndistill.training.precision import denormals_flushed

TINY = 1e-39  # float32's least normal number is 1.2e-38


def product() -> float:
    return float(torch.full((4,), TINY).mul(0.5).max())


def test_flushed_in_here_alone():
    assert product() > 0
    with denormals_flushed():
        assert product() == 0
    assert product() > 0


def test_also_after_an_error():
    with pytest.raises(ValueError, match="said"), denormals_flushed():
        raise ValueError("said")
    assert product() > 0


def test_a_step_flushes_its_gradient(make_trainer, tmp_path):
    """1e-25 times 1e-14 in the backward pass."""
    seen = []

    def tiny_loss(model, _shots):
        weight = next(model.parameters())
        scaled = weight * 1e-14
        scaled.register_hook(lambda gradient: seen.append(float(gradient.max())))
        weight.register_hook(lambda gradient: seen.append(float(gradient.max())))
        return (scaled * 1e-25).sum(), {}

    trainer = make_trainer(tmp_path, objective=tiny_loss)
    trainer.train_step(trainer.source.chunk(0)[0])
    assert seen == [pytest.approx(1e-25), 0]
    assert product() > 0
