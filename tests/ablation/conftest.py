"""A plan of seconds, from a Teacher that has learned nothing."""

import pytest

from syndistill.ablation.plans import chosen_plan
from syndistill.models.networks import build, save_network

SMALL = [
    "steps=8", "base.batch_size=32", "probing.steps=2", "probing.fit_shots=64", "probing.report_shots=64",
    "judging.cases=[[2,300],[3,300]]", "judging.teacher_shots=100", "gate_shots=100", "base.data.cached_shots=4096",
    "questions=[]",
    'sweeps=[{"student":"flat-gru-5k","budget":1,"arms":["labels","baseline","stage1-nll","oracle"]}]',
]  # fmt: skip


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    import torch

    torch.manual_seed(0)
    save_network(path, build("teacher-tiny", 3), {})
    return path


@pytest.fixture
def small_plan(teacher_path):
    """Changes -> a plan of four arms and three seeds."""

    def make(*changes):
        return chosen_plan("ablation-tiny", [*SMALL, f"teacher={teacher_path}", *changes])

    return make


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    monkeypatch.setattr("syndistill.training.source.STATISTICS_SHOTS", 256)
    monkeypatch.setattr("syndistill.training.source.STATISTICS_RATES", 1)
