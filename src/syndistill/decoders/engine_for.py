"""The engine that runs a network fastest here, or in the way that its name asks for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from syndistill.decoders.engines import Engine
from syndistill.decoders.kernels.weights import runs_compiled
from syndistill.files.network_file import network_path, read_header

WAYS = ("compiled", "int8", "pytorch")
"""To run a network, said behind its name and a colon: student-d3:int8."""


def way_in(name: str) -> tuple[str, str]:
    """A network's name or path, and the way that stands behind it; "" where none does."""
    network, _, way = name.rpartition(":")
    return (network, way) if network and way in WAYS and network_path(name) is None else (name, "")


def engine_for(network: str | Path, precision: str = "float32", device: str = "cpu") -> Engine:
    """Of a network by shipped name or path: compiled where that is possible (a flat or local GRU on a CPU, llvmlite
    installed), else PyTorch. Both give the same answers, but for the last digits, under the same `content_id`."""
    compiled = device == "cpu" and runs_compiled(read_header(network).dials) and find_spec("llvmlite") is not None
    return _compiled(network, precision) if precision != "float32" or compiled else _pytorch(network, device)


def engine_by(network: str | Path, way: str) -> Engine:
    """Of a way of `WAYS`. SyndistillError where it can't run this network."""
    return _pytorch(network) if way == "pytorch" else _compiled(network, "int8" if way == "int8" else "float32")


def engine_named(name: str) -> Engine:
    """In the way that stands behind the name, else the fastest."""
    network, way = way_in(name)
    return engine_by(network, way) if way else engine_for(network)


# Imported here, as each takes time to load what it needs, PyTorch seconds.
def _compiled(network: str | Path, precision: str) -> Engine:
    from syndistill.decoders.kernel_engine import KernelEngine

    return KernelEngine(network, precision)


def _pytorch(network: str | Path, device: str = "cpu") -> Engine:
    from syndistill.decoders.torch_engine import TorchEngine

    return TorchEngine(network, device)
