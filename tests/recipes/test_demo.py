"""The demo, in seconds: a Teacher that has learned nothing, few shots, references without the 12 s table."""

import json

import pytest

from syndistill.evaluation.compare import Comparison
from syndistill.recipes import demo

TINY = demo.Budget(gate_shots=300, cached_shots=4096, steps=5, batch_size=64, judged_shots=600)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(demo, "QUICK", TINY)
    monkeypatch.setattr(demo, "REFERENCES", ("pymatching", "pymatching-correlated"))


def test_it_distils_judges_draws_and_does_not_repeat_itself(tmp_path, teacher_path, capsys):
    out = tmp_path / "demo"
    arguments = ["--quick", "--out", str(out), "--teacher", str(teacher_path)]
    assert demo.main(arguments) == 2
    assert "error: the gate refuses the Teacher" in capsys.readouterr().err
    assert demo.main([*arguments, "--accept-any-teacher"]) == 0
    table = capsys.readouterr().out
    for name in ("Teacher", "Student", "Student, labels alone", "pymatching-correlated"):
        assert name in table
    assert "The Student does not beat correlated PyMatching" in table
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((out / "comparison.json").read_text())
    assert {row["shots"] for row in result["rows"]} == {600}
    assert len({row["shots_sha256"] for row in result["rows"]}) == 1
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert demo.main([*arguments, "--accept-any-teacher"]) == 0
    again = capsys.readouterr()
    assert again.out == table
    assert "nothing is trained" in again.err
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_finished_demo_with_other_settings_is_refused(tmp_path, teacher_path, capsys, monkeypatch):
    (tmp_path / "comparison.json").write_text(json.dumps({"demo": {"steps": 1}}))
    assert demo.main(["--quick", "--out", str(tmp_path)]) == 2
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "comparison.json").write_text("{")
    assert demo.main(["--quick", "--out", str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert demo.main(["--out", str(tmp_path / "demo"), "--teacher", "nobody"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_the_verdict_counts_the_gain_kept():
    class One:
        def __init__(self, **values):
            self.__dict__ |= values

    rows = [
        One(decoder=name, ler=ler)
        for name, ler in [("pymatching-correlated", 0.05), ("Teacher", 0.04), ("Student", 0.042)]
    ]
    pairs = [One(a="Student", b="pymatching-correlated", p_value=1e-9)]
    said = demo.verdict(Comparison(rows, pairs))
    assert "beats correlated PyMatching: LER 0.0420 against 0.0500" in said
    assert "80% of the Teacher's gain" in said
