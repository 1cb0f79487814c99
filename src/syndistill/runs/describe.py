"""What `syndistill info` says."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from syndistill.circuits.training_noise import noise_in
from syndistill.decoders.registry import decoder_names
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.files.network_file import network_path, shipped_names
from syndistill.models.contract import DecoderNetwork
from syndistill.models.networks import PRESETS, build, card, load_network, weights_hash
from syndistill.recipes import RECIPES, recipe
from syndistill.training.run import TeacherRun

ROUNDS = (3, 9, 25)
MOST_SCORES = 20
"""Of a network, that are told in a few lines."""


def overview() -> str:
    """Everything that has a name, one line each."""
    parts = ["shipped networks"]
    parts += [f"  {name:<22} {_size(load_network(name)[0])}" for name in shipped_names()] or ["  none"]
    parts.append("recipes")
    parts += [f"  {name:<22} {_first_line(RECIPES[name].__doc__)}" for name in RECIPES]
    parts.append("decoders")
    parts += [f"  {name}" for name in decoder_names()]
    parts.append("presets (at d=3)")
    parts += [f"  {name:<22} {_size(build(name, 3))}" for name in PRESETS]
    parts.append("Say more of one: syndistill info NAME")
    return "\n".join(parts)


def describe(name: str, whole: bool = False) -> str:
    """A network, a recipe or a preset in a few lines, or (whole) all that is known of it as JSON; where a network and a
    recipe share a name, both."""
    parts: list[str] = []
    if network_path(name) is not None:
        parts.append(_whole_network(name) if whole else _short_network(name))
    if name in RECIPES:
        run = recipe(name)
        verb = "train" if isinstance(run, TeacherRun) else "distill"
        said = _json(run.model_dump(mode="json")) if whole else f"  {_first_line(RECIPES[name].__doc__)}"
        parts.append(f"recipe {name} (syndistill {verb} {name} --out DIR)\n{said}")
    if name in PRESETS:
        network = build(name, 3)
        parts.append(f"preset {name} at d=3\n" + (_json(_network(network)) if whole else f"  {_size(network).strip()}"))
    if not parts:
        known = [*shipped_names(), *RECIPES, *PRESETS]
        raise SyndistillError(
            f"{name!r} is no shipped network, recipe or preset, nor a .safetensors file{did_you_mean(name, known)}; "
            "the list: syndistill info"
        )
    return "\n\n".join(parts if whole else [*parts, f"All of it, as JSON: syndistill info {name} --json"])


def _whole_network(name: str) -> str:
    network, metadata = load_network(name)
    said = {"card": card(name)} if name in shipped_names() else {"metadata": metadata}
    return f"network {name}\n" + _json(_network(network) | {"sha256": weights_hash(network)} | said)


def _short_network(name: str) -> str:
    network, metadata = load_network(name)
    config, home, size = network.config, noise_in(metadata), network.n_parameters()
    scores = card(name)["scores"] if name in shipped_names() else []
    lines = [
        f"network {name}",
        f"  {config.family} of distance {config.distance}, output {config.output}, {size:,} parameters",
        f"  learned from {'noise that its file does not say' if home is None else home}",
    ]
    said = "  {experiment}: LER {ler:.4f} ({low:.4f} to {high:.4f}), {shots:,} shots"
    lines += [said.format(**score) for score in scores[:MOST_SCORES]]
    if len(scores) > MOST_SCORES:
        lines.append(f"  and {len(scores) - MOST_SCORES} more scores")
    return "\n".join(lines)


def _network(network: DecoderNetwork) -> dict[str, Any]:
    return {
        "config": asdict(network.config),
        "parameters": network.n_parameters(),
        "multiply_adds_per_round": {f"r={r}": round(network.multiply_adds(r)) for r in ROUNDS},
    }


def _size(network: DecoderNetwork) -> str:
    return f"{network.n_parameters():>11,} parameters {network.multiply_adds(ROUNDS[0]):>13,.0f} multiply-adds a round"


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _json(content: Any) -> str:
    return json.dumps(content, indent=1)
