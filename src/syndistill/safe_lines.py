"""A file of JSON objects, one a line, that any number of processes append to.

Every line carries the hash of its own content (`safe_files.sealed`); lines of earlier versions have none. A last line
without its end is what a kill or a full disk leaves of a write: it is dropped with a warning, and cut off by the next
process that writes. Damage anywhere else is refused.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from syndistill.errors import SyndistillError
from syndistill.safe_files import locked, parsed, reason, sealed, unsealed


class TornLine(UserWarning):
    """A last line was cut short by a kill or a full disk."""


class SealedLines:
    """What is new in the file since the last look, and appending to it.

    remedy: ends the SyndistillError about a damaged line.
    """

    def __init__(self, path: Path, remedy: str) -> None:
        self.path, self.remedy = path, remedy
        self._read_to, self._lines = 0, 0

    def new(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, content) of each whole line not read yet. SyndistillError for a damaged one."""
        for line in self._whole_lines():
            self._lines += 1
            try:
                yield self._lines, unsealed(parsed(line))
            except ValueError as error:
                raise self.damaged(self._lines, f"{type(error).__name__}: {error}") from None

    def damaged(self, number: int, why: str) -> SyndistillError:
        return SyndistillError(f"{self.path} line {number} is damaged or of another version ({why}): {self.remedy}")

    def require_writable(self) -> None:
        """Makes the file where there is none; SyndistillError where it can't be written, before any work is done."""
        try:
            with open(self.path, "ab"):
                pass
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> SyndistillError:
        return SyndistillError(f"cannot use {self.path} as a file of rows ({reason(error)}): choose another path")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Alone with the file for a moment, its torn last line cut off: read what is `new`, then `append`."""
        lock = self.path.with_name(f".{self.path.name}.lock")
        with locked(lock, f"the file of rows {self.path}", wait=-1):
            cut_torn_line(self.path)
            yield

    def append(self, contents: Iterable[dict[str, Any]]) -> None:
        """In one write, flushed to the disk; only while `held`."""
        lines = (json.dumps(sealed(content), allow_nan=False, separators=(",", ":")) for content in contents)
        text = "".join(f"{line}\n" for line in lines)
        append_text(self.path, text)
        self._read_to += len(text.encode())
        self._lines += text.count("\n")

    def _whole_lines(self) -> list[bytes]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise self._unusable(error) from None
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            _warn_torn(self.path)
        self._read_to += len(whole)
        return whole.split(b"\n")[:-1]


def _warn_torn(path: Path) -> None:
    warnings.warn(f"the last line of {path} was cut short by a kill or a full disk and is left out", TornLine, 4)


def cut_torn_line(path: Path) -> bool:
    """Cuts off a last line without its end, with a warning; only for who is alone with the file. Whether there was."""
    try:
        if not path.is_file():
            return False
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0 or _ends_whole(file, size):
                return False
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
    except OSError as error:
        raise SyndistillError(f"cannot write {path}: {reason(error)}; nothing was changed") from None
    _warn_torn(path)
    return True


def _ends_whole(file: Any, size: int) -> bool:
    file.seek(size - 1)
    return bool(file.read(1) == b"\n")


def append_text(path: Path, text: str, sync: bool = True) -> None:
    """In one write; where the disk is full or the file can't be written, it stays as it was: SyndistillError.

    sync: come back when it is on the disk.
    """
    if not text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, text.encode())
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        said = f"cannot write {path}: {reason(error)}; free some space or choose another place"
        raise SyndistillError(said) from None


def _write_all(file: Any, data: bytes) -> None:
    """A disk that is nearly full takes a part of a write first."""
    while data:
        data = data[file.write(data) :]
