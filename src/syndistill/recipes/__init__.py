"""Complete configurations as functions: a recipe is a name that returns everything a run depends on."""

from __future__ import annotations

from collections.abc import Callable

from syndistill.distill.road import RoadRun
from syndistill.distill.run import StudentRun
from syndistill.errors import SyndistillError
from syndistill.recipes.roads import road_d3, road_tiny
from syndistill.recipes.students import (
    baseline_d3,
    baseline_d3_joint,
    baseline_d3_longer,
    baseline_d5,
    baseline_d5_100k,
    baseline_tiny,
    labels_d3,
    labels_d5,
    local_d5_30k,
    local_d5_100k,
    local_d5_boundary,
    local_d5_taught,
    local_d5_taught_again,
)
from syndistill.recipes.teachers import sycamore_d3, teacher_d3, teacher_d3_joint, teacher_d5, teacher_tiny
from syndistill.training.run import TeacherRun

RECIPES: dict[str, Callable[[], TeacherRun | StudentRun | RoadRun]] = {
    "teacher-d3": teacher_d3,
    "teacher-d3-joint": teacher_d3_joint,
    "teacher-d5": teacher_d5,
    "teacher-tiny": teacher_tiny,
    "sycamore-d3": sycamore_d3,
    "baseline-d3": baseline_d3,
    "baseline-d3-longer": baseline_d3_longer,
    "labels-d3": labels_d3,
    "baseline-d5": baseline_d5,
    "baseline-d5-100k": baseline_d5_100k,
    "labels-d5": labels_d5,
    "local-d5-30k": local_d5_30k,
    "local-d5-taught-30k": local_d5_taught,
    "local-d5-taught-again-30k": local_d5_taught_again,
    "local-d5-boundary-30k": local_d5_boundary,
    "local-d5-100k": local_d5_100k,
    "baseline-d3-joint": baseline_d3_joint,
    "baseline-tiny": baseline_tiny,
    "road-d3": road_d3,
    "road-tiny": road_tiny,
}


def recipe(name: str) -> TeacherRun | StudentRun | RoadRun:
    """The run of that name."""
    if name not in RECIPES:
        raise SyndistillError(f"recipe {name!r} is unknown; pick one of {', '.join(RECIPES)}")
    return RECIPES[name]()
