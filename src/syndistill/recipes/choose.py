"""From what a user names (a recipe, or the run.json of an earlier run) and changes (--set) to a complete run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from syndistill.distill.fuse import FuseRun
from syndistill.distill.road import RoadRun, result_file
from syndistill.distill.run import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.recipes import RECIPES, recipe
from syndistill.training.config import Strict
from syndistill.training.run import TeacherRun, validated
from syndistill.training.run_folder import read_run

Run = TypeVar("Run", bound=Strict)
_VERBS: dict[str, tuple[str, type[TeacherRun | StudentRun | FuseRun | RoadRun]]] = {
    "teacher": ("train", TeacherRun),
    **dict.fromkeys(("baseline", "stage1", "fused", "stage2"), ("distill", StudentRun)),
    "fuse": ("distill", FuseRun),
    "road": ("distill", RoadRun),
}


def chosen_run(kind: type[Run], name: str, changes: Sequence[str]) -> Run:
    """The run that `name` means, with "key.path=value" changes applied.

    Raises SyndistillError for an unknown name or key (naming the nearest), a value that does not fit, a run of
    another kind, or a run.json whose networks are no longer what they were.
    """
    run: Run = _chosen((kind,), name, changes)
    return run


def chosen_distillation(name: str, changes: Sequence[str]) -> StudentRun | FuseRun | RoadRun:
    """As `chosen_run`, for whatever `syndistill distill` runs."""
    run: StudentRun | FuseRun | RoadRun = _chosen((StudentRun, FuseRun, RoadRun), name, changes)
    return run


def stage_alone(run: StudentRun | FuseRun | RoadRun, stage: str, start: Path | None) -> StudentRun | FuseRun:
    """One stage of a road as a run of its own; `start` is the folder of a road that has what the stage takes up."""
    if not isinstance(run, RoadRun):
        raise SyndistillError(f"--stage is for a road; this is a {run.kind} run, one stage already: leave --stage out")
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
    if name in RECIPES:
        content, where, hashes = recipe(name).model_dump(mode="json"), f"recipe {name}", {}
    elif name.endswith(".json") or Path(name).is_file():
        found = read_run(Path(name))
        content, where, hashes = found["config"], name, found["hashes"]
    else:
        raise SyndistillError(
            f"{name!r} is neither a recipe nor the run.json of a run{nearest(name, RECIPES)}; "
            f"recipes: {', '.join(RECIPES)}"
        )
    verb, found_kind = _VERBS.get(_kind_of(content), ("", None))
    if found_kind is None:
        raise SyndistillError(f"{where} says kind {_kind_of(content)!r}; this version runs {', '.join(_VERBS)}")
    if found_kind not in kinds:
        raise SyndistillError(f"{where} is a {_kind_of(content)} run; use syndistill {verb} for it")
    for change in changes:
        content = with_change(content, change)
    run = validated(found_kind, content, where)
    _check_hashes(content, hashes, where)
    return run


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


def _kind_of(content: Any) -> str:
    return str(content.get("kind", "missing")) if isinstance(content, dict) else "missing"


def _check_hashes(content: dict[str, Any], hashes: dict[str, str], where: str) -> None:
    """A run.json repeats its run only with the networks that it was made with."""
    for key, wanted in hashes.items():
        name = content.get(key)
        if not isinstance(name, str):
            continue
        found = weights_hash(load_network(name)[0])
        if found != wanted:
            raise SyndistillError(
                f"{where} was made with another {key}: {name} has weights {found[:12]} now, {wanted[:12]} then; "
                f"restore that file, or name the right one with --set {key}=PATH"
            )
