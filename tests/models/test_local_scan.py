"""The compiled rounds of the local GRU give what PyTorch gives, and say what they lack."""

import shutil

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.models import local_scan

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler (gcc)")
LONGER = 11
"""More rounds than wait for their gradients at once."""


@NEEDS_COMPILER
@pytest.mark.parametrize("dials", [{"width": 8}, {"width": 16}, {"width": 32}])
@pytest.mark.parametrize(("distance", "rounds", "n_shots"), [(3, LONGER, 7), (5, 3, 33)])
def test_answers_and_gradients_are_pytorchs(make_network, make_shots, dials, distance, rounds, n_shots):
    torch.manual_seed(0)
    shots = make_shots("x", rounds, n_shots=n_shots, distance=distance)
    network = make_network("local_gru", distance=distance, turn_x=True, **dials)
    weight_of = torch.randn(n_shots, rounds, distance, 1)

    def answer_and_gradients():
        network.zero_grad()
        logits = network(shots).logits_BKLC
        (logits * weight_of).sum().backward()
        return logits.detach(), {name: w.grad for name, w in network.named_parameters() if w.grad is not None}

    logits, gradients = answer_and_gradients()
    network.compile_blocks()
    compiled_logits, compiled = answer_and_gradients()
    torch.testing.assert_close(compiled_logits, logits, atol=1e-4, rtol=1e-4)
    assert compiled.keys() == gradients.keys()
    for name, gradient in gradients.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(compiled[name], gradient, atol=2e-4 * size, rtol=0, msg=name)


@NEEDS_COMPILER
def test_bf16_keeps_to_pytorch(make_network, make_shots):
    shots = make_shots("z", 2, distance=5)
    network = make_network("local_gru", distance=5, width=8)
    network.compile_blocks()
    network.cell.scan = network.last_cell.scan = lambda *_: pytest.fail("compiled rounds are for float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert network(shots).logits_BKLC.isfinite().all()


def test_without_a_compiler_it_says_so(make_network, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    local_scan._library.cache_clear()
    with pytest.raises(SyndistillError, match=r"C compiler .*training\.compile=false"):
        make_network("local_gru", distance=5, width=8).compile_blocks()


def test_other_widths_are_refused(make_network):
    with pytest.raises(SyndistillError, match="widths 8, 16 and 32, not 12"):
        make_network("local_gru", distance=5, width=12).compile_blocks()
