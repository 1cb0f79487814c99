"""Distilling behind the gate."""

import json

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.evaluation.gate import GateReport
from syndistill.models.networks import load_network, preset
from syndistill.runs import gated
from syndistill.runs.gated import distil_gated
from syndistill.safe_files import unsealed

from ..reporting import Heard


def test_a_refused_teacher_teaches_only_when_told(tmp_path, student_run, gate_calls):
    out = tmp_path / "run"
    with pytest.raises(SyndistillError, match="--accept-any-teacher"):
        distil_gated(student_run, out)
    assert sorted(p.name for p in out.iterdir()) == [".lock", "gate.json", "run.json"]
    assert json.loads((out / "gate.json").read_text())["passed"] is False
    path = distil_gated(student_run, out, accept_any_teacher=True)
    assert path.is_file()
    assert len(gate_calls) == 1  # the report is kept
    judged = gate_calls[0]
    assert (judged["bases"], judged["rounds"], judged["p"]) == (("x", "z"), (3, 3), 0.004)


def test_another_teachers_report_is_not_taken(tmp_path, student_run, gate_calls):
    out = tmp_path / "run"
    with pytest.raises(SyndistillError):
        distil_gated(student_run, out)
    kept = json.loads((out / "gate.json").read_text())
    (out / "gate.json").write_text(json.dumps(unsealed(kept) | {"teacher": "0" * 64, "results": []}))
    with pytest.raises(SyndistillError, match="refuses"):
        distil_gated(student_run, out)
    assert len(gate_calls) == 2


def test_a_report_on_other_noise_is_not_taken(tmp_path, student_run, gate_calls):
    simulated = student_run.data.simulated
    quieter = simulated.model_copy(update={"curriculum": simulated.curriculum.model_copy(update={"p_max": 0.003})})
    for data in (student_run.data, student_run.data, student_run.data.model_copy(update={"simulated": quieter})):
        gated.pass_gate(student_run.teacher, data, tmp_path, accept_any_teacher=True, shots=300)
    assert [call["p"] for call in gate_calls] == [0.004, 0.003]


def test_a_teacher_that_passes_needs_no_word(tmp_path, student_run, monkeypatch):
    good = lambda teacher, **_: GateReport(teacher=teacher.key(), results=())  # noqa: E731
    monkeypatch.setattr(gated, "judge_teacher", good)
    heard = Heard()
    assert distil_gated(student_run, tmp_path / "run", reporter=heard).is_file()
    assert any("passes" in line for line in heard.said)


def test_labels_alone_need_no_gate(tmp_path, student_run, gate_calls):
    terms = student_run.terms.model_copy(update={"final": student_run.terms.final.model_copy(update={"weight": 0.0})})
    path = distil_gated(student_run.model_copy(update={"terms": terms}), tmp_path / "run")
    assert gate_calls == []
    assert not (path.parent / "gate.json").exists()


@pytest.mark.parametrize("network", [preset("flat-gru-5k", 5), preset("flat-gru-5k", 3, "joint4")])
def test_a_teacher_of_another_kind_is_refused_before_anything_is_written(tmp_path, student_run, gate_calls, network):
    with pytest.raises(SyndistillError, match="give them the same"):
        distil_gated(student_run.model_copy(update={"network": network}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert gate_calls == []


def test_a_finished_folder_is_refused_and_left_alone(tmp_path, student_run, gate_calls):
    path = distil_gated(student_run, tmp_path / "run", accept_any_teacher=True)
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(SyndistillError, match="finished"):
        distil_gated(student_run, tmp_path / "run", accept_any_teacher=True)
    assert {p: p.read_bytes() for p in path.parent.iterdir()} == before


def test_only_the_student_ships(tmp_path, student_run, gate_calls):
    student, _ = load_network(distil_gated(student_run, tmp_path / "run", accept_any_teacher=True))
    assert student.config == student_run.network
    assert all(torch.isfinite(p).all() for p in student.parameters())
