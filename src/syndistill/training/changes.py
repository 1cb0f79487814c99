"""One setting of a nested configuration changed by its dotted key, as --set and the arms of an ablation do."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from syndistill.errors import SyndistillError


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
        raise SyndistillError(f"{where}: {key!r} is unknown{nearest(key, content)}; keys: {', '.join(content)}")
    return content | {key: changed(content[key], rest, value, where) if rest else value}


def nearest(name: str, known: Any) -> str:
    """The nearest of the known names as a question in brackets, or nothing where none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
