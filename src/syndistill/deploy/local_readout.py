"""The local GRU's readout in machine code: the data qubits from their corners, lines from their qubits, one answer.

Axes: V lanes, S stabilisers, K terms, Q data qubits, L lines, W readout width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from syndistill.deploy.gru_pack import NORM_EPSILON
from syndistill.deploy.local_code import LocalCode
from syndistill.deploy.local_pack import HEAD
from syndistill.deploy.vector_code import F32, I16, I32, Value, ir


class ReadoutCode(LocalCode):
    """Emits `answer` too."""

    def emit_answer(self) -> None:
        """(..., records of the last slice, parities (S,), logits (V,)): line 0's observable."""
        records, parities, logits = self.arguments
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
            return [self.builder.fadd(carried[0], self._turned_answer(i, main, parities))]

        (total,) = self.loop(p.n_lines, [self.number(0)], line)
        self.store_floats(total, logits)
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

    def _total(self, values: Iterable[Value]) -> Value:
        """A sum in four independent chains: an addition takes four cycles. Values are made as they are needed."""
        chains: list[Value] = []
        for i, value in enumerate(values):
            if i < 4:
                chains.append(value)
            else:
                chains[i % 4] = self.builder.fadd(chains[i % 4], value)
        while len(chains) > 1:
            chains = [*chains[2:], self.builder.fadd(chains[0], chains[1])]
        return chains[0]

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

    def _turned_answer(self, line: Value, main: Value, parities: Value) -> Value:
        """A line's logit, turned to line 0's label; the mean's 1 / L is in the weights."""
        p, b = self.packed, self.builder
        row = self.part("heads", self.times(line, p.readout_width))
        products = (
            b.fmul(self.load_floats(main, o * self.lanes), self.everywhere(row, o)) for o in range(p.readout_width)
        )
        logit = b.fadd(self._total(products), self.splat(self.load(F32, self.part("heads_bias"), line)))
        flips = self.part("flips", self.times(line, p.n_stabilisers))

        def stabiliser(s: Value, mask: list[Value]) -> list[Value]:
            counts = b.trunc(self.load(I32, flips, s), I16)
            return [b.xor(mask[0], b.and_(counts, self.load(I16, parities, s)))]

        (mask,) = self.loop(p.n_stabilisers, [ir.Constant(I16, 0)], stabiliser)
        return b.select(self.shots_of(mask), b.fneg(logit), logit)

    def _gelu(self, x: Value) -> Value:
        if not self.packed.tables:
            return self.gelu(x)
        width = self.packed.tables["normal"].width
        return self.builder.fmul(x, self.looked_up(self.builder.fmul(x, self.number(1 / width)), "normal"))
