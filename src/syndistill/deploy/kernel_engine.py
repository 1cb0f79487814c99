"""Compiled code as an engine: flat and local GRUs, without PyTorch.

Axes: B logical qubits, R rounds, S stabilisers, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import noise_in
from syndistill.deploy.engines import Bits, Engine, Floats, Stream
from syndistill.deploy.gru_kernel import GruKernel
from syndistill.deploy.local_kernel import LocalKernel
from syndistill.deploy.local_weights import LocalWeights, load_compilable
from syndistill.errors import SyndistillError
from syndistill.files.network_file import trained_rounds


class KernelEngine(Engine):
    """A flat or local GRU by shipped name or path, compiled when a basis is first asked for.

    Precision: see `GruKernel` and `LocalKernel`, which says what a local GRU answers for.
    """

    def __init__(self, name_or_path: str | Path, precision: str = "float32") -> None:
        self.weights = load_compilable(name_or_path)
        self.name = str(name_or_path)
        self.precision = precision
        self.layout = self.weights.layout
        self.output = self.weights.output
        self.n_parameters = self.weights.n_parameters
        self.content_id = self.weights.sha256 + ("" if precision == "float32" else f"-{precision}")
        self.trained_rounds = trained_rounds(self.weights.metadata)
        self.home = noise_in(self.weights.metadata)
        self._kernels: dict[str, GruKernel | LocalKernel] = {}

    def kernel(self, basis: str) -> GruKernel | LocalKernel:
        """Compiled once for each basis."""
        if basis not in self._kernels:
            if isinstance(self.weights, LocalWeights):
                self._kernels[basis] = LocalKernel(self.weights, basis, self.precision)
            else:
                self._kernels[basis] = GruKernel(self.weights, basis, self.precision)
        return self._kernels[basis]

    def stream(self, basis: str, batch: int) -> Stream:
        return _KernelStream(self, basis, batch)

    def _on(self, placement: Placement) -> Callable[[Bits], Floats]:
        kernel = self.kernel(placement.basis)
        return partial(kernel.decode, places_N=kernel.places(placement), rounds=placement.rounds)


class _KernelStream(Stream):
    """Its arrays stay where they are, so that a round costs one copy and one call."""

    def __init__(self, engine: KernelEngine, basis: str, batch: int) -> None:
        super().__init__(engine.layout, basis, batch)
        self._kernel = engine.kernel(basis)
        self._start, no_parity = self._kernel.new_states(batch)
        self._states, self._parities = self._start.copy(), no_parity
        self._events_BS = np.zeros((batch, self.n_stabilisers), np.uint8)
        self._logits_BO = np.zeros((batch, self._kernel.n_outputs), np.float32)
        arrays = (self._states, self._parities, self._events_BS)
        self._places = tuple(array.ctypes.data for array in arrays)
        self._step = self._kernel.function("step", batch)
        self._readout = self._kernel.function("readout", batch)

    def _push(self, events_RBS: Bits) -> None:
        rounds = len(events_RBS)
        states, parities, events = self._places
        if rounds == 1:
            self._events_BS[:] = events_RBS[0]
        else:
            events_RBS = np.ascontiguousarray(events_RBS)
            events = events_RBS.ctypes.data
        _refuse(self._step(states, parities, events, self.batch, rounds))

    def _logits(self, last_BS: Bits) -> Floats:
        self._events_BS[:] = last_BS
        _refuse(self._readout(*self._places, self._logits_BO.ctypes.data, self.batch))
        return self._logits_BO.copy()

    def _restart(self) -> None:
        self._states[:] = self._start
        self._parities[:] = 0


def _refuse(strange: int) -> None:
    if strange:
        raise SyndistillError("an event is neither 0 nor 1; give detection events, not counts or probabilities")
