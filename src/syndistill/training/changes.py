"""Configurations from content: one setting changed by its dotted key, as --set and the arms of an ablation do; and the
check of the whole."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from syndistill.errors import SyndistillError, did_you_mean
from syndistill.training.config import Strict


def with_change(content: dict[str, Any], change: str) -> dict[str, Any]:
    """A copy with one "key.path=value" applied; the value is JSON where it can be read as such, else text."""
    path, equals, text = change.partition("=")
    if not equals:
        raise SyndistillError(f"--set {change!r} is not key.path=value, for example training.steps=1000")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: also a number of more digits than Python reads
        value = text
    return changed(content, path.strip().split("."), value, f"--set {path.strip()}")


def changed(content: Any, keys: list[str], value: Any, where: str) -> dict[str, Any]:
    """A copy with the value below these keys replaced; `where` begins the SyndistillError for a key that is unknown."""
    key, *rest = keys
    if not isinstance(content, dict):
        raise SyndistillError(f"{where}: there are no settings below it; set the whole value as JSON")
    if key not in content:
        raise SyndistillError(f"{where}: {key!r} is unknown{did_you_mean(key, content)}; keys: {', '.join(content)}")
    return content | {key: changed(content[key], rest, value, where) if rest else value}


def validated(model: type[Strict], content: Any, where: str) -> Any:
    """A config from untrusted content; SyndistillError names the key that does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(content, first["loc"], missing=first["type"] == "missing") or "config"
        raise SyndistillError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}") from None


def _key(content: Any, parts: tuple[Any, ...], missing: bool) -> str:
    """The dotted key in `content` of a fault's place, which names the kinds of a union too."""
    found = []
    for part in parts:
        in_dict = isinstance(content, dict) and part in content
        if in_dict or (isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)):
            content = content[part]
        elif not (missing and part == parts[-1]):
            continue
        found.append(str(part))
    return ".".join(found)
