"""A user's own memories from files: circuits, error models, recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import stim

from syndistill.circuits.files import load_memory
from syndistill.circuits.memory_model import MemoryModel
from syndistill.circuits.placement import Placement, place
from syndistill.errors import SyndistillError
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import Recording
from syndistill.sampling.stored import dem_of_circuit


def own_noise(files: Sequence[str], model: str = "pij") -> OwnNoise:
    """The memories of these files: Stim circuits (.stim), error models (.dem), folders of recordings.

    Recordings may be of several patches of a chip; all other files are of one. model: of a recording, "pij" (fitted to
    data) or "circuit". SyndistillError, naming the file, for what is no memory of a rotated surface code, for files of
    several distances, for patches of unlike bases, and for two of the same patch, basis and rounds.
    """
    patches: dict[object, dict[str, dict[int, MemoryModel]]] = {}
    dems: dict[tuple[int, str, int], tuple[stim.DetectorErrorModel, Placement]] = {}
    distances: dict[int, str] = {}
    for name in files:
        dem, placement, patch = _placed(name, model)
        found = _named(name, partial(MemoryModel.of, dem, placement))
        distances.setdefault(found.layout.distance, name)
        lengths = patches.setdefault(patch, {}).setdefault(found.basis, {})
        if found.rounds in lengths:
            raise SyndistillError(
                f"{name} is a second memory of basis {found.basis} and {found.rounds} rounds; give one of each"
            )
        lengths[found.rounds] = found
        dems[[*patches].index(patch), found.basis, found.rounds] = dem, placement
    if len(distances) != 1:
        of_each = ", ".join(f"{d} ({name})" for d, name in distances.items())
        raise SyndistillError(f"the files are of distances {of_each}; give files of one" if of_each else "give a file")
    each = tuple(patches.values())
    if any(models.keys() != each[0].keys() for models in each):
        raise SyndistillError("the patches have unlike bases; give the same ones of each")
    said = [str(models[b][r].dem()) for models in each for b in sorted(models) for r in sorted(models[b])]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()
    names = tuple(Path(name).name for name in files)
    return OwnNoise(next(iter(distances)), each, dems, names, digest)


Found = TypeVar("Found")


def _placed(name: str, model: str) -> tuple[stim.DetectorErrorModel, Placement, object]:
    """The error model, its placement, and what its patch is known by."""

    def read() -> tuple[stim.DetectorErrorModel, Placement, object]:
        path = Path(name)
        if path.is_dir():
            recording = Recording.load(path)
            said = recording.properties
            return recording.dem(model), recording.placement, (said.distance, said.center)
        found = load_memory(path)
        return dem_of_circuit(found) if isinstance(found, stim.Circuit) else found, place(found), None

    return _named(name, read)


def _named(name: str, what: Callable[[], Found]) -> Found:
    """What is asked of a file; an error says of which."""
    try:
        return what()
    except SyndistillError as error:
        text = str(error)
        raise SyndistillError(text if name in text else f"{name}: {text}") from None
