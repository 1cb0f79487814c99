"""A Teacher that has learned nothing, a Student's run of seconds, and a gate of few shots."""

import pytest
import torch

from syndistill.distill.student import StudentRun
from syndistill.evaluation.gate import judge_teacher
from syndistill.models.networks import build, save_network
from syndistill.runs import gated
from syndistill.runs.choose import chosen_run


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_network(path, build("teacher-tiny", 3), {})
    return path


@pytest.fixture
def student_run(teacher_path):
    """Live, 4 steps."""
    sets = [f"teacher={teacher_path}", "data.cached_shots=0", "training.steps=4", "training.batch_size=16"]
    return chosen_run(StudentRun, "baseline-tiny", sets)


@pytest.fixture
def gate_calls(monkeypatch):
    """The gate on 300 shots; the list grows by one with each judgement."""
    calls = []

    def judge(network, **options):
        calls.append(options)
        return judge_teacher(network, **options | {"shots": 300})

    monkeypatch.setattr(gated, "judge_teacher", judge)
    return calls
