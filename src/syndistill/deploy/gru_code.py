"""The flat GRU's arithmetic in machine code: one round, and the readout, of a group of shots.

A column is V outputs of each of the three gates: products of all inputs with the states of the whole group at once,
then the gates, all in registers.

Axes: m a shot of the group, M their number, D width, K inputs, S stabilisers, V lanes, G gates (reset, update,
candidate), O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from syndistill.deploy.gru_pack import INT8_MAX, NORM_EPSILON, UNROLL, PackedGru
from syndistill.deploy.vector_code import F32, I8, I32, I64, ROUND, Value, VectorCode, ir


class Shape(NamedTuple):
    """How a function works: shots of a group, and vector registers for their sums."""

    shots: int
    accumulators: int


class GruCode(VectorCode):
    """Emits `round` or `answer` into a function whose first arguments are the packed weights, the group's slice
    (M, S/8) and its parities (M, S/8), bits in bytes; the parities are moved on."""

    def __init__(self, function: ir.Function, packed: PackedGru, shape: Shape) -> None:
        super().__init__(function, packed.lanes)
        self.packed = packed
        self.shots, self.accumulators = shape
        self.weights, self.slices, self.parities, *self.arguments = function.args
        self.rows = self.stack(I64, self.shots * packed.nibbles)

    def emit_round(self) -> None:
        """(..., states (M, D), new states (M, D)): one GRU step."""
        old, new = (self._shots_of(argument, self.packed.padded_width) for argument in self.arguments)
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
        b.ret_void()

    def emit_answer(self) -> None:
        """(..., states (M, D), logits (M, O)): what line 0's observables are, given the last slice."""
        p = self.packed
        states = self._shots_of(self.arguments[0], p.padded_width)
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
                self.builder.store(self._head(main[m], o), self.at(F32, self.arguments[1], m * p.n_outputs + o))
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
        most = max(1, self.accumulators // (self.shots * gates))
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

    def _head(self, hidden: Value, output: int) -> Value:
        p, b = self.packed, self.builder
        heads = self._part("heads", output * p.padded_readout)
        products = [
            b.fmul(self.load_floats(hidden, start), self.load_floats(heads, start))
            for start in range(0, p.padded_readout, self.lanes)
        ]
        return b.fadd(self.total(self._added(products)), self.load(F32, self._part("heads_bias"), output))
