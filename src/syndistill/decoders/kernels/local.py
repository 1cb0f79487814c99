"""The local GRU as machine code: its weights, and who is whose neighbour, in the order in which the code reads them;
one round and the readout of as many shots as a vector has lanes; and whole shots from Stim's packed bits.

A lane is a shot, so that a weight is one number for the whole vector, and what a stabiliser hears is a loop over its
neighbours. A term is what a vector holds of one stabiliser: a channel of its state or one of its bits (float32), or
four bytes: four channels, or its two bits. Every product of the network gathers the terms of some sources: a
stabiliser's cell those of its neighbourhood, a data qubit those of its corners. Records hold the terms of every
stabiliser; masks a bit for each shot, 16 to a stabiliser. V shots go through all their rounds before the next V start,
so that their states stay in the nearest cache.

Axes: B shots, H groups of V of them (the last one filled up), R rounds, S stabilisers, N detectors, D width, K terms, G
gates (reset, update, candidate), Q data qubits, L lines, W readout width, T types, P places of a source (9 or 4), I
bits, N rows of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.decoders.kernels.vector_code import (
    F32,
    I8,
    I16,
    I32,
    I64,
    INT8_MAX,
    NORM_EPSILON,
    ROUND,
    Machine,
    Value,
    VectorCode,
    inner_function,
    ir,
    joined,
    outer_function,
)
from syndistill.decoders.kernels.weights import LocalWeights
from syndistill.errors import SyndistillError
from syndistill.files.families import BITS, MOST_FRAME, PLACES

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
    fast_reciprocal: bool
    place_S: NDArray[np.int64]
    """Where the code has each stabiliser."""
    frames: bool
    """Whether each line has a logical frame, behind the states, that each round multiplies by its qubits' factors."""
    agree_after: int
    """Quiet rounds after which neighbouring lines' frames agree, counted behind the frames; 0: never."""
    n_outputs: ClassVar[int] = 1
    endings: ClassVar[tuple[str, ...]] = ("",)
    """Of the functions' names."""

    def ending(self, batch: int) -> str:
        return ""

    def new_states(self, batch: int) -> tuple[Floats, NDArray[np.uint16]]:
        """States (H, X, V) and parities (H, S), a bit a shot, before the first round."""
        groups, start = -(-batch // self.lanes), self.offsets["start"]
        state_XV = self.blob[start : start + self.state_rows * self.lanes].reshape(-1, self.lanes)
        return np.tile(state_XV, (groups, 1, 1)), np.zeros((groups, self.n_stabilisers), np.uint16)

    def scratch_bytes(self, rounds: int) -> int:
        """What `decode` needs."""
        return 2 * (rounds + 1) * self.n_stabilisers

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but the weights: equal for networks that the same code runs."""
        return (
            *self.offsets.items(), self.lanes, self.int8, self.width, self.readout_width, self.readout_layers,
            self.n_stabilisers, self.chunk, self.readout_chunk, self.fast_reciprocal, self.frames, self.agree_after,
        )  # fmt: skip

    @property
    def state_rows(self) -> int:
        """X: the states of all stabilisers, then the frames of all lines, then the rounds counted between them."""
        return self.n_stabilisers * self.width + self.rows_behind

    @property
    def rows_behind(self) -> int:
        return self.n_lines * self.frames + (self.n_lines - 1) * (self.agree_after > 0)

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


def pack(weights: LocalWeights, basis: str, machine: Machine, int8: bool) -> PackedLocal:
    """For shots of one basis, x or z. int8 keeps the weights of cells and qubits, and the states that multiply them, in
    bytes, and takes the gates from tables; its vectors have 16 lanes."""
    if weights.output != "two_channel" or basis == "both":
        raise SyndistillError(
            f"compiled local GRUs answer for basis x or z with output two_channel, not for {basis} with "
            f"{weights.output}; run this one through PyTorch (syndistill.decoders.torch_engine)"
        )
    chunk, readout_chunk = (6, 24) if machine.many_registers else (3, 12)
    lanes = 16 if int8 else machine.lanes
    layout, t = weights.layout, weights.tensors
    width, out, n = weights.width, weights.readout_width, layout.n_stabilisers
    start_SD = t[f"start.{basis}"]
    top = float(max(1.0, np.abs(start_SD).max()))
    chunks = split(width, chunk)
    place_S = layout.turned_back_S if weights.read_as(basis) != basis else np.arange(n)
    near_SS, factor = layout.blocks_SS, _gate_factors(tables(lanes, int8))
    parts: dict[str, Floats] = {
        "start": np.repeat(weights.start(basis)[:, None], lanes, -1),
        "to_bytes": np.full(16, INT8_MAX / top, np.float32),
        "neighbours": _gathering(near_SS, 2 * PLACES, [layout.is_x_S]),
        "turn": _numbers(place_S),
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
        blob, offsets, lanes, int8, width, out, weights.readout_layers, n, layout.n_lines, chunk, readout_chunk,
        machine.fast_reciprocal, place_S, weights.keeps_frame, weights.agree_after,
    )  # fmt: skip


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
    d, read_as = layout.n_lines, weights.read_as(basis)
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
        "corners": _gathering(near_QS, 8, [odd_Q, rows_Q if read_as == "x" else columns_Q]),
        "project.weights": _by_chunk(np.concatenate(products)[..., None], chunks),
        "project.scales": np.stack(units),
        "project.bias": (bias_QW - shift_NW[near_QS].sum(1)).astype(np.float32),
        "line": t[f"line.{basis}"],
        "flips": _numbers(-layout.line_matrix(read_as).T.astype(np.int64)),
        "heads": t[f"heads.{basis}.weight"],
        "heads_bias": t[f"heads.{basis}.bias"],
    }
    if weights.keeps_frame:
        parts["frames"] = t[f"frame_weight.{basis}"]
        parts["frames_bias"] = t[f"frame_bias.{basis}"][weights.qubit_kinds().place_Q]
    if weights.agree_after:
        parts["strips"] = _numbers(-layout.strip_matrix(read_as).T.astype(np.int64))
        parts["share"] = np.array([weights.share(basis)], np.float32)
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


_BIT = COARSE | 1 << 8
_ROUND_BITS = 0x4B400000
"""Of the float32 ROUND."""
_CHAINS = 4
"""Sums of a vector's own that are added up side by side."""
_EDGE = 15.49
"""Of a table of segments: beyond it lies none."""


class LocalCode(VectorCode):
    """Emits an inner function, whose first argument is the block of packed weights."""

    def __init__(self, function: ir.Function, packed: PackedLocal) -> None:
        super().__init__(function, packed.lanes)
        self.packed, self.fast_reciprocal = packed, packed.fast_reciprocal
        self.blob, *self.arguments = function.args
        self.kind = self.ints if packed.int8 else self.floats
        self.row = packed.terms * packed.lanes

    def part(self, name: str, *offsets: Value | int) -> Value:
        return self.at(F32, self.blob, self.packed.offsets[name], *offsets)

    def emit_enter(self) -> None:
        """(..., states (S, D, V), records (S, K, V), floats (S, D, V)): puts the states where a cell expects them."""
        states, records, floats = self.arguments

        def stabiliser(s: Value, _: list[Value]) -> list[Value]:
            first = self.times(s, self.packed.width * self.lanes)
            values = [self.load_floats(states, first, k * self.lanes) for k in range(self.packed.width)]
            self._leave(values, 0, s, records, floats)
            if self.packed.int8:
                self._pack_bytes(values, range(self.packed.state_terms), s, records)
            return []

        self.loop(self.packed.n_stabilisers, [], stabiliser)
        self.builder.ret_void()

    def emit_bits(self) -> None:
        """(..., events (S,), parities (S,), records): sets the terms of the bits."""
        events, parities, records = self.arguments
        b, v = self.builder, self.lanes

        def stabiliser(s: Value, _: list[Value]) -> list[Value]:
            record = self.at(F32, records, self.times(s, self.row), self.packed.state_terms * v)
            event, parity = (self.shots_of(self.load(I16, masks, s)) for masks in (events, parities))
            if self.packed.int8:
                low, high = (
                    b.select(mask, self.integer(bit), self.integer(0))
                    for mask, bit in ((event, _BIT), (parity, _BIT << 16))
                )
                self.builder.store(b.or_(low, high), record, align=4)
            else:
                for i, mask in enumerate((event, parity)):
                    self.store_floats(b.select(mask, self.number(1), self.number(0)), record, i * v)
            return []

        self.loop(self.packed.n_stabilisers, [], stabiliser)
        b.ret_void()

    def emit_cell(self) -> None:
        """(..., the cell's weights, biases and scales, records, new records, floats (S, D, V)): one GRU step.

        The floats are int8's exact states, moved on in place.
        """
        weights, biases, scales, records, new, floats = self.arguments
        p, b = self.packed, self.builder
        table = self.part("neighbours")

        def target(i: Value, _: list[Value]) -> list[Value]:
            begin, count, kind, _none, s = self.target(table, i)
            pairs = self.at(I32, table, HEAD * p.n_stabilisers, self.times(begin, 2))
            bias = self.at(F32, biases, self.times(s, 4 * p.width))
            scale = self.at(F32, scales, self.times(kind, 4 * p.width))
            done: list[Value] = []
            packed_terms = 0
            for chunk in p.chunks:
                where = [g * p.width + o for o in chunk for g in range(4)]
                starts = [self.integer(0) if p.int8 else self.everywhere(bias, i) for i in where]
                sums = self.gather(
                    records, self.at(F32, weights, 3 * p.terms * chunk.start), pairs, count, 3 * p.terms * p.width,
                    3 * len(chunk), starts, self._sum_of_gate,
                )  # fmt: skip
                if p.int8:
                    sums = [self.real(total, scale, bias, i) for total, i in zip(sums, where, strict=True)]
                olds = [self._state(records, floats, s, o) for o in chunk]
                values = [self._gates(sums[4 * j : 4 * j + 4], old) for j, old in enumerate(olds)]
                self._leave(values, chunk.start, s, new, floats)
                done += values
                if p.int8:  # as soon as four channels are there, so that registers get free
                    ready = len(done) // 4 if len(done) < p.width else p.state_terms
                    self._pack_bytes(done, range(packed_terms, ready), s, new)
                    packed_terms = ready
            return []

        self.loop(p.n_stabilisers, [], target)
        b.ret_void()

    def target(self, table: Value, i: Value) -> tuple[Value, Value, Value, Value, Value]:
        """Where a target's sources begin, how many there are, two more numbers, and which it is."""
        head = self.at(I32, table, self.times(i, HEAD))
        begin, end, first, second, which = (self.wide(self.load(I32, head, j)) for j in range(HEAD))
        return begin, self.builder.sub(end, begin), first, second, which

    def gather(
        self,
        records: Value,
        weights: Value,
        pairs: Value,
        count: Value,
        block: int,
        columns: int,
        starts: Sequence[Value],
        sum_of: Callable[[int, int], int],
    ) -> list[Value]:
        """starts + the sources' terms times their blocks of weights (K, columns), `block` floats from one to the next.

        sum_of(k, j): which sum a term's product of column j goes to.
        """

        def source(i: Value, carried: list[Value]) -> list[Value]:
            pair = self.at(I32, pairs, self.times(i, 2))
            record = self.at(F32, records, self.times(self.wide(self.load(I32, pair)), self.row))
            own = self.at(F32, weights, self.times(self.wide(self.load(I32, pair, 1)), block))
            for k in range(self.packed.terms):
                term = self.load(self.kind, record, k * self.lanes)
                for j in range(columns):
                    at = sum_of(k, j)
                    carried[at] = self._product(term, self.at(F32, own, k * columns + j), carried[at])
            return carried

        return self.loop(count, starts, source)

    def _product(self, term: Value, weight: Value, total: Value) -> Value:
        if not self.packed.int8:
            return self.multiply_add(term, self.everywhere(weight, 0), total)
        dot = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return self.intrinsic(dot, self.ints, total, term, self.splat(self.load(I32, weight)))

    def _sum_of_gate(self, k: int, j: int) -> int:
        """Sums of a channel: reset, update, the candidate's bits, the candidate's states."""
        channel, gate = divmod(j, 3)
        return 4 * channel + (3 if gate == 2 and k < self.packed.state_terms else gate)

    def real(self, total: Value, scales: Value, biases: Value, i: int) -> Value:
        """What a sum of bytes stands for."""
        whole = self.builder.sitofp(total, self.floats)
        return self.multiply_add(whole, self.everywhere(scales, i), self.everywhere(biases, i))

    def _state(self, records: Value, floats: Value, s: Value, o: int) -> Value:
        if self.packed.int8:
            return self.load_floats(floats, self.times(s, self.packed.width * self.lanes), o * self.lanes)
        return self.load_floats(records, self.times(s, self.row), o * self.lanes)

    def _leave(self, values: list[Value], first: int, s: Value, records: Value, floats: Value) -> None:
        """Stores channels of a state from `first` on."""
        size, place = (self.packed.width * self.lanes, floats) if self.packed.int8 else (self.row, records)
        for o, value in enumerate(values, start=first):
            self.store_floats(value, place, self.times(s, size), o * self.lanes)

    def _pack_bytes(self, values: list[Value], terms: range, s: Value, records: Value) -> None:
        """Four channels of a state to a term, unsigned bytes."""
        b, factor = self.builder, self.everywhere(self.part("to_bytes"), 0)
        for term in terms:
            total, surplus = None, 0
            for i, value in enumerate(values[4 * term : 4 * term + 4]):
                whole = b.bitcast(self.multiply_add(value, factor, self.number(ROUND + ZERO)), self.ints)
                byte = b.shl(whole, self.integer(8 * i)) if i else whole
                total = byte if total is None else b.add(total, byte)
                surplus += _ROUND_BITS << 8 * i
            total = b.sub(total, self.integer(surplus % 2**32))
            b.store(total, self.at(F32, records, self.times(s, self.row), term * self.lanes), align=4)

    def _gates(self, sums: list[Value], old: Value) -> Value:
        """(1 - z) n + z h."""
        b, one = self.builder, self.number(1)
        reset, update, bits, states = sums
        if self.packed.tables:
            r, z = (self.looked_up(x, "sigmoid") for x in (reset, update))
            n = self.looked_up(self.multiply_add(r, states, bits), "tanh")
            return self.multiply_add(z, b.fsub(old, n), n)
        # As in `flat`, with one reciprocal: a = exp(-z's sum), c = exp(-2 n's sum); the factors are in the weights.
        r = self.reciprocal(b.fadd(one, self.exp2(reset)))
        a, c = self.exp2(update), self.exp2(self.multiply_add(r, states, bits))
        above = self.multiply_add(a, b.fsub(one, c), b.fmul(old, b.fadd(one, c)))
        return b.fmul(above, self.reciprocal(b.fmul(b.fadd(one, a), b.fadd(one, c))))

    def looked_up(self, x: Value, table: str) -> Value:
        """A function by its `Segments`, x in their widths."""
        b, half = self.builder, self.lanes
        x = self.minimum(self.maximum(x, self.number(-_EDGE)), self.number(_EDGE))
        shifted = b.fadd(x, self.number(ROUND))
        inside = b.fsub(x, b.fsub(shifted, self.number(ROUND)))
        number = b.bitcast(shifted, self.ints)
        coefficients = [
            self.intrinsic(
                "llvm.x86.avx512.vpermi2var.ps.512", self.floats,
                self.load_floats(self.part(table), 32 * i), number, self.load_floats(self.part(table), 32 * i + half),
            )
            for i in range(self.packed.tables[table].degree + 1)
        ]  # fmt: skip
        result = coefficients.pop()
        while coefficients:
            result = self.multiply_add(result, inside, coefficients.pop())
        return result

    def _total(self, values: Iterable[Value]) -> Value:
        """A sum in independent chains: an addition takes four cycles. Values are made as they are needed."""
        chains: list[Value] = []
        for i, value in enumerate(values):
            if i < _CHAINS:
                chains.append(value)
            else:
                chains[i % _CHAINS] = self.builder.fadd(chains[i % _CHAINS], value)
        while len(chains) > 1:
            chains = [*chains[2:], self.builder.fadd(chains[0], chains[1])]
        return chains[0]

    def shots_of(self, mask: Value) -> Value:
        """V booleans of the mask's bits."""
        bits = mask if self.lanes == 16 else self.builder.trunc(mask, ir.IntType(self.lanes))
        return self.builder.bitcast(bits, ir.VectorType(ir.IntType(1), self.lanes))

    def everywhere(self, pointer: Value, offset: int) -> Value:
        """One float of memory in every lane."""
        return self.splat(self.load(F32, pointer, offset))

    def times(self, value: Value, factor: int) -> Value:
        return self.builder.mul(value, self.index(factor))

    def wide(self, value: Value) -> Value:
        return self.builder.sext(value, I64)

    def folded(self, table: str, row: Value | int, masks: Value, fold: Callable[[Value, Value], Value]) -> Value:
        """The masks (S,) of the stabilisers that a row of the table names, as one."""
        b, n = self.builder, self.packed.n_stabilisers
        named = self.part(table, self.times(row, n) if isinstance(row, ir.Value) else row * n)

        def stabiliser(s: Value, carried: list[Value]) -> list[Value]:
            counts = b.trunc(self.load(I32, named, s), I16)
            return [fold(carried[0], b.and_(counts, self.load(I16, masks, s)))]

        (mask,) = self.loop(n, [ir.Constant(I16, 0)], stabiliser)
        return mask


class FrameCode(LocalCode):
    """Emits what a round does to the logical frames."""

    def emit_frames(self) -> None:
        """(..., records, floats (S, D, V), frames (L, V)): each line's frame times tanh(W h + b) of its data qubits."""
        records, floats, frames = self.arguments
        p, b, table = self.packed, self.builder, self.part("corners")
        n_qubits = p.n_lines**2

        def qubit(i: Value, _: list[Value]) -> list[Value]:
            begin, count, _kind, line, q = self.target(table, i)
            pairs = self.at(I32, table, HEAD * n_qubits, self.times(begin, 2))

            def corner(j: Value, carried: list[Value]) -> list[Value]:
                pair = self.at(I32, pairs, self.times(j, 2))
                s = self.wide(self.load(I32, pair))
                own = self.part("frames", self.times(self.wide(self.load(I32, pair, 1)), p.width))
                for k in range(p.width):  # in chains: an addition waits four cycles for the one before
                    term, i = self._state(records, floats, s, k), k % _CHAINS
                    carried[i] = self.multiply_add(term, self.everywhere(own, k), carried[i])
                return carried

            starts = [self.everywhere(self.part("frames_bias", q), 0), *[self.number(0)] * (_CHAINS - 1)]
            total = self._total(self.loop(count, starts, corner))
            place = self.at(F32, frames, self.times(line, self.lanes))
            self.store_floats(b.fmul(self.load_floats(place), self.tanh(total)), place)
            return []

        self.loop(n_qubits, [], qubit)
        b.ret_void()

    def emit_agree(self) -> None:
        """(..., events (S,), parities (S,), frames (L, V) and counted rounds (L - 1, V)): `models.frames.agreeing`."""
        events, parities, frames = self.arguments
        p, b, v = self.packed, self.builder, self.lanes
        most, zero, one = self.number(p.agree_after), self.number(0), self.number(1)
        joined = []
        for k in range(p.n_lines - 1):
            busy = self.shots_of(self.folded("strips", k, events, b.or_))
            place = self.at(F32, frames, (p.n_lines + k) * v)
            counted = self.minimum(b.fadd(self.load_floats(place), one), most)
            counted = b.select(busy, zero, counted)
            self.store_floats(counted, place)
            joined.append(b.fcmp_ordered(">=", counted, most))
        signs, before, odds = [], [], []
        for line in range(p.n_lines):
            signs.append(self.shots_of(self.folded("flips", line, parities, b.xor)))
            before.append(self.load_floats(frames, line * v))
            bounded = self.maximum(self.minimum(before[-1], self.number(MOST_FRAME)), self.number(-MOST_FRAME))
            quotient = b.fdiv(b.fadd(one, bounded), b.fsub(one, bounded))
            own = self.intrinsic(f"llvm.log.v{v}f32", self.floats, quotient)
            odds.append(b.select(signs[-1], b.fneg(own), own))
        sums, counts = [odds[0]], [one]  # of a line and those before it that it is joined to; then of all
        for k, here in enumerate(joined):
            sums.append(b.fadd(odds[k + 1], b.select(here, sums[-1], zero)))
            counts.append(b.fadd(one, b.select(here, counts[-1], zero)))
        for k, here in reversed(list(enumerate(joined))):
            sums[k] = b.select(here, sums[k + 1], sums[k])
            counts[k] = b.select(here, counts[k + 1], counts[k])
        share = self.everywhere(self.part("share"), 0)
        for line in range(p.n_lines):
            mean = b.fdiv(sums[line], counts[line])
            drawn = self.multiply_add(share, b.fsub(mean, odds[line]), odds[line])
            drawn = self.tanh(b.fmul(b.select(signs[line], b.fneg(drawn), drawn), self.number(0.5)))
            agrees = b.fcmp_ordered(">", counts[line], one)
            self.store_floats(b.select(agrees, drawn, before[line]), frames, line * v)
        b.ret_void()


class ReadoutCode(LocalCode):
    """Emits the readout."""

    def emit_answer(self) -> None:
        """(..., records of the last slice, parities (S,), frames (L, V), logits (V,)): line 0's observable."""
        records, parities, frames, logits = self.arguments
        p, v = self.packed, self.lanes
        size = p.readout_width * v
        pooled, normed, inner = (self.stack(F32, n * size) for n in (p.n_lines, 1, 1))
        self._start_lines(pooled)
        self._project(records, pooled)

        def line(i: Value, carried: list[Value]) -> list[Value]:
            main = self.at(F32, pooled, self.times(i, size))
            for layer in range(p.readout_layers):
                self._normalise(main, normed)
                self._dense(normed, inner, f"ins.{layer}", f"ins_bias.{layer}", self._gelu, None)
                self._dense(inner, main, f"outs.{layer}", f"outs_bias.{layer}", lambda x: x, main)
            return [self.builder.fadd(carried[0], self._turned_answer(i, main, frames, parities))]

        (total,) = self.loop(p.n_lines, [self.number(0)], line)
        self.store_floats(self.builder.fmul(total, self.number(1 / p.n_lines)), logits)
        self.builder.ret_void()

    def _start_lines(self, pooled: Value) -> None:
        def one(i: Value, _: list[Value]) -> list[Value]:
            self.store_floats(self.splat(self.load(F32, self.part("line"), i)), pooled, self.times(i, self.lanes))
            return []

        self.loop(self.packed.n_lines * self.packed.readout_width, [], one)

    def _project(self, records: Value, pooled: Value) -> None:
        """Adds every data qubit to its line."""
        p, b, table = self.packed, self.builder, self.part("corners")
        out, n_qubits = p.readout_width, p.n_lines**2

        def qubit(i: Value, _: list[Value]) -> list[Value]:
            begin, count, kind, line, q = self.target(table, i)
            pairs = self.at(I32, table, HEAD * n_qubits, self.times(begin, 2))
            bias = self.part("project.bias", self.times(q, out))
            scale = self.part("project.scales", self.times(kind, out))
            for chunk in p.readout_chunks:
                starts = [self.integer(0) if p.int8 else self.everywhere(bias, o) for o in chunk]
                weights = self.part("project.weights", p.terms * chunk.start)
                sums = self.gather(
                    records, weights, pairs, count, p.terms * out, len(chunk), starts, lambda k, j: j
                )  # fmt: skip
                for o, total in zip(chunk, sums, strict=True):
                    value = self.real(total, scale, bias, o) if p.int8 else total
                    place = self.at(F32, pooled, self.times(line, out * self.lanes), o * self.lanes)
                    value = self.maximum(value, self.number(0))
                    self.store_floats(b.fadd(self.load_floats(place), value), place)
            return []

        self.loop(n_qubits, [], qubit)

    def _normalise(self, inputs: Value, outputs: Value) -> None:
        """Layer norm without its weights, which are in the next matrix."""
        b, places = self.builder, [o * self.lanes for o in range(self.packed.readout_width)]
        share = self.number(1 / len(places))
        mean = b.fmul(self._total(self.load_floats(inputs, at) for at in places), share)
        for at in places:
            self.store_floats(b.fsub(self.load_floats(inputs, at), mean), outputs, at)
        squares = self._total(self._square(self.load_floats(outputs, at)) for at in places)
        variance = self.multiply_add(squares, share, self.number(NORM_EPSILON))
        root = self.intrinsic(f"llvm.sqrt.v{self.lanes}f32", self.floats, variance)
        factor = b.fdiv(self.number(1), root)
        for at in places:
            self.store_floats(b.fmul(self.load_floats(outputs, at), factor), outputs, at)

    def _square(self, x: Value) -> Value:
        return self.builder.fmul(x, x)

    def _dense(
        self,
        inputs: Value,
        outputs: Value,
        name: str,
        bias: str,
        activation: Callable[[Value], Value],
        added: Value | None,
    ) -> None:
        """outputs = activation(inputs (W, V) times the matrix + bias), + `added` where given, which may be outputs."""
        p, b = self.packed, self.builder
        for chunk in p.readout_chunks:
            starts = [self.everywhere(self.part(bias), o) for o in chunk]
            if added is not None:
                olds = [self.load_floats(added, o * self.lanes) for o in chunk]
                starts = [b.fadd(old, start) for old, start in zip(olds, starts, strict=True)]
            weights, size = self.part(name, p.readout_width * chunk.start), len(chunk)

            def one(k: Value, carried: list[Value], weights: Value = weights, size: int = size) -> list[Value]:
                term = self.load_floats(inputs, self.times(k, self.lanes))
                row = self.at(F32, weights, self.times(k, size))
                return [self.multiply_add(term, self.everywhere(row, j), x) for j, x in enumerate(carried)]

            for o, total in zip(chunk, self.loop(p.readout_width, starts, one), strict=True):
                self.store_floats(activation(total), outputs, o * self.lanes)

    def _turned_answer(self, line: Value, main: Value, frames: Value, parities: Value) -> Value:
        """A line's logit in its frame, turned to line 0's label."""
        p, b = self.packed, self.builder
        row = self.part("heads", self.times(line, p.readout_width))
        products = (
            b.fmul(self.load_floats(main, o * self.lanes), self.everywhere(row, o)) for o in range(p.readout_width)
        )
        logit = b.fadd(self._total(products), self.splat(self.load(F32, self.part("heads_bias"), line)))
        if p.frames:
            logit = self.in_frame(logit, self.load_floats(frames, self.times(line, self.lanes)))
        mask = self.folded("flips", line, parities, b.xor)
        return b.select(self.shots_of(mask), b.fneg(logit), logit)

    def _gelu(self, x: Value) -> Value:
        if not self.packed.tables:
            return self.gelu(x)
        width = self.packed.tables["normal"].width
        return self.builder.fmul(x, self.looked_up(self.builder.fmul(x, self.number(1 / width)), "normal"))


def emit_module(packed: PackedLocal) -> ir.Module:
    """Functions `step`, `readout` and `decode`."""
    module = ir.Module("local_gru")
    pointers = {"enter": 4, "bits": 4, "cell": 7, "answer": 5} | ({"frames": 4} if packed.frames else {})
    pointers |= {"agree": 4} if packed.agree_after else {}
    inner = {kind: inner_function(module, kind, number) for kind, number in pointers.items()}
    LocalCode(inner["enter"], packed).emit_enter()
    LocalCode(inner["bits"], packed).emit_bits()
    LocalCode(inner["cell"], packed).emit_cell()
    ReadoutCode(inner["answer"], packed).emit_answer()
    if packed.frames:
        FrameCode(inner["frames"], packed).emit_frames()
    if packed.agree_after:
        FrameCode(inner["agree"], packed).emit_agree()
    LocalFunctions(outer_function(module, "step"), packed, inner).emit_step()
    LocalFunctions(outer_function(module, "readout"), packed, inner).emit_readout()
    LocalFunctions(outer_function(module, "decode"), packed, inner).emit_decode()
    return module


class LocalFunctions(LocalCode):
    """Emits one of the functions. The first argument is always the packed weights."""

    def __init__(self, function: ir.Function, packed: PackedLocal, inner: dict[str, ir.Function]) -> None:
        super().__init__(function, packed)
        self.inner = inner
        n, v = packed.n_stabilisers, packed.lanes
        self.state_size, self.of_states = packed.state_rows * v, n * packed.width * v
        self.records = self.stack(F32, 2 * n * self.row)
        self.floats = self.stack(F32, self.of_states if packed.int8 else 1)
        self.frames = self.stack(F32, max(packed.rows_behind, 1) * v)
        self.events = self.stack(I16, n)
        self.parities = self.stack(I16, n)
        self.logits = self.stack(F32, v)

    def emit_step(self) -> None:
        """(weights, states (H, X, V), parities (H, S), events (R, B, S), B, R) -> 1 where an event is neither 0 nor
        1, and nothing was done. States and parities are moved on in place."""
        states, parities, events, n_shots, rounds = self.arguments
        b, n = self.builder, self.packed.n_stabilisers
        self._require_bits(events, b.mul(rounds, n_shots))

        def group(g: Value, first: Value, here: Value) -> None:
            own_states = self.at(F32, states, self.times(g, self.state_size))
            own_parities = self.at(I16, parities, self.times(g, n))
            self._fetch(own_states, own_parities)

            def one_round(r: Value, _: list[Value]) -> list[Value]:
                self._take_events(events, b.add(b.mul(r, n_shots), first), here)
                self._round("cell", self.events, r)
                return []

            self.loop(rounds, [], one_round)
            self._keep(own_states, rounds)
            self._copy(self.parities, own_parities, 2 * n)

        self._groups(n_shots, group)
        b.ret(ir.Constant(I8, 0))

    def emit_readout(self) -> None:
        """(weights, states, parities, last (B, S), logits (B, 1), B) -> 1 as in `emit_step`."""
        states, parities, last, logits, n_shots = self.arguments
        self._require_bits(last, n_shots)

        def group(g: Value, first: Value, here: Value) -> None:
            self._fetch(
                self.at(F32, states, self.times(g, self.state_size)),
                self.at(I16, parities, self.times(g, self.packed.n_stabilisers)),
            )
            self._take_events(last, first, here)
            self._answer(self.events, self.index(0), self.at(F32, logits, first), here)

        self._groups(n_shots, group)
        self.builder.ret(ir.Constant(I8, 0))

    def emit_decode(self) -> None:
        """(weights, detectors (B, row_bytes) packed, places (N,) int32, scratch, logits (B, 1), B, R, row_bytes), with
        N = 8 row_bytes. places: slice * S + stabiliser, as the network sees it, of each detector. scratch:
        (R + 1) * S * 2 bytes for a group's masks."""
        detectors, places, scratch, logits, n_shots, rounds, row_bytes = self.arguments
        b, n = self.builder, self.packed.n_stabilisers
        size = self.times(b.add(rounds, self.index(1)), 2 * n)

        def group(g: Value, first: Value, here: Value) -> None:
            self.clear(scratch, size)

            def one_shot(m: Value, _: list[Value]) -> list[Value]:
                row = self.at(I8, detectors, b.mul(b.add(first, m), row_bytes))
                self._sort_bits(row, row_bytes, places, scratch, m)
                return []

            self.loop(here, [], one_shot)
            self.clear(self.parities, self.index(2 * n))
            self._enter(self.part("start"))

            def one_round(r: Value, _: list[Value]) -> list[Value]:
                self._round("cell", self.at(I16, scratch, self.times(r, n)), r)
                return []

            self.loop(rounds, [], one_round)
            self._answer(self.at(I16, scratch, self.times(rounds, n)), rounds, self.at(F32, logits, first), here)

        self._groups(n_shots, group)
        b.ret_void()

    def _groups(self, n_shots: Value, body: Callable[[Value, Value, Value], None]) -> None:
        """Calls body(group, its first shot, how many there are) for each group."""
        b, v = self.builder, self.index(self.lanes)

        def group(g: Value, _: list[Value]) -> list[Value]:
            first = b.mul(g, v)
            left = b.sub(n_shots, first)
            body(g, first, b.select(b.icmp_unsigned("<", left, v), left, v))
            return []

        self.loop(b.udiv(b.add(n_shots, self.index(self.lanes - 1)), v), [], group)

    def _halves(self, r: Value) -> tuple[Value, Value]:
        """The records that round r reads, and those that it writes."""
        return self.halves(self.records, self.packed.n_stabilisers * self.row, r)

    def _call(self, kind: str, *places: Value) -> None:
        self.builder.call(self.inner[kind], [self.blob, *places])

    def _round(self, cell: str, events: Value, r: Value) -> None:
        """Moves parities and states on."""
        b = self.builder

        def stabiliser(s: Value, _: list[Value]) -> list[Value]:
            place = self.at(I16, self.parities, s)
            b.store(b.xor(self.load(I16, place), self.load(I16, events, s)), place)
            return []

        self.loop(self.packed.n_stabilisers, [], stabiliser)
        old, new = self._halves(r)
        self._call("bits", events, self.parities, old)
        own = [self.part(f"{cell}.{kind}") for kind in ("weights", "bias", "scales")]
        self._call("cell", *own, old, new, self.floats)
        if self.packed.frames and cell == "cell":
            self._call("frames", new, self.floats, self.frames)
            if self.packed.agree_after:
                self._call("agree", events, self.parities, self.frames)

    def _answer(self, events: Value, rounds: Value, logits: Value, here: Value) -> None:
        self._round("last_cell", events, rounds)
        ended = self._halves(rounds)[1]
        self._call("bits", events, self.parities, ended)
        self._call("answer", ended, self.parities, self.frames, self.logits)
        self.copy(self.logits, logits, self.times(here, 4))

    def _enter(self, states: Value) -> None:
        self._call("enter", states, self.records, self.floats)
        self._copy(self.at(F32, states, self.of_states), self.frames, 4 * (self.state_size - self.of_states))

    def _fetch(self, states: Value, parities: Value) -> None:
        self._enter(states)
        self._copy(parities, self.parities, 2 * self.packed.n_stabilisers)

    def _keep(self, states: Value, rounds: Value) -> None:
        """Stores the states after so many rounds."""
        p = self.packed
        self._copy(self.frames, self.at(F32, states, self.of_states), 4 * (self.state_size - self.of_states))
        if p.int8:
            self._copy(self.floats, states, 4 * self.of_states)
            return
        ended, size = self._halves(rounds)[0], p.width * p.lanes

        def stabiliser(s: Value, _: list[Value]) -> list[Value]:
            record = self.at(F32, ended, self.times(s, self.row))
            self._copy(record, self.at(F32, states, self.times(s, size)), 4 * size)
            return []

        self.loop(p.n_stabilisers, [], stabiliser)

    def _copy(self, source: Value, target: Value, size: int) -> None:
        self.copy(source, target, self.index(size))

    def _require_bits(self, pointer: Value, rows: Value) -> None:
        """Of rows of S bytes."""
        self.require_bits(pointer, self.times(rows, self.packed.n_stabilisers // 8))

    def _take_events(self, pointer: Value, row: Value, here: Value) -> None:
        """Rows of S bytes of 0 or 1, from `row` on, as the masks of `events`; most bytes are 0."""
        b, n, turn = self.builder, self.packed.n_stabilisers, self.part("turn")
        self.clear(self.events, self.index(2 * n))

        def one_shot(m: Value, _: list[Value]) -> list[Value]:
            first = self.at(I8, pointer, self.times(b.add(row, m), n))

            def one_word(i: Value, _: list[Value]) -> list[Value]:
                def one_event(word: Value) -> Value:
                    s = b.add(self.times(i, 8), b.lshr(self._lowest(word), self.index(3)))
                    self._set(self.events, self.wide(self.load(I32, turn, s)), m)
                    return b.and_(word, b.sub(word, self.index(1)))

                self.while_not_zero(self.word(first, i), one_event)
                return []

            self.loop(n // 8, [], one_word)
            return []

        self.loop(here, [], one_shot)

    def _sort_bits(self, row: Value, row_bytes: Value, places: Value, masks: Value, m: Value) -> None:
        """A shot's events in Stim's order to its bit of the masks, an event at a time: most bits are 0."""
        b = self.builder

        def events_of(bits: Value, first: Value) -> None:
            def one_event(word: Value) -> Value:
                self._set(masks, self.wide(self.load(I32, places, first, self._lowest(word))), m)
                return b.and_(word, b.sub(word, self.index(1)))

            self.while_not_zero(bits, one_event)

        def one_word(i: Value, _: list[Value]) -> list[Value]:
            events_of(self.word(row, i), self.times(i, 64))
            return []

        def one_byte(i: Value, _: list[Value]) -> list[Value]:
            at = b.add(i, self.times(words, 8))
            events_of(b.zext(self.load(I8, row, at), I64), self.times(at, 8))
            return []

        words = b.lshr(row_bytes, self.index(3))
        self.loop(words, [], one_word)
        self.loop(b.and_(row_bytes, self.index(7)), [], one_byte)

    def _lowest(self, word: Value) -> Value:
        return self.builder.cttz(word, ir.Constant(ir.IntType(1), 1))

    def _set(self, masks: Value, i: Value, m: Value) -> None:
        b, place = self.builder, self.at(I16, masks, i)
        b.store(b.or_(self.load(I16, place), b.trunc(b.shl(self.index(1), m), I16)), place)
