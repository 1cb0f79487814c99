"""What says which cache it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from syndistill.errors import SyndistillError
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


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise SyndistillError(f"{folder} holds no finished cache (no {MANIFEST}); write it first")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise SyndistillError(f"{path} is damaged; delete {folder} and write it anew") from None
    if manifest.get("format") != FORMAT:
        raise SyndistillError(f"{path} is of format {manifest.get('format')}, this version reads {FORMAT}")
    return manifest


def is_of(folder: Path, key: CacheKey) -> bool:
    """Whether the folder holds a cache of this key, finished or being written."""
    if (folder / MANIFEST).is_file():
        return bool(read_manifest(folder)["key"] == key.model_dump())
    begun = folder / BEGUN
    return begun.is_file() and json.loads(begun.read_text()) == key.model_dump()


def matching_manifest(folder: Path, key: CacheKey) -> dict[str, Any]:
    """SyndistillError for a cache that was made from anything else than the key says."""
    manifest = read_manifest(folder)
    found, wanted = manifest["key"], key.model_dump()
    if wrong := [k for k in wanted if found.get(k) != wanted[k]]:
        raise SyndistillError(
            f"the cache {folder} was made from another {' and another '.join(wrong)} than this run's; "
            "point the run at its own cache or write a new one"
        )
    return manifest
