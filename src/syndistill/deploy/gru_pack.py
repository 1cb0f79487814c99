"""The flat GRU's weights in the order in which its kernel reads them.

Axes: D width, K inputs of a product, C columns of V lanes, S stabilisers, W readout width, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.deploy.flat_weights import FlatWeights
from syndistill.files.families import n_channels

Floats = NDArray[np.float32]
UNROLL = 4
"""Inputs of a product are padded to a multiple of this: 4 floats a turn, or 4 bytes to an int8 lane."""
INT8_MAX = 127
NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's


@dataclass(frozen=True, eq=False)
class PackedGru:
    """One block of memory; `offsets` says where each part begins, in floats.

    The bits of a slice are never multiplied: each group of four picks a row of a table of sums. `int8`: the recurrent
    matrix, most of a round's multiplications, holds one byte a weight with a scale for each output.
    """

    blob: Floats
    offsets: dict[str, int]
    lanes: int
    int8: bool
    width: int
    readout_width: int
    readout_layers: int
    n_stabilisers: int
    n_outputs: int
    state_scale: float
    """Largest size of a state's entry: 127 of the int8 state stands for it."""

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but the weights: equal for networks that the same code runs."""
        weights = {"blob", "offsets"} | (set() if self.int8 else {"state_scale"})
        return (*self.offsets.items(), *(getattr(self, f.name) for f in fields(self) if f.name not in weights))

    @property
    def columns(self) -> int:
        return -(-self.width // self.lanes)

    @property
    def padded_width(self) -> int:
        return self.columns * self.lanes

    @property
    def inputs(self) -> int:
        return -(-self.width // UNROLL) * UNROLL

    @property
    def readout_columns(self) -> int:
        return -(-self.readout_width // self.lanes)

    @property
    def padded_readout(self) -> int:
        return self.readout_columns * self.lanes

    @property
    def readout_inputs(self) -> int:
        return -(-self.readout_width // UNROLL) * UNROLL

    @property
    def nibbles(self) -> int:
        """Groups of four bits: of the events, then of the parities."""
        return 2 * self.n_stabilisers // 4


def pack(weights: FlatWeights, basis: str, lanes: int, int8: bool) -> PackedGru:
    """For shots of one basis, for vectors of `lanes` floats."""
    n_channels(weights.output, basis)  # refuses what it has no head for
    weights = weights.reading(basis)
    t, width, bits = weights.tensors, weights.width, 2 * weights.layout.n_stabilisers
    reset, update, candidate = (slice(i * width, (i + 1) * width) for i in range(3))
    recurrent_DDg = t["gru.weight_hh_l0"].reshape(3, width, width)
    scale = float(max(1.0, np.abs(t[f"start.{basis}"]).max()))
    hidden_bias = t["gru.bias_hh_l0"].astype(np.float32).copy()
    parts: dict[str, Floats] = {"start": _columns(t[f"start.{basis}"][None], lanes)}
    if int8:
        steps, parts["scales"], shift = _quantised(recurrent_DDg, scale, lanes)
        hidden_bias -= shift
        parts["recurrent"] = steps.view(np.float32)
    else:
        parts["recurrent"] = _product_order(recurrent_DDg, lanes)
    parts["candidate_bias"] = _columns(hidden_bias[candidate][None], lanes)
    bias = t["gru.bias_ih_l0"].copy()
    bias[reset] += hidden_bias[reset]
    bias[update] += hidden_bias[update]
    parts["bits"] = _tables(t["gru.weight_ih_l0"].reshape(3, width, bits), bias.reshape(3, width), lanes)
    out = weights.readout_width
    first = t["decide.0.weight"]
    parts["first"] = _product_order(first[None, :, :width], lanes)
    parts["first_bits"] = _tables(first[None, :, width:], t["decide.0.bias"][None], lanes)
    for layer in range(weights.readout_layers):
        for kind in ("ins", "outs"):
            parts[f"{kind}.{layer}"] = _product_order(t[f"decide.2.{kind}.{layer}.weight"][None], lanes)
            parts[f"{kind}_bias.{layer}"] = _columns(t[f"decide.2.{kind}.{layer}.bias"][None], lanes)
        parts[f"norm.{layer}"] = _columns(t[f"decide.2.norms.{layer}.weight"][None], lanes)
        parts[f"norm_bias.{layer}"] = _columns(t[f"decide.2.norms.{layer}.bias"][None], lanes)
    head_OW, head_bias_O = weights.heads(basis)
    parts["heads"] = np.concatenate([_columns(row[None], lanes).ravel() for row in head_OW])
    parts["heads_bias"] = head_bias_O
    blob, offsets = joined(parts)
    return PackedGru(
        blob, offsets, lanes, int8, width, out, weights.readout_layers, bits // 2, len(head_OW), scale
    )  # fmt: skip


def _columns(values_GD: Floats, lanes: int) -> Floats:
    """(..., G, D) -> (..., C, G, V), zeros where D ends before a column does."""
    columns = -(-values_GD.shape[-1] // lanes)
    padding = [(0, 0)] * (values_GD.ndim - 1) + [(0, columns * lanes - values_GD.shape[-1])]
    padded = np.pad(values_GD, padding).reshape(*values_GD.shape[:-1], columns, lanes)
    return np.ascontiguousarray(np.swapaxes(padded, -2, -3), dtype=np.float32)


def _inputs_padded(weights: NDArray[Any]) -> NDArray[Any]:
    """The last axis, inputs, with zeros up to a multiple of UNROLL."""
    return np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -weights.shape[-1] % UNROLL)])


def _product_order(weights_GDK: Floats, lanes: int) -> Floats:
    """(G, D, K) -> (C, K, G, V): what a column's product reads one after the other."""
    by_input_KGD = np.moveaxis(_inputs_padded(weights_GDK), -1, 0)
    return np.ascontiguousarray(np.moveaxis(_columns(by_input_KGD, lanes), 1, 0), dtype=np.float32)


