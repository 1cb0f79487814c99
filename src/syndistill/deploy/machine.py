"""What kernels ask of this machine: its registers, the code it can run, and LLVM to make it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

from syndistill.errors import SyndistillError

PRECISIONS = ("float32", "int8")
ARGUMENTS = {"step": (4, 2), "readout": (5, 1), "decode": (5, 3)}
"""Of a kernel's functions: pointers, then 64-bit integers. `step` and `readout` return a byte, `decode` nothing."""


def machine_features(precision: str) -> Mapping[str, bool]:
    """The processor's features by LLVM's names. SyndistillError without llvmlite, and for a precision that is unknown
    or that the processor lacks."""
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise SyndistillError("compiled kernels need llvmlite: pip install 'syndistill[runtime]'") from error
    if precision not in PRECISIONS:
        raise SyndistillError(f"precision {precision!r} is unknown; pick one of {', '.join(PRECISIONS)}")
    features: Mapping[str, bool] = llvm.get_host_cpu_features()
    if precision == "int8" and not (features.get("avx512vnni") and features.get("avx512vl")):
        raise SyndistillError("this processor has no AVX-512 VNNI, which precision int8 needs; take float32")
    return features


def vector_lanes(features: Mapping[str, bool]) -> int:
    """Floats of a vector register."""
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


def has_many_registers(features: Mapping[str, bool]) -> bool:
    """Whether there are 32 vector registers, not 16."""
    return bool(features.get("avx512f") or features.get("neon"))


def machine_code(module: Any, endings: Iterable[str] = ("",)) -> tuple[Any, dict[str, Any]]:
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
