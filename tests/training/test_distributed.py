"""Two processes of half a batch each learn what one process of the whole batch learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.training.distributed import World, share

STEPS = 6
SETTINGS = [
    f"training.steps={STEPS}", "training.batch_size=32", "training.threads=1", "training.log_every=1",
    "training.optimiser.name=adamw", "network.turn_x=true",  # a weight that batches of memory Z leave alone
]  # fmt: skip


def train(folder: Path, processes: int) -> Path:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    program = Path(sys.executable).parent / "syndistill"
    command = [*launcher, "--no-python", str(program), "train", "teacher-tiny", "--out", str(folder), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "teacher.safetensors"


def test_two_processes_give_the_weights_of_one(tmp_path):
    one, _ = load_network(train(tmp_path / "one", 1))
    two, _ = load_network(train(tmp_path / "two", 2))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        # Not bit for bit: the sum over a batch is taken in another order. AdamW turns that into steps of at most lr.
        assert torch.allclose(a, b, atol=2e-4), name
    norms = [
        [json.loads(line)["gradient_norm"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert len(norms[0]) == STEPS
    assert torch.allclose(torch.tensor(norms[0]), torch.tensor(norms[1]), rtol=1e-3)


def test_an_uneven_batch_is_refused():
    with pytest.raises(SyndistillError, match="does not divide"):
        share(torch.zeros(5), World(0, 2))
