"""Shipped networks (package data in `pretrained/`, a card each) and networks by path."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.saving import load_network

_SHIPPED = Path(str(files("syndistill") / "pretrained"))


def shipped_names() -> list[str]:
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def network_path(name_or_path: str) -> Path | None:
    """The file of a shipped name or of a path to a safetensors file; None when it is neither."""
    if name_or_path in shipped_names():
        return _SHIPPED / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    return path if path.suffix == ".safetensors" or path.is_file() else None


def load_any(name_or_path: str) -> tuple[DecoderNetwork, dict[str, Any]]:
    """A shipped network by name, or one by path."""
    path = network_path(name_or_path)
    if path is None:
        raise SyndistillError(
            f"{name_or_path!r} is neither a shipped network ({', '.join(shipped_names()) or 'none yet'}) "
            "nor a .safetensors file"
        )
    network, metadata = load_network(path)
    return network, dict(metadata)


def card(name: str) -> dict[str, Any]:
    """The card of a shipped network: recipe, seeds, hashes, scores."""
    path = _SHIPPED / f"{name}.json"
    if not path.is_file():
        raise SyndistillError(f"{name!r} is no shipped network with a card; shipped: {', '.join(shipped_names())}")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
