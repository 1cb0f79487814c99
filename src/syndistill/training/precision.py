"""Whether this processor can do what a precision asks for."""

from __future__ import annotations

import warnings

import torch

from syndistill.training.config import Precision


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
