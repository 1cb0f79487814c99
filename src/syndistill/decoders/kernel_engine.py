"""Flat and local GRUs compiled for this machine by LLVM, as an engine: no PyTorch, no compiler to install.

Axes: B shots or logical qubits, R rounds, S stabilisers, N detectors, O outputs (line 0: one for basis x or z, two for
both, four classes for joint4).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import noise_in
from syndistill.decoders.engines import NOT_BITS, PRECISIONS, Bits, Engine, Floats, Stream
from syndistill.decoders.kernels import flat, local
from syndistill.decoders.kernels.vector_code import ARGUMENTS, Machine
from syndistill.decoders.kernels.weights import Compilable, LocalWeights, load_compilable
from syndistill.errors import SyndistillError
from syndistill.files.network_file import trained_rounds

_CODE: dict[tuple[object, ...], tuple[Any, dict[str, Any]]] = {}
"""By what the code depends on, its owner and its functions. The weights are an argument, so networks of one shape share
it."""


class Kernel:
    """A network compiled for one basis and one precision; a local GRU answers for basis x or z.

    "int8" keeps in bytes what most of the multiplications are of (see `pack` of the family's module); it needs a
    processor with byte products (x86 with AVX-512 VNNI). `lanes`: floats of a vector, by default what the machine's
    registers hold. Calls release Python's lock, and may run in several threads at once.
    """

    def __init__(
        self, weights: Compilable, basis: str, precision: str = "float32", lanes: int | None = None
    ) -> None:
        machine, int8 = this_machine(precision, lanes), precision == "int8"
        self.packed: flat.PackedFlat | local.PackedLocal
        if isinstance(weights, LocalWeights):
            self.packed = local.pack(weights, basis, machine, int8)
        else:
            self.packed = flat.pack(weights, basis, machine, int8)
        key = (type(self.packed), *self.packed.shape)
        if key not in _CODE:
            of_family = local.emit_module if isinstance(weights, LocalWeights) else flat.emit_module
            _CODE[key] = machine_code(of_family(self.packed), self.packed.endings)  # type: ignore[arg-type]
        self._engine, self._functions = _CODE[key]
        self.n_outputs = self.packed.n_outputs

    def function(self, kind: str, batch: int) -> Any:
        """`step`, `readout` or `decode` for so many shots; arguments, without the weights, as the family's `emit_...`
        says. It keeps the weights, which the code knows by their address alone."""
        compiled, address = self._functions[kind + self.packed.ending(batch)], self.packed.blob.ctypes.data
        return lambda *arguments, _weights=self.packed.blob: compiled(address, *arguments)

    def places(self, placement: Placement) -> NDArray[np.int32]:
        """(N,): where each detector goes, slice * S + stabiliser as the code has it."""
        at_N = placement.slice_N * self.packed.n_stabilisers + self.packed.place_S[placement.stabiliser_N]
        return at_N.astype(np.int32)

    def decode(self, detectors_packed: Bits, places_N: NDArray[np.int32], rounds: int) -> Floats:
        """logits_BO of whole shots, bits packed in Stim's order (B, N / 8): a memory has R (d*d - 1) detectors, a whole
        number of bytes. places_N as `places` makes them."""
        batch, row_bytes = detectors_packed.shape
        if len(places_N) != 8 * row_bytes:
            raise SyndistillError(f"{row_bytes} bytes a shot where the circuit's has {len(places_N) // 8}")
        logits_BO = np.empty((batch, self.n_outputs), np.float32)
        if batch:
            detectors = np.ascontiguousarray(detectors_packed, np.uint8)
            scratch = np.empty(self.packed.scratch_bytes(rounds), np.uint8)
            pointers = (array.ctypes.data for array in (detectors, places_N, scratch, logits_BO))
            self.function("decode", batch)(*pointers, batch, rounds, row_bytes)
        return logits_BO


def this_machine(precision: str, lanes: int | None = None) -> Machine:
    """What the code may use here. SyndistillError without llvmlite, and for a precision that is unknown or that the
    processor lacks."""
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise SyndistillError("compiled kernels need llvmlite: pip install 'syndistill[runtime]'") from error
    if precision not in PRECISIONS:
        raise SyndistillError(f"precision {precision!r} is unknown; pick one of {', '.join(PRECISIONS)}")
    has = llvm.get_host_cpu_features().get
    if precision == "int8" and not (has("avx512vnni") and has("avx512vl")):
        raise SyndistillError("this processor has no AVX-512 VNNI, which precision int8 needs; take float32")
    widest = 16 if has("avx512f") else 8 if has("avx2") else 4
    return Machine(lanes or widest, bool(has("avx512f") or has("neon")), bool(has("avx512vl")))


def machine_code(module: Any, endings: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """The owner of a module's machine code, and its functions by name: those of ARGUMENTS with each of the endings.

    No optimiser runs: the code is vectors already, and LLVM's passes were measured to change nothing but the time to
    compile.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
    engine.finalize_object()
    functions = {}
    for ending in endings:
        for kind, (pointers, numbers) in ARGUMENTS.items():
            returns = None if kind == "decode" else ctypes.c_uint8
            prototype = ctypes.CFUNCTYPE(returns, *[ctypes.c_void_p] * pointers, *[ctypes.c_int64] * numbers)
            functions[kind + ending] = prototype(engine.get_function_address(kind + ending))
    return engine, functions


class KernelEngine(Engine):
    """A flat or local GRU by shipped name or path, compiled when a basis is first asked for (precision: `Kernel`)."""

    def __init__(self, name_or_path: str | Path, precision: str = "float32") -> None:
        self.weights = load_compilable(name_or_path)
        self.name = str(name_or_path)
        self.precision = precision
        self.layout = self.weights.layout
        self.output = self.weights.output
        self.n_parameters = self.weights.n_parameters
        self.content_id = self.weights.sha256 + ("" if precision == "float32" else f"-{precision}")
        self.trained_rounds = trained_rounds(self.weights.metadata)
        self.home = noise_in(self.weights.metadata)
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, basis: str) -> Kernel:
        """Compiled once for each basis."""
        if basis not in self._kernels:
            self._kernels[basis] = Kernel(self.weights, basis, self.precision)
        return self._kernels[basis]

    def stream(self, basis: str, batch: int) -> Stream:
        return _KernelStream(self, basis, batch)

    def _on(self, placement: Placement) -> Callable[[Bits], Floats]:
        kernel = self.kernel(placement.basis)
        return partial(kernel.decode, places_N=kernel.places(placement), rounds=placement.rounds)


