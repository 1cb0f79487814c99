"""The local GRU compiled for this machine by LLVM: no PyTorch, no compiler to install.

Axes: B shots, H groups of V of them, R rounds, S stabilisers, D width, N detectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement
from syndistill.deploy.local_pack import PackedLocal, pack
from syndistill.deploy.local_weights import LocalWeights
from syndistill.deploy.machine import has_many_registers, machine_code, machine_features, vector_lanes
from syndistill.errors import SyndistillError

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]


class LocalKernel:
    """Compiled for one basis (x or z) and one precision; called as `gru_kernel.GruKernel` is.

    "int8" keeps the weights of cells and qubits, and the states that multiply them, in bytes, and takes the gates from
    tables; it needs a processor with byte products (x86 with AVX-512 VNNI). `lanes`: shots of a vector, by default
    what the machine's registers hold (int8: always 16). Calls release Python's lock, and may run in several threads.
    """

    n_outputs = 1

    def __init__(
        self, weights: LocalWeights, basis: str, precision: str = "float32", lanes: int | None = None
    ) -> None:
        features = machine_features(precision)
        chunk, readout_chunk = (6, 24) if has_many_registers(features) else (3, 12)
        lanes = 16 if precision == "int8" else lanes or vector_lanes(features)
        self.packed = pack(weights, basis, lanes, precision == "int8", chunk, readout_chunk)
        self._engine, self._functions = _compiled_once(self.packed, bool(features.get("avx512vl")))
        self._weights = self.packed.blob.ctypes.data
        turned = weights.frame(basis) != basis
        self._place_S = weights.layout.turned_back_S if turned else np.arange(self.packed.n_stabilisers)

    def new_states(self, batch: int) -> tuple[Floats, NDArray[np.uint16]]:
        """States (H, S, D, V) and parities (H, S), a bit a shot, before the first round."""
        p, groups = self.packed, -(-batch // self.packed.lanes)
        shape = (p.n_stabilisers, p.width, p.lanes)
        start = p.offsets["start"]
        state_SDV = p.blob[start : start + int(np.prod(shape))].reshape(shape)
        return np.tile(state_SDV, (groups, 1, 1, 1)), np.zeros((groups, p.n_stabilisers), np.uint16)

    def function(self, kind: str, batch: int) -> Any:
        """`step`, `readout` or `decode` (arguments: local_functions, without the weights); one for every batch."""
        compiled, weights = self._functions[kind], self._weights
        return lambda *arguments: compiled(weights, *arguments)

    def places(self, placement: Placement) -> NDArray[np.int32]:
        """(N,): where each detector goes, slice * S + stabiliser as the network sees it."""
        at_N = placement.slice_N * self.packed.n_stabilisers + self._place_S[placement.stabiliser_N]
        return at_N.astype(np.int32)

    def decode(self, detectors_packed: Bits, places_N: NDArray[np.int32], rounds: int) -> Floats:
        """logits_BO of whole shots, bits packed in Stim's order (B, N / 8): a memory has R (d*d - 1) detectors, a whole
        number of bytes. places_N as `places` makes them."""
        batch, row_bytes = detectors_packed.shape
        if len(places_N) != 8 * row_bytes:
            raise SyndistillError(f"{row_bytes} bytes a shot where the circuit's has {len(places_N) // 8}")
        logits_BO = np.empty((batch, self.n_outputs), np.float32)
        if batch:
            detectors = np.ascontiguousarray(detectors_packed, np.uint8)
            scratch = np.empty((rounds + 1) * self.packed.n_stabilisers, np.uint16)
            pointers = (array.ctypes.data for array in (detectors, places_N, scratch, logits_BO))
            self.function("decode", batch)(*pointers, batch, rounds, row_bytes)
        return logits_BO


_CODE: dict[tuple[object, ...], tuple[Any, dict[str, Any]]] = {}


def _compiled_once(packed: PackedLocal, fast_reciprocal: bool) -> tuple[Any, dict[str, Any]]:
    """The weights are an argument of the code, so networks of one shape share it."""
    key = (*packed.shape, fast_reciprocal)
    if key not in _CODE:
        _CODE[key] = _compiled(packed, fast_reciprocal)
    return _CODE[key]


def _compiled(packed: PackedLocal, fast_reciprocal: bool) -> tuple[Any, dict[str, Any]]:
    from syndistill.deploy.local_functions import emit_module

    return machine_code(emit_module(packed, fast_reciprocal))