def _tables(weights_GDb: Floats, bias_GD: Floats, lanes: int) -> Floats:
    """(b/4, 16, C, G, V): sums of the weights of each four bits, the bias with the first four."""
    values = (np.arange(16)[:, None] >> np.arange(4)) & 1
    groups_GDn4 = weights_GDb.reshape(*weights_GDb.shape[:2], -1, 4).astype(np.float64)
    table = np.einsum("gdnb,vb->nvgd", groups_GDn4, values)
    table[0] += bias_GD
    return _columns(table.astype(np.float32), lanes)


def _quantised(weights_GDK: Floats, state_scale: float, lanes: int) -> tuple[NDArray[np.int8], Floats, Floats]:
    """int8 weights (C, K/4, G, V, 4), scales (C, G, V) back to real numbers, and what a state of 128 (its zero, in
    unsigned bytes) adds to each output (G*D,)."""
    largest_GD1 = np.maximum(np.abs(weights_GDK).max(-1, keepdims=True), np.float32(1e-12))
    bytes_GDK = np.rint(weights_GDK / largest_GD1 * INT8_MAX).astype(np.int8)
    real_GD = largest_GD1[..., 0] / INT8_MAX * np.float32(state_scale / INT8_MAX)
    shift = (INT8_MAX + 1) * bytes_GDK.sum(-1, dtype=np.int64) * real_GD
    padded = _inputs_padded(bytes_GDK)
    groups, width, inputs = padded.shape
    columns = -(-width // lanes)
    padded = np.pad(padded, [(0, 0), (0, columns * lanes - width), (0, 0)])
    steps = padded.reshape(groups, columns, lanes, inputs // 4, 4).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(steps, dtype=np.int8), _columns(real_GD, lanes), shift.astype(np.float32).ravel()


def joined(parts: dict[str, Floats]) -> tuple[Floats, dict[str, int]]:
    """All parts in one block, each from a cache line (16 floats) on."""
    offsets, pieces, at = {}, [], 0
    for name, part in parts.items():
        offsets[name] = at
        flat = part.ravel()
        pieces.append(np.pad(flat, (0, -len(flat) % 16)))
        at += len(pieces[-1])
    blob = np.zeros(at + 16, np.float32)
    first = (-blob.ctypes.data // 4) % 16  # floats to the next cache line
    aligned = blob[first : first + at]
    aligned[:] = np.concatenate(pieces)
    return aligned, offsets
