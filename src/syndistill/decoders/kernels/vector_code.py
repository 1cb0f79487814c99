"""Vector arithmetic in LLVM's intermediate representation, and what `flat` and `local` share: which machine they are
for, the functions that they consist of, and how their weights lie in memory.

A vector holds V float32 lanes. Polynomials are fitted here, so that no number needs a source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.files.families import MOST_LOGIT

Value = Any  # llvmlite's values have no useful static types

try:
    import llvmlite.ir as ir
except ImportError:  # of an extra; `kernel_engine` asks for it before anything here is used
    ir = F32 = I8 = I16 = I32 = I64 = POINTER = None
else:
    F32, POINTER = ir.FloatType(), ir.PointerType()
    I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))

INT8_MAX = 127
NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's
ARGUMENTS = {"step": (4, 2), "readout": (5, 1), "decode": (5, 3)}
"""Of a kernel's functions: pointers, then 64-bit integers. `step` and `readout` return a byte, `decode` nothing."""
ROUND = 1.5 * 2.0**23
"""Added to a float32 it leaves the nearest integer in the low bits (two's complement)."""
_BIT_0_ONLY = 0xFEFEFEFEFEFEFEFE
_EXPONENT_LIMIT = 60.0
"""Powers of two are kept within 2^+-60: products of two stay finite, and 1 + 2^-60 is 1 in float32."""
_EXP2: list[float] = (
    np.polynomial.Chebyshev.interpolate(np.exp2, 5, (-0.5, 0.5)).convert(kind=np.polynomial.Polynomial).coef.tolist()
)
# Abramowitz and Stegun, 7.1.26: erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x), error below 1.5e-7
_ERF_P, _ERF_A = 0.3275911, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Machine(NamedTuple):
    """lanes: floats of a vector register. many_registers: 32 of them, not 16. fast_reciprocal: AVX-512's estimate."""

    lanes: int
    many_registers: bool
    fast_reciprocal: bool


def joined(parts: dict[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, int]]:
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


