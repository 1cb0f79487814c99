"""The local GRU's arithmetic in machine code: one round of as many shots as a vector has lanes.

A lane is a shot, so that a weight is one number for the whole vector, and what a stabiliser hears is a loop over its
neighbours. Records hold the terms (`local_pack`) of every stabiliser; masks a bit for each shot, 16 to a stabiliser.

Axes: V lanes, S stabilisers, D width, K terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from syndistill.deploy.local_pack import COARSE, HEAD, ZERO, PackedLocal
from syndistill.deploy.vector_code import F32, I16, I32, I64, ROUND, Value, VectorCode, ir

_BIT = COARSE | 1 << 8
_ROUND_BITS = 0x4B400000
"""Of the float32 ROUND."""
_EDGE = 15.49
"""Of a table of segments: beyond it lies none."""


class LocalCode(VectorCode):
    """Emits one of the inner functions, whose first argument is the block of packed weights."""

    def __init__(self, function: ir.Function, packed: PackedLocal, fast_reciprocal: bool) -> None:
        super().__init__(function, packed.lanes)
        self.packed, self.fast_reciprocal = packed, fast_reciprocal
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
        # As in gru_code, with one reciprocal: a = exp(-z's sum), c = exp(-2 n's sum); the factors are in the weights.
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
