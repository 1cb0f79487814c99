"""The one exception that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SyndistillError(Exception):
    """Bad input: one line that says what is wrong, where, and how to mend it (CLI exit code 2)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a message: the known name that is nearest to a mistyped one, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
