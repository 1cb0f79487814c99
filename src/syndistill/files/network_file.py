"""A saved network, read and checked in one place for every engine, without PyTorch.

Shipped networks are package data in `pretrained/`, a card each; others are named by their path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as numpy_tensors

from syndistill.errors import SyndistillError, did_you_mean
from syndistill.files.families import Dials, dials_of
from syndistill.files.tensors import METADATA, Sealed, read_sealed

FORMAT, WHAT = 1, "syndistill network"
KEYS = frozenset({"what", "format", "config", "metadata"})
"""Of a network file's header."""
LARGEST_WEIGHT = 1e4
"""In size. The shipped networks' largest are 2 to 23; up to here no product of an engine leaves float32: a layer norm's
output times two matrices of 4096 such weights is below 1e18, its square below 1e36."""
_SHIPPED = Path(str(files("syndistill") / "pretrained"))
_REMEDY = "the file was not written by this project, or was changed; get a fresh copy"
_DIVERGED = "the training diverged, take an older checkpoint"

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Header:
    """What a network file says of itself. config: as saved; metadata: how it was made."""

    path: Path
    dials: Dials
    config: Mapping[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, eq=False)
class NetworkFile(Header):
    """A whole one: every tensor that its dials ask for, float32, finite, of sane size."""

    tensors: Arrays

    @cached_property
    def sha256(self) -> str:
        return weights_sha256(self.tensors)


def shipped_names() -> list[str]:
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def shipped_card(name: str) -> Path:
    return _SHIPPED / f"{name}.json"


EXACT: Literal["exact"] = "exact"
"""Among the members of an ensemble: the exact posterior."""


def members_in(name: str) -> list[str]:
    """The decoders that a name lists, "teacher-d3,other.safetensors,exact"; itself where it is no list."""
    members = [name] if os.path.isfile(name) else [member.strip() for member in name.split(",")]
    if len(set(members)) != len(members) or (len(members) > 1 and "" in members):
        raise SyndistillError(f"the ensemble {name!r} names a member twice, or none between two commas; name each once")
    return members


def network_path(name_or_path: str | Path) -> Path | None:
    """The file of a shipped name or of a path to a safetensors file; None when it is neither."""
    if not isinstance(name_or_path, str | Path):
        raise SyndistillError(f"a {type(name_or_path).__name__} is no network; give a shipped name or a path")
    if str(name_or_path) in shipped_names():
        return _SHIPPED / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    return path if path.suffix == ".safetensors" or os.path.isfile(path) else None


def read_header(name_or_path: str | Path) -> Header:
    """Of a shipped name or a path, whatever the family; no tensor is read. SyndistillError as of `read_network`."""
    path = _located(name_or_path)
    return _header(path, read_sealed(path, tensors=False))


def read_network(name_or_path: str | Path) -> NetworkFile:
    """A network by shipped name or by path.

    SyndistillError for a file that is missing, changed since it was written, of another kind or format, and for weights
    that do not fit the config, are not finite, or of absurd size.
    """
    path = _located(name_or_path)
    found = read_sealed(path)
    header = _header(path, found)
    tensors = numpy_tensors(found.content)
    check_weights(str(path), tensors)
    try:
        header.dials.check_values(tensors)
    except SyndistillError as error:
        raise SyndistillError(f"{path}: {error}; {_REMEDY}") from None
    return NetworkFile(header.path, header.dials, header.config, header.metadata, tensors)


def check_weights(where: str, tensors: Arrays) -> None:
    """SyndistillError for NaN, infinity, and numbers that no training gives and that overflow in an engine."""
    bad = sorted(name for name, tensor in tensors.items() if not np.isfinite(tensor).all())
    if bad:
        raise SyndistillError(f"{where}: NaN or infinity in {_some(bad)}; {_DIVERGED}")
    large = sorted(name for name, tensor in tensors.items() if tensor.size and np.abs(tensor).max() > LARGEST_WEIGHT)
    if large:
        raise SyndistillError(f"{where}: weights above {LARGEST_WEIGHT:g} in {_some(large)}; {_DIVERGED}")


