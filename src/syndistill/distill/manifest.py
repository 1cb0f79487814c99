"""What says which cache it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from syndistill.errors import SyndistillError
from syndistill.safe_files import read_sealed
from syndistill.training.config import Strict

MANIFEST = "manifest.json"
BEGUN = "begun.json"
"""The key of a cache that is being written."""
FORMAT = 1


class CacheKey(Strict):
    """What a cache was made from; a run that wants anything else refuses it."""

    teacher: str
    """`Teacher.key`."""
    shots: dict[str, Any]
    """Configuration of the source of shots, seed and number of chunks included."""
    circuits: str
    """Hash of the noisy circuits behind the shots."""


class Shard(Strict):
    """A file of shots of one basis and number of rounds, and the hash of its bytes."""

    name: str = Field(pattern=r"^[\w-][\w.-]*$")
    sha256: str
    basis: str
    rounds: int = Field(gt=0)
    shots: int = Field(gt=0)
    distance: int = Field(gt=0)


class Chunk(Strict):
    """The shards of one chunk of shots."""

    shards: list[Shard]


class Manifest(Strict):
    """A finished cache."""

    format: int
    key: CacheKey
    shards: list[Shard]


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise SyndistillError(f"{folder} holds no finished cache (no {MANIFEST}); write it first")
    manifest: Manifest = read_sealed(path, f"delete {folder} and write it anew", Manifest)
    if manifest.format != FORMAT:
        raise SyndistillError(f"{path} is of format {manifest.format}, this version reads {FORMAT}; write it anew")
    return manifest


def begun_key(folder: Path) -> CacheKey | None:
    """Of a cache that was begun; None where there is none."""
    path = folder / BEGUN
    if not path.exists():
        return None
    key: CacheKey = read_sealed(path, f"delete {folder} and write it anew", CacheKey)
    return key


def is_of(folder: Path, key: CacheKey) -> bool:
    """Whether the folder holds a cache of this key, finished or being written."""
    if (folder / MANIFEST).is_file():
        return read_manifest(folder).key == key
    return begun_key(folder) == key


def matching_manifest(folder: Path, key: CacheKey) -> Manifest:
    """SyndistillError for a cache that was made from anything else than the key says."""
    manifest = read_manifest(folder)
    if wrong := [what for what in CacheKey.model_fields if getattr(manifest.key, what) != getattr(key, what)]:
        raise SyndistillError(
            f"the cache {folder} was made from another {' and another '.join(wrong)} than this run's; "
            "point the run at its own cache or write a new one"
        )
    return manifest
