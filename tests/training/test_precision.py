"""bf16 on a processor without it is said, and on one with it is not."""

import warnings

import pytest
import torch

from syndistill.training.precision import EmulatedPrecision, warn_if_emulated

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    def has(architecture="x86_64", **able):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": architecture, **able})

    return has


def test_emulated(processor):
    processor(avx512_bf16=False, amx_bf16=False)
    with pytest.warns(EmulatedPrecision, match="take precision fp32"):
        warn_if_emulated("bf16", CPU)


def test_not_emulated(processor):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for able in ({"avx512_bf16": True}, {"amx_bf16": True}, {"architecture": "aarch64"}):
            processor(**able)
            warn_if_emulated("bf16", CPU)
        processor()
        warn_if_emulated("fp32", CPU)
        warn_if_emulated("bf16", torch.device("cuda"))
    assert said == []
