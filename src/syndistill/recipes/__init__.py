"""Complete configurations as functions: a recipe is a name that returns everything a run depends on."""

from __future__ import annotations

from collections.abc import Callable

from syndistill.distill.legs import Legs
from syndistill.distill.road import RoadRun
from syndistill.distill.student import StudentRun
from syndistill.errors import SyndistillError
from syndistill.recipes.students import (
    baseline_d3,
    baseline_tiny,
    labels_d3,
    road_d3,
    road_tiny,
    student_d3,
    student_d3_frame,
    student_d3_joint,
    student_d5,
    student_d5_82k,
    student_d5_frame,
)
from syndistill.recipes.teachers import teacher_d3, teacher_d3_joint, teacher_d5, teacher_tiny
from syndistill.training.run import TeacherRun

AnyRun = TeacherRun | StudentRun | Legs | RoadRun
RECIPES: dict[str, Callable[[], AnyRun]] = {
    "teacher-d3": teacher_d3,
    "teacher-d3-joint": teacher_d3_joint,
    "teacher-d5": teacher_d5,
    "teacher-tiny": teacher_tiny,
    "student-d3": student_d3,
    "student-d3-joint": student_d3_joint,
    "student-d3-frame": student_d3_frame,
    "student-d5": student_d5,
    "student-d5-82k": student_d5_82k,
    "student-d5-frame": student_d5_frame,
    "baseline-d3": baseline_d3,
    "labels-d3": labels_d3,
    "road-d3": road_d3,
    "baseline-tiny": baseline_tiny,
    "road-tiny": road_tiny,
}
"""One to each shipped network, of its name (Sycamore's are made by `distill --recorded`); roads; controls; and
toys of a minute."""


def recipe(name: str) -> AnyRun:
    """The run of that name."""
    if name not in RECIPES:
        raise SyndistillError(f"recipe {name!r} is unknown; pick one of {', '.join(RECIPES)}")
    return RECIPES[name]()