def weights_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and bytes of all weights, in the order of their names: rows and cards refer to
    it. The types are named as PyTorch names them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} torch.{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def trained_rounds(metadata: Any) -> int | None:
    """The most rounds that a network file's metadata says the shots of its last leg had; None where it says nothing,
    and of one that was told the frame between parts: it errs as often in round 100 as in round 30 (docs/long.md).

    What a network saw in earlier legs alone it does not keep: student-d5 began at up to 25 rounds and ended at 5.
    """
    legs = metadata.get("legs") if isinstance(metadata, Mapping) else None
    if isinstance(legs, list) and legs:
        return trained_rounds(legs[-1])
    return None if _told_frames(metadata) else _most_rounds(metadata)


def _told_frames(metadata: Any) -> bool:
    if not isinstance(metadata, Mapping | list):
        return False
    inner = metadata if isinstance(metadata, list) else list(metadata.values())
    told = isinstance(metadata, Mapping) and metadata.get("tell_frame") is True
    return told or any(_told_frames(value) for value in inner)


def _most_rounds(metadata: Any) -> int | None:
    inner = list(metadata.values()) if isinstance(metadata, Mapping) else metadata
    if not isinstance(inner, list):
        return None
    found = [rounds for value in inner if (rounds := _most_rounds(value)) is not None]
    curriculum = metadata.get("curriculum") if isinstance(metadata, Mapping) else None
    phases = curriculum.get("rounds") if isinstance(curriculum, Mapping) else None
    for phase in phases if isinstance(phases, list) else []:
        rounds = phase.get("rounds") if isinstance(phase, Mapping) else None
        found += [r for r in rounds if isinstance(r, int)] if isinstance(rounds, list) else []
    return max(found, default=None)


def _located(name_or_path: str | Path) -> Path:
    path = network_path(name_or_path)
    if path is None or not os.path.isfile(path):
        hint = did_you_mean(str(name_or_path), shipped_names())
        raise SyndistillError(
            f"there is no file {name_or_path}{hint}; check the path, or take a shipped network: "
            f"{', '.join(shipped_names())}"
        )
    return path


def _header(path: Path, found: Sealed) -> Header:
    said = found.metadata
    config, metadata = said.get("config"), said.get("metadata")
    if said.get("what") != WHAT or not isinstance(config, dict) or not isinstance(metadata, dict):
        raise SyndistillError(f"{path} is a safetensors file but no network of this project; give one that is")
    if said.get("format") != FORMAT or said.keys() - KEYS:
        foreign = "".join(f" with {key}" for key in sorted(said.keys() - KEYS))
        raise SyndistillError(
            f"{path} is of network format {said.get('format')}{foreign}, this version reads {FORMAT}; install the "
            "version of syndistill that wrote it"
        )
    try:
        dials = dials_of(config)
    except SyndistillError as error:
        raise SyndistillError(f"{path}: {error}") from None
    _check_shapes(path, found.header, dials)
    return Header(path, dials, config, metadata)


def _check_shapes(path: Path, header: dict[str, Any], dials: Dials) -> None:
    """What the header says of tensors against the config, before any of them is looked at."""
    there = {name: tensor for name, tensor in header.items() if name != METADATA}
    expected = dials.shapes()
    for kind, names in (("lacks", expected.keys() - there.keys()), ("has foreign", there.keys() - expected.keys())):
        if names:
            raise SyndistillError(f"{path} {kind} weights {_some(sorted(names))}; {_REMEDY}")
    for name, shape in expected.items():
        dtype, found = there[name]["dtype"], tuple(there[name]["shape"])
        if (dtype, found) != ("F32", shape):
            raise SyndistillError(f"{path}: {name} is {dtype} {found} where its config asks for F32 {shape}; {_REMEDY}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
