"""A sweep: resumed, failed, killed; the rows end the same."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from syndistill.ablation import work
from syndistill.ablation.backends import Inline, Processes
from syndistill.ablation.plans import chosen_plan
from syndistill.ablation.rows import Rows
from syndistill.ablation.runner import run_plan
from syndistill.errors import SyndistillError
from syndistill.safe_lines import TornLine

TIMES = ("us_per_shot", "train_seconds")
TWO_ARMS = 'sweeps=[{"student":"flat-gru-5k","budget":1,"arms":["labels","stage1-nll"]}]'


def content(path):
    """Scores by key, without what a clock says."""
    return {key: score.model_dump(exclude=set(TIMES)) for key, score in Rows(path).scores.items()}


def test_a_sweep_is_done_once_and_a_killed_one_ends_in_the_same_rows(small_plan, tmp_path):
    plan = small_plan(TWO_ARMS)
    whole = run_plan(plan, tmp_path / "a", Inline, accept_any_teacher=True)
    assert not whole.failed
    rows = content(tmp_path / "a" / "rows.jsonl")
    assert len(rows) == 6 * 4 + 3 * 4  # Students and references on four cases
    assert run_plan(plan, tmp_path / "a", Inline, accept_any_teacher=True).done == 0

    # Rows of an earlier version do not say what z_fuse was: the stage is not done again, what it said is read.
    kept = (tmp_path / "a" / "rows.jsonl").read_text().splitlines(keepends=True)
    older = tmp_path / "older.jsonl"
    older.write_text("".join(line for line in kept if '"kind":"fused"' not in line))
    assert not Rows(older).fused
    assert run_plan(plan, tmp_path / "a", Inline, older, accept_any_teacher=True).done == 2  # the gate, and this
    (fused,) = Rows(older).fused.values()
    assert (fused.target, set(fused.weights)) == ("nll", {"transformer", "state", "readout"})
    assert Rows(tmp_path / "a" / "rows.jsonl").fused == {fused.run: fused}

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, tmp_path / "b", lambda: _Dying(12), accept_any_teacher=True)
    with open(tmp_path / "b" / "rows.jsonl", "ab") as file:
        file.write(b'{"format": 1, "kind": "sco')  # what a kill leaves of a write
    with pytest.warns(TornLine, match="cut short"):
        run_plan(plan, tmp_path / "b", Inline, accept_any_teacher=True)
    assert content(tmp_path / "b" / "rows.jsonl") == rows

    changed = small_plan(TWO_ARMS, "seeds=[1,2,3,4]")
    assert run_plan(changed, tmp_path / "a", Inline, accept_any_teacher=True).done < whole.done


class _Dying(Inline):
    """Interrupted after so many tasks."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def start(self, task):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        super().start(task)


@pytest.mark.parametrize("failures", [pytest.param(1, marks=pytest.mark.slow("a second sweep")), 2])
def test_a_failed_arm_is_recorded_retried_once_and_never_dropped(small_plan, tmp_path, monkeypatch, failures):
    plan = small_plan(TWO_ARMS)
    real, seen = work.do_half, []

    def failing(plan, job, out):
        seen.append(job)
        if seen.count(job) <= failures and job.seed == 2:
            raise RuntimeError("no\nluck")
        return real(plan, job, out)

    monkeypatch.setattr(work, "do_half", failing)
    outcome = run_plan(plan, tmp_path, Inline, accept_any_teacher=True)
    rows = Rows(tmp_path / "rows.jsonl")
    of_seed_2 = [s for s in rows.scores.values() if (s.arm, s.seed) == ("stage1-nll", 2)]
    first = rows.failures[0]
    assert (first.arm, first.seed, first.attempt, first.error) == ("stage1-nll", 2, 1, "no luck")
    if failures == 1:
        assert not outcome.failed
        assert len(of_seed_2) == 4
    else:
        assert [error for error in outcome.failed.values() if error.startswith("it needs half")]
        assert not of_seed_2
        assert len(rows.failures) == 3
        monkeypatch.setattr(work, "do_half", real)
        assert not run_plan(plan, tmp_path, Inline, accept_any_teacher=True).failed


def test_the_gate_stands_before_everything(small_plan, tmp_path):
    with pytest.raises(SyndistillError, match="accept-any-teacher"):
        run_plan(small_plan(), tmp_path, Inline)
    assert not Rows(tmp_path / "rows.jsonl").scores


def test_two_calls_do_not_work_in_one_folder(small_plan, tmp_path):
    script = "import sys, time; from pathlib import Path; from syndistill.safe_files import locked_folder\n"
    script += "with locked_folder(Path(sys.argv[1]), 'sweep'): print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(SyndistillError, match="another process uses the folder of a sweep"):
            run_plan(small_plan(), tmp_path, Inline)
    finally:
        other.kill()
        other.communicate()


