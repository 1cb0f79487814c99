"""A plan of one's own: from a file, of any output form, size, error rates and labels; refused before it runs."""

import json
from pathlib import Path

import pytest
import torch

from syndistill.ablation import work
from syndistill.ablation.backends import Inline
from syndistill.ablation.jobs import Job, jobs_of, parts_of
from syndistill.ablation.page import write_report
from syndistill.ablation.plans import BUILT_IN, built_in_plans, chosen_plan
from syndistill.ablation.rows import Rows
from syndistill.ablation.runner import run_plan
from syndistill.ablation.table import read_table
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, load_network, save_network

FIRST_HASHES = {
    "baseline": "92b37aafba6f6de9faaa01fe55c872579529943dcb952bac36ee3b78e6a74054",
    "spatial": "07a35d2178b5f21dfc09426fb044d2133971b8cc304cc76e808a21da8f41e7c0",
    "stage1-mean": "6c25c0cadb0ad75e1cb75cec7a259dda9cc8aa6fa4139ceb38fce443bc28bd02",
}
"""Of runs of ablation-d3, from the code that made the first rows at d=5."""
JOINT = ["output=joint4", 'base.data.simulated.bases=["both"]']


def sweep(*arms, student="flat-gru-5k"):
    return "sweeps=" + json.dumps([{"student": student, "budget": 1, "arms": arms}])


def arms(**changes):
    """Arms of these names beside the built-in ones, as changes of the baseline."""
    own = [
        {"name": name, "block": "controls", "says": name, "differs_from": "baseline", "change": change}
        for name, change in changes.items()
    ]
    plan = chosen_plan("ablation-tiny", [])
    return "arms=" + json.dumps([arm.model_dump(mode="json") for arm in plan.arms] + own)


@pytest.fixture(scope="module")
def joint_teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("joint") / "teacher.safetensors"
    torch.manual_seed(0)
    save_network(path, build("teacher-tiny", 3, "joint4"), {})
    return path


@pytest.mark.parametrize("name", built_in_plans())
def test_built_in_plans_and_files_are_found_and_read_alike(tmp_path, name):
    plan = chosen_plan(name, [])
    assert plan.name == name
    mine = tmp_path / "mine.py"
    mine.write_text((BUILT_IN / f"{name.replace('-', '_')}.py").read_text())
    assert chosen_plan(str(mine), []) == plan
    mine.with_suffix(".json").write_text(plan.model_dump_json())
    assert chosen_plan(str(mine.with_suffix(".json")), ["steps=77"]) == chosen_plan(name, ["steps=77"])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.json", "{", "is damaged or no JSON"),
        ("a.json", "{}", "a.json: name: Field required"),
        ("a.py", "def plan(:", "SyntaxError"),
        ("a.py", "def plan():\n    return 1 / 0", "ZeroDivisionError"),
        ("a.py", "x = 1", "has no function plan"),
        ("a.py", None, "FileNotFoundError"),
        ("a.json", None, "cannot read"),
    ],
)
def test_bad_plan_files_are_one_line(tmp_path, file, text, said):
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(SyndistillError) as error:
        chosen_plan(str(tmp_path / file), [])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow(reason="the exact posterior"))])
def test_every_task_of_a_joint4_plan_is_done(small_plan, joint_teacher, tmp_path, exact):
    run = ("labels", "spatial+temporal", "stage1-nll", *(["oracle"] if exact else []))
    optimum = f"judging.optimum={str(exact).lower()}"
    plan = small_plan(*JOINT, f"teacher={joint_teacher}", sweep(*run), optimum)
    outcome = run_plan(plan, tmp_path, Inline, accept_any_teacher=True)
    assert not outcome.failed
    rows = Rows(tmp_path / "rows.jsonl")
    assert len(rows.scores) == (12 * 2 + 3 * 2 if exact else 9 * 2 + 2 * 2)
    for score in rows.scores.values():
        assert "basis=both" in score.experiment
        assert 0 < score.ler < 1
    assert all(path.is_file() for path in write_report(tmp_path, None, None))


