"""A plan of one's own: from a file, of any output form, size, error rates and labels; refused before it runs."""

import json
from pathlib import Path

import pytest
import torch

from syndistill.ablation import work
from syndistill.ablation.backends import Inline
from syndistill.ablation.jobs import jobs_of, parts_of
from syndistill.ablation.page import write_report
from syndistill.ablation.plans import BUILT_IN, built_in_plans, chosen_plan
from syndistill.ablation.rows import Rows
from syndistill.ablation.runner import run_plan
from syndistill.ablation.table import read_table
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, save_network

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
    for name, gone in (("ablation-d3", "spatial+temporal+readout against baseline: LER"), ("ablation-d5", "21.0 %")):
        source = Path(__file__).parents[2] / "results" / name
        write_report(source, tmp_path / "r.html", tmp_path / "r.md")
        page, text = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
        first_screen = text[: text.index("## Contrasts")]
        assert text.startswith("# What")
        assert first_screen.index("> **Correction.**") < first_screen.index("- **Is dist")
        assert gone.lower() not in first_screen.lower()
        assert "Withdrawn: " in first_screen
        assert "<b>Correction.</b>" in page
        published = Path(__file__).parents[2] / "docs" / f"{name.replace('-d3', '')}.md"
        assert published.read_text().replace(f"({published.stem}/", "(r/") == text
