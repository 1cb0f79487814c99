"""From what a user names (a recipe, a file of one's own, an earlier run.json) and changes (--set) to a complete run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from syndistill.distill.cache.source import shots_in
from syndistill.distill.fuse import FuseRun
from syndistill.distill.legs import Legs
from syndistill.distill.road import RoadRun, result_file
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.teacher import BF16
from syndistill.distill.student import StudentRun, student_hashes
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.models.networks import load_network, weights_hash
from syndistill.recipes import RECIPES, recipe
from syndistill.runs.own_file import made_by
from syndistill.safe_files import read_sealed
from syndistill.training.changes import validated, with_change
from syndistill.training.config import Strict
from syndistill.training.run import TeacherRun
from syndistill.training.run_folder import run_in
from syndistill.training.source import data_hashes

Run = TypeVar("Run", bound=Strict)
_VERBS: dict[str, tuple[str, type[TeacherRun | StudentRun | FuseRun | RoadRun | Legs]]] = {
    "teacher": ("train", TeacherRun),
    **dict.fromkeys(("baseline", "stage1", "fused", "stage2"), ("distill", StudentRun)),
    "fuse": ("distill", FuseRun),
    "road": ("distill", RoadRun),
    "legs": ("distill", Legs),
}


def chosen_run(kind: type[Run], name: str, changes: Sequence[str]) -> Run:
    """The run that `name` means, with "key.path=value" changes applied.

    Raises SyndistillError for an unknown name or key (naming the nearest), a value that does not fit, a run of
    another kind, or a run.json whose networks are no longer what they were.
    """
    run: Run = _chosen((kind,), name, changes)
    return run


def chosen_distillation(name: str, changes: Sequence[str]) -> StudentRun | FuseRun | RoadRun | Legs:
    """As `chosen_run`, for whatever `syndistill distill` runs."""
    run: StudentRun | FuseRun | RoadRun | Legs = _chosen((StudentRun, FuseRun, RoadRun, Legs), name, changes)
    return run


def stage_alone(run: StudentRun | FuseRun | RoadRun | Legs, stage: str, start: Path | None) -> StudentRun | FuseRun:
    """One stage of a road as a run of its own; `start` is the folder of a road that has what the stage takes up."""
    if not isinstance(run, RoadRun):
        raise SyndistillError(f"--stage is for a road; this is a {run.kind} run: leave --stage out")
    known = next((one for one in run.stages if one == stage), None)
    if known is None:
        hint = did_you_mean(stage, run.stages)
        raise SyndistillError(f"stage {stage!r} is unknown{hint}; pick {', '.join(run.stages)}")
    if start is None and run.earlier(known):
        raise SyndistillError(f"{stage} takes up {' and '.join(run.earlier(known))}: name their road's folder, --from")
    if start is not None and known in ("no_kd", "fuse"):
        raise SyndistillError(f"{stage} takes up nothing; leave --from out")
    for earlier in run.earlier(known):
        assert start is not None
        if not (path := result_file(earlier, start)).is_file():
            raise SyndistillError(f"{start} has no finished {earlier} (there is no file {path}); run it there first")
    return run.stage_run(known, start or Path())


def _chosen(kinds: tuple[type[Strict], ...], name: str, changes: Sequence[str]) -> Any:
    hashes: dict[str, str] = {}
    if name.endswith(".py"):
        run = made_by(Path(name), "run", Strict, "a complete run")
        content, where = run.model_dump(mode="json"), name
    elif name in RECIPES:
        content, where = recipe(name).model_dump(mode="json"), f"recipe {name}"
    elif name.endswith(".json") or Path(name).is_file():
        where = name
        content, hashes = _written(Path(name))
    else:
        raise SyndistillError(
            f"{name!r} is neither a recipe nor the run.json of a run, nor a .py file{did_you_mean(name, RECIPES)}; "
            f"recipes: {', '.join(RECIPES)}"
        )
    verb, found_kind = _VERBS.get(_kind_of(content), ("", None))
    if found_kind is None:
        raise SyndistillError(f"{where} says kind {_kind_of(content)!r}; this version runs {', '.join(_VERBS)}")
    if found_kind not in kinds:
        raise SyndistillError(f"{where} is a {_kind_of(content)} run; use syndistill {verb} for it")
    for change in changes:
        if change.startswith("kind="):
            raise SyndistillError(f"{change}: the kind of a run follows from its other settings; leave it out")
        content = with_change(content, change)
    run = validated(found_kind, content, where)
    _check_hashes(run, hashes, changes, where)
    return run


def _written(path: Path) -> tuple[Any, dict[str, str]]:
    """(configuration, hashes of what it was made with) of a run.json, or of a configuration of one's own in JSON."""
    content = read_sealed(path, "name a run.json, or a configuration with its kind")
    if "kind" in content:
        return content, {}
    found = run_in(content, path)
    return found["config"], found["hashes"]


def _kind_of(content: Any) -> str:
    return str(content.get("kind", "missing")) if isinstance(content, dict) else "missing"


_IN_DATA = ("files", "recorded", "unsure")
"""Hashes of what `data` names, by which a run is another one where --set changes that."""


def _check_hashes(run: Any, hashes: dict[str, str], changes: Sequence[str], where: str) -> None:
    """A run.json repeats its run only with the networks, files and recordings that it was made with."""
    if not hashes:
        return
    found = _hashes_of(run)
    if any(change.startswith("data.") for change in changes):
        found = {key: value for key, value in found.items() if key not in _IN_DATA}
    for key in [key for key in hashes if key in found]:
        now, then = found[key].removesuffix(BF16), hashes[key].removesuffix(BF16)
        if now != then:
            raise SyndistillError(
                f"{where} was made with another {key}: {now[:12]} now, {then[:12]} then (hashes of what is in it); "
                "restore it, or name the right one with --set"
            )


def _hashes_of(run: Any) -> dict[str, str]:
    """Of everything outside run.json that it begins from now."""
    data = shots_in(run.data) if hasattr(run, "data") else None
    if isinstance(run, StudentRun):
        return student_hashes(run, teacher_named(run.teacher, run.teacher_precision, data))
    found = {} if data is None else data_hashes(data)
    if isinstance(getattr(run, "teacher", None), str):
        found["teacher"] = teacher_named(run.teacher, data=data).key()
    if isinstance(getattr(run, "start_from", None), str):
        found["start_from"] = weights_hash(load_network(run.start_from)[0])
    return found
