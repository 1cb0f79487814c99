"""Files that a kill, a full disk or a second process can't break: the one place that writes, locks and reads them.

A file is written beside its place and renamed over it, so that a reader finds the old one or the new one, whole. What a
killed process left beside (`.NAME.PID.tmp`) is removed by the next one that writes the same file or locks the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from syndistill.errors import SyndistillError

LOCK_FILE = ".lock"
_BESIDE = re.compile(r"\..+\.(?P<pid>\d+)\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; renamed over `path` when the block ends without error.

    Makes parent folders. A folder replaces none: `path` must not exist then. Raises SyndistillError for what the system
    refuses (no permission, no space), and leaves `path` as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent, path.name)
        yield beside
        if beside.is_file():
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise SyndistillError(f"cannot write {path}: {_reason(error)}; nothing was changed") from error
    finally:
        _remove(beside)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all; NaN and infinity are no JSON and a ValueError."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file; SyndistillError, ending in `remedy`, where it can't be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {_reason(error)}; {remedy}") from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise SyndistillError(f"{path} is damaged or no JSON ({type(error).__name__}); {remedy}") from None


@contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Makes the folder and holds its lock; SyndistillError at once where another process holds it.

    what: what the folder is to its user ("run folder"). Whoever holds the lock is alone, so what lies beside files is
    left over and is removed.
    """
    with locked(folder / LOCK_FILE, f"the {what} {folder}"):
        _remove_stale(folder, None)
        yield


@contextmanager
def locked(lock: Path, what: str, wait: float = 0) -> Iterator[None]:
    """Holds a lock file for the block, waiting up to `wait` seconds; SyndistillError where another process keeps it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire(timeout=wait)
    except Timeout:
        raise SyndistillError(f"another process uses {what}; wait for it or choose another place") from None
    except OSError as error:
        raise SyndistillError(f"cannot use {what}: {_reason(error)}; choose another place") from None
    try:
        yield
    finally:
        held.release()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(content: Any) -> str:
    """Of content that JSON knows, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _remove_stale(folder: Path, name: str | None) -> None:
    """What ended processes left beside the file of this name; None: beside any, whoever left it."""
    for left in folder.iterdir():
        found = _BESIDE.fullmatch(left.name)
        if found is None or (name is not None and not left.name.startswith(f".{name}.")):
            continue
        if name is None or not _lives(int(found["pid"])):
            _remove(left)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or below a file where a folder should be
            path.unlink()
