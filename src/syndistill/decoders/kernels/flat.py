"""The flat GRU as machine code: its weights in the order in which the code reads them, one round and the readout of a
group of shots, and whole shots from Stim's packed bits.

A column is V outputs of each of the three gates: products of all inputs with the states of the whole group at once,
then the gates, all in registers. A group of shots goes through all its rounds before the next group starts, so that its
states stay in the nearest cache.

Axes: m a shot of the group, M their number, B shots, R rounds, D width (padded, in memory), K inputs of a product, C
columns of V lanes, G gates (reset, update, candidate), S stabilisers, N detectors, W readout width, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import answered
from syndistill.decoders.kernels.vector_code import (
    F32,
    I8,
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
from syndistill.decoders.kernels.weights import FlatWeights
from syndistill.files.families import n_channels

Floats = NDArray[np.float32]
MANY = 4
"""From so many shots on they are decoded in groups."""
UNROLL = 4
"""Inputs of a product are padded to a multiple of this: 4 floats a turn, or 4 bytes to an int8 lane."""


@dataclass(frozen=True, eq=False)
class PackedFlat:
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
    group: int
    """Shots that go through their rounds together, where there are MANY."""
    accumulators: int
    """Vector registers for their sums."""
    frames: int = 0
    """Logical frames behind a state's entries, in lanes of their own, that each round multiplies by a tanh of the
    state."""
    endings: ClassVar[tuple[str, ...]] = ("_one", "_many")
    """Of the functions' names."""

    def ending(self, batch: int) -> str:
        return self.endings[batch >= MANY]

    @property
    def place_S(self) -> NDArray[np.int64]:
        """Where the code has each stabiliser."""
        return np.arange(self.n_stabilisers)

    def new_states(self, batch: int) -> tuple[Floats, NDArray[np.uint8]]:
        """States (B, D) and parities (B, S/8), bits in bytes, before the first round."""
        start = self.offsets["start"]
        state_D = self.blob[start : start + self.state_size]
        return np.tile(state_D, (batch, 1)), np.zeros((batch, self.n_stabilisers // 8), np.uint8)

    def scratch_bytes(self, rounds: int) -> int:
        """What `decode` needs."""
        return self.group * (rounds + 1) * self.n_stabilisers // 8

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
    def state_size(self) -> int:
        """Of a shot: the GRU's state, then the frames, both padded."""
        return self.padded_width + (self.lanes if self.frames else 0)

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


def pack(weights: FlatWeights, basis: str, machine: Machine, int8: bool) -> PackedFlat:
    """For shots of one basis. int8 keeps the recurrent matrix and the state that multiplies it in bytes."""
    lanes, (group, accumulators) = machine.lanes, (8, 24) if machine.many_registers else (4, 12)
    n_channels(weights.output, basis)  # refuses what it has no head for
    weights = weights.reading(basis)
    t, width, bits = weights.tensors, weights.width, 2 * weights.layout.n_stabilisers
    reset, update, candidate = (slice(i * width, (i + 1) * width) for i in range(3))
    recurrent_DDg = t["gru.weight_hh_l0"].reshape(3, width, width)
    scale = float(max(1.0, np.abs(t[f"start.{basis}"]).max()))
    hidden_bias = t["gru.bias_hh_l0"].astype(np.float32).copy()
    factors = [weights.factors(b) for b in answered(basis)] if weights.keeps_frame else []
    parts: dict[str, Floats] = {"start": _columns(t[f"start.{basis}"][None], lanes).ravel()}
    if factors:
        known = np.ones((1, len(factors)), np.float32)
        parts["start"] = np.concatenate([parts["start"], _columns(known, lanes).ravel()])
        parts["frames"] = np.concatenate([_columns(weight_1D, lanes).ravel() for weight_1D, _ in factors])
        parts["frames_bias"] = np.tile(np.concatenate([bias for _, bias in factors]), lanes // len(factors))
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
    head_OW, parts["heads_bias"] = weights.heads(basis)
    parts["heads"] = np.concatenate([_columns(row[None], lanes).ravel() for row in head_OW])
    blob, offsets = joined(parts)
    return PackedFlat(
        blob, offsets, lanes, int8, width, out, weights.readout_layers, bits // 2, len(head_OW), scale, group,
        accumulators, len(factors),
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


class FlatCode(VectorCode):
    """Emits `round` or `answer` into a function whose first arguments are the packed weights, the group's slice
    (M, S/8) and its parities (M, S/8), bits in bytes; the parities are moved on."""

    def __init__(self, function: ir.Function, packed: PackedFlat, shots: int) -> None:
        super().__init__(function, packed.lanes)
        self.packed, self.shots = packed, shots
        self.weights, self.slices, self.parities, *self.arguments = function.args
        self.rows = self.stack(I64, self.shots * packed.nibbles)

    def emit_round(self) -> None:
        """(..., states (M, D), new states (M, D)): one GRU step."""
        old, new = (self._shots_of(argument, self.packed.state_size) for argument in self.arguments)
        self._pick_rows(3 * self.packed.padded_width)
        bytes_ = self._quantised(old) if self.packed.int8 else []
        together = self._columns_at_once(self.packed.columns, 3)
        b = self.builder

        def some_columns(i: Value, _: list[Value]) -> list[Value]:
            first = b.mul(i, self.index(together))
            columns = [b.add(first, self.index(j)) for j in range(together)]
            sums = self._gate_sums(columns, old, bytes_)
            for m in range(self.shots):
                for j, column in enumerate(columns):
                    at = b.mul(column, self.index(self.lanes))
                    state = self._gates(sums[m][3 * j : 3 * j + 3], m, column, self.load_floats(old[m], at))
                    self.store_floats(state, new[m], at)
            return []

        self.loop(self.packed.columns // together, [], some_columns)
        if self.packed.frames:
            self._move_frames(old, new)
        b.ret_void()

    def emit_answer(self) -> None:
        """(..., states (M, D), logits (M, O)): what line 0's observables are, given the last slice."""
        p = self.packed
        states = self._shots_of(self.arguments[0], p.state_size)
        main, normed, inner = (self._shots_of(self.stack(F32, self.shots * p.padded_readout), p.padded_readout)
                               for _ in range(3))  # fmt: skip
        self._pick_rows(p.padded_readout)
        self._dense(states, p.inputs, main, "first", lambda m, at: self._row_sum(self._part("first_bits", at), m), True)
        for layer in range(p.readout_layers):
            self._normalise(main, normed, layer)
            size, ins, outs = p.readout_inputs, f"ins.{layer}", f"outs.{layer}"
            self._dense(normed, size, inner, ins, self._bias(f"ins_bias.{layer}"), True)
            self._dense(inner, size, main, outs, self._bias(f"outs_bias.{layer}", main), False)
        for m in range(self.shots):
            for o in range(p.n_outputs):
                logit = self._head(main[m], states[m], o)
                self.builder.store(logit, self.at(F32, self.arguments[1], m * p.n_outputs + o))
        self.builder.ret_void()

    def _part(self, name: str, *offsets: Value | int) -> Value:
        return self.at(F32, self.weights, self.packed.offsets[name], *offsets)

    def _shots_of(self, block: Value, size: int) -> list[Value]:
        return [self.at(F32, block, m * size) for m in range(self.shots)]

    def _pick_rows(self, row: int) -> None:
        """Moves the parities on and notes which rows of a table (of `row` floats each) every shot adds up."""
        b, size = self.builder, self.packed.n_stabilisers // 8
        for m in range(self.shots):
            for i in range(size):
                event = self.load(I8, self.slices, m * size + i)
                place = self.at(I8, self.parities, m * size + i)
                parity = b.xor(self.load(I8, place), event)
                b.store(parity, place)
                for kind, byte in enumerate((event, parity)):
                    wide = b.zext(byte, I64)
                    for high, value in enumerate((b.and_(wide, self.index(15)), b.lshr(wide, self.index(4)))):
                        group = kind * self.packed.nibbles // 2 + 2 * i + high
                        offset = b.mul(b.add(value, self.index(16 * group)), self.index(row))
                        b.store(offset, self.at(I64, self.rows, m * self.packed.nibbles + group))

    def _row_sum(self, table: Value, m: int) -> Value:
        """Sum of the picked rows' vectors at `table`."""
        rows = [self.load(I64, self.rows, m * self.packed.nibbles + n) for n in range(self.packed.nibbles)]
        return self._added([self.load_floats(table, row) for row in rows])

    def _columns_at_once(self, columns: int, gates: int) -> int:
        most = max(1, self.packed.accumulators // (self.shots * gates))
        return max(n for n in range(1, columns + 1) if columns % n == 0 and n <= most)

    def _products(
        self, sums: list[list[Value]], inputs: list[Value], columns: list[Value], gates: int, size: int
    ) -> list[list[Value]]:
        """sums[m][j] + inputs[m] (K,) times the columns' weights. columns: where each one's (K, G, V) begins."""

        def turn(i: Value, carried: list[Value]) -> list[Value]:
            k = self.builder.mul(i, self.index(UNROLL))
            for u in range(UNROLL):
                at = self.builder.mul(self.builder.add(k, self.index(u)), self.index(gates * self.lanes))
                weights = [self.load_floats(column, at, g * self.lanes) for column in columns for g in range(gates)]
                for m in range(self.shots):
                    value = self.splat(self.load(F32, inputs[m], k, u))
                    for j, weight in enumerate(weights, start=m * len(weights)):
                        carried[j] = self.multiply_add(weight, value, carried[j])
            return carried

        return self._by_shot(self.loop(size // UNROLL, [value for row in sums for value in row], turn))

    def _int8_products(self, inputs: list[Value], columns: list[Value]) -> list[list[Value]]:
        """The same from zero, of bytes: four of a state with four of a weight at a time, summed in 32-bit integers."""
        dot = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"

        def turn(i: Value, carried: list[Value]) -> list[Value]:
            at = self.builder.mul(i, self.index(3 * self.lanes))
            weights = [self.load(self.ints, column, at, g * self.lanes) for column in columns for g in range(3)]
            for m in range(self.shots):
                value = self.splat(self.load(I32, inputs[m], i))
                for j, weight in enumerate(weights, start=m * len(weights)):
                    carried[j] = self.intrinsic(dot, self.ints, carried[j], value, weight)
            return carried

        zeros = [self.integer(0)] * (self.shots * 3 * len(columns))
        return self._by_shot(self.loop(self.packed.inputs // UNROLL, zeros, turn))

    def _by_shot(self, flat: list[Value]) -> list[list[Value]]:
        each = len(flat) // self.shots
        return [flat[m * each : (m + 1) * each] for m in range(self.shots)]

    def _gate_sums(self, columns: list[Value], old: list[Value], bytes_: list[Value]) -> list[list[Value]]:
        """[m][3 j + gate]: reset and update before their sigmoid, and the candidate's recurrent part."""
        p, b = self.packed, self.builder
        size = p.inputs * 3 * self.lanes // (4 if p.int8 else 1)
        recurrent = [self._part("recurrent", b.mul(column, self.index(size))) for column in columns]
        starts = [[v for column in columns for v in self._gate_starts(m, column)] for m in range(self.shots)]
        if not p.int8:
            return self._products(starts, old, recurrent, 3, p.inputs)
        scales = [
            self.load_floats(self._part("scales", b.mul(column, self.index(3 * self.lanes))), g * self.lanes)
            for column in columns
            for g in range(3)
        ]
        return [
            [
                self.multiply_add(b.sitofp(whole, self.floats), scale, start)
                for whole, scale, start in zip(wholes, scales, starts[m], strict=True)
            ]
            for m, wholes in enumerate(self._int8_products(bytes_, recurrent))
        ]

    def _gate_starts(self, m: int, column: Value) -> list[Value]:
        b = self.builder
        bits = self._part("bits", b.mul(column, self.index(3 * self.lanes)))
        bias = self.load_floats(self._part("candidate_bias", b.mul(column, self.index(self.lanes))))
        return [self._row_sum(bits, m), self._row_sum(self.at(F32, bits, self.lanes), m), bias]

    def _gates(self, sums: list[Value], m: int, column: Value, old: Value) -> Value:
        """(1 - z) n + z h. With a = exp(-z's sum) and b = exp(-2 n's sum) that is, in one division,
        (a (1 - b) + h (1 + b)) / ((1 + a) (1 + b))."""
        code, one = self.builder, self.number(1)
        reset = code.fdiv(one, code.fadd(one, self.exp_times(-1, sums[0])))
        bits = self._part("bits", code.mul(column, self.index(3 * self.lanes)), 2 * self.lanes)
        a = self.exp_times(-1, sums[1])
        b = self.exp_times(-2, self.multiply_add(reset, sums[2], self._row_sum(bits, m)))
        above = self.multiply_add(a, code.fsub(one, b), code.fmul(old, code.fadd(one, b)))
        return code.fdiv(above, code.fmul(code.fadd(one, a), code.fadd(one, b)))

    def _quantised(self, states: list[Value]) -> list[Value]:
        """The states as unsigned bytes, 128 for zero."""
        p, b = self.packed, self.builder
        block = self.stack(I8, self.shots * p.inputs + self.lanes)
        factor, shift = self.number(INT8_MAX / p.state_scale), self.number(ROUND + INT8_MAX + 1)
        for m in range(self.shots):
            # A shot's last vector may run over into the next one's place, which is written after it.
            for start in range(0, p.inputs, self.lanes):
                shifted = self.multiply_add(self.load_floats(states[m], start), factor, shift)
                small = b.trunc(b.bitcast(shifted, self.ints), ir.VectorType(I8, self.lanes))
                b.store(small, self.at(I8, block, m * p.inputs + start), align=1)
        return [self.at(I8, block, m * p.inputs) for m in range(self.shots)]

    def _bias(self, name: str, added: list[Value] | None = None) -> Callable[[int, Value], Value]:
        """What an output starts from: its bias, and the shot's vector of `added`."""

        def start(m: int, at: Value) -> Value:
            bias = self.load_floats(self._part(name), at)
            return bias if added is None else self.builder.fadd(bias, self.load_floats(added[m], at))

        return start

    def _dense(
        self,
        inputs: list[Value],
        size: int,
        outputs: list[Value],
        name: str,
        start: Callable[[int, Value], Value],
        gelu: bool,
    ) -> None:
        """outputs[m] = inputs[m] times the matrix `name` + start(m, column's place), then GELU if wanted."""
        columns = self.packed.readout_columns
        together = self._columns_at_once(columns, 1)
        for first in range(0, columns, together):
            places = [self.index(c * self.lanes) for c in range(first, first + together)]
            sums = [[start(m, at) for at in places] for m in range(self.shots)]
            where = [self._part(name, c * size * self.lanes) for c in range(first, first + together)]
            for output, values in zip(outputs, self._products(sums, inputs, where, 1, size), strict=True):
                for at, value in zip(places, values, strict=True):
                    self.store_floats(self.gelu(value) if gelu else value, output, at)

    def _normalise(self, inputs: list[Value], outputs: list[Value], layer: int) -> None:
        """Layer norm over the true width; lanes beyond it hold zeros before and after."""
        p, b = self.packed, self.builder
        starts = range(0, p.padded_readout, self.lanes)
        share, padding = ir.Constant(F32, 1 / p.readout_width), ir.Constant(F32, p.padded_readout - p.readout_width)
        for m in range(self.shots):
            vectors = [self.load_floats(inputs[m], start) for start in starts]
            mean = b.fmul(self.total(self._added(vectors)), share)
            centred = [b.fsub(vector, self.splat(mean)) for vector in vectors]
            squares = self.total(self._added([b.fmul(vector, vector) for vector in centred]))
            squares = b.fsub(squares, b.fmul(padding, b.fmul(mean, mean)))
            variance = b.fadd(b.fmul(squares, share), ir.Constant(F32, NORM_EPSILON))
            factor = self.splat(b.fdiv(ir.Constant(F32, 1.0), self.intrinsic("llvm.sqrt.f32", F32, variance)))
            for start, vector in zip(starts, centred, strict=True):
                weight = self.load_floats(self._part(f"norm.{layer}"), start)
                bias = self.load_floats(self._part(f"norm_bias.{layer}"), start)
                self.store_floats(self.multiply_add(b.fmul(vector, factor), weight, bias), outputs[m], start)

    def _added(self, vectors: list[Value]) -> Value:
        total = vectors[0]
        for vector in vectors[1:]:
            total = self.builder.fadd(total, vector)
        return total

    def _move_frames(self, old: list[Value], new: list[Value]) -> None:
        """Each shot's frames times tanh(W h + b) of its new state, of as many shots at a time as a vector holds."""
        p, b = self.packed, self.builder
        state = [[self.load_floats(of, start) for start in range(0, p.padded_width, self.lanes)] for of in new]
        weights = [self._part("frames", f * p.padded_width) for f in range(p.frames)]
        bias, together = self.load_floats(self._part("frames_bias")), self.lanes // p.frames
        for first in range(0, self.shots, together):
            shots = range(first, min(first + together, self.shots))
            products = [self._dot(state[m], row) for m in shots for row in weights]
            sums = b.fadd(self.totals(products), bias)
            tanh = self.tanh(sums)
            for i, m in enumerate(shots):
                own = self.lanes_from(tanh, i * p.frames) if i else tanh
                self.store_floats(b.fmul(self.load_floats(old[m], p.padded_width), own), new[m], p.padded_width)

    def _dot(self, vectors: list[Value], weights: Value) -> Value:
        """The sum of the products of a row with the weights there, still in lanes."""
        products = self.builder.fmul(vectors[0], self.load_floats(weights, 0))
        for i, vector in enumerate(vectors[1:], 1):
            products = self.multiply_add(vector, self.load_floats(weights, i * self.lanes), products)
        return products

    def _head(self, hidden: Value, state: Value, output: int) -> Value:
        """The logit of one output, in its frame."""
        p, b = self.packed, self.builder
        vectors = [self.load_floats(hidden, start) for start in range(0, p.padded_readout, self.lanes)]
        products = self._dot(vectors, self._part("heads", output * p.padded_readout))
        logit = b.fadd(self.total(products), self.load(F32, self._part("heads_bias"), output))
        if not p.frames:
            return logit
        frame = self.splat(self.load(F32, state, p.padded_width + output))
        return b.extract_element(self.in_frame(self.splat(logit), frame), ir.Constant(I32, 0))


_GATHER = sum(1 << (56 - 7 * j) for j in range(8))
"""Times this, the lowest bit of byte j of a word lands on bit 56 + j; no two of the sums meet."""


def emit_module(packed: PackedFlat) -> ir.Module:
    """Functions `step`, `readout` and `decode`, for one shot at a time and for groups."""
    module = ir.Module("flat_gru")
    for ending, shots in zip(packed.endings, (1, packed.group), strict=True):
        inner = {kind: inner_function(module, kind + ending, 5) for kind in ("round", "answer")}
        FlatCode(inner["round"], packed, shots).emit_round()
        FlatCode(inner["answer"], packed, shots).emit_answer()
        FlatFunctions(outer_function(module, "step", ending), packed, shots, inner).emit_step()
        FlatFunctions(outer_function(module, "readout", ending), packed, shots, inner).emit_readout()
        FlatFunctions(outer_function(module, "decode", ending), packed, shots, inner).emit_decode()
    return module


class FlatFunctions(VectorCode):
    """Emits one of the functions. The first argument is always the packed weights."""

    def __init__(self, function: ir.Function, packed: PackedFlat, shots: int, inner: dict[str, ir.Function]) -> None:
        super().__init__(function, packed.lanes)
        self.packed, self.shots, self.inner = packed, shots, inner
        self.weights, *self.arguments = function.args
        self.bytes = packed.n_stabilisers // 8
        self.states = self.stack(F32, 2 * shots * packed.state_size)
        self.slices = self.stack(I8, shots * self.bytes)
        self.parities = self.stack(I8, shots * self.bytes)
        self.logits = self.stack(F32, shots * packed.n_outputs)

    def emit_step(self) -> None:
        """(weights, states (B, D), parities (B, S/8), events (R, B, S), B, R) -> 1 where an event is neither 0 nor 1,
        and nothing was done. States and parities are moved on in place."""
        states, parities, events, n_shots, rounds = self.arguments
        b, width = self.builder, self.packed.state_size
        self._require_bits(events, b.mul(rounds, n_shots))

        def group(shots: list[Value]) -> None:
            self._fetch(shots, states, parities)

            def one_round(r: Value, _: list[Value]) -> list[Value]:
                first = b.mul(r, n_shots)
                for m, shot in enumerate(shots):
                    self._pack(m, events, b.add(first, shot))
                self._call("round", *self._halves(r))
                return []

            self.loop(rounds, [], one_round)
            for m, shot in enumerate(shots):
                found = self.at(F32, self._halves(rounds)[0], m * width)
                self._copy(F32, found, self.at(F32, states, b.mul(shot, self.index(width))), width)
                own = self.at(I8, self.parities, m * self.bytes)
                self._copy(I8, own, self.at(I8, parities, b.mul(shot, self.index(self.bytes))), self.bytes)

        self._groups(n_shots, group)
        b.ret(ir.Constant(I8, 0))

    def emit_readout(self) -> None:
        """(weights, states (B, D), parities (B, S/8), last (B, S), logits (B, O), B) -> 1 as in `emit_step`."""
        states, parities, last, logits, n_shots = self.arguments
        self._require_bits(last, n_shots)

        def group(shots: list[Value]) -> None:
            self._fetch(shots, states, parities)
            for m, shot in enumerate(shots):
                self._pack(m, last, shot)
            self._answer(self._halves(self.index(0))[0], logits, shots)

        self._groups(n_shots, group)
        self.builder.ret(ir.Constant(I8, 0))

    def emit_decode(self) -> None:
        """(weights, detectors (B, row_bytes) packed, places (N,) int32, scratch, logits (B, O), B, R, row_bytes), with
        N = 8 row_bytes. places: slice * S + stabiliser of each detector. scratch: M * (R + 1) * S/8 bytes for a
        group's slices."""
        detectors, places, scratch, logits, n_shots, rounds, row_bytes = self.arguments
        b, width = self.builder, self.packed.state_size
        size = b.mul(b.add(rounds, self.index(1)), self.index(self.bytes))
        start = self.at(F32, self.weights, self.packed.offsets["start"])

        def group(shots: list[Value]) -> None:
            slices = [self.at(I8, scratch, b.mul(size, self.index(m))) for m in range(self.shots)]
            for m, shot in enumerate(shots):
                self._sort_bits(self.at(I8, detectors, b.mul(shot, row_bytes)), row_bytes, places, slices[m], size)
                self._copy(F32, start, self.at(F32, self.states, m * width), width)
            self.clear(self.parities, self.index(self.shots * self.bytes))

            def one_round(r: Value, _: list[Value]) -> list[Value]:
                self._take_slices(slices, r)
                self._call("round", *self._halves(r))
                return []

            self.loop(rounds, [], one_round)
            self._take_slices(slices, rounds)
            self._answer(self._halves(rounds)[0], logits, shots)

        self._groups(n_shots, group)
        b.ret_void()

    def _groups(self, n_shots: Value, body: Callable[[list[Value]], None]) -> None:
        """Calls body with the shots of each group. A short last group repeats its last shot: same input, same output,
        written twice."""
        b = self.builder
        last = b.sub(n_shots, self.index(1))
        count = b.udiv(b.add(n_shots, self.index(self.shots - 1)), self.index(self.shots))

        def group(g: Value, _: list[Value]) -> list[Value]:
            first = b.mul(g, self.index(self.shots))
            shots = [b.add(first, self.index(m)) for m in range(self.shots)]
            body([b.select(b.icmp_unsigned("<", s, last), s, last) for s in shots])
            return []

        self.loop(count, [], group)

    def _halves(self, r: Value) -> tuple[Value, Value]:
        """Where round r finds the group's states, and where it leaves them."""
        return self.halves(self.states, self.shots * self.packed.state_size, r)

    def _call(self, kind: str, *places: Value) -> None:
        self.builder.call(self.inner[kind], [self.weights, self.slices, self.parities, *places])

    def _answer(self, states: Value, logits: Value, shots: list[Value]) -> None:
        self._call("answer", states, self.logits)
        outputs = self.packed.n_outputs
        for m, shot in enumerate(shots):
            place = self.at(F32, logits, self.builder.mul(shot, self.index(outputs)))
            self._copy(F32, self.at(F32, self.logits, m * outputs), place, outputs)

    def _fetch(self, shots: list[Value], states: Value, parities: Value) -> None:
        width = self.packed.state_size
        for m, shot in enumerate(shots):
            state = self.at(F32, states, self.builder.mul(shot, self.index(width)))
            self._copy(F32, state, self.at(F32, self.states, m * width), width)
            parity = self.at(I8, parities, self.builder.mul(shot, self.index(self.bytes)))
            self._copy(I8, parity, self.at(I8, self.parities, m * self.bytes), self.bytes)

    def _copy(self, kind: ir.Type, source: Value, target: Value, size: int) -> None:
        self.copy(source, target, self.index(size * (4 if kind is F32 else 1)))

    def _require_bits(self, pointer: Value, rows: Value) -> None:
        """Of rows of S bytes."""
        self.require_bits(pointer, self.builder.mul(rows, self.index(self.bytes)))

    def _pack(self, m: int, pointer: Value, row: Value) -> None:
        """A row of S bytes of 0 or 1 into the group's slices."""
        b = self.builder
        place = self.at(I8, pointer, b.mul(row, self.index(self.packed.n_stabilisers)))
        for i in range(self.bytes):
            word = b.load(self.at(I8, place, 8 * i), typ=I64, align=1)
            bits = b.lshr(b.mul(word, ir.Constant(I64, _GATHER)), self.index(56))
            b.store(b.trunc(bits, I8), self.at(I8, self.slices, m * self.bytes + i))

    def _take_slices(self, slices: list[Value], t: Value) -> None:
        at = self.builder.mul(t, self.index(self.bytes))
        for m, own in enumerate(slices):
            self._copy(I8, self.at(I8, own, at), self.at(I8, self.slices, m * self.bytes), self.bytes)

    def _sort_bits(self, row: Value, row_bytes: Value, places: Value, slices: Value, size: Value) -> None:
        """A shot's events in Stim's order to its slices, an event at a time: most bits are 0."""
        b = self.builder
        self.clear(slices, size)

        def one_byte(i: Value, _: list[Value]) -> list[Value]:
            first = b.mul(i, self.index(8))

            def one_event(bits: Value) -> Value:
                lowest = b.cttz(bits, ir.Constant(ir.IntType(1), 1))
                place = b.zext(self.load(I32, places, first, lowest), I64)
                target = self.at(I8, slices, b.lshr(place, self.index(3)))
                mask = b.shl(self.index(1), b.and_(place, self.index(7)))
                b.store(b.or_(self.load(I8, target), b.trunc(mask, I8)), target)
                return b.and_(bits, b.sub(bits, self.index(1)))

            self.while_not_zero(b.zext(self.load(I8, row, i), I64), one_event)
            return []

        self.loop(row_bytes, [], one_byte)
