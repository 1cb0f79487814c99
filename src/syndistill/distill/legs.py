"""A Student trained in legs, each from the weights of the one before: how every shipped Student came to be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from syndistill.decoders.engine_for import way_in
from syndistill.distill.student import STUDENT_FILE, StudentRun
from syndistill.files.network_file import members_in
from syndistill.training.config import Strict

EARLIER = "leg:"
"""Before a leg's name: its weights, wherever a run names a network."""


class Legs(Strict):
    """Complete runs in order, by name. A later one names an earlier one's weights `leg:NAME`."""

    kind: Literal["legs"] = "legs"
    legs: dict[str, StudentRun] = Field(min_length=1)

    @model_validator(mode="after")
    def _earlier_legs_exist(self) -> Legs:
        known: set[str] = set()
        for name, run in self.legs.items():
            if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
                raise ValueError(f"a leg's name is a folder's: letters a to z, digits and -, not {name!r}")
            for other in _named(run):
                if other not in known:
                    raise ValueError(f"the leg {name} begins from {EARLIER}{other}, which is no earlier leg")
            known.add(name)
        return self

    @property
    def last(self) -> str:
        return list(self.legs)[-1]

    def leg(self, name: str, folder: Path) -> StudentRun:
        """A leg as a run of its own, earlier weights where the legs in `folder` leave them."""
        run = self.legs[name]
        unsure = run.data.unsure
        if unsure is not None:
            unsure = unsure.model_copy(update={"network": _where(unsure.network, folder)})
        start = None if run.start_from is None else _where(run.start_from, folder)
        teacher = ",".join(_where(member, folder) for member in members_in(run.teacher))
        data = run.data.model_copy(update={"unsure": unsure})
        return run.model_copy(update={"start_from": start, "teacher": teacher, "data": data})


def result_of(leg: str, folder: Path) -> Path:
    return folder / leg / STUDENT_FILE


def _where(name: str, folder: Path) -> str:
    """A network's name, or the path of an earlier leg's weights; the way to run it stays behind it."""
    if not name.startswith(EARLIER):
        return name
    leg, way = way_in(name.removeprefix(EARLIER))
    return str(result_of(leg, folder)) + (f":{way}" if way else "")


def _named(run: StudentRun) -> list[str]:
    """The legs whose weights a run takes up."""
    names = [run.start_from, run.data.unsure.network if run.data.unsure else None, *members_in(run.teacher)]
    named = [name.removeprefix(EARLIER) for name in names if name is not None and name.startswith(EARLIER)]
    return [way_in(name)[0] for name in named]
