"""The local GRU's weights, and who is whose neighbour, in the order in which its kernel reads them.

A term is what a vector of V shots holds of one stabiliser: a channel of its state or one of its bits (float32), or four
bytes: four channels, or its two bits. Every product of the network gathers the terms of some sources: a stabiliser's
cell those of its neighbourhood, a data qubit those of its corners.

Axes: D width, K terms, G gates (reset, update, candidate), S stabilisers, Q data qubits, L lines, W readout width,
T types, P places of a source (9 or 4), I bits, N rows of outputs, V shots of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.deploy.gru_pack import INT8_MAX, joined
from syndistill.deploy.local_weights import LocalWeights
from syndistill.errors import SyndistillError
from syndistill.files.families import BITS, PLACES

Floats = NDArray[np.float32]
ZERO = 128
"""What a state of 0 is in unsigned bytes."""
HEAD = 5
"""Numbers that the tables of sources have for each target, before the pairs."""
COARSE = 255
"""A set bit is the bytes 255 and 1: with two int8 weights they make every whole number up to 127 * 256."""
_KINDS = 4  # sums of a channel: reset, update, the candidate's bits, and its states, which the reset gate multiplies


@dataclass(frozen=True, eq=False)
class Segments:
    """A function as 31 polynomials over [-15.5, 15.5] widths, held constant beyond."""

    function: Callable[[Any], Any]
    width: float
    degree: int

    def table(self) -> Floats:
        """(degree + 1, 32): coefficients of 1, f, f^2, ... at the segment's number modulo 32."""
        table = np.zeros((self.degree + 1, 32), np.float32)
        for i in range(-15, 16):
            table[:, i % 32] = self._fit(i).convert(kind=np.polynomial.Polynomial).coef
        return table

    def _fit(self, i: int) -> np.polynomial.Chebyshev:
        return np.polynomial.Chebyshev.interpolate(
            lambda inside: self.function((inside + i) * self.width), self.degree, (-0.5, 0.5)
        )


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _normal_distribution(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * erfc(-value / sqrt(2)) for value in x])


COARSE_TABLES = {
    "sigmoid": Segments(_sigmoid, 0.56, 2),
    "tanh": Segments(np.tanh, 0.28, 2),
    "normal": Segments(_normal_distribution, 0.27, 2),
}
"""For int8: off by less than 4e-4, of which a byte shows nothing."""
FINE_TABLES = {
    "sigmoid": Segments(_sigmoid, 0.88, 4),
    "tanh": Segments(np.tanh, 0.44, 4),
    "normal": Segments(_normal_distribution, 0.34, 4),
}
"""For float32: off by less than 1e-5."""


@dataclass(frozen=True, eq=False)
class PackedLocal:
    """One block of memory; `offsets` says where each part begins, in floats (tables of numbers are int32 there)."""

    blob: Floats
    offsets: dict[str, int]
    lanes: int
    int8: bool
    width: int
    readout_width: int
    readout_layers: int
    n_stabilisers: int
    n_lines: int
    chunk: int
    """Channels of a state that are summed up at once."""
    readout_chunk: int

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but the weights: equal for networks that the same code runs."""
        return (
            *self.offsets.items(), self.lanes, self.int8, self.width, self.readout_width, self.readout_layers,
            self.n_stabilisers, self.chunk, self.readout_chunk,
        )  # fmt: skip

    @property
    def state_terms(self) -> int:
        return -(-self.width // 4) if self.int8 else self.width

    @property
    def terms(self) -> int:
        """K."""
        return self.state_terms + (1 if self.int8 else BITS)

    @property
    def tables(self) -> dict[str, Segments]:
        return tables(self.lanes, self.int8)

    @property
    def chunks(self) -> list[range]:
        return split(self.width, self.chunk)

    @property
    def readout_chunks(self) -> list[range]:
        return split(self.readout_width, self.readout_chunk)


def tables(lanes: int, int8: bool) -> dict[str, Segments]:
    """The functions that are looked up: where registers have 16 lanes, two of them hold a table's row."""
    return {} if lanes != 16 else COARSE_TABLES if int8 else FINE_TABLES