class _KernelStream(Stream):
    """Its arrays stay where they are, so that a round costs one copy and one call."""

    def __init__(self, engine: KernelEngine, basis: str, batch: int) -> None:
        super().__init__(engine.layout, basis, batch)
        kernel = engine.kernel(basis)
        self._start, no_parity = kernel.packed.new_states(batch)
        self._states, self._parities = self._start.copy(), no_parity
        self._events_BS = np.zeros((batch, self.n_stabilisers), np.uint8)
        self._logits_BO = np.zeros((batch, kernel.n_outputs), np.float32)
        arrays = (self._states, self._parities, self._events_BS)
        self._places = tuple(array.ctypes.data for array in arrays)
        self._step, self._readout = (kernel.function(kind, batch) for kind in ("step", "readout"))

    def _push(self, events_RBS: Bits) -> None:
        rounds = len(events_RBS)
        states, parities, events = self._places
        if rounds == 1:
            self._events_BS[:] = events_RBS[0]
        else:
            events_RBS = np.ascontiguousarray(events_RBS)
            events = events_RBS.ctypes.data
        _refuse(self._step(states, parities, events, self.batch, rounds))

    def _logits(self, last_BS: Bits) -> Floats:
        self._events_BS[:] = last_BS
        _refuse(self._readout(*self._places, self._logits_BO.ctypes.data, self.batch))
        return self._logits_BO.copy()

    def _restart(self) -> None:
        self._states[:] = self._start
        self._parities[:] = 0


def _refuse(strange: int) -> None:
    if strange:
        raise SyndistillError(NOT_BITS)
