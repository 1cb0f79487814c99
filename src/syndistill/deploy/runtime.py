"""The door for users without PyTorch: load a network, decode shots, stream rounds.

    engine = load("student-d3")                 # compiled for this machine
    decoder = on_circuit(engine, circuit)       # or an error model
    flips = decoder.probabilities(detectors)    # Stim's packed bits in, float64 (shots, observables) out

Importing this module, and everything in it, loads no PyTorch.
"""

from __future__ import annotations

import os
from pathlib import Path

import stim

from syndistill.circuits.placement import place
from syndistill.deploy.decoding import EngineDecoder
from syndistill.deploy.engines import Engine
from syndistill.deploy.kernel_engine import KernelEngine
from syndistill.deploy.onnx_engine import OnnxEngine


def load(name_or_path: str | Path, precision: str = "float32") -> Engine:
    """A flat GRU by shipped name or .safetensors path, compiled; or a folder of `syndistill export`, run by ONNX
    Runtime. precision: "float32" or "int8" (compiled networks only)."""
    if isinstance(name_or_path, str | Path) and os.path.isdir(name_or_path):
        return OnnxEngine(name_or_path)
    return KernelEngine(name_or_path, precision)


def on_circuit(engine: Engine, source: stim.Circuit | stim.DetectorErrorModel) -> EngineDecoder:
    """A decoder of a circuit's shots, or an error model's. SyndistillError for what the network cannot decode."""
    return EngineDecoder(engine, place(source, engine.home))
