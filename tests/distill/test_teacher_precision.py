"""A Teacher that answers in bf16 says nearly the same and counts as another; a compiled one says the same."""

import shutil

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.signals.teacher import COMPILED_SHOTS, FrozenTeacher
from syndistill.models.networks import fresh_network, preset
from syndistill.sampling.shots import simulate


def test_bf16_answers_nearly_the_same_under_another_key():
    shots = simulate(Experiment(3, 3, "x", "si1000", 0.01), 64, 1)
    exact, fast = (FrozenTeacher(fresh_network(preset("teacher-tiny", 3), 0), p) for p in ("fp32", "bf16"))
    assert fast.key() == f"{exact.key()}-bf16"
    a, b = exact.logits(shots), fast.logits(shots)
    assert a.dtype == b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0, atol=0.05)
    assert float(a.std()) > 0.05  # so that the bound above says something


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_teacher_says_the_same_of_any_number_of_shots():
    shots = simulate(Experiment(3, 3, "x", "si1000", 0.01), 2 * COMPILED_SHOTS + 5, 1)
    plain, compiled = (FrozenTeacher(fresh_network(preset("teacher-tiny", 3), 0)) for _ in range(2))
    compiled.prepare_for_many()
    assert compiled.key() == plain.key()
    for part in (shots, shots.take(slice(0, 7))):
        a, b = plain.answer(part, {"temporal"}), compiled.answer(part, {"temporal"})
        assert len(b.logits_BKLC) == len(b.signals["temporal"]) == len(part)
        torch.testing.assert_close(a.logits_BKLC, b.logits_BKLC, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.signals["temporal"], b.signals["temporal"], rtol=0, atol=1e-4)
