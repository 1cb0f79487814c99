"""Networks on disk: safetensors with the config and a card in its metadata. Loading runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from syndistill.files.network_file import FORMAT, WHAT, check_weights, read_network, weights_sha256
from syndistill.models.contract import DecoderNetwork
from syndistill.models.presets import build, config_from
from syndistill.models.tensors_file import save_tensors


def save_network(path: Path, network: DecoderNetwork, metadata: Mapping[str, Any]) -> None:
    """Weights, config and `metadata` (anything JSON knows) in one file, written whole or not at all."""
    check_weights(str(path), _arrays(network))
    header = {"what": WHAT, "format": FORMAT, "config": network.config.model_dump(), "metadata": dict(metadata)}
    save_tensors(path, network.state_dict(), header)


def load_network(name_or_path: str | Path) -> tuple[DecoderNetwork, dict[str, Any]]:
    """The network (on the CPU, in eval mode) of a shipped name or a path, and the metadata it was saved with.

    SyndistillError as of `files.network_file.read_network`. Leaves PyTorch's random generator as it was.
    """
    found = read_network(name_or_path)
    with torch.random.fork_rng(devices=[]):
        network = build(config_from(found.config))
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in found.tensors.items()})
    return network.eval(), found.metadata


def weights_hash(network: DecoderNetwork) -> str:
    """sha256 over names, types, shapes and bytes of all weights, in the order of their names."""
    return weights_sha256(_arrays(network))


def _arrays(network: DecoderNetwork) -> dict[str, Any]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
