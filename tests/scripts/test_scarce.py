"""The table of Students of few recorded shots, from a twin of a recording."""

import pytest
import scarce
import torch
from tests.sampling.recordings import make_plain

from syndistill.circuits.experiment import Experiment
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.models.networks import build, load_network, save_network
from syndistill.sampling.recorded_shots import RecordedShots


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    circuit = Experiment(3, 2, "z", "si1000", 0.006).circuit()
    return make_plain(tmp_path_factory.mktemp("twin") / "recorded", circuit, "z", 2, shots=400)


def test_a_row_a_count_and_a_second_call_learns_nothing(twin, tmp_path, capsys):
    call = [str(twin), "--out", str(tmp_path / "out"), "--teacher", "student-d3", "--student", "flat-gru-5k"]
    call += ["--counts", "50", "--seeds", "1", "2", "3", "--steps", "3"]
    assert scarce.main(call) == 0
    first = capsys.readouterr()
    lines = first.out.splitlines()
    assert lines[0].startswith("LER in per cent, 200 shots; the Teacher ")
    assert lines[2] == "| the Student learns from | 50 shots |"
    named = ["labels alone", scarce.BASE, "+ time", "+ time, shuffled", "labels and calibrated final logits"]
    assert [line.split(" | ")[0] for line in lines[4:]] == [f"| {name}" for name in named]
    assert [" to " in line for line in lines[4:]] == [name != scarce.BASE for name in named]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(list((tmp_path / "out").glob("50-*/*"))) == 5 * 3
    assert scarce.main(call) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_teacher_with_states_inside_a_round_has_every_arm(twin, tmp_path, capsys):
    """Fused logits and two stages too; each recorded shot is asked about once."""
    save_network(tmp_path / "teacher.safetensors", build("teacher-tiny", 3), {})
    call = [str(twin), "--out", str(tmp_path), "--teacher", str(tmp_path / "teacher.safetensors"), "--seeds", "1"]
    call += ["--student", "flat-gru-5k"]
    assert scarce.main([*call, "--counts", "50", "--steps", "4", "--probe-steps", "2"]) == 0
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in capsys.readouterr().out.splitlines()[4:]}
    assert rows.keys() == scarce.arms_of(["spatial", "temporal"]).keys()
    assert len(rows) == 11
    assert len(list((tmp_path / "50-1").glob("two-stages-*-first/student.safetensors"))) == 2


def test_what_is_remembered_is_what_the_teacher_says(twin):
    shots = RecordedShots([str(twin)], 40, 40, seed=1).shots[0]
    teacher = FrozenTeacher(load_network("teacher-d3")[0])
    asked, answer = [], teacher.answer
    teacher.answer = lambda shots, want: asked.append(len(shots)) or answer(shots, want)
    once = scarce.Remembering(teacher)
    for part in (slice(0, 30), slice(10, 40), slice(0, 40)):
        mine, its = (ask(shots.take(part), ["temporal"]) for ask in (once.answer, answer))
        torch.testing.assert_close(mine.logits_BKLC, its.logits_BKLC, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine.signals["temporal"], its.signals["temporal"], rtol=1e-4, atol=1e-4)
    assert sum(asked) <= 40


def test_shots_that_are_judged_on_are_not_learned_from(twin, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        scarce.main([str(twin), "--out", str(tmp_path), "--teacher", "student-d3", "--counts", "201"])
    assert stop.value.code == 2
    assert "201 shots of 400, half of which are judged on; ask for 200 at most" in capsys.readouterr().err
