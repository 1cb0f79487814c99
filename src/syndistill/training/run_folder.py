"""A run's folder: run.json says everything that re-creates it; a finished or foreign folder is never written to."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from syndistill.errors import SyndistillError
from syndistill.safe_files import foreign_files, json_sha256, locked_folder, read_sealed, remove_stale, write_sealed
from syndistill.training.distributed import ALONE, World, wait_for_all

RUN_FILE = "run.json"
FORMAT = 1
REMEDY = "a run.json is made by a run, and changed with --set; take a fresh copy, or start in another folder"
PATIENCE = 5.0
"""Seconds to wait for the lock of a run folder: a killed sweep's workers end a moment after it."""


def versions() -> dict[str, str]:
    """Versions that results may depend on."""
    packages = ("syndistill", "torch", "stim", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@contextmanager
def open_run(
    folder: Path, config: BaseModel, hashes: dict[str, str], result: str, world: World = ALONE
) -> Iterator[None]:
    """Make the folder and its run.json, or accept it when it holds the same unfinished run; alone with it in the block.

    result: name of the file that marks the run as finished. world: its first process does it, for all. Raises
    SyndistillError when the run is finished, the folder holds another run or other files, another process is at work in
    it, or it can't be written.
    """
    if not world.is_first:
        wait_for_all(world)
        yield
        return
    _holds(folder, config, hashes, result)  # before anything is written, a lock included
    with locked_folder(folder, "run folder", PATIENCE):
        if not _holds(folder, config, hashes, result):
            wanted = json.loads(config.model_dump_json())
            content = {"format": FORMAT, "config": wanted, "hashes": hashes, "versions": versions()}
            write_sealed(folder / RUN_FILE, content)
        remove_stale(folder)
        wait_for_all(world)
        yield


def _holds(folder: Path, config: BaseModel, hashes: dict[str, str], result: str) -> bool:
    """Whether the folder holds this unfinished run; False where it is empty."""
    if (folder / result).exists():
        raise SyndistillError(f"{folder} holds a finished run ({result}); choose another --out, nothing was changed")
    run_file = folder / RUN_FILE
    if run_file.exists():
        found = read_run(run_file)
        if not is_of_config(found, config) or found["hashes"] != hashes:
            wanted = json.loads(config.model_dump_json())
            raise SyndistillError(
                f"{folder} holds a run of another configuration ({_difference(found, wanted, hashes)}); "
                "choose another --out"
            )
        return True
    if foreign_files(folder):
        raise SyndistillError(f"{folder} is not empty and holds no {RUN_FILE}; choose another --out")
    return False


def read_run(path: Path) -> dict[str, Any]:
    """The content of a run.json."""
    return run_in(read_sealed(path, REMEDY), path)


def run_in(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same content, as far as it is a run.json's; SyndistillError where it is not."""
    if content.get("format") != FORMAT or not isinstance(content.get("config"), dict):
        raise SyndistillError(f"{path} is no run.json of format {FORMAT}; {REMEDY}")
    if not isinstance(content.setdefault("hashes", {}), dict):
        raise SyndistillError(f"{path} is damaged (hashes); {REMEDY}")
    return content


def is_of_config(found: dict[str, Any], config: BaseModel) -> bool:
    """Whether a run.json's content says this configuration. Options that were not there yet when it was written have
    their defaults, which mean what was done before there were any."""
    wanted, saved = config.model_dump(mode="json"), found["config"]
    try:
        return bool(saved == wanted or type(config).model_validate(saved).model_dump(mode="json") == wanted)
    except ValidationError:
        return False


def run_key(folder: Path) -> str | None:
    """The hash of a folder's run, by which its state is known; None where there is no run.json."""
    path = folder / RUN_FILE
    if not path.exists():
        return None
    content = read_run(path)
    return json_sha256([content["config"], content["hashes"]])


def _difference(found: dict[str, Any], wanted: dict[str, Any], hashes: dict[str, str]) -> str:
    old, new = _flat(found["config"] | {"hashes": found["hashes"]}), _flat(wanted | {"hashes": hashes})
    keys = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    return "; ".join(f"{k}: {old.get(k)} there, {new.get(k)} now" for k in keys[:3])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}