def split(size: int, most: int) -> list[range]:
    """range(size) in as few parts of nearly equal size as `most` allows."""
    edges = np.linspace(0, size, -(-size // most) + 1).round().astype(int).tolist()
    return [range(a, b) for a, b in pairwise(edges)]


def pack(weights: LocalWeights, basis: str, lanes: int, int8: bool, chunk: int, readout_chunk: int) -> PackedLocal:
    """For shots of one basis, `lanes` of them in a vector."""
    if weights.output != "two_channel" or basis == "both":
        raise SyndistillError(
            f"compiled local GRUs answer for basis x or z with output two_channel, not for {basis} with "
            f"{weights.output}; run this one through PyTorch (syndistill.deploy.torch_engine)"
        )
    layout, t = weights.layout, weights.tensors
    width, out, n = weights.width, weights.readout_width, layout.n_stabilisers
    start_SD = t[f"start.{basis}"]
    top = float(max(1.0, np.abs(start_SD).max()))
    chunks = split(width, chunk)
    near_SS, factor = layout.blocks_SS, _gate_factors(tables(lanes, int8))
    parts: dict[str, Floats] = {
        "start": np.repeat(start_SD[..., None], lanes, -1),
        "to_bytes": np.full(16, INT8_MAX / top, np.float32),
        "neighbours": _gathering(near_SS, 2 * PLACES, [layout.is_x_S]),
        "turn": _numbers(layout.turned_back_S if weights.frame(basis) != basis else np.arange(n)),
    }
    for cell in ("cell", "last_cell"):
        of_type = [_cell_products(t, cell, kind, width, factor, top if int8 else 0.0) for kind in range(2)]
        bias_SKD = np.concatenate([t[f"{cell}.bias_GSD"], t[f"{cell}.hidden_bias_SD"][None]]).transpose(1, 0, 2)
        bias_SKD = bias_SKD * factor[:, None]
        shift_NKD = np.concatenate([shift for *_, shift in of_type] + [np.zeros((1, _KINDS, width))])
        parts[f"{cell}.bias"] = (bias_SKD - shift_NKD[near_SS].sum(1)).astype(np.float32)
        parts[f"{cell}.scales"] = np.stack([unit for _, unit, _ in of_type])
        parts[f"{cell}.weights"] = _by_chunk(np.concatenate([product for product, *_ in of_type]), chunks)
    parts |= _readout(weights, basis, top if int8 else 0.0, split(out, readout_chunk))
    parts |= {name: segments.table() for name, segments in tables(lanes, int8).items()}
    blob, offsets = joined(parts)
    return PackedLocal(
        blob, offsets, lanes, int8, width, out, weights.readout_layers, n, layout.n_lines, chunk, readout_chunk
    )


def _corner_blocks(layout: Layout) -> NDArray[np.int64]:
    """(Q target, S source): 4 * (1 where row + column is odd) + the stabiliser's corner of the qubit, 8 for none."""
    n, d = layout.n_stabilisers, layout.distance
    odd_Q = np.indices((d, d)).sum(0).ravel() % 2
    blocks_QS = np.full((d * d, n + 1), 8)
    np.put_along_axis(blocks_QS, layout.corners_Q4, 4 * odd_Q[:, None] + np.arange(4), 1)
    return blocks_QS[:, :n]  # column n is where a corner without a stabiliser was written


def _gate_factors(segments: dict[str, Segments]) -> NDArray[np.float64]:
    """What the sums of each kind are multiplied with beforehand: for exp2, or in widths of a table's segments."""
    gate, candidate = -1 / np.log(2), -2 / np.log(2)
    if segments:
        gate, candidate = 1 / segments["sigmoid"].width, 1 / segments["tanh"].width
    return np.array([gate, gate, candidate, candidate])


def _cell_products(
    t: Any, cell: str, kind: int, width: int, factor: NDArray[np.float64], top: float
) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Of one type of stabiliser: weights (P, K, D, G), scales (KINDS, D) and shifts (P, KINDS, D)."""
    states_GDPD = t[f"cell.recurrent.{kind}"].reshape(3, width, PLACES, width).astype(np.float64)
    bits_GDPI = t[f"{cell}.inputs.{kind}"].reshape(3, width, PLACES, BITS).astype(np.float64)
    states = np.stack([states_GDPD[0], states_GDPD[1], 0 * states_GDPD[2], states_GDPD[2]])
    bits = np.stack([bits_GDPI[0], bits_GDPI[1], bits_GDPI[2], 0 * bits_GDPI[2]])
    scaled = factor[:, None, None, None]
    terms, unit, shift = _terms(
        (states * scaled).reshape(-1, PLACES, width), (bits * scaled).reshape(-1, PLACES, BITS), top
    )
    terms_PKDk = terms.reshape(_KINDS, width, PLACES, -1).transpose(2, 3, 1, 0)
    n_states = terms_PKDk.shape[1] - (1 if top else BITS)
    candidate_PKD = np.concatenate([terms_PKDk[:, :n_states, :, 3], terms_PKDk[:, n_states:, :, 2]], 1)
    product = np.concatenate([terms_PKDk[..., :2], candidate_PKD[..., None]], -1)
    return product, unit.reshape(_KINDS, width), shift.reshape(_KINDS, width, PLACES).transpose(2, 0, 1)


def _terms(
    states_NPD: NDArray[np.float64], bits_NPI: NDArray[np.float64], top: float
) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Weights of the terms (N, P, K), what one of their sums is worth (N,), and what states of 0 add (N, P).

    top: size of a state whose byte is 127 away from 0's; 0 for float32, where the last two say nothing.
    """
    rows, places, width = states_NPD.shape
    if not top:
        floats = np.concatenate([states_NPD, bits_NPI], -1).astype(np.float32)
        return floats, np.ones(rows, np.float32), np.zeros((rows, places))
    most_bits = INT8_MAX * (COARSE + 1) * top / INT8_MAX**2
    size_N = np.maximum(np.abs(states_NPD).max((1, 2)), np.abs(bits_NPI).max((1, 2)) / most_bits).clip(1e-12)
    bytes_NPD = np.rint(states_NPD / size_N[:, None, None] * INT8_MAX)
    unit_N = size_N / INT8_MAX * top / INT8_MAX
    whole_NPI = np.rint(bits_NPI / unit_N[:, None, None])
    coarse_NPI = np.rint(whole_NPI / COARSE).clip(-INT8_MAX, INT8_MAX)
    fine_NPI = (whole_NPI - COARSE * coarse_NPI).clip(-INT8_MAX, INT8_MAX)
    padding = np.zeros((rows, places, -width % 4))
    of_bits = np.stack([coarse_NPI, fine_NPI], -1).reshape(rows, places, 2 * BITS)
    every = np.ascontiguousarray(np.concatenate([bytes_NPD, padding, of_bits], -1).astype(np.int8))
    return every.view(np.float32), unit_N.astype(np.float32), ZERO * bytes_NPD.sum(-1) * unit_N[:, None]


def _readout(weights: LocalWeights, basis: str, top: float, chunks: list[range]) -> dict[str, Floats]:
    layout, t, out = weights.layout, weights.tensors, weights.readout_width
    d, frame = layout.n_lines, weights.frame(basis)
    products, units, shifts = [], [], []
    for kind in range(2):
        # A line's mean over its d qubits is taken here: ReLU lets a positive factor through.
        weight_WPX = t[f"project.{kind}.weight"].reshape(out, 4, -1).astype(np.float64) / d
        terms_WPK, unit_W, shift_WP = _terms(weight_WPX[..., :-BITS], weight_WPX[..., -BITS:], top)
        products.append(terms_WPK.transpose(1, 2, 0))
        units.append(unit_W)
        shifts.append(shift_WP.T)
    near_QS, (rows_Q, columns_Q) = _corner_blocks(layout), np.indices((d, d)).reshape(2, -1)
    odd_Q = (rows_Q + columns_Q) % 2
    bias_QW = np.stack([t[f"project.{kind}.bias"] / d for kind in range(2)])[odd_Q]
    shift_NW = np.concatenate([*shifts, np.zeros((1, out))])
    parts: dict[str, Floats] = {
        "corners": _gathering(near_QS, 8, [odd_Q, rows_Q if frame == "x" else columns_Q]),
        "project.weights": _by_chunk(np.concatenate(products)[..., None], chunks),
        "project.scales": np.stack(units),
        "project.bias": (bias_QW - shift_NW[near_QS].sum(1)).astype(np.float32),
        "line": t[f"line.{basis}"],
        "flips": _numbers(-layout.line_matrix(frame).T.astype(np.int64)),
        "heads": (t[f"heads.{basis}.weight"] / d).astype(np.float32),
        "heads_bias": (t[f"heads.{basis}.bias"] / d).astype(np.float32),
    }
    for layer in range(weights.readout_layers):
        ins_WW, outs_WW = (t[f"network.{kind}.{layer}.weight"].astype(np.float64) for kind in ("ins", "outs"))
        # The norm's weight and bias go into the matrix that reads it.
        of_norm = ins_WW @ t[f"network.norms.{layer}.bias"].astype(np.float64)
        parts[f"ins.{layer}"] = _by_chunk((ins_WW * t[f"network.norms.{layer}.weight"]).T[None, ..., None], chunks)
        parts[f"ins_bias.{layer}"] = (t[f"network.ins.{layer}.bias"] + of_norm).astype(np.float32)
        parts[f"outs.{layer}"] = _by_chunk(outs_WW.T[None, ..., None], chunks)
        parts[f"outs_bias.{layer}"] = t[f"network.outs.{layer}.bias"]
    return parts


def _by_chunk(weights_NKDG: NDArray[Any], chunks: list[range]) -> Floats:
    """(N, chunks, K, D of the chunk, G), flat: what each chunk of outputs reads one after the other."""
    n = len(weights_NKDG)
    pieces = [weights_NKDG[:, :, chunk.start : chunk.stop].reshape(n, -1) for chunk in chunks]
    joined_NX = np.concatenate(pieces, 1)
    return joined_NX if joined_NX.dtype == np.float32 else joined_NX.astype(np.float32)


def _gathering(blocks: NDArray[np.int64], none: int, more: list[NDArray[Any]]) -> Floats:
    """int32 (targets, HEAD): where a target's sources begin and end, two numbers of `more`, the target; then (source,
    block) pairs.

    Targets of one kind (the first of `more`) follow each other, so that their weights stay near, and of these such with
    as many sources: the processor foresees the length of a loop that was as long before.
    """
    counts = (blocks != none).sum(1)
    order = np.lexsort((np.arange(len(blocks)), counts, more[0]))
    ends = np.cumsum(counts[order])
    numbers = [*more, *[np.zeros(len(blocks))] * (2 - len(more))]
    heads = np.stack([ends - counts[order], ends, *(n[order] for n in numbers), order], 1)
    pairs = [(source, blocks[i, source]) for i in order for source in np.flatnonzero(blocks[i] != none)]
    return _numbers(np.concatenate([heads.ravel(), np.array(pairs).ravel()]))


def _numbers(values: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values.astype(np.int32)).view(np.float32)
