"""The table of Students of few recorded shots, from a twin of a recording."""

import pytest
import scarce
from tests.sampling.recordings import make_plain

from syndistill.circuits.experiment import Experiment


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
    assert lines[2].split(" | ")[1:3] == ["labels alone", "+ final logits"]
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| 50"]
    assert all(line.count(" to ") == 3 for line in lines[4:])  # every arm but the one that the others are held against
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(list((tmp_path / "out").iterdir())) == 4 * 3
    assert scarce.main(call) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_shots_that_are_judged_on_are_not_learned_from(twin, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        scarce.main([str(twin), "--out", str(tmp_path), "--teacher", "student-d3", "--counts", "201"])
    assert stop.value.code == 2
    assert "201 shots of 400, half of which are judged on; ask for 200 at most" in capsys.readouterr().err
