"""Files that a kill, a full disk or a second process can't break: the one place that writes, locks and reads them.

A file is written beside its place and renamed over it, so that a reader finds the old one or the new one, whole. What a
killed process left beside (`.NAME.PID.tmp`) is removed by the next one that writes the same file or owns the folder.
What decides results is sealed: it carries the hash of its own content. Lines that several processes append to one file
are in `safe_lines`.
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
from typing import TYPE_CHECKING, Any

from syndistill.errors import SyndistillError
from syndistill.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from filelock import FileLock
    from pydantic import ValidationError

LOCK_FILE = ".lock"
SEAL = "sha256"
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
        _remove_stale_of(path)
        yield beside
        if beside.is_file():
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise SyndistillError(f"cannot write {path}: {reason(error)}; nothing was changed") from error
    finally:
        _remove(beside)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all; NaN and infinity are no JSON."""
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError:
        raise SyndistillError(f"cannot write {path}: a number is not finite; nothing was changed") from None
    write_text(path, text + "\n")


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """`write_json` of the content and its own hash, which `read_sealed` looks at."""
    write_json(path, sealed(content))


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file; SyndistillError, ending in `remedy`, where it can't be read or is no JSON."""
    try:
        return parsed(path.read_bytes())
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {reason(error)}; {remedy}") from None
    except ValueError as error:
        raise SyndistillError(f"{path} is damaged or no JSON ({type(error).__name__}); {remedy}") from None


def read_sealed(path: Path, remedy: str, kind: Any = dict[str, Any]) -> Any:
    """What `write_sealed` wrote, without its hash, as a `kind` (a type that pydantic knows).

    Files of earlier versions have no hash and are taken as they are. SyndistillError, ending in `remedy`, for one that
    can't be read, was changed, or holds something else.
    """
    from pydantic import TypeAdapter, ValidationError  # here: networks run without it

    content = read_json(path, remedy)
    try:
        return TypeAdapter(kind).validate_python(unsealed(content))
    except ValidationError as error:
        raise SyndistillError(f"{path} is damaged ({first_fault(error)}); {remedy}") from None
    except ValueError as error:
        raise SyndistillError(f"{path} is damaged ({error}); {remedy}") from None


def parsed(data: bytes) -> Any:
    """JSON; ValueError for anything else."""
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("too deep for JSON of this project") from None


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """With the hash of the content as its last entry."""
    return {**content, SEAL: json_sha256(content)}


def unsealed(content: Any) -> dict[str, Any]:
    """Without the hash; ValueError where it is of another content, or where there is no object."""
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where an object belongs")
    inner = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != json_sha256(inner):
        raise ValueError("its content is not what its sha256 says")
    return inner


def first_fault(error: ValidationError) -> str:
    """Of content that does not fit: where and what, in a few words."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


@contextmanager
def locked_folder(folder: Path, what: str, wait: float = 0) -> Iterator[None]:
    """Makes the folder and holds its lock; SyndistillError where another process holds it for longer than `wait` s.

    what: what the folder is to its user ("run folder").
    """
    with locked(folder / LOCK_FILE, f"the {what} {folder}", wait):
        yield


@contextmanager
def locked(lock: Path, what: str, wait: float = 0, reporter: Reporter = SILENT) -> Iterator[None]:
    """Holds a lock file for the block, waiting up to `wait` seconds (negative: as long as it takes).

    The process that holds it may take it once more. reporter: told once when there is something to wait for.
    SyndistillError where another process keeps the lock, or where the file can't be made.
    """
    from filelock import FileLock  # here: a decoder that only reads need not load it

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock.absolute(), is_singleton=True)
        _acquire(held, what, wait, reporter)
    except TimeoutError:  # which filelock's Timeout is
        raise SyndistillError(f"another process uses {what}; wait for it or choose another place") from None
    except OSError as error:
        raise SyndistillError(f"cannot use {what}: {reason(error)}; choose another place") from None
    try:
        yield
    finally:
        held.release()


def _acquire(held: FileLock, what: str, wait: float, reporter: Reporter) -> None:
    try:
        held.acquire(timeout=0)
    except TimeoutError:
        if not wait:
            raise
        reporter.say(f"waiting for another process that uses {what}")
        held.acquire(timeout=wait)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(content: Any) -> str:
    """Of content that JSON knows, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reason(error: OSError) -> str:
    """In the system's words."""
    return error.strerror or str(error)


def foreign_files(folder: Path) -> list[Path]:
    """What the folder holds beside locks and what killed processes left; nothing where there is no folder."""
    try:
        found = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SyndistillError(f"cannot use {folder}: {reason(error)}; choose another place") from None
    return sorted(path for path in found if path.name != LOCK_FILE and not _BESIDE.fullmatch(path.name))


def remove_stale(folder: Path) -> None:
    """What killed processes left in a folder of ours and below it, but for folders that have a lock of their own.

    For whoever holds the folder's lock: nobody else writes there.
    """
    for path in list(folder.iterdir()):
        if _BESIDE.fullmatch(path.name):
            _remove(path)
        elif path.is_dir() and not path.is_symlink() and not (path / LOCK_FILE).exists():
            remove_stale(path)


def _remove_stale_of(path: Path) -> None:
    """What ended processes left beside this file."""
    for left in path.parent.iterdir():
        found = _BESIDE.fullmatch(left.name)
        if found is not None and left.name.startswith(f".{path.name}.") and not _lives(int(found["pid"])):
            _remove(left)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return pid != os.getpid()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # it is not there, or can't be removed: what matters is why it was not written
            path.unlink()
