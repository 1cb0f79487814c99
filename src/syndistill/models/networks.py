"""Networks by name: one to each family of dials, named sizes, and files (safetensors; loading runs no code).

A new family is one more entry in FAMILIES, here and in `files.families`; a new size one more in PRESETS. Shipped
networks are package data in `pretrained/`, a card each; others go by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from syndistill.errors import SyndistillError
from syndistill.files.families import Dials, OutputForm, dials_of
from syndistill.files.network_file import (
    FORMAT,
    WHAT,
    check_weights,
    read_network,
    shipped_card,
    shipped_names,
    weights_sha256,
)
from syndistill.models.contract import DecoderNetwork
from syndistill.models.gru import FlatGru, LocalGru
from syndistill.models.tensors_file import save_tensors
from syndistill.models.transformer import SyndromeTransformer
from syndistill.safe_files import read_json

FAMILIES: dict[str, Callable[[Any], DecoderNetwork]] = {
    "transformer": SyndromeTransformer,
    "flat_gru": FlatGru,
    "local_gru": LocalGru,
}

Preset = Callable[[int, OutputForm], Dials]


def _sized(family: str, **dials: int | bool) -> Preset:
    return lambda distance, output: dials_of({"family": family, "distance": distance, "output": output, **dials})


# The paper's two (Bausch et al. 2024, Methods: width, convolution, readout; 4 heads, key 32, bias 48 x 8) come out
# 6 % larger than its 5.4 M and 8.4 M: here the last slice has an embedder of its own, residual network included.
PRESETS: dict[str, Preset] = {
    "teacher-tiny": _sized(
        "transformer", width=16, layers=1, heads=2, key_size=8, widening=2, conv_channels=8, embedder_layers=1,
        bias_width=8, bias_layers=1, readout_width=16, readout_layers=1,
    ),
    "teacher-small": _sized("transformer"),
    "scaling": _sized("transformer", width=256, layers=3, conv_channels=128, readout_width=48, readout_layers=16),
    "sycamore": _sized("transformer", width=320, layers=3, conv_channels=160, readout_width=64, readout_layers=16),
    "flat-gru-5k": _sized("flat_gru", width=22, readout_width=24, turn_x=True),
    "flat-gru-20k": _sized("flat_gru", width=60, readout_width=32, turn_x=True),
    "flat-gru-100k": _sized("flat_gru", width=144, readout_width=64, readout_layers=2, turn_x=True),
    "local-gru-5k": _sized("local_gru", width=6, readout_width=12, turn_x=True),
    "local-gru-20k": _sized("local_gru", width=13, readout_width=28, turn_x=True),
    "local-gru-100k": _sized("local_gru", width=28, readout_width=72, readout_layers=2, turn_x=True),
}  # fmt: skip


def preset(name: str, distance: int, output: OutputForm = "two_channel") -> Dials:
    """The config of a named size at this distance."""
    if name not in PRESETS:
        raise SyndistillError(f"preset {name!r} is unknown; pick one of {', '.join(PRESETS)}")
    return PRESETS[name](distance, output)


def build(
    what: str | Dials, distance: int | None = None, output: OutputForm | None = None
) -> DecoderNetwork:
    """A fresh network, initialised from PyTorch's generator: a preset at a distance, or a complete config."""
    if isinstance(what, str):
        if distance is None:
            raise SyndistillError(f"preset {what!r} needs a distance; pass one, for example 3")
        return build(preset(what, distance, output or "two_channel"))
    if distance not in (None, what.distance) or output not in (None, what.output):
        raise SyndistillError(
            f"the config is of distance {what.distance} and output {what.output}, not {distance} and {output}; "
            "leave both out, or change the config"
        )
    return FAMILIES[what.family](what)


def fresh_network(config: Dials, seed: int) -> DecoderNetwork:
    """Initial weights as a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)


def save_network(path: Path, network: DecoderNetwork, metadata: Mapping[str, Any]) -> None:
    """Weights, config and `metadata` (anything JSON knows) in one file, written whole or not at all."""
    check_weights(str(path), _arrays(network))
    header = {"what": WHAT, "format": FORMAT, "config": asdict(network.config), "metadata": dict(metadata)}
    save_tensors(path, network.state_dict(), header)


def load_network(name_or_path: str | Path) -> tuple[DecoderNetwork, dict[str, Any]]:
    """The network (on the CPU, in eval mode) of a shipped name or a path, and the metadata it was saved with.

    SyndistillError as of `files.network_file.read_network`. Leaves PyTorch's random generator as it was.
    """
    found = read_network(name_or_path)
    with torch.random.fork_rng(devices=[]):
        network = build(found.dials)
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in found.tensors.items()})
    return network.eval(), found.metadata


def weights_hash(network: DecoderNetwork) -> str:
    """sha256 over names, types, shapes and bytes of all weights, in the order of their names."""
    return weights_sha256(_arrays(network))


def _arrays(network: DecoderNetwork) -> dict[str, Any]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}


def card(name: str) -> dict[str, Any]:
    """The card of a shipped network: recipe, seeds, hashes, scores."""
    if name not in shipped_names():
        raise SyndistillError(f"{name!r} is no shipped network with a card; shipped: {', '.join(shipped_names())}")
    content: dict[str, Any] = read_json(shipped_card(name), "install syndistill again")
    return content
