"""Safetensors files that know their own content: two hashes in the metadata, by which one changed bit is found.

`tensors_sha256` is of the bytes of the tensors; `header_sha256` of everything before them (length, names, types,
shapes, metadata, the other hash), with its own digits as zeros. So a header can be trusted before a tensor is read.

    python -m syndistill.files.tensors FILE...     # gives files of versions before 0.1.0 their hashes
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, deserialize

from syndistill.errors import SyndistillError
from syndistill.safe_files import replacing

OF_HEADER, OF_TENSORS = "header_sha256", "tensors_sha256"
METADATA = "__metadata__"
_ZEROS = "0" * 64
_DIGITS = re.compile(rb'"header_sha256":"([0-9a-f]{64})"')
_MOST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


class Sealed(NamedTuple):
    """A file whose hashes are right. header: JSON of its beginning, metadata: of the values in it, content: all bytes.

    Of a file whose tensors were not read, content is the header's part.
    """

    header: dict[str, Any]
    metadata: dict[str, Any]
    content: bytes


def seal(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """The same tensors as a file with this metadata (what JSON knows, by name) and its hashes."""
    size = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:size])
    tensors.pop(METADATA, None)
    texts = {key: json.dumps(metadata[key]) for key in sorted(metadata)}
    hashes = {OF_HEADER: _ZEROS, OF_TENSORS: hashlib.sha256(content[size:]).hexdigest()}
    text = json.dumps({METADATA: hashes | texts} | tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = len(text).to_bytes(8, "little")
    digest = hashlib.sha256(begin + text).hexdigest()
    return begin + _DIGITS.sub(f'"{OF_HEADER}":"{digest}"'.encode(), text, count=1) + content[size:]


def write_sealed(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def read_sealed(path: Path, tensors: bool = True) -> Sealed:
    """A file of this project whose hashes are right; SyndistillError in one line for any other.

    tensors: False reads and checks the header alone.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
            size = int.from_bytes(begin, "little")
            content = begin + (file.read(size) if size <= _MOST_HEADER else b"")
            rest = file.read() if tensors else b""
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise SyndistillError(f"cannot read {path}: {reason}; check the path") from None
    header = _checked_header(path, content)
    texts = header[METADATA]
    if tensors and hashlib.sha256(rest).hexdigest() != texts.get(OF_TENSORS):
        raise _damaged(path, "its tensors are not those that were written")
    metadata = {key: json.loads(value) for key, value in texts.items() if key not in (OF_HEADER, OF_TENSORS)}
    return Sealed(header, metadata, content + rest)


def _checked_header(path: Path, content: bytes) -> dict[str, Any]:
    found = _DIGITS.search(content)
    if found is None:
        raise _without_hash(path, content)
    zeroed = content[: found.start(1)] + _ZEROS.encode() + content[found.end(1) :]
    if hashlib.sha256(zeroed).hexdigest().encode() != found[1]:
        raise _damaged(path, "its header is not the one that was written")
    header: dict[str, Any] = json.loads(content[8:])
    return header


def _damaged(path: Path, what: str) -> SyndistillError:
    return SyndistillError(f"{path} is damaged: {what} (content hash); get a fresh copy")


def _without_hash(path: Path, content: bytes) -> SyndistillError:
    """Of a header without digits: an older or foreign file, or no such file at all. None is loaded as it is: an
    exception for files without a hash would pass every change that takes the hash away."""
    try:
        is_header = isinstance(json.loads(content[8:]), dict)
    except (ValueError, RecursionError):
        is_header = False
    if not is_header:
        return SyndistillError(f"{path} is no whole safetensors file of this project; get a fresh copy")
    return SyndistillError(
        f"{path} has no content hash: it is foreign, was changed, or is of a version that wrote none; if you trust it, "
        f"python -m syndistill.files.tensors {path} adds one"
    )


def adopt(path: Path) -> bool:
    """Gives a whole file of an earlier version its hashes; False where it has them and they are right."""
    try:
        content = path.read_bytes()
        if _DIGITS.search(content[: 8 + int.from_bytes(content[:8], "little")]):
            read_sealed(path)
            return False
        deserialize(content)
        texts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get(METADATA, {})
        metadata = {key: json.loads(value) for key, value in texts.items()}
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (SafetensorError, ValueError, RecursionError) as error:
        what = f"{path} is no whole safetensors file of this project"
        raise SyndistillError(f"{what} ({error}); get a fresh copy") from None
    write_sealed(path, seal(content, metadata))
    return True


def main(arguments: list[str]) -> int:
    try:
        for name in arguments:
            print(f"{name}: {'hashes added' if adopt(Path(name)) else 'has its hashes, and they are right'}")
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
