"""The flat GRU compiled for this machine by LLVM: no PyTorch, no compiler to install.

Axes: B shots, R rounds, S stabilisers, D width (padded), N detectors, O outputs (line 0: one for basis x or z, two for
both, four classes for joint4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement
from syndistill.deploy.flat_weights import FlatWeights
from syndistill.deploy.gru_pack import PackedGru, pack
from syndistill.deploy.machine import has_many_registers, machine_code, machine_features, vector_lanes
from syndistill.errors import SyndistillError

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]
MANY = 4
"""From so many shots on they are decoded in groups."""


class _Machine(NamedTuple):
    """Floats of a vector register, shots of a group, registers for sums."""

    lanes: int
    shots: int
    accumulators: int


class GruKernel:
    """Compiled for one basis and one precision.

    "int8" keeps the recurrent matrix and the state that multiplies it in bytes; the rest stays float32. It needs a
    processor with byte products (x86 with VNNI). `lanes`: floats of a vector, by default what the machine's registers
    hold. Calls release Python's lock, and may run in several threads at once.
    """

    def __init__(
        self, weights: FlatWeights, basis: str, precision: str = "float32", lanes: int | None = None
    ) -> None:
        features = machine_features(precision)
        machine = _machine(features, lanes)
        self.packed = pack(weights, basis, machine.lanes, precision == "int8")
        self._group = machine.shots
        self._engine, self._functions = _compiled_once(self.packed, machine)
        self._weights = self.packed.blob.ctypes.data
        self.n_outputs = self.packed.n_outputs

    def new_states(self, batch: int) -> tuple[Floats, Bits]:
        """States (B, D) and parities (B, S/8) before the first round."""
        start = self.packed.offsets["start"]
        state_D = self.packed.blob[start : start + self.packed.padded_width]
        return np.tile(state_D, (batch, 1)), np.zeros((batch, self.packed.n_stabilisers // 8), np.uint8)

    def function(self, kind: str, batch: int) -> Any:
        """`step`, `readout` or `decode` (arguments: gru_functions, without the weights) for so many shots."""
        compiled, weights = self._functions[f"{kind}_{'many' if batch >= MANY else 'one'}"], self._weights
        return lambda *arguments: compiled(weights, *arguments)

    def places(self, placement: Placement) -> NDArray[np.int32]:
        """(N,): where each detector goes, slice * S + stabiliser."""
        return (placement.slice_N * self.packed.n_stabilisers + placement.stabiliser_N).astype(np.int32)

    def decode(self, detectors_packed: Bits, places_N: NDArray[np.int32], rounds: int) -> Floats:
        """logits_BO of whole shots, bits packed in Stim's order (B, N / 8): a memory has R (d*d - 1) detectors, a whole
        number of bytes. places_N as `places` makes them."""
        batch, row_bytes = detectors_packed.shape
        if len(places_N) != 8 * row_bytes:
            raise SyndistillError(f"{row_bytes} bytes a shot where the circuit's has {len(places_N) // 8}")
        logits_BO = np.empty((batch, self.n_outputs), np.float32)
        if batch:
            detectors = np.ascontiguousarray(detectors_packed, np.uint8)
            scratch = np.empty(self._group * (rounds + 1) * self.packed.n_stabilisers // 8, np.uint8)
            pointers = (array.ctypes.data for array in (detectors, places_N, scratch, logits_BO))
            self.function("decode", batch)(*pointers, batch, rounds, row_bytes)
        return logits_BO


def _machine(features: Mapping[str, bool], lanes: int | None) -> _Machine:
    lanes = vector_lanes(features) if lanes is None else lanes
    return _Machine(lanes, 8, 24) if has_many_registers(features) else _Machine(lanes, 4, 12)


_CODE: dict[tuple[object, ...], tuple[Any, dict[str, Any]]] = {}


def _compiled_once(packed: PackedGru, machine: _Machine) -> tuple[Any, dict[str, Any]]:
    """The weights are an argument of the code, so networks of one shape share it."""
    if packed.shape not in _CODE:
        _CODE[packed.shape] = _compiled(packed, machine)
    return _CODE[packed.shape]


def _compiled(packed: PackedGru, machine: _Machine) -> tuple[Any, dict[str, Any]]:
    from syndistill.deploy.gru_code import Shape
    from syndistill.deploy.gru_functions import emit_module

    shapes = {"one": Shape(1, machine.accumulators), "many": Shape(machine.shots, machine.accumulators)}
    return machine_code(emit_module(packed, shapes), [f"_{name}" for name in shapes])