def _line(**changes):
    line = {
        "format": 1, "kind": "score", "run": "a", "student": "s", "arm": "x", "budget": 1, "seed": 1, "experiment": "e",
        "rounds": 3, "shots": 10, "shots_sha256": "", "errors": 1, "nll": 0.1, "kl": None, "kl_shots": 0,
        "reliability": None, "us_per_shot": 1, "parameters": 5, "steps": 1, "shots_seen": 1, "train_seconds": 1,
        "decoder_id": "d",
    }  # fmt: skip
    return json.dumps(line | changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_line() + "\n{\n", "line 2 is damaged"),
        (_line(reliability={"counts": [9], "predicted": [0.1], "observed": [0.1]}) + "\n", "9 in the bins"),
        (_line(sha256="0") + "\n", "not what its sha256 says"),
        (_line(format=2) + "\n", "of format 2, this version reads 1"),
        (_line(errors=11) + "\n", "impossible counts"),
        (_line(nll="NaN") + "\n", "line 1 is damaged"),
        (_line(strange=1) + "\n", "line 1 is damaged"),
        (_line() + "\n" + _line() + "\n", "line 2 repeats"),
        (_line()[:-9] + "\n", "line 1 is damaged"),
        ("\0\n", "line 1 is damaged"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path, text, said):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(SyndistillError) as error:
        Rows(tmp_path / "rows.jsonl")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow("three sweeps with workers, a minute")
def test_kill_minus_9_of_a_call_with_workers_then_the_same_call(small_plan, tmp_path):
    """The killed call's workers end with it, and the next one goes on."""
    plan = small_plan(TWO_ARMS)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    command = [sys.executable, str(script), str(tmp_path / "plan.json")]
    call = subprocess.Popen([*command, str(tmp_path / "b")], stderr=subprocess.DEVNULL)
    rows = tmp_path / "b" / "rows.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and (not rows.exists() or '"arm":"labels"' not in rows.read_text()):
        time.sleep(0.1)
    os.kill(call.pid, signal.SIGKILL)
    call.wait()
    for folder in ("b", "a"):
        done = subprocess.run(
            [*command, str(tmp_path / folder)], capture_output=True, text=True, timeout=200, check=False
        )
        assert done.stdout.strip() == "{}", done.stderr
    assert content(rows) == content(tmp_path / "a" / "rows.jsonl")


SWEEP = """
import sys
from pathlib import Path
from syndistill.ablation.backends import Processes
from syndistill.ablation.plan import Plan
from syndistill.ablation.runner import run_plan

if __name__ == "__main__":
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_text())
    print(run_plan(plan, Path(sys.argv[2]), lambda: Processes(2), accept_any_teacher=True).failed)
"""


def test_a_dead_worker_costs_an_attempt_and_no_more(tmp_path):
    pool = Processes(1)
    try:
        task = work.Task("run-x", (), _die, "x", work.Job("s", "a", 1, 1))
        pool.start(task)
        assert "died" in str(pool.next_done()[1])
        pool.start(work.Task("run-y", (), list, "y", work.Job("s", "a", 1, 2)))
        assert pool.next_done()[1] == []
    finally:
        pool.close()


def _die():
    os._exit(9)


CLOSED = """
import multiprocessing
import time
from functools import partial
from syndistill.ablation.backends import Processes
from syndistill.ablation.work import Job, Task

def hold():
    global held
    held = multiprocessing.get_context("spawn").RLock()
    return []

if __name__ == "__main__":
    pool = Processes(2)
    pool.start(Task("run-x", (), partial(time.sleep, 600), "x", Job("s", "a", 1, 1)))
    pool.start(Task("run-y", (), hold, "y", Job("s", "a", 1, 2)))
    pool.next_done()
    pool.close()
"""


def test_closed_workers_leave_nothing_behind(tmp_path):
    """An idle one ends by itself, with what libraries hold in it (a lock, as tqdm does); else Python warns of leaks."""
    (tmp_path / "closed.py").write_text(CLOSED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "closed.py")], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_estimate_falls_to_nothing_when_all_is_done(small_plan, tmp_path):
    from syndistill.ablation.costs import cost_of

    plan = small_plan()
    cost = cost_of(plan, tmp_path, Rows(tmp_path / "none"), work.teacher_keys(plan))
    assert cost.runs == 12
    assert "12 runs to do" in str(cost)
    assert chosen_plan("ablation-d3", []).name == "ablation-d3"
