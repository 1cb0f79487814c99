"""The engine that runs a network fastest here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from syndistill.decoders.engines import Engine
from syndistill.decoders.kernels.weights import runs_compiled
from syndistill.files.network_file import read_header


def engine_for(network: str | Path, precision: str = "float32", device: str = "cpu") -> Engine:
    """Of a network by shipped name or path: compiled where that is possible (a flat or local GRU on a CPU, llvmlite
    installed), else PyTorch. Both give the same answers, but for the last digits, under the same `content_id`."""
    compiled = device == "cpu" and runs_compiled(read_header(network).dials) and find_spec("llvmlite") is not None
    # Here, as each takes time to load what it needs, PyTorch seconds.
    if precision != "float32" or compiled:
        from syndistill.decoders.kernel_engine import KernelEngine

        return KernelEngine(network, precision)
    from syndistill.decoders.torch_engine import TorchEngine

    return TorchEngine(network, device)
