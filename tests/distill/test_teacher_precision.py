"""A Teacher that answers in bf16 says nearly the same, and counts as another."""

import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.teacher import FrozenTeacher
from syndistill.models.presets import preset
from syndistill.sampling.simulate import simulate
from syndistill.training.run import fresh_network


def test_bf16_answers_nearly_the_same_under_another_key():
    shots = simulate(Experiment(3, 3, "x", "si1000", 0.01), 64, 1)
    exact, fast = (FrozenTeacher(fresh_network(preset("teacher-tiny", 3), 0), p) for p in ("fp32", "bf16"))
    assert fast.key() == f"{exact.key()}-bf16"
    a, b = exact.logits(shots), fast.logits(shots)
    assert a.dtype == b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0, atol=0.05)
    assert float(a.std()) > 0.05  # so that the bound above says something
