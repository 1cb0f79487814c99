"""The local GRU as functions of machine code: rounds of streams, a readout, and whole shots from Stim's packed bits.

V shots, one to a lane, go through all their rounds before the next V start, so that their states stay in the nearest
cache. The arguments of each function are in its `emit_...`; `local_kernel` calls them.

Axes: B shots, H groups of V of them (the last one filled up), R rounds, S stabilisers, D width, N detectors.
"""

from __future__ import annotations

from collections.abc import Callable

from syndistill.deploy.local_code import LocalCode
from syndistill.deploy.local_pack import PackedLocal
from syndistill.deploy.local_readout import ReadoutCode
from syndistill.deploy.machine import ARGUMENTS
from syndistill.deploy.vector_code import F32, I8, I16, I32, I64, POINTER, Value, ir

_INNER = {"enter": 4, "bits": 4, "cell": 7, "answer": 4}
"""Pointers that each of `ReadoutCode`'s functions takes."""


def emit_module(packed: PackedLocal, fast_reciprocal: bool) -> ir.Module:
    """Functions `step`, `readout` and `decode`."""
    module = ir.Module("local_gru")
    inner: dict[str, ir.Function] = {}
    for kind, pointers in _INNER.items():
        inner[kind] = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * pointers), kind)
        inner[kind].linkage = "internal"
        getattr(ReadoutCode(inner[kind], packed, fast_reciprocal), f"emit_{kind}")()
    for kind, (pointers, numbers) in ARGUMENTS.items():
        returns = ir.VoidType() if kind == "decode" else I8
        function = ir.Function(module, ir.FunctionType(returns, [POINTER] * pointers + [I64] * numbers), kind)
        getattr(LocalFunctions(function, packed, inner), f"emit_{kind}")()
    return module


class LocalFunctions(LocalCode):
    """Emits one of the functions. The first argument is always the packed weights."""

    def __init__(self, function: ir.Function, packed: PackedLocal, inner: dict[str, ir.Function]) -> None:
        super().__init__(function, packed, False)
        self.inner = inner
        n, v = packed.n_stabilisers, packed.lanes
        self.state_size = n * packed.width * v
        self.records = self.stack(F32, 2 * n * self.row)
        self.floats = self.stack(F32, self.state_size if packed.int8 else 1)
        self.events = self.stack(I16, n)
        self.parities = self.stack(I16, n)
        self.logits = self.stack(F32, v)

    def emit_step(self) -> None:
        """(weights, states (H, S, D, V), parities (H, S), events (R, B, S), B, R) -> 1 where an event is neither 0 nor
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
            self._call("enter", self.part("start"), self.records, self.floats)

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
        b, size = self.builder, self.packed.n_stabilisers * self.row
        odd = b.and_(r, self.index(1))
        even = b.xor(odd, self.index(1))
        return self.at(F32, self.records, self.times(odd, size)), self.at(F32, self.records, self.times(even, size))

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

    def _answer(self, events: Value, rounds: Value, logits: Value, here: Value) -> None:
        self._round("last_cell", events, rounds)
        ended = self._halves(rounds)[1]
        self._call("bits", events, self.parities, ended)
        self._call("answer", ended, self.parities, self.logits)
        self.copy(self.logits, logits, self.times(here, 4))

    def _fetch(self, states: Value, parities: Value) -> None:
        self._call("enter", states, self.records, self.floats)
        self._copy(parities, self.parities, 2 * self.packed.n_stabilisers)

    def _keep(self, states: Value, rounds: Value) -> None:
        """Stores the states after so many rounds."""
        p = self.packed
        if p.int8:
            self._copy(self.floats, states, 4 * self.state_size)
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
