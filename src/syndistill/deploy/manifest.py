"""What an exported folder holds, and whether it still does. Needs no PyTorch.

Legend: N detectors, S stabilisers, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import BASES, Layout
from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import TrainingNoise
from syndistill.errors import SyndistillError
from syndistill.files.families import MOST_DISTANCE, OUTPUTS
from syndistill.safe_files import json_sha256, read_json

MANIFEST_FILE = "manifest.json"
STEP_FILE, READOUT_FILE, EXPERIMENT_FILE = "step.onnx", "readout.onnx", "experiment.onnx"
GRAPH_FILES = (STEP_FILE, READOUT_FILE, EXPERIMENT_FILE)
WHAT, FORMAT = "syndistill export", 2
_AGAIN = "export the network again"


def with_hash(content: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a hash over all its other content."""
    return {**content, "sha256": json_sha256(content)}


@dataclass(frozen=True, eq=False)
class Manifest:
    """content: the JSON as `export` writes it; docs/export.md explains its keys. graphs: the very bytes of the graph
    files that its hashes were compared with."""

    folder: Path
    content: dict[str, Any]
    graphs: dict[str, bytes]

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """SyndistillError where the folder, its manifest or one of its files is missing or was changed."""
        if not isinstance(folder, str | Path):
            raise SyndistillError(f"a {type(folder).__name__} is no folder; give the path of one that export wrote")
        folder = Path(folder)
        path = folder / MANIFEST_FILE
        content = read_json(path, f"give a folder that syndistill export wrote, or {_AGAIN}")
        if not isinstance(content, dict) or content.get("what") != WHAT or content.get("format") != FORMAT:
            raise SyndistillError(f"{path} is no manifest of format {FORMAT}; {_AGAIN}")
        if content.get("sha256") != _hash_of({key: value for key, value in content.items() if key != "sha256"}):
            raise SyndistillError(f"{path} is not the manifest that was written (content hash); {_AGAIN}")
        _check(path, content)
        return cls(folder, content, {name: _graph(folder / name, content["files"][name]) for name in GRAPH_FILES})

    @property
    def layout(self) -> Layout:
        return Layout(self.content["experiment"]["distance"])

    @property
    def home(self) -> TrainingNoise | None:
        """What the network was trained on."""
        content = self.content["training_noise"]
        return None if content is None else TrainingNoise.from_json(content)

    @property
    def start_D(self) -> NDArray[np.float32]:
        """The state before the first round."""
        return np.array(self.content["start_D"][self.content["experiment"]["basis"]], np.float32)

    @property
    def placement(self) -> Placement:
        """Of the circuit that `experiment.onnx` was made for."""
        e = self.content["experiment"]
        return Placement(
            self.layout, e["rounds"], e["basis"], np.array(e["slice_N"]), np.array(e["stabiliser_N"]),
            np.array(e["holds_O2"], bool), np.array(e["turn_OS"], np.uint8),
        )  # fmt: skip


def _hash_of(content: dict[str, Any]) -> str | None:
    try:
        return json_sha256(content)
    except (ValueError, RecursionError):  # NaN, or nested too deeply
        return None


def _graph(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SyndistillError(f"{path} is missing or not the file that was exported; {_AGAIN}")
    return content


def _check(path: Path, content: dict[str, Any]) -> None:
    """A hash says that nobody changed it by accident; this, that it is complete and fits together."""
    try:
        network, experiment = content["network"], content["experiment"]
        rounds, distance, basis = experiment["rounds"], experiment["distance"], experiment["basis"]
        placed = [np.array(experiment[key]) for key in ("slice_N", "stabiliser_N")]
        holds_O2, turn_OS = (np.array(experiment[key]) for key in ("holds_O2", "turn_OS"))
        start_D = np.array(content["start_D"][basis], np.float32)
        n_stabilisers = Layout(distance).n_stabilisers
        fits = (
            distance <= MOST_DISTANCE and rounds >= 1 and basis in BASES and network["output"] in OUTPUTS
            and sorted(content["files"]) == sorted(GRAPH_FILES)
            and all(array.ndim == 1 and array.dtype == np.int64 and array.min() >= 0 for array in placed)
            and len(placed[0]) == len(placed[1]) and placed[0].max() <= rounds and placed[1].max() < n_stabilisers
            and holds_O2.shape[1:] == (2,) and turn_OS.shape == (len(holds_O2), n_stabilisers)
            and holds_O2.dtype == bool and bool(np.isin(turn_OS, (0, 1)).all())
            and (content["training_noise"] is None or TrainingNoise.from_json(content["training_noise"]) is not None)
            and start_D.ndim == 1 and bool(np.isfinite(start_D).all())
            and all(isinstance(network[key], int) for key in ("parameters", "width"))
            and isinstance(network["weights_sha256"], str)
            and (network["trained_rounds"] is None or isinstance(network["trained_rounds"], int))
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SyndistillError):
        fits = False
    if not fits:
        raise SyndistillError(f"{path} is not complete, or its parts do not fit together; {_AGAIN}")
