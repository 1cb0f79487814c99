"""Recipes are complete, and say what their names promise."""

import json
import re

import pytest

from syndistill.distill.road import RoadRun
from syndistill.distill.run import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import build
from syndistill.recipes import RECIPES, recipe
from syndistill.training.config import RecordedData
from syndistill.training.run import TeacherRun, validated


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json_and_fits_together(name):
    run = recipe(name)
    text = run.model_dump_json()
    assert validated(type(run), json.loads(text), name) == run
    data = run.data.simulated if isinstance(run, StudentRun | RoadRun) else run.data
    assert data.distance == run.network.distance
    if not isinstance(data, RecordedData):
        assert (data.bases == ("both",)) == (run.network.output == "joint4")
    assert RECIPES[name].__doc__
    assert isinstance(run, TeacherRun) == name.startswith(("teacher", "sycamore"))


@pytest.mark.parametrize("name", [name for name in RECIPES if isinstance(recipe(name), StudentRun | RoadRun)])
def test_students_keep_within_their_size(name):
    size = re.search(r"-(\d+)k$", name)
    most = 1000 * int(size[1]) if size else 20_000
    assert build(recipe(name).network).n_parameters() <= most


def test_labels_alone_is_the_baseline_without_its_teacher():
    """Same Student, steps, kind of shots and ends; no final term, and fresh shots, since labels need no cache."""
    baseline, labels = (recipe(name).model_dump() for name in ("baseline-d3", "labels-d3"))
    assert baseline["terms"]["final"] == {"weight": 1.0, "temperature": 1.0, "where": "every"}
    baseline["terms"]["final"] |= {"weight": 0.0, "where": "last"}
    baseline["terms"]["labels"] |= {"weight": 1.0, "where": "every"}
    baseline["data"]["cached_shots"] = 0
    assert baseline == labels


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(SyndistillError, match="teacher-d3"):
        recipe("teacher-d99")
