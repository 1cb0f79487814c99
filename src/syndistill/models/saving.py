"""Networks on disk: safetensors with the config and a card in its metadata. Loading runs no code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.presets import build, config_from
from syndistill.models.tensors_file import Tensors, load_tensors, save_tensors

FORMAT = 1
WHAT = "syndistill network"


def save_network(path: Path, network: DecoderNetwork, metadata: Mapping[str, Any]) -> None:
    """Weights, config and `metadata` (anything JSON knows) in one file, written whole or not at all."""
    tensors = network.state_dict()
    _check_finite(path, tensors)
    save_tensors(
        path,
        tensors,
        {"what": WHAT, "format": FORMAT, "config": network.config.model_dump(), "metadata": dict(metadata)},
    )


def load_network(path: Path) -> tuple[DecoderNetwork, dict[str, Any]]:
    """The network (on the CPU, in eval mode) and the metadata it was saved with.

    SyndistillError for a file that is missing, truncated, of another kind or format, and for weights that do not fit
    the config or are not finite. Leaves PyTorch's random generator as it was.
    """
    tensors, header = load_tensors(path)
    config, metadata = header.get("config"), header.get("metadata")
    if header.get("what") != WHAT or not isinstance(config, dict) or not isinstance(metadata, dict):
        raise SyndistillError(f"{path} is a safetensors file but no network of this project; give one that is")
    if header.get("format") != FORMAT:
        raise SyndistillError(
            f"{path} is of network format {header.get('format')}, this version reads {FORMAT}; install the version "
            "of syndistill that wrote it"
        )
    with torch.random.fork_rng(devices=[]):
        try:
            network = build(config_from(config))
        except SyndistillError as error:
            raise SyndistillError(f"{path}: {error}") from None
    _check_fit(path, tensors, network.state_dict())
    _check_finite(path, tensors)
    network.load_state_dict(tensors)
    return network.eval(), metadata


def weights_hash(network: DecoderNetwork) -> str:
    """sha256 over names, types, shapes and bytes of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_fit(path: Path, found: Tensors, expected: Tensors) -> None:
    remedy = "the file was not written by save_network, or was changed; get a fresh copy"
    for kind, names in (("lacks", expected.keys() - found.keys()), ("has foreign", found.keys() - expected.keys())):
        if names:
            raise SyndistillError(f"{path} {kind} weights {_some(sorted(names))}; {remedy}")
    for name, tensor in expected.items():
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            raise SyndistillError(
                f"{path}: {name} is {_kind(found[name])} where its config asks for {_kind(tensor)}; {remedy}"
            )


def _check_finite(path: Path, tensors: Tensors) -> None:
    bad = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all())
    if bad:
        raise SyndistillError(
            f"{path}: NaN or infinity in {_some(bad)}; the training diverged, take an older checkpoint"
        )


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
