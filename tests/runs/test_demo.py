"""The demo, in seconds: a Teacher that has learned nothing, few shots, references without the 12 s table."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from syndistill.evaluation.compare import Comparison
from syndistill.runs import demo

from ..reporting import Stopping

TINY = demo.Budget(
    gate_shots=300, cached_shots=4096, probe_steps=4, fused_shots=256, steps=6, batch_size=64, judged_shots=600
)
STUDENTS = ("labels alone, 6 steps", "baseline, 6 steps", "stage 1, 3 steps", "stage 2, 6 steps")


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
    for name in ("Teacher", "pymatching-correlated", *(f"Student: {student}" for student in STUDENTS)):
        assert name in table
    assert "does not beat correlated PyMatching" in table
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((out / "comparison.json").read_text())
    assert {row["shots"] for row in result["rows"]} == {600}
    assert len({row["shots_sha256"] for row in result["rows"]}) == 1
    assert len({row["decoder_id"] for row in result["rows"]}) == 7
    steps = {stage: said_of(out, stage)["training"]["steps"] for stage in ("no_kd", "baseline", "stage1", "stage2")}
    assert steps == {"no_kd": 6, "baseline": 6, "stage1": 3, "stage2": 3}
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert demo.main([*arguments, "--accept-any-teacher"]) == 0
    again = capsys.readouterr()
    assert again.out == table
    assert "nothing is trained" in again.err
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    out.rename(tmp_path / "moved")
    assert demo.main(["--quick", "--out", str(tmp_path / "moved"), *arguments[3:], "--accept-any-teacher"]) == 0
    assert capsys.readouterr().out == table.replace(str(out), str(tmp_path / "moved"))


def said_of(out, stage):
    return json.loads((out / "road" / stage / "run.json").read_text())["config"]


@pytest.mark.slow("a second demo; roads are interrupted in test_roads")
def test_an_interrupted_demo_goes_on(tmp_path, teacher_path, capsys, monkeypatch):
    arguments = ["--quick", "--out", str(tmp_path / "demo"), "--teacher", str(teacher_path), "--accept-any-teacher"]
    with monkeypatch.context() as patched:
        patched.setattr(demo, "terminal_reporter", lambda: nullcontext(Stopping("stage1", 1)))
        assert demo.main(arguments) == 130
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    baseline = tmp_path / "demo/road/baseline/student.safetensors"
    before = baseline.read_bytes()
    monkeypatch.setattr(demo, "QUICK", TINY._replace(steps=8))
    assert demo.main(arguments) == 2
    assert "another configuration" in capsys.readouterr().err
    monkeypatch.setattr(demo, "QUICK", TINY)
    assert demo.main(arguments) == 0
    assert baseline.read_bytes() == before


def test_the_full_demo_is_the_road_with_equal_steps(teacher_path):
    road = demo.road_of(str(teacher_path), demo.FULL)
    steps = {stage: road.stage_run(stage, Path()).training.steps for stage in road.stages if stage != "fuse"}
    assert steps["no_kd"] == steps["baseline"] == steps["stage1"] + steps["stage2"]
    assert road.stage1.features.keys() == {"spatial", "temporal"}
    assert (road.stage1.readout.weight, road.stage2.fused.weight) == (1, 1)


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

    names = {"no_kd": "Student: alone", "baseline": "Student: baseline", "stage2": "Student: stage 2"}
    lers = {"pymatching-correlated": 0.05, "Teacher": 0.04} | dict(
        zip(names.values(), (0.05, 0.045, 0.042), strict=True)
    )
    pairs = [One(a=a, b=b, p_value=1e-9) for a in names.values() for b in (*names.values(), "pymatching-correlated")]

    def said(changes=None):
        rows = [One(decoder=name, ler=ler) for name, ler in (lers | (changes or {})).items()]
        return demo.verdict(Comparison(rows, pairs), names)

    assert "are worth 10.0% of the error rate: 0.0450 against 0.0500 from labels alone" in said()
    assert "The best Student (stage 2) beats correlated PyMatching: 0.0420 against 0.0500" in said()
    assert "Teacher's gain over it: alone nothing; baseline 50%; stage 2 80%." in said()
    assert "The best Student (baseline) beats" in said({"Student: stage 2": 0.051})
    assert "does not beat" in said({"Student: stage 2": 0.051, "Student: baseline": 0.051})
    assert "Kept" not in said({"Teacher": 0.05})
