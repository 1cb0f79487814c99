"""A local cluster of two workers gives the same rows, and a killed worker's arm runs again."""

import os

import pytest

from syndistill.ablation import work
from syndistill.ablation.backends import Inline
from syndistill.ablation.ray_backend import RayCluster
from syndistill.ablation.rows import Rows
from syndistill.ablation.runner import _do, run_plan
from syndistill.errors import SyndistillError

TIMES = {"us_per_shot", "train_seconds"}


def content(path):
    return {key: score.model_dump(exclude=TIMES) for key, score in Rows(path).scores.items()}


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SyndistillError, match=r"pip install 'syndistill\[ray\]'"):
        RayCluster("ray", 2)


@pytest.fixture
def cluster():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'syndistill[ray]'")
    made = RayCluster("ray", 2)
    yield made
    made.close()


@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_s_arm_runs_again(cluster, tmp_path):
    mark = tmp_path / "begun"
    rows = Rows(tmp_path / "rows.jsonl")

    def dies_once():
        if not mark.exists():
            mark.touch()
            os._exit(9)
        return []

    def task(name, needs, do):
        return work.Task(name, needs, do, name, work.Job("flat-gru-5k", name, 1.0, 1))

    tasks = [task("run-a", (), dies_once), task("run-b", (), list), task("run-c", ("run-a",), list)]
    outcome = _do(tasks, cluster, rows, lambda _: None, None)
    assert (outcome.done, outcome.failed) == (3, {})
    assert [(f.arm, f.attempt) for f in rows.failures] == [("run-a", 1)]
    assert "died" in rows.failures[0].error


@pytest.mark.filterwarnings("ignore")
def test_two_workers_give_the_rows_of_one_process(cluster, small_plan, tmp_path):
    plan = small_plan('sweeps=[{"student":"flat-gru-5k","budget":1,"arms":["labels","baseline"]}]')
    outcome = run_plan(plan, tmp_path / "a", lambda: cluster, accept_any_teacher=True)
    assert not outcome.failed
    # Cache and statistics are taken over: workers elsewhere do not know this test's smaller numbers.
    rows = content(tmp_path / "a" / "rows.jsonl")
    (tmp_path / "b").mkdir()
    for shared in ("cache", "fuse", "answers"):
        if (tmp_path / "a" / shared).exists():
            os.rename(tmp_path / "a" / shared, tmp_path / "b" / shared)
    run_plan(plan, tmp_path / "b", Inline, accept_any_teacher=True)
    assert content(tmp_path / "b" / "rows.jsonl") == rows
    assert len(rows) == 2 * 3 * 4 + 3 * 4
