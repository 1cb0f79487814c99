"""The flat GRU as functions of machine code: rounds of a stream, a readout, and whole shots from Stim's packed bits.

A group of shots goes through all its rounds before the next group starts, so that its states stay in the nearest
cache. The arguments of each function are in its `emit_...`; `gru_kernel` calls them.

Axes: m a shot of the group, M their number, B shots, R rounds, S stabilisers, D width (padded), N detectors, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from syndistill.deploy.gru_code import GruCode, Shape
from syndistill.deploy.gru_pack import PackedGru
from syndistill.deploy.machine import ARGUMENTS
from syndistill.deploy.vector_code import F32, I8, I32, I64, POINTER, Value, VectorCode, ir

_INNER = {"round": 5, "answer": 5}
_GATHER = sum(1 << (56 - 7 * j) for j in range(8))
"""Times this, the lowest bit of byte j of a word lands on bit 56 + j; no two of the sums meet."""


def emit_module(packed: PackedGru, shapes: dict[str, Shape]) -> ir.Module:
    """Functions `step_NAME`, `readout_NAME` and `decode_NAME` for each shape."""
    module = ir.Module("flat_gru")
    for name, shape in shapes.items():
        inner: dict[str, ir.Function] = {}
        for kind, pointers in _INNER.items():
            inner[kind] = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * pointers), f"{kind}_{name}")
            inner[kind].linkage = "internal"
            getattr(GruCode(inner[kind], packed, shape), f"emit_{kind}")()
        for kind, (pointers, numbers) in ARGUMENTS.items():
            returns = ir.VoidType() if kind == "decode" else I8
            signature = ir.FunctionType(returns, [POINTER] * pointers + [I64] * numbers)
            code = GruFunctions(ir.Function(module, signature, f"{kind}_{name}"), packed, shape.shots, inner)
            getattr(code, f"emit_{kind}")()
    return module


class GruFunctions(VectorCode):
    """Emits one of the functions. The first argument is always the packed weights."""

    def __init__(self, function: ir.Function, packed: PackedGru, shots: int, inner: dict[str, ir.Function]) -> None:
        super().__init__(function, packed.lanes)
        self.packed, self.shots, self.inner = packed, shots, inner
        self.weights, *self.arguments = function.args
        self.bytes = packed.n_stabilisers // 8
        self.states = self.stack(F32, 2 * shots * packed.padded_width)
        self.slices = self.stack(I8, shots * self.bytes)
        self.parities = self.stack(I8, shots * self.bytes)
        self.logits = self.stack(F32, shots * packed.n_outputs)

    def emit_step(self) -> None:
        """(weights, states (B, D), parities (B, S/8), events (R, B, S), B, R) -> 1 where an event is neither 0 nor 1,
        and nothing was done. States and parities are moved on in place."""
        states, parities, events, n_shots, rounds = self.arguments
        b, width = self.builder, self.packed.padded_width
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
        b, width = self.builder, self.packed.padded_width
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
        b, size = self.builder, self.index(self.shots * self.packed.padded_width)
        odd = b.and_(r, self.index(1))
        even = b.xor(odd, self.index(1))
        return self.at(F32, self.states, b.mul(odd, size)), self.at(F32, self.states, b.mul(even, size))

    def _call(self, kind: str, *places: Value) -> None:
        self.builder.call(self.inner[kind], [self.weights, self.slices, self.parities, *places])

    def _answer(self, states: Value, logits: Value, shots: list[Value]) -> None:
        self._call("answer", states, self.logits)
        outputs = self.packed.n_outputs
        for m, shot in enumerate(shots):
            place = self.at(F32, logits, self.builder.mul(shot, self.index(outputs)))
            self._copy(F32, self.at(F32, self.logits, m * outputs), place, outputs)

    def _fetch(self, shots: list[Value], states: Value, parities: Value) -> None:
        width = self.packed.padded_width
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
