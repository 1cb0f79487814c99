"""PyTorch's tensors with JSON metadata in one safetensors file, by `files.tensors`. Loading runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import torch as safetensors_torch

from syndistill.files.tensors import read_sealed, seal, write_sealed

Tensors = dict[str, torch.Tensor]


def save_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, object]) -> None:
    """Whole or not at all, with hashes of its content. SyndistillError for what the system refuses."""
    content = safetensors_torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    write_sealed(path, seal(content, metadata))


def load_tensors(path: Path) -> tuple[Tensors, dict[str, object]]:
    """Tensors and metadata. SyndistillError for a file that is missing, foreign, or not what was written."""
    found = read_sealed(path)
    return safetensors_torch.load(found.content), found.metadata
