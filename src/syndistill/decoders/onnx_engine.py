"""An exported folder: what it holds, whether it still does, and it run by ONNX Runtime; without PyTorch.

Axes: B shots or logical qubits, R rounds, N detectors, S stabilisers, D width, O outputs or observables.
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
from syndistill.decoders.contract import Decoder
from syndistill.decoders.engines import NOT_BITS, Bits, Engine, Floats, Stream
from syndistill.errors import SyndistillError
from syndistill.files.families import MOST_DISTANCE, OUTPUTS
from syndistill.safe_files import json_sha256, read_json
from syndistill.sampling.stored import StoredShots

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


class OnnxEngine(Engine):
    """The step and readout graphs."""

    def __init__(self, folder: str | Path) -> None:
        self.manifest = Manifest.load(folder)
        network = self.manifest.content["network"]
        self.name = str(folder)
        self.layout = self.manifest.layout
        self.output = network["output"]
        self.n_parameters = network["parameters"]
        self.content_id = f"{network['weights_sha256']}-onnx"
        self.trained_rounds = network["trained_rounds"]
        self.home = self.manifest.home
        self.basis: str = self.manifest.content["experiment"]["basis"]
        self.step = _session(self.manifest, STEP_FILE)
        self.readout = _session(self.manifest, READOUT_FILE)

    def n_outputs(self, basis: str) -> int:
        if basis != self.basis:
            raise SyndistillError(
                f"{self.name} was exported for basis {self.basis}, not {basis}; export it for a circuit of that basis"
            )
        return super().n_outputs(basis)

    def stream(self, basis: str, batch: int) -> Stream:
        self.n_outputs(basis)
        return _OnnxStream(self, batch)


class _OnnxStream(Stream):
    """Hands the step graph's outputs back to it as inputs."""

    def __init__(self, engine: OnnxEngine, batch: int) -> None:
        super().__init__(engine.layout, engine.basis, batch)
        self._engine = engine
        self._start_BD = np.tile(engine.manifest.start_D, (batch, 1))
        self._state_BD: Floats = self._start_BD
        self._parity_BS: Floats = np.zeros((batch, self.n_stabilisers), np.float32)

    def _push(self, events_RBS: Bits) -> None:
        if events_RBS.size and events_RBS.max() > 1:
            raise SyndistillError(NOT_BITS)
        for events_BS in events_RBS.astype(np.float32):
            inputs = {"events": events_BS, "parity": self._parity_BS, "state": self._state_BD}
            self._parity_BS, self._state_BD = self._engine.step.run(["new_parity", "new_state"], inputs)

    def _logits(self, last_BS: Bits) -> Floats:
        if last_BS.max() > 1:
            raise SyndistillError(NOT_BITS)
        inputs = {"last": last_BS.astype(np.float32), "parity": self._parity_BS, "state": self._state_BD}
        logits_BO: Floats = self._engine.readout.run(["logits"], inputs)[0]
        return logits_BO

    def _restart(self) -> None:
        self._state_BD = self._start_BD
        self._parity_BS = np.zeros_like(self._parity_BS)


class OnnxExperiment(Decoder):
    """The whole-experiment graph as a decoder of the circuit that it was exported for."""

    gives_probabilities = True

    def __init__(self, folder: str | Path) -> None:
        manifest = Manifest.load(folder)
        network = manifest.content["network"]
        self.name = str(folder)
        self.n_parameters = network["parameters"]
        self.placement = manifest.placement
        self.n_detectors = len(self.placement.slice_N)
        self.n_observables = self.placement.n_observables
        self.content_id = f"{network['weights_sha256']}-onnx"
        self._session = _session(manifest, EXPERIMENT_FILE)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        inputs = {"detectors": shots.detectors().astype(np.float32)}
        return self._session.run(["flips"], inputs)[0].astype(np.float64)


def _session(manifest: Manifest, file: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SyndistillError("exported folders need onnxruntime: pip install 'syndistill[runtime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # fastest for networks this small
    options.log_severity_level = 3  # errors only; they come as exceptions
    try:
        return onnxruntime.InferenceSession(manifest.graphs[file], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exception classes have no common base
        reason = str(error).strip().splitlines()[0]
        raise SyndistillError(f"{manifest.folder / file} is no graph that runs ({reason}); export again") from None
