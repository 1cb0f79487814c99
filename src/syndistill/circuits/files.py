"""Circuits and detector error models from files."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path
from typing import TypeVar

import stim

from syndistill.errors import SyndistillError

T = TypeVar("T", stim.Circuit, stim.DetectorErrorModel)

MAX_DETECTORS = 200_000
"""25,000 rounds at d=3, 900 at d=15. Everything here goes through detectors one by one."""
MAX_INSTRUCTIONS = 20_000_000
"""With every REPEAT written out: 800 a round for 25,000 rounds."""
MAX_OBSERVABLES = 1_000
MAX_NESTING = 50
"""REPEAT in REPEAT; Stim's reader itself goes down with some 10,000."""


def load_circuit(path: str | Path) -> stim.Circuit:
    """A circuit with detectors from a .stim file.

    SyndistillError if it can't be read, is not Stim's text, has no detectors, or is larger than can be worked with
    (counted before any REPEAT is written out).
    """
    return _load(path, stim.Circuit, "circuit", "annotate it with DETECTOR(x, y, t) instructions")


def load_dem(path: str | Path) -> stim.DetectorErrorModel:
    """A detector error model from a .dem file; SyndistillError as in `load_circuit`."""
    return _load(path, stim.DetectorErrorModel, "detector error model", "write it with circuit.detector_error_model()")


def load_memory(path: str | Path) -> stim.Circuit | stim.DetectorErrorModel:
    """An error model (.dem), or a circuit; SyndistillError as in `load_circuit`."""
    return load_dem(path) if Path(path).suffix == ".dem" else load_circuit(path)


def _load(path: str | Path, kind: type[T], what: str, remedy: str) -> T:
    text = _read(Path(path), what)
    try:
        loaded = kind(text)
    except (ValueError, IndexError) as error:  # IndexError: an unknown instruction in a model
        raise SyndistillError(f"{path} is no Stim {what}: {_first_line(error)}") from None
    if loaded.num_detectors == 0:
        raise SyndistillError(f"{path} has no detectors; {remedy}")
    _require_workable(path, loaded)
    return loaded


def _read(path: Path, what: str) -> str:
    try:
        data = path.read_bytes()
        # what Windows' editors (utf-8-sig) and PowerShell's > (utf-16) begin a file with
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        raise SyndistillError(f"{path} is no text, so no Stim {what}; give a file in Stim's text format") from None
    except OSError as error:
        raise SyndistillError(f"cannot read the {what} {path}: {error.strerror}; check the path") from None
    if _nesting(text) > MAX_NESTING:
        raise SyndistillError(f"{path} has more than {MAX_NESTING} REPEAT blocks in each other; write it with fewer")
    return text


def _nesting(text: str) -> int:
    deepest = depth = 0
    for line in text.splitlines():
        code = line.partition("#")[0].strip()
        depth += code.endswith("{") - code.startswith("}")
        deepest = max(deepest, depth)
    return deepest


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "Stim cannot parse it"


def _require_workable(path: str | Path, content: stim.Circuit | stim.DetectorErrorModel) -> None:
    _require_at_most(path, content.num_detectors, MAX_DETECTORS, "detectors")
    _require_at_most(path, content.num_observables, MAX_OBSERVABLES, "observables")
    _require_at_most(path, _written_out(content), MAX_INSTRUCTIONS, "instructions (REPEAT written out)")


def _require_at_most(path: str | Path, found: int, most: int, what: str) -> None:
    if found > most:
        raise SyndistillError(f"{path} has {found:,} {what}, and at most {most:,} can be worked with; give fewer")


def _written_out(content: stim.Circuit | stim.DetectorErrorModel) -> int:
    """The number of instructions with every repetition written out, without writing it out."""
    total = 0
    blocks = [(content, 1)]
    while blocks:
        block, times = blocks.pop()
        for instruction in block:
            total += times
            if isinstance(instruction, stim.CircuitRepeatBlock | stim.DemRepeatBlock):
                blocks.append((instruction.body_copy(), times * instruction.repeat_count))
    return total
