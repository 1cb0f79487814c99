"""Recipes are complete, and say what their names promise."""

import json
import re
from pathlib import Path

import pytest

from syndistill.decoders.engine_for import way_in
from syndistill.decoders.registry import decoder_names
from syndistill.distill.legs import Legs, result_of
from syndistill.distill.road import RoadRun
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.student import StudentRun, first_weights
from syndistill.errors import SyndistillError
from syndistill.files.network_file import members_in, read_header, shipped_names
from syndistill.models.networks import fresh_network, load_network, save_network, weights_hash
from syndistill.recipes import RECIPES, recipe
from syndistill.training.changes import validated
from syndistill.training.run import TeacherRun
from syndistill.training.start import start_weights


def single_runs(name):
    """The runs of a recipe: itself, or its legs."""
    run = recipe(name)
    return list(run.legs.values()) if isinstance(run, Legs) else [run]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json_and_fits_together(name):
    run = recipe(name)
    text = run.model_dump_json()
    assert validated(type(run), json.loads(text), name) == run
    for one in single_runs(name):
        data = one.data.simulated if isinstance(one, StudentRun | RoadRun) else one.data
        assert data.distance == one.network.distance
        assert (data.bases == ("both",)) == (one.network.output == "joint4")
    assert RECIPES[name].__doc__
    assert isinstance(run, TeacherRun) == name.startswith("teacher")


def test_every_shipped_network_has_a_recipe_of_its_name_that_makes_its_very_kind():
    """Size, family and form of the last leg are the shipped file's. One of own files has the command in its place."""
    for name in shipped_names():
        said = read_header(name).metadata
        if isinstance(said.get("run"), dict) and said["run"]["data"].get("simulated", {}).get("noise") == "files":
            assert said["recipe"].startswith("syndistill distill --recorded ")
            continue
        assert name in RECIPES
        assert single_runs(name)[-1].network == load_network(name)[0].config, name


KEPT = sorted((Path(__file__).parents[2] / "results" / "networks").glob("*.safetensors"))


@pytest.mark.parametrize("network", [*shipped_names(), *KEPT], ids=lambda network: Path(network).stem)
def test_no_network_names_a_place_of_the_machine_that_made_it(network):
    said = json.dumps(read_header(network).metadata)
    assert not re.findall(r'[",](?:/|~|[A-Z]:)[^",]*', said)


def test_no_recipe_names_a_file():
    """What a recipe begins from is shipped, or an earlier leg."""
    for name in RECIPES:
        for run in single_runs(name):
            content = run.model_dump(mode="json")
            named = [content.get("start_from"), *members_in(content.get("teacher") or "teacher-d3")]
            if unsure := (content["data"].get("unsure") if isinstance(run, StudentRun) else None):
                named.append(way_in(unsure["network"])[0])
            for network in filter(None, named):
                known = network in shipped_names() or network in decoder_names()
                assert known or network.startswith("leg:"), (name, network)


def test_every_run_may_begin_from_what_it_names(tmp_path):
    """The same network, or a narrower one, of the same Teacher: what a run refuses before its first step."""
    for name in RECIPES:
        whole = recipe(name)
        for leg, run in whole.legs.items() if isinstance(whole, Legs) else [(name, whole)]:
            if isinstance(run, TeacherRun) and run.start_from is not None:
                network = fresh_network(run.network, 0)
                before = weights_hash(network)
                start_weights(network, run.start_from, any_distance=True)
                assert weights_hash(network) != before, name
            if isinstance(run, StudentRun):
                found = whole.leg(leg, tmp_path / name) if isinstance(whole, Legs) else run
                teacher = teacher_named(found.teacher, data=found.data.simulated)
                begun = first_weights(found, teacher)
                fresh = fresh_network(found.network, found.training.seed)
                assert (weights_hash(begun) == weights_hash(fresh)) == (found.start_from is None), (name, leg)
                result_of(leg, tmp_path / name).parent.mkdir(parents=True)
                said = {"run": run.model_dump(mode="json"), "teacher_hash": teacher.key()}
                save_network(result_of(leg, tmp_path / name), begun, said)


def test_labels_alone_is_the_baseline_without_its_teacher():
    """Same Student, steps, kind of shots and ends; no final term, and fresh shots, since labels need no cache."""
    baseline, labels = (recipe(name).model_dump() for name in ("baseline-d3", "labels-d3"))
    assert baseline["terms"]["final"] == {"weight": 1.0, "temperature": 1.0, "where": "every", "most_rounds": 0}
    baseline["terms"]["final"] |= {"weight": 0.0, "where": "last"}
    baseline["terms"]["labels"] |= {"weight": 1.0, "where": "every"}
    baseline["data"]["cached_shots"] = 0
    assert baseline == labels


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(SyndistillError, match="teacher-d3"):
        recipe("teacher-d99")
