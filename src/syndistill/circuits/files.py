"""Circuits and detector error models from files."""

from __future__ import annotations

from pathlib import Path

import stim

from syndistill.errors import SyndistillError


def load_circuit(path: str | Path) -> stim.Circuit:
    """A circuit with detectors from a .stim file; SyndistillError if it is missing, not Stim, or has no detectors."""
    text = _read(Path(path), "circuit")
    try:
        circuit = stim.Circuit(text)
    except ValueError as error:
        raise SyndistillError(f"{path} is no Stim circuit: {_first_line(error)}") from None
    if circuit.num_detectors == 0:
        raise SyndistillError(f"{path} has no detectors; annotate it with DETECTOR(x, y, t) instructions")
    return circuit


def load_dem(path: str | Path) -> stim.DetectorErrorModel:
    """A detector error model from a .dem file; SyndistillError if it is missing, not Stim, or has no detectors."""
    text = _read(Path(path), "detector error model")
    try:
        dem = stim.DetectorErrorModel(text)
    except (ValueError, IndexError) as error:  # IndexError: an unknown instruction in a model
        raise SyndistillError(f"{path} is no Stim detector error model: {_first_line(error)}") from None
    if dem.num_detectors == 0:
        raise SyndistillError(f"{path} has no detectors; write it with circuit.detector_error_model()")
    return dem


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SyndistillError(f"{path} is no text, so no Stim {what}; give a file in Stim's text format") from None
    except OSError as error:
        raise SyndistillError(f"cannot read the {what} {path}: {error.strerror}; check the path") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "Stim cannot parse it"