def inner_function(module: ir.Module, name: str, pointers: int) -> ir.Function:
    """One that only its module's functions call."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * pointers), name)
    function.linkage = "internal"
    return function


def outer_function(module: ir.Module, kind: str, ending: str = "") -> ir.Function:
    """One of ARGUMENTS."""
    pointers, numbers = ARGUMENTS[kind]
    returns = ir.VoidType() if kind == "decode" else I8
    return ir.Function(module, ir.FunctionType(returns, [POINTER] * pointers + [I64] * numbers), kind + ending)


class VectorCode:
    """Emits code for one function; `lanes` is V."""

    fast_reciprocal = False

    def __init__(self, function: ir.Function, lanes: int) -> None:
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.module = function.module
        self.lanes = lanes
        self.floats = ir.VectorType(F32, lanes)
        self.ints = ir.VectorType(I32, lanes)
        self._entry = function.entry_basic_block

    def intrinsic(self, name: str, returns: Any, *arguments: Value, fast: tuple[str, ...] = ()) -> Value:
        """A call of one of LLVM's own functions."""
        known = self.module.globals.get(name)
        kind = ir.FunctionType(returns, [argument.type for argument in arguments])
        function = known if known is not None else ir.Function(self.module, kind, name)
        return self.builder.call(function, arguments, fastmath=fast)

    def number(self, value: float) -> Value:
        """The same float in every lane."""
        return ir.Constant(self.floats, [float(np.float32(value))] * self.lanes)

    def integer(self, value: int) -> Value:
        """The same 32-bit integer in every lane."""
        return ir.Constant(self.ints, [value] * self.lanes)

    def index(self, value: int) -> Value:
        return ir.Constant(I64, value)

    def stack(self, kind: Any, size: int) -> Value:
        """Memory of the function's own, aligned to a cache line."""
        with self.builder.goto_block(self._entry):
            place = self.builder.alloca(kind, size=size)
            place.align = 64
            place.type = POINTER  # llvmlite gives it a typed pointer, which LLVM has no more
        return place

    def at(self, kind: Any, pointer: Value, *offsets: Value | int) -> Value:
        """pointer + the sum of the offsets, counted in elements of `kind`."""
        for offset in offsets:
            if isinstance(offset, int):
                offset = self.index(offset)
            pointer = self.builder.gep(pointer, [offset], source_etype=kind)
        return pointer

    def load(self, kind: Any, pointer: Value, *offsets: Value | int) -> Value:
        element = kind.element if isinstance(kind, ir.VectorType) else kind
        size = 4 if element in (F32, I32) else element.width // 8
        return self.builder.load(self.at(element, pointer, *offsets), typ=kind, align=size)

    def load_floats(self, pointer: Value, *offsets: Value | int) -> Value:
        return self.load(self.floats, pointer, *offsets)

    def store_floats(self, vector: Value, pointer: Value, *offsets: Value | int) -> None:
        self.builder.store(vector, self.at(F32, pointer, *offsets), align=4)

    def copy(self, source: Value, target: Value, size: Value) -> None:
        """So many bytes."""
        no = ir.Constant(ir.IntType(1), 0)
        self.intrinsic("llvm.memcpy.p0.p0.i64", ir.VoidType(), target, source, size, no)

    def clear(self, place: Value, size: Value) -> None:
        """Sets so many bytes to 0."""
        zero, no = ir.Constant(I8, 0), ir.Constant(ir.IntType(1), 0)
        self.intrinsic("llvm.memset.p0.i64", ir.VoidType(), place, zero, size, no)

    def word(self, pointer: Value, i: Value) -> Value:
        """Eight bytes, wherever they begin."""
        return self.builder.load(self.at(I64, pointer, i), typ=I64, align=1)

    def require_bits(self, pointer: Value, words: Value) -> None:
        """Returns 1 from the function where a byte of so many words is neither 0 nor 1."""
        b = self.builder
        (seen,) = self.loop(words, [self.index(0)], lambda i, seen: [b.or_(seen[0], self.word(pointer, i))])
        with b.if_then(b.icmp_unsigned("!=", b.and_(seen, ir.Constant(I64, _BIT_0_ONLY)), self.index(0))):
            b.ret(ir.Constant(I8, 1))

    def halves(self, block: Value, size: int, r: Value) -> tuple[Value, Value]:
        """Of two parts of `block`, `size` floats each: the one that round r reads, and the one that it writes."""
        b, floats = self.builder, self.index(size)
        odd = b.and_(r, self.index(1))
        even = b.xor(odd, self.index(1))
        return self.at(F32, block, b.mul(odd, floats)), self.at(F32, block, b.mul(even, floats))

    def splat(self, scalar: Value) -> Value:
        kind = ir.VectorType(scalar.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        every = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), every)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c."""
        return self.intrinsic(f"llvm.fmuladd.v{self.lanes}f32", self.floats, a, b, c)

    def loop(
        self, count: Value | int, carried: Sequence[Value], body: Callable[[Value, list[Value]], Sequence[Value]]
    ) -> list[Value]:
        """for i in range(count): carried = body(i, carried); returns what is carried at the end."""
        b = self.builder
        stop = self.index(count) if isinstance(count, int) else count
        before, head = b.block, b.append_basic_block()
        inside, after = b.append_basic_block(), b.append_basic_block()
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(self.index(0), before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_unsigned("<", i, stop), inside, after)
        b.position_at_end(inside)
        for phi, value in zip(phis, body(i, list(phis)), strict=True):
            phi.add_incoming(value, b.block)
        i.add_incoming(b.add(i, self.index(1)), b.block)
        b.branch(head)
        b.position_at_end(after)
        return phis

    def while_not_zero(self, value: Value, body: Callable[[Value], Value]) -> None:
        """while value: value = body(value)."""
        b = self.builder
        before, head = b.block, b.append_basic_block()
        inside, after = b.append_basic_block(), b.append_basic_block()
        b.branch(head)
        b.position_at_end(head)
        current = b.phi(value.type)
        current.add_incoming(value, before)
        b.cbranch(b.icmp_unsigned("!=", current, ir.Constant(value.type, 0)), inside, after)
        b.position_at_end(inside)
        current.add_incoming(body(current), b.block)
        b.branch(head)
        b.position_at_end(after)

    def _polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        result = self.number(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = self.multiply_add(result, x, self.number(coefficient))
        return result

    def exp2(self, x: Value) -> Value:
        """2^x, x kept within +-60; relative error below 3e-7."""
        b = self.builder
        x = self.minimum(self.maximum(x, self.number(-_EXPONENT_LIMIT)), self.number(_EXPONENT_LIMIT))
        shifted = b.fadd(x, self.number(ROUND))
        fraction = b.fsub(x, b.fsub(shifted, self.number(ROUND)))
        exponent = b.shl(b.bitcast(shifted, self.ints), self.integer(23))
        mantissa = b.bitcast(self._polynomial(fraction, _EXP2), self.ints)
        return b.bitcast(b.add(mantissa, exponent), self.floats)

    def exp_times(self, factor: float, x: Value) -> Value:
        """exp(factor * x)."""
        return self.exp2(self.builder.fmul(x, self.number(factor / np.log(2))))

    def gelu(self, x: Value) -> Value:
        """x times the normal distribution function of x."""
        b = self.builder
        size = self.intrinsic(f"llvm.fabs.v{self.lanes}f32", self.floats, x)
        t = self.reciprocal(self.multiply_add(size, self.number(_ERF_P / np.sqrt(2)), self.number(1)))
        bell = self.exp_times(-0.5, b.fmul(x, x))
        tail = b.fmul(b.fmul(b.fmul(self._polynomial(t, _ERF_A), t), bell), self.number(0.5))
        negative = b.fcmp_ordered("<", x, self.number(0))
        return b.fmul(x, b.select(negative, tail, b.fsub(self.number(1), tail)))

    def in_frame(self, logits: Value, frames: Value) -> Value:
        """As `models.frames.in_frame`."""
        b, one = self.builder, self.number(1)
        bounded = self.maximum(self.minimum(logits, self.number(MOST_LOGIT)), self.number(-MOST_LOGIT))
        against, more, less = self.exp_times(-1, bounded), b.fadd(one, frames), b.fsub(one, frames)
        above, below = self.multiply_add(less, against, more), self.multiply_add(more, against, less)
        return self.intrinsic(f"llvm.log.v{self.lanes}f32", self.floats, b.fdiv(above, below))

    def tanh(self, x: Value) -> Value:
        """2 / (1 + exp(-2 x)) - 1."""
        half = self.reciprocal(self.builder.fadd(self.number(1), self.exp_times(-2, x)))
        return self.multiply_add(half, self.number(2), self.number(-1))

    def reciprocal(self, x: Value) -> Value:
        """1 / x; by an estimate and a step of Newton's, relative error below 1e-7, where that is faster."""
        b, one = self.builder, self.number(1)
        if not self.fast_reciprocal:
            return b.fdiv(one, x)
        every = ir.Constant(ir.IntType(max(self.lanes, 8)), 2**self.lanes - 1)
        name = f"llvm.x86.avx512.rcp14.ps.{32 * self.lanes}"
        estimate = self.intrinsic(name, self.floats, x, self.number(0), every)
        error = self.multiply_add(b.fneg(x), estimate, one)
        return self.multiply_add(estimate, error, estimate)

    def minimum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def total(self, vector: Value) -> Value:
        """The sum over the lanes, a scalar."""
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f32"
        return self.intrinsic(name, F32, ir.Constant(F32, 0.0), vector, fast=("reassoc",))

    def totals(self, vectors: list[Value]) -> Value:
        """The sum over the lanes of each of V vectors, V a power of two of at most the lanes; again and again in the
        lanes beyond V."""
        for _ in range(self.lanes.bit_length() - 1):
            pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else ((vectors[0], vectors[0]),)
            vectors = [self._neighbours_added(a, b) for a, b in pairs]
        return vectors[0]

    def _neighbours_added(self, a: Value, b: Value) -> Value:
        """Lanes 0 + 1, 2 + 3, ... of a, then of b."""
        even, odd = (ir.Constant(ir.VectorType(I32, self.lanes), [*range(i, 2 * self.lanes, 2)]) for i in (0, 1))
        return self.builder.fadd(self.builder.shuffle_vector(a, b, even), self.builder.shuffle_vector(a, b, odd))

    def lanes_from(self, vector: Value, first: int) -> Value:
        """The vector turned so that lane `first` comes first."""
        order = ir.Constant(ir.VectorType(I32, self.lanes), [(first + i) % self.lanes for i in range(self.lanes)])
        return self.builder.shuffle_vector(vector, vector, order)
