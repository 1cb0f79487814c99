"""An exported folder run by ONNX Runtime, without PyTorch.

Axes: B shots or logical qubits, R rounds, N detectors, S stabilisers, D width, O outputs or observables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.decoders.contract import Decoder
from syndistill.deploy.engines import Bits, Engine, Floats, Stream
from syndistill.deploy.manifest import EXPERIMENT_FILE, READOUT_FILE, STEP_FILE, Manifest
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


class OnnxEngine(Engine):
    """The step and readout graphs. `threads`: of one call; one is fastest for networks this small."""

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
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
        self.step = _session(self.manifest, STEP_FILE, threads)
        self.readout = _session(self.manifest, READOUT_FILE, threads)

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
            raise SyndistillError("an event is neither 0 nor 1; give detection events, not counts or probabilities")
        for events_BS in events_RBS.astype(np.float32):
            inputs = {"events": events_BS, "parity": self._parity_BS, "state": self._state_BD}
            self._parity_BS, self._state_BD = self._engine.step.run(["new_parity", "new_state"], inputs)

    def _logits(self, last_BS: Bits) -> Floats:
        if last_BS.max() > 1:
            raise SyndistillError("an event is neither 0 nor 1; give detection events, not counts or probabilities")
        inputs = {"last": last_BS.astype(np.float32), "parity": self._parity_BS, "state": self._state_BD}
        logits_BO: Floats = self._engine.readout.run(["logits"], inputs)[0]
        return logits_BO

    def _restart(self) -> None:
        self._state_BD = self._start_BD
        self._parity_BS = np.zeros_like(self._parity_BS)


class OnnxExperiment(Decoder):
    """The whole-experiment graph as a decoder of the circuit that it was exported for."""

    gives_probabilities = True

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        manifest = Manifest.load(folder)
        network = manifest.content["network"]
        self.name = str(folder)
        self.n_parameters = network["parameters"]
        self.placement = manifest.placement
        self.n_detectors = len(self.placement.slice_N)
        self.n_observables = self.placement.n_observables
        self.content_id = f"{network['weights_sha256']}-onnx"
        self._session = _session(manifest, EXPERIMENT_FILE, threads)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        inputs = {"detectors": shots.detectors().astype(np.float32)}
        return self._session.run(["flips"], inputs)[0].astype(np.float64)


def _session(manifest: Manifest, file: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SyndistillError("exported folders need onnxruntime: pip install 'syndistill[runtime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; they come as exceptions
    try:
        return onnxruntime.InferenceSession(manifest.graphs[file], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exception classes have no common base
        reason = str(error).strip().splitlines()[0]
        raise SyndistillError(f"{manifest.folder / file} is no graph that runs ({reason}); export again") from None