OWN = (
    arms(exact={"data.simulated.labels": "exact", "terms.final.weight": 0.0, "data.cached_shots": 0},
         revealed={"data.simulated.labels": "revealed"}),
    'students={"mine":{"family":"local_gru","width":3,"readout_width":6,"turn_x":true}}',
    sweep("exact", "revealed", "spatial+temporal", student="mine"),
    "judging.rates=[0.002,0.004]", "judging.optimum=false", "base.precision=bf16",
    "base.data.simulated.curriculum.p_min=0.002",
)  # fmt: skip


def test_a_plan_s_own_settings_reach_its_runs(small_plan, tmp_path):
    plan = small_plan(*OWN, "teacher_precision=bf16")
    runs = {job.arm: parts_of(plan, job, tmp_path, {"teacher": "t"})[-1].run for job in jobs_of(plan)}
    assert {arm: run.data.simulated.labels for arm, run in runs.items()} == {
        "exact": "exact", "revealed": "revealed", "spatial+temporal": "sampled"
    }  # fmt: skip
    for run in runs.values():
        assert (run.network.family, run.network.width) == ("local_gru", 3)
        assert (run.training.precision, run.teacher_precision) == ("bf16", "bf16")
    assert [e.p for e, _ in plan.experiments()].count(0.002) == 4
    assert (plan.rates, plan.primary_rate) == ((0.002, 0.004), 0.004)


@pytest.mark.slow(reason="it prepares revealed and exact labels, and trains in emulated bf16")
def test_rates_sizes_and_labels_of_ones_own(small_plan, tmp_path):
    plan = small_plan(*OWN)
    assert not plan.oracle
    outcome = run_plan(plan, tmp_path, Inline, accept_any_teacher=True)
    assert not outcome.failed
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["teacher", "teacher-revealed"]
    table = read_table(tmp_path)
    assert not table.missing
    assert set(table.elsewhere) == {(0.002, 2), (0.002, 3)}
    seeds = table.judged["mine", "exact", 1.0]
    low = table.elsewhere[0.002, 3]["mine", "exact", 1.0]
    assert set(seeds) == set(low) == {1, 2, 3}
    for seed in seeds:
        assert {s.experiment.split("p=")[1] for s in seeds[seed][3].scores} == {"0.004"}
        assert {s.experiment.split("p=")[1] for s in low[seed].scores} == {"0.002"}
    write_report(tmp_path, None, None)
    assert "At other error rates" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (JOINT, "of distance 3 and output two_channel, the Student of 3 and joint4"),
        ((sweep("labels"), "base.device=cuda:7"), "device cuda:7 is not here"),
        ((sweep("deep"), arms(deep={"terms.spatial.weight": 1.0, "terms.spatial.layer": 5})), "spatial.5"),
        ((sweep("layered"), arms(layered={"terms.spatial.weight": 1.0, "terms.spatial.student_layer": 0})),
         "flat-gru-5k layered: a flat_gru Student has no layers"),
        ((sweep("late"), arms(late={"data.cut_rounds": [], "data.cached_ends": "last", "terms.labels.where": "every"})),
         "cached_ends=last has no answers of earlier ends"),
    ],
)  # fmt: skip
def test_what_a_run_would_refuse_a_dry_run_refuses(small_plan, tmp_path, changes, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = small_plan(*changes)
    for check in (
        lambda: work.check_tasks(plan, tmp_path, work.teacher_keys(plan)),
        lambda: run_plan(plan, tmp_path, Inline, accept_any_teacher=True),
    ):
        with pytest.raises(SyndistillError) as error:
            check()
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "rows.jsonl").exists()


def test_corrections_stand_above_the_page_and_in_the_place_of_what_they_withdraw(tmp_path):
    repository = Path(__file__).parents[2]
    write_report(repository / "results/ablation-d3", tmp_path / "r.html", tmp_path / "r.md")
    page, text = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
    first_screen = text[: text.index("## Contrasts")]
    assert text.startswith("# What")
    assert first_screen.index("> **Correction.**") < first_screen.index("- **Is dist")
    assert "spatial+temporal+readout against baseline: ler" not in first_screen.lower()
    assert "Withdrawn: " in first_screen
    assert "<b>Correction.</b>" in page
    assert (repository / "docs/ablation.md").read_text().replace("(ablation/", "(r/") == text


