"""A run's folder: run.json says everything that re-creates it; a finished or foreign folder is never written to."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from syndistill.errors import SyndistillError

RUN_FILE = "run.json"
FORMAT = 1


def versions() -> dict[str, str]:
    """Versions that results may depend on."""
    packages = ("syndistill", "torch", "stim", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise SyndistillError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from None
    finally:
        if beside.exists():
            beside.unlink()


def open_run(folder: Path, config: BaseModel, hashes: dict[str, str], result: str) -> None:
    """Make the folder and its run.json, or accept it when it holds the same unfinished run.

    result: name of the file that marks the run as finished. Raises SyndistillError when the run is finished,
    the folder holds another run or other files, or it can't be written.
    """
    wanted = json.loads(config.model_dump_json())
    if (folder / result).exists():
        raise SyndistillError(f"{folder} holds a finished run ({result}); choose another --out, nothing was changed")
    run_file = folder / RUN_FILE
    if run_file.exists():
        found = read_run(run_file)
        if found["config"] != wanted or found["hashes"] != hashes:
            raise SyndistillError(
                f"{folder} holds a run of another configuration ({_difference(found, wanted, hashes)}); "
                "choose another --out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyndistillError(f"cannot make the run folder {folder}: {error.strerror}; choose another --out") from None
    if any(folder.iterdir()):
        raise SyndistillError(f"{folder} is not empty and holds no {RUN_FILE}; choose another --out")
    write_json(run_file, {"format": FORMAT, "config": wanted, "hashes": hashes, "versions": versions()})


def read_run(path: Path) -> dict[str, Any]:
    """The content of a run.json."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise SyndistillError(f"{path} is no JSON (line {error.lineno}); a run.json is made by a run") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "config" not in content:
        raise SyndistillError(f"{path} is no run.json of format {FORMAT}")
    content.setdefault("hashes", {})
    return content


def _difference(found: dict[str, Any], wanted: dict[str, Any], hashes: dict[str, str]) -> str:
    old, new = _flat(found["config"] | {"hashes": found["hashes"]}), _flat(wanted | {"hashes": hashes})
    keys = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    return "; ".join(f"{k}: {old.get(k)} there, {new.get(k)} now" for k in keys[:3])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}
