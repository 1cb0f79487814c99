"""The plan says what is compared with what, and holds itself to it."""

from itertools import pairwise
from pathlib import Path

import pytest

from syndistill.ablation.jobs import Job, flat, jobs_of, parts_of
from syndistill.ablation.plan import Settings
from syndistill.ablation.plans import ALL, CELLS, QUESTIONS, STAGED, built_in_plans, chosen_plan, effect
from syndistill.ablation.rows import Rows
from syndistill.errors import SyndistillError

KEYS = {"teacher": "t", "oracle": "o"}
PLAN = chosen_plan("ablation-d3", [])


@pytest.mark.parametrize("name", built_in_plans())
def test_each_arm_differs_from_its_neighbour_in_exactly_the_intended_keys(name):
    plan = chosen_plan(name, [])
    for arm in plan.arms:
        other = plan.base if arm.differs_from is None else plan.settings(arm.differs_from)
        mine, theirs = flat(plan.settings(arm.name)), flat(other)
        differ = {key: mine.get(key) for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        assert differ == arm.change, arm.name


def test_runs_differ_by_the_arm_s_change_alone_and_seeds_are_blocked(tmp_path):
    def run(arm, seed=1):
        return flat(parts_of(PLAN, Job("flat-gru-20k", arm, 1.0, seed), tmp_path, KEYS)[-1].run)

    base, spatial = run("baseline"), run("spatial")
    assert {key for key in base if base[key] != spatial[key]} == {"kind", "terms.spatial.weight"}
    assert {key for key in base if base[key] != run("oracle")[key]} == {"teacher"}
    assert {key for key in base if base[key] != run("again")[key]} == {"training.seed"}
    assert {key for key in base if base[key] != run("baseline", 2)[key]} == {"training.seed"}
    assert len({run(arm.name, 3)["training.seed"] for arm in PLAN.arms if arm.name != "again"}) == 2


def test_equal_total_steps_in_all_arms_but_the_longer_one(tmp_path):
    steps = {
        arm.name: sum(p.run.training.steps for p in parts_of(PLAN, Job("flat-gru-5k", arm.name, 4, 1), tmp_path, KEYS))
        for arm in PLAN.arms
    }
    assert steps.pop("labels-longer") == round(4 * 1.35 * PLAN.steps)
    assert set(steps.values()) == {4 * PLAN.steps}


def test_halves_of_equal_configuration_are_one_training_whatever_the_arm(tmp_path):
    firsts = [parts_of(PLAN, Job("flat-gru-20k", arm, 1, 1), tmp_path, KEYS)[0] for arm in (STAGED, "stage1-mean")]
    assert firsts[0].hash == firsts[1].hash
    hashes = [parts_of(PLAN, job, tmp_path, KEYS)[-1].hash for job in jobs_of(PLAN)]
    assert len(set(hashes)) == len(hashes)


def test_the_hash_is_of_the_configuration_and_not_of_the_folder(tmp_path):
    job = Job("flat-gru-20k", STAGED, 1, 1)
    here, there = (parts_of(PLAN, job, folder, KEYS)[-1].hash for folder in (tmp_path / "a", tmp_path / "b"))
    assert here == there
    assert parts_of(PLAN, job, tmp_path, {"teacher": "another"})[-1].hash != here
    assert parts_of(chosen_plan("ablation-d3", ["probing.steps=7"]), job, tmp_path, KEYS)[-1].hash != here


def test_the_primary_arms_come_first_with_all_their_seeds():
    jobs = jobs_of(PLAN)
    assert [job.arm for job in jobs[:10]] == ["labels"] * 5 + ["baseline"] * 5
    primary = {arm for question in QUESTIONS for arm in question.primary}
    asked = [i for i, job in enumerate(jobs) if job.arm in primary and job.budget == 1 and "20k" in job.student]
    assert max(i for i in asked if jobs[i].seed in PLAN.seeds) < 80
    assert {job.arm for job in jobs} == {arm.name for arm in PLAN.arms}
    assert all(a.seed + 1 == b.seed or b.seed in (1, 6) for a, b in pairwise(jobs))


def test_effects_of_the_2_3():
    assert effect("readout")[ALL] == 0.25
    assert effect("readout")["baseline"] == -0.25
    assert effect("spatial", "temporal")["baseline"] == 0.25
    for signals in (("spatial",), ("spatial", "temporal"), ("spatial", "temporal", "readout")):
        contrast = effect(*signals)
        assert len(contrast) == len(CELLS) == 8
        assert sum(contrast.values()) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('arms=[{"name":"a","block":"signals","says":"","change":{"terms.spacial.weight":1}}]', "'spatial'"),
        ('arms=[{"name":"a","block":"signals","says":""},{"name":"a","block":"signals","says":""}]', "comes twice"),
        ('arms=[{"name":"a","block":"signals","says":"","differs_from":"b"}]', "no earlier arm"),
        ('arms=[{"name":"a","block":"signals","says":"","change":{"terms.final.weight":-1}}]', "greater than or equal"),
        ("seeds=[1,2]", "too few for an interval"),
        ("seeds=[1,1,2]", "comes twice"),
        ('saving=["baseline","label"]', "did you mean 'labels'"),
        ("judging.primary_rounds=4", "primary_rounds=4"),
        ("stepz=3", "did you mean 'steps'"),
    ],
)
def test_bad_plans_are_refused_in_one_line(change, said):
    with pytest.raises(SyndistillError) as error:
        chosen_plan("ablation-tiny", ["questions=[]", change] if change.startswith("arms") else [change])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_built_in_plan_is_the_one_that_the_published_rows_are_of():
    """So that `syndistill ablate NAME` makes these rows again; only what was later said of them may differ."""

    def of_runs(plan):
        content = plan.model_dump(exclude={"corrections"})
        return content | {"questions": [question | {"withdrawn": ""} for question in content["questions"]]}

    published = Rows(Path(__file__).parents[2] / "results/ablation-d3/rows.jsonl").plan
    assert of_runs(PLAN) == of_runs(published.plan)


def test_a_target_without_its_term_is_refused():
    with pytest.raises(ValueError, match="belong together"):
        Settings(data=PLAN.base.data, target="nll")
