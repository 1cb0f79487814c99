"""What PyTorch computes on."""

from __future__ import annotations

import torch

from syndistill.errors import SyndistillError

KINDS = ("cpu", "cuda", "mps", "xpu")


def usable_device(name: str) -> torch.device:
    """The device of this name; SyndistillError in one line where there is none such."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SyndistillError(f"device {name!r} can't be used here ({reason}); take cpu") from None
    if device.type not in KINDS:
        raise SyndistillError(f"device {name!r} computes nothing; take one of {', '.join(KINDS)}")
    return device
