"""What a processor makes of float arithmetic: bf16 that it has or emulates, numbers too small to be normal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from syndistill.training.config import Precision

for _kind in (np.float32, np.float64):
    np.finfo(_kind)  # numpy warns if it measures these for the first time while denormals are flushed


class EmulatedPrecision(UserWarning):
    """bf16 is asked of a processor that has no such products."""


def warn_if_emulated(precision: Precision, device: torch.device) -> None:
    """Warns where PyTorch would emulate bf16: with a quarter of fp32's products a second, measured on such a Xeon."""
    if precision != "bf16" or device.type != "cpu":
        return
    able = torch.cpu.get_capabilities()
    if able["architecture"] == "x86_64" and not (able.get("avx512_bf16") or able.get("amx_bf16")):
        warnings.warn(
            "bf16 is emulated on this processor, which makes it slower than fp32: take precision fp32",
            EmulatedPrecision,
            stacklevel=2,
        )


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Float numbers below 1.2e-38 count as 0 in here, on this thread and those that begin in here.

    Gradients of shots that a decoder is sure of are that small, and an x86 core takes 200 times as long for a product
    of them (MKL's of 64 x 3072 x 288: 198 against .9 ms): the d=5 Teacher's fp32 step was 6.5 times as slow.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
