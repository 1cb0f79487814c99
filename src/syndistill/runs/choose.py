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
from syndistill.distill.student import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.recipes import RECIPES, recipe
from syndistill.runs.own_file import made_by
from syndistill.safe_files import read_sealed
from syndistill.training.changes import nearest, validated, with_change
from syndistill.training.config import Strict
from syndistill.training.run import TeacherRun
from syndistill.training.run_folder import run_in

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
        raise SyndistillError(f"stage {stage!r} is unknown{nearest(stage, run.stages)}; pick {', '.join(run.stages)}")
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
            f"{name!r} is neither a recipe nor the run.json of a run, nor a .py file{nearest(name, RECIPES)}; "
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
    _check_hashes(run, content, hashes, where)
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


def _check_hashes(run: Any, content: dict[str, Any], hashes: dict[str, str], where: str) -> None:
    """A run.json repeats its run only with the networks that it was made with."""
    for key, wanted in hashes.items():
        name = content.get(key)
        if not isinstance(name, str):
            continue
        if key == "teacher":
            found = teacher_named(name, data=shots_in(run.data)).key()
        else:
            found = weights_hash(load_network(name)[0])
        if found != wanted.removesuffix(BF16):
            raise SyndistillError(
                f"{where} was made with another {key}: {name} has weights {found[:12]} now, {wanted[:12]} then; "
                f"restore that file, or name the right one with --set {key}=PATH"
            )
