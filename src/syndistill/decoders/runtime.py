"""The door for users without PyTorch: load a network, decode shots, stream rounds.

    engine = load("student-d3")                 # compiled for this machine
    decoder = on_circuit(engine, circuit)       # or an error model
    flips = decoder.probabilities(detectors)    # Stim's packed bits in, float64 (shots, observables) out

Importing this module, and everything in it, loads no PyTorch.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.files import load_memory
from syndistill.decoders.engine_for import engine_by, way_in
from syndistill.decoders.engines import Engine
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.network import named_on_circuit, on_circuit
from syndistill.decoders.onnx_engine import OnnxEngine

__all__ = ["decode", "load", "named_on_circuit", "on_circuit"]


def load(name_or_path: str | Path, precision: str = "float32") -> Engine:
    """A flat or local GRU by shipped name or .safetensors path, compiled; or a folder of `syndistill export`, run by
    ONNX Runtime. precision: "float32" or "int8" (compiled networks only), which "student-d3:int8" says too.
    SyndistillError for one that is unknown or damaged, or does not run so."""
    if isinstance(name_or_path, str | Path) and os.path.isdir(name_or_path):
        return OnnxEngine(name_or_path)
    network, way = way_in(str(name_or_path))
    return engine_by(network, way) if way else KernelEngine(name_or_path, precision)


def decode(
    network: str | Path, source: stim.Circuit | stim.DetectorErrorModel | str | Path, detectors: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Probability that each observable flipped, float64 (B, O), of bit-packed detectors, uint8 (B, ceil(N / 8)).

    network: what `load` takes, or several decoders between commas, an ensemble: "student-d5,pymatching-correlated".
    source: the circuit, its error model, or the path of one (.stim, .dem). For many calls on one circuit keep the
    decoder: `named_on_circuit(network, source, load)`. SyndistillError for a network that is unknown or doesn't run
    without PyTorch, a circuit that is no memory of its distance, and detectors of another number.
    """
    if isinstance(source, str | Path):
        source = load_memory(source)
    return named_on_circuit(network, source, load).probabilities(detectors)
