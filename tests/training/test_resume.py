"""A run that was killed and taken up again is, to the bit, the run that was never stopped."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.safe_files import write_sealed
from syndistill.safe_lines import TornLine
from syndistill.training.loop import METRICS, STATE

from ..reporting import Heard

KILLED = """
import runpy, sys
from pathlib import Path
make_trainer = runpy.run_path(sys.argv[1])["make_trainer"]
make_trainer(Path(sys.argv[2]), steps=40, optimiser=sys.argv[3], pause=0.06, checkpoint_minutes=0.0).run()
"""


def train_and_kill(folder, optimiser, after):
    """kill -9 `after` seconds after the first checkpoint."""
    conftest = Path(__file__).with_name("conftest.py")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(conftest), str(folder), optimiser])
    deadline = time.monotonic() + 60
    while not (folder / STATE).exists():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(after)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"


def assert_same_state(one, other):
    (found, found_metadata), (expected, expected_metadata) = load_tensors(one / STATE), load_tensors(other / STATE)
    assert found_metadata == expected_metadata
    assert found.keys() == expected.keys()
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []


def logged_steps(folder):
    return [json.loads(line)["step"] for line in (folder / METRICS).read_text().splitlines()]


SLOW = pytest.mark.slow("a kill for each further optimiser")


@pytest.mark.parametrize("optimiser", ["adamw", pytest.param("muon", marks=SLOW)])
def test_kill_9_and_resume_is_the_run_never_stopped(tmp_path, make_trainer, optimiser):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    make_trainer(whole, 40, optimiser).run()
    train_and_kill(killed, optimiser, after=random.SystemRandom().uniform(0, 0.8))
    _, metadata = load_tensors(killed / STATE)
    assert 0 < metadata["step"] < 40
    trainer = make_trainer(killed, 40, optimiser)
    trainer.run()
    assert trainer.step == 40
    assert_same_state(killed, whole)
    names = load_tensors(whole / STATE)[0]
    assert {name.split(".")[0] for name in names} == {"weights", "ema", "optimiser"}
    assert logged_steps(killed) == list(range(5, 41, 5))
    # A kill in the middle of a write can leave a hidden, half-written file, nothing else.
    assert {p.name for p in killed.iterdir() if not p.name.startswith(".")} == {STATE, METRICS}


def test_a_different_seed_is_a_different_run(tmp_path, make_trainer):
    """The comparison above can fail."""
    make_trainer(tmp_path / "a", 3).run()
    make_trainer(tmp_path / "b", 3, seed=1).run()
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "a", tmp_path / "b")


def test_a_finished_folder_is_left_alone(tmp_path, make_trainer):
    make_trainer(tmp_path, 10).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    heard = Heard()
    make_trainer(tmp_path, 10).run(heard.bar("steps", 10))
    assert heard.counted == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_metrics_are_cut_where_the_state_stands(tmp_path, make_trainer):
    make_trainer(tmp_path, 10).run()
    with (tmp_path / METRICS).open("a") as file:  # the run went on to step 15 and died while writing of step 20
        file.write('{"step": 15, "loss": 9.0}\n{"step": 20, "lo')
    with pytest.warns(TornLine, match="cut short"):
        make_trainer(tmp_path, 20).run()
    assert logged_steps(tmp_path) == [5, 10, 15, 20]
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert lines[2]["loss"] != 9.0
    assert set(lines[-1]) >= {"step", "loss", "nll", "nll_last", "ler_last", "gradient_norm", "learning_rate"}


@pytest.mark.parametrize("line", ["", "x", "[]", '{"loss": 1}', '{"step": "5"}', '{"step": 5'])
def test_a_damaged_line_of_the_log_is_named(tmp_path, make_trainer, line):
    make_trainer(tmp_path, 10).run()
    path = tmp_path / METRICS
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(SyndistillError, match=r"metrics\.jsonl line 1 is damaged"):
        make_trainer(tmp_path, 20).run()


def test_a_full_disk_under_the_log_stops_in_one_line_and_the_same_call_goes_on(tmp_path, make_trainer, full_disk):
    make_trainer(tmp_path, 10).run()
    size = (tmp_path / METRICS).stat().st_size
    with full_disk(size + 50), pytest.raises(SyndistillError, match=r"cannot write .*metrics\.jsonl"):
        make_trainer(tmp_path, 20).run()
    assert (tmp_path / METRICS).stat().st_size == size
    make_trainer(tmp_path, 20).run()
    assert logged_steps(tmp_path) == [5, 10, 15, 20]


def test_a_state_of_another_run_is_refused(tmp_path, make_trainer):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_sealed(tmp_path / name / "run.json", {"format": 1, "config": {"seed": name}, "hashes": {}})
        make_trainer(tmp_path / name, 4).run()
    (tmp_path / "one" / STATE).replace(tmp_path / "other" / STATE)
    with pytest.raises(SyndistillError, match="of another run than this folder's"):
        make_trainer(tmp_path / "other", 8).run()


def test_a_foreign_or_truncated_state_is_refused_and_kept(tmp_path, make_trainer):
    make_trainer(tmp_path, 4).run()
    path = tmp_path / STATE
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(SyndistillError, match="its tensors are not those that were written"):
        make_trainer(tmp_path, 4).run()
    assert path.read_bytes() == whole[:-9]
    save_tensors(path, {"weights.model.other": torch.zeros(2)}, {"step": 2})
    with pytest.raises(SyndistillError, match="another network than this run's; use a fresh folder") as caught:
        make_trainer(tmp_path, 4).run()
    assert "\n" not in str(caught.value)
