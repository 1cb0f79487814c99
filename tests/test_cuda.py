"""Training, distilling and judging on a GPU, where there is one: the same verbs, near the same losses as on the CPU."""

import json

import pytest
import torch

from syndistill.cli.main import run_app

EXPERIMENT = "d=3,rounds=3,basis=z,noise=si1000,p=0.004"


def sets(device, folder):
    changes = {"device": device, "steps": 12, "batch_size": 64, "log_every": 4, "threads": 1}
    return [
        "--out", str(folder), *(part for key, value in changes.items() for part in ("--set", f"training.{key}={value}"))
    ]  # fmt: skip


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def walked(device, folder):
    """Losses of a Teacher, and of its Student by live and by cached answers."""
    assert run_app(["train", "teacher-tiny", *sets(device, folder / "teacher")]) == 0
    teacher = ["--set", f"teacher={next((folder / 'teacher').glob('teacher*.safetensors'))}", "--accept-any-teacher"]
    found = [losses_of(folder / "teacher")]
    for cached in (0, 4096):
        out = folder / f"student-{cached}"
        more = ["--set", f"data.cached_shots={cached}"]
        assert run_app(["distill", "baseline-tiny", *teacher, *more, *sets(device, out)]) == 0
        found.append(losses_of(out))
    judged = folder / "judged.json"
    what = ["--experiment", EXPERIMENT, "--shots", "500", "--seed", "1", "--json", str(judged)]
    assert run_app(["evaluate", str(out / "student.safetensors"), *what]) == 0
    assert 0 < json.loads(judged.read_text())["rows"][0]["ler"] < 0.5
    return found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_trains_distils_and_its_networks_are_judged(tmp_path):
    on_gpu, on_cpu = (walked(device, tmp_path / device) for device in ("cuda", "cpu"))
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert len(gpu) == 3
        assert gpu == pytest.approx(cpu, rel=0.02)  # convolutions in TF32 round to 1e-3
