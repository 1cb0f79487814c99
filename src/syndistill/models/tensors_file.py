"""Tensors with JSON metadata in one safetensors file. Loading runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syndistill.errors import SyndistillError

Tensors = dict[str, torch.Tensor]


def save_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, object]) -> None:
    """Written beside and renamed over, so that a kill leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            beside,
            metadata={k: json.dumps(v) for k, v in metadata.items()},
        )
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        reason = getattr(error, "strerror", None) or error
        raise SyndistillError(f"cannot write {path}: {reason}; nothing was changed, choose another place") from error
    finally:
        if beside.parent.is_dir():
            beside.unlink(missing_ok=True)


def load_tensors(path: Path) -> tuple[Tensors, dict[str, object]]:
    """Tensors and metadata. Raises SyndistillError for a missing, truncated or foreign file."""
    if not path.is_file():
        raise SyndistillError(f"there is no file {path}; check the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            return {k: file.get_tensor(k) for k in file.keys()}, metadata  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise SyndistillError(
            f"{path} is no whole safetensors file of this project ({error}); get a fresh copy"
        ) from None
