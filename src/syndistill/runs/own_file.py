"""A configuration of one's own, made by a function of a Python file."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TypeVar

from syndistill.errors import SyndistillError

Made = TypeVar("Made")


def made_by(path: Path, function: str, kind: type[Made], words: str) -> Made:
    """What `function()` of the file gives, of this kind. SyndistillError for a file that raises or gives another."""
    try:
        make = runpy.run_path(str(path)).get(function)
        made = make() if callable(make) else None
    except SyndistillError:
        raise
    except Exception as error:  # whatever a user's file does
        reason = " ".join(str(error).split()) or "no message"
        raise SyndistillError(f"{path} cannot be read ({type(error).__name__}: {reason}); mend it") from None
    if not isinstance(made, kind):
        raise SyndistillError(f"{path} has no function {function}() that gives {words}; write one")
    return made
