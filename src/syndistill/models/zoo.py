"""Shipped networks (package data in `pretrained/`, a card each) and networks by path."""

from __future__ import annotations

from typing import Any

from syndistill.errors import SyndistillError
from syndistill.files.network_file import shipped_card, shipped_names
from syndistill.models.contract import DecoderNetwork
from syndistill.models.saving import load_network
from syndistill.safe_files import read_json


def load_any(name_or_path: str) -> tuple[DecoderNetwork, dict[str, Any]]:
    """A shipped network by name, or one by path."""
    return load_network(name_or_path)


def card(name: str) -> dict[str, Any]:
    """The card of a shipped network: recipe, seeds, hashes, scores."""
    if name not in shipped_names():
        raise SyndistillError(f"{name!r} is no shipped network with a card; shipped: {', '.join(shipped_names())}")
    content: dict[str, Any] = read_json(shipped_card(name), "install syndistill again")
    return content