def two_halves(**changes):
    halves = {f"half-{start}": FUSED | {"start": start} for start in ("baseline", "stage1")}
    return arms(**halves | changes)


def test_baseline_half_then_fused_half(small_plan, tmp_path):
    plan = small_plan(two_halves(), sweep("half-baseline", "half-stage1", "baseline"))
    parts = {job.arm: parts_of(plan, job, tmp_path, {"teacher": "t"}) for job in jobs_of(plan) if job.seed == 1}
    first, second = (part.run for part in parts["half-baseline"])
    assert (first.kind, first.terms, first.fusion) == ("baseline", plan.base.terms, None)
    assert (second.kind, second.terms.fused.weight) == ("stage2", 1.0)
    assert second.start_from == str(parts["half-baseline"][0].student_file)
    assert first.training.steps + second.training.steps == parts["baseline"][0].run.training.steps
    assert len({part.hash for of_arm in parts.values() for part in of_arm}) == 5
    with pytest.raises(SyndistillError, match="start=baseline needs a target"):
        small_plan(arms(alone={"start": "baseline"}), sweep("alone"))


@pytest.fixture
def saved(teacher_path, tmp_path):
    """Name -> a Student's file, as a baseline of the plan's Teacher leaves it; always the same weights."""

    def make(name):
        teacher = FrozenTeacher(load_network(teacher_path)[0])
        said = {"run": {"kind": "baseline"}, "teacher_hash": teacher.key()}
        torch.manual_seed(3)
        save_network(tmp_path / name, build("flat-gru-5k", 3), said)
        return str(tmp_path / name)

    return make


FUSED = {"target": "final", "terms.final.weight": 0.0, "terms.fused.weight": 1.0}


def going_on(small_plan, path):
    own = {"start_from": path}
    changes = {"go-on": own, "go-on-fused": FUSED | own, "half-baseline": FUSED | {"start": "baseline"} | own}
    return small_plan(arms(**changes), sweep(*changes))


def test_students_begin_from_weights_that_a_run_knows_by_content(small_plan, saved, tmp_path):
    plan, renamed = (going_on(small_plan, saved(name)) for name in ("mine.safetensors", "other.safetensors"))
    keys = work.teacher_keys(plan)
    parts = {job.arm: parts_of(plan, job, tmp_path, keys) for job in jobs_of(plan)}
    first, second = parts["half-baseline"]
    assert [part.run.start_from for part in (first, second)] == [str(tmp_path / "mine.safetensors"),
                                                                str(first.student_file)]  # fmt: skip
    assert [parts[arm][0].run.kind for arm in ("go-on", "go-on-fused")] == ["baseline", "stage2"]
    work.check_tasks(plan, tmp_path, keys)
    hashes = [[parts_of(p, job, tmp_path, keys)[-1].hash for job in jobs_of(p)] for p in (plan, renamed)]
    assert hashes[0] == hashes[1]
    fresh = small_plan(sweep("baseline"))
    assert parts_of(fresh, jobs_of(fresh)[0], tmp_path, keys)[-1].hash not in hashes[0]
    with pytest.raises(SyndistillError, match=r"go-on: .* is no Student after its baseline or stage 1"):
        work.check_tasks(going_on(small_plan, plan.teacher), tmp_path, keys)


@pytest.mark.slow(reason="it trains nine Students")
def test_arms_that_begin_from_weights_are_done(small_plan, saved, tmp_path):
    plan = going_on(small_plan, saved("mine.safetensors"))
    assert not run_plan(plan, tmp_path / "sweep", Inline, accept_any_teacher=True).failed


def test_a_run_s_hash_is_that_of_the_first_sweep_and_no_new_option_moves_it(tmp_path):
    """What rows are known by: what is no default, the whole network and the whole fusion."""
    plan = chosen_plan("ablation-d3", ["steps=2400"])
    keys = {"teacher": "t", "oracle": "o"}
    found = {arm: parts_of(plan, Job("flat-gru-20k", arm, 1.0, 1), tmp_path, keys)[-1].hash for arm in FIRST_HASHES}
    assert found == FIRST_HASHES
