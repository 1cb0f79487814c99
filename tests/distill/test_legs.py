"""Legs: each begins from the one before, a finished one is not run again."""

import json

import pytest

from syndistill.distill.cache.source import Unsure
from syndistill.distill.legs import Legs, result_of
from syndistill.distill.student import STUDENT_FILE, StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.runs.choose import chosen_distillation, chosen_run
from syndistill.runs.gated import distil_gated
from syndistill.training.changes import validated

from ..reporting import Heard

SETS = [
    "data.cached_shots=0", "training.steps=3", "training.batch_size=16", "terms.final.weight=0", "teacher=teacher-d3",
    'data.simulated.curriculum.rounds=[{"from_shots":0,"rounds":[2]}]', "data.cut_rounds=[]",
]  # fmt: skip


@pytest.fixture
def legs():
    first = chosen_run(StudentRun, "baseline-tiny", SETS)
    second = first.model_copy(update={"start_from": "leg:first"})
    return Legs(legs={"first": first, "second": second})


def test_legs_go_on_from_each_other_and_the_last_is_the_result(legs, tmp_path):
    path = distil_gated(legs, tmp_path / "run")
    run = json.loads((tmp_path / "run" / "second" / "run.json").read_text())
    first = load_network(tmp_path / "run" / "first" / STUDENT_FILE)[0]
    assert run["hashes"]["start_from"] == weights_hash(first)
    assert weights_hash(load_network(path)[0]) == weights_hash(load_network(path.parent / "second" / STUDENT_FILE)[0])


def test_a_finished_leg_is_not_run_again(legs, tmp_path):
    distil_gated(legs, tmp_path / "run")
    (tmp_path / "run" / STUDENT_FILE).unlink()
    (tmp_path / "run" / "second" / STUDENT_FILE).unlink()
    heard = Heard()
    distil_gated(legs, tmp_path / "run", reporter=heard)
    assert "first is finished" in heard.said
    assert "leg second" in heard.said
    assert "leg first" not in heard.said


def test_what_a_leg_begins_from_must_be_earlier(legs):
    content = legs.model_dump(mode="json")
    content["legs"]["first"]["start_from"] = "leg:second"
    with pytest.raises(SyndistillError, match="the leg first begins from leg:second, which is no earlier leg"):
        validated(Legs, content, "legs")
    content["legs"]["first"] |= {"start_from": None, "teacher": "student-d3,leg:second,pymatching"}
    with pytest.raises(SyndistillError, match="the leg first begins from leg:second, which is no earlier leg"):
        validated(Legs, content, "legs")


def test_an_earlier_leg_may_teach_among_others(legs, tmp_path):
    taught = legs.legs["second"].model_copy(update={"teacher": "teacher-d3,leg:first,pymatching-correlated"})
    found = Legs(legs=legs.legs | {"second": taught}).leg("second", tmp_path)
    assert found.teacher == f"teacher-d3,{result_of('first', tmp_path)},pymatching-correlated"


@pytest.mark.parametrize("way", ["", ":int8"])
def test_an_earlier_leg_may_choose_the_shots(legs, tmp_path, way):
    second = legs.legs["second"]
    data = second.data.model_copy(update={"unsure": Unsure(network=f"leg:first{way}")})
    found = Legs(legs=legs.legs | {"second": second.model_copy(update={"data": data})}).leg("second", tmp_path)
    assert found.data.unsure.network == f"{result_of('first', tmp_path)}{way}"


def test_a_configuration_of_ones_own_may_be_plain_json(tmp_path):
    own = tmp_path / "mine.json"
    content = chosen_run(StudentRun, "baseline-tiny", ["training.steps=9"]).model_dump(mode="json")
    own.write_text(json.dumps(content))
    assert chosen_distillation(str(own), []).training.steps == 9
    own.write_text(json.dumps(content | {"kind": "nothing"}))
    with pytest.raises(SyndistillError, match="says kind 'nothing'"):
        chosen_distillation(str(own), [])


def test_a_python_file_of_ones_own_gives_a_run(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("from syndistill.recipes import recipe\n\ndef run():\n    return recipe('student-d3')\n")
    assert chosen_distillation(str(own), ["legs.rounds-9.training.steps=7"]).legs["rounds-9"].training.steps == 7
    own.write_text("def run():\n    return 3\n")
    with pytest.raises(SyndistillError, match=r"has no function run\(\) that gives a complete run"):
        chosen_distillation(str(own), [])
    own.write_text("1 / 0")
    with pytest.raises(SyndistillError, match="cannot be read"):
        chosen_distillation(str(own), [])
