"""A user's own memories from files: circuits, error models, recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from syndistill.circuits.files import load_circuit, load_dem
from syndistill.circuits.memory_model import MemoryModel
from syndistill.circuits.placement import place
from syndistill.errors import SyndistillError
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import Recording


def own_noise(files: Sequence[str], model: str = "pij") -> OwnNoise:
    """The memories of these files: Stim circuits (.stim), error models (.dem), folders of recordings.

    model: of a recording, "pij" (fitted to data) or "circuit". SyndistillError, naming the file, for what is no memory
    of a rotated surface code, for files of several distances, and for two of the same basis and rounds.
    """
    models: dict[str, dict[int, MemoryModel]] = {}
    distances: dict[int, str] = {}
    for name in files:
        found = _model_of_file(name, model)
        distances.setdefault(found.layout.distance, name)
        lengths = models.setdefault(found.basis, {})
        if found.rounds in lengths:
            raise SyndistillError(
                f"{name} is a second memory of basis {found.basis} and {found.rounds} rounds; give one of each"
            )
        lengths[found.rounds] = found
    if len(distances) != 1:
        of_each = ", ".join(f"{d} ({name})" for d, name in distances.items())
        raise SyndistillError(f"the files are of distances {of_each}; give files of one" if of_each else "give a file")
    said = [str(models[basis][r].dem()) for basis in sorted(models) for r in sorted(models[basis])]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()
    return OwnNoise(next(iter(distances)), models, tuple(Path(name).name for name in files), digest)


def _model_of_file(name: str, model: str) -> MemoryModel:
    path = Path(name)
    try:
        if path.is_dir():
            recording = Recording.load(path)
            return MemoryModel.of(recording.dem(model), recording.placement)
        if path.suffix == ".dem":
            dem = load_dem(path)
            return MemoryModel.of(dem, place(dem))
        circuit = load_circuit(path)
        return MemoryModel.of(circuit.detector_error_model(approximate_disjoint_errors=True), place(circuit))
    except SyndistillError as error:
        text = str(error)
        raise SyndistillError(text if name in text else f"{name}: {text}") from None
