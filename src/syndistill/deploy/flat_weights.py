"""The flat GRU's weights as numpy arrays, read from a network file without PyTorch.

Axes: D width, S stabilisers, W readout width, L lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError

FORMAT, WHAT = 1, "syndistill network"  # as models.saving writes them, which this room's readers must not import
COMPILED = ("flat_gru", "local_gru")
"""Families that run without PyTorch."""
_SHIPPED = Path(str(files("syndistill") / "pretrained"))


class WrittenOut(NamedTuple):
    """A GRU cell over the whole syndrome as nn.GRU has it: inputs (3 D, 2 S), recurrent (3 D, D), two biases (3 D)."""

    inputs: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    bias: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """One network: its config's dials, its tensors by the names of its state dict, and the file's metadata."""

    distance: int
    output: str
    width: int
    readout_width: int
    readout_layers: int
    turn_x: bool
    tensors: Mapping[str, NDArray[np.float32]]
    metadata: Mapping[str, Any]

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.distance)

    @property
    def n_parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors.values())

    def start(self, basis: str) -> NDArray[np.float32]:
        """The whole state before the first round."""
        return self.tensors[f"start.{basis}"].ravel()

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights that `models.saving.weights_hash` gives."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} torch.{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()


class FlatWeights(NetworkWeights):
    """One flat GRU."""

    def written_out(self, cell: str, basis: str) -> WrittenOut:
        """Of its one `cell`, for the layout's order of inputs."""
        tensors = self.reading(basis).tensors
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return WrittenOut(*(tensors[f"gru.{name}"] for name in names))

    def reading(self, basis: str) -> FlatWeights:
        """The same network for shots of one basis, its inputs in the layout's order whether or not it turns them."""
        if not (self.turn_x and basis == "x"):
            return self
        place_S = self.layout.turned_back_S
        place_I = np.concatenate([place_S, self.layout.n_stabilisers + place_S])
        first, width = self.tensors["decide.0.weight"], self.width
        turned = {
            "gru.weight_ih_l0": self.tensors["gru.weight_ih_l0"][:, place_I],
            "decide.0.weight": np.concatenate([first[:, :width], first[:, width:][:, place_I]], 1),
        }
        return replace(self, turn_x=False, tensors={**self.tensors, **turned})

    def heads(self, basis: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights (O, W) and biases (O,) that answer for line 0: one for x or z, two for both, four for joint4."""
        if self.output == "joint4":
            return self.tensors["heads.both.weight"][:4], self.tensors["heads.both.bias"][:4]
        bases = ("x", "z") if basis == "both" else (basis,)
        weights = [self.tensors[f"heads.{b}.weight"][0] for b in bases]
        return np.stack(weights), np.array([self.tensors[f"heads.{b}.bias"][0] for b in bases], np.float32)


Weights = TypeVar("Weights", bound=NetworkWeights)


def n_outputs(output: str, basis: str) -> int:
    """O of a network of this output form on shots of a basis; SyndistillError where it has no answer for them."""
    if output == "joint4" and basis != "both":
        raise SyndistillError(
            f"a joint4 network decodes two-observable shots, these are of basis {basis}; "
            "take a two_channel one for memory experiments"
        )
    return 4 if output == "joint4" else 2 if basis == "both" else 1


def runs_compiled(config: Mapping[str, Any]) -> bool:
    """Whether a network of this config has compiled code (for x and z memories; a flat GRU for any shots)."""
    family = config.get("family")
    return family in COMPILED and (family == "flat_gru" or config.get("output") != "joint4")


def shipped_names() -> list[str]:
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def shipped_path(name_or_path: str | Path) -> Path:
    """The file of a shipped network's name, or the path itself."""
    shipped = _SHIPPED / f"{name_or_path}.safetensors"
    return shipped if shipped.is_file() else Path(name_or_path)


def read_header(path: Path) -> dict[str, Any]:
    """Config and metadata of a network file, whatever its family. SyndistillError where it is none."""
    return _read(path, with_tensors=False)[1]


def load_flat_weights(name_or_path: str | Path) -> FlatWeights:
    """A flat GRU by shipped name or by path.

    SyndistillError for a file that is missing, truncated or of another kind, for another family, and for weights that
    do not fit the config or are not finite.
    """
    return load_weights(shipped_path(name_or_path), "flat_gru", FlatWeights, _shapes)


def load_weights(
    path: Path, family: str, kind: type[Weights], shapes: Callable[[Weights, bool], dict[str, tuple[int, ...]]]
) -> Weights:
    """Of the family whose tensors have the `shapes` (of the weights, and whether they predict the next events)."""
    tensors, header = _read(path, with_tensors=True)
    config = header["config"]
    if config.get("family") != family:
        raise SyndistillError(
            f"{path} is of family {config.get('family')}, not {family}; only {' and '.join(COMPILED)} run without "
            "PyTorch"
        )
    try:
        found = kind(
            config["distance"], config["output"], config["width"], config["readout_width"], config["readout_layers"],
            bool(config.get("turn_x", False)), tensors, header["metadata"],
        )  # fmt: skip
        expected = shapes(found, bool(config["next_events"]))
    except (KeyError, TypeError) as error:
        raise SyndistillError(f"{path}: its config lacks a dial ({error}); get a fresh copy") from None
    for name in sorted(expected.keys() | tensors.keys()):
        shape = tensors[name].shape if name in tensors else None
        if shape != expected.get(name) or not np.isfinite(tensors[name]).all():
            raise SyndistillError(f"{path}: weight {name} does not fit the config or is not finite; get a fresh copy")
    return found


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    if not path.is_file():
        raise SyndistillError(f"there is no file {path}; check the path, or take the name of a shipped network")
    try:
        with safe_open(path, "numpy") as file:
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            names = file.keys() if with_tensors else []
            tensors = {name: np.asarray(file.get_tensor(name)) for name in names}
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise SyndistillError(
            f"{path} is no whole safetensors file of this project ({error}); get a fresh copy"
        ) from None
    if header.get("what") != WHAT or not isinstance(header.get("config"), dict) or header.get("format") != FORMAT:
        raise SyndistillError(f"{path} is no network of this project in format {FORMAT}; give one that is")
    return tensors, header


def _shapes(weights: FlatWeights, next_events: bool) -> dict[str, tuple[int, ...]]:
    width, out, bits = weights.width, weights.readout_width, 2 * weights.layout.n_stabilisers
    joint = weights.output == "joint4"
    shapes: dict[str, tuple[int, ...]] = {f"start.{b}": (width,) for b in (["both"] if joint else ["x", "z", "both"])}
    shapes |= {"gru.weight_ih_l0": (3 * width, bits), "gru.weight_hh_l0": (3 * width, width)}
    shapes |= {"gru.bias_ih_l0": (3 * width,), "gru.bias_hh_l0": (3 * width,)}
    shapes |= {"decide.0.weight": (out, width + bits), "decide.0.bias": (out,)}
    for layer in range(weights.readout_layers):
        shapes |= {f"decide.2.{kind}.{layer}.weight": (out, out) for kind in ("ins", "outs")}
        shapes |= {f"decide.2.{kind}.{layer}.bias": (out,) for kind in ("ins", "outs", "norms")}
        shapes[f"decide.2.norms.{layer}.weight"] = (out,)
    if next_events:  # an aid in training, which nothing here reads
        shapes |= {"next_events.weight": (bits // 2, width), "next_events.bias": (bits // 2,)}
    lines = weights.layout.n_lines * (4 if joint else 1)
    for basis in ["both"] if joint else ["x", "z"]:
        shapes |= {f"heads.{basis}.weight": (lines, out), f"heads.{basis}.bias": (lines,)}
    return shapes
