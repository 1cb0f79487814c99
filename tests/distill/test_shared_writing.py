"""Two processes that write a cache together write what one writes alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

from syndistill.distill.cache.store import BEGUN, MANIFEST
from syndistill.distill.student import train_student

PROGRAM = """
import sys
from pathlib import Path
from syndistill.training import source
from syndistill.distill.student import StudentRun, train_student
source.STATISTICS_SHOTS, source.STATISTICS_RATES = 256, 1  # as of the process beside it
folder = Path(sys.argv[1])
train_student(StudentRun.model_validate_json(Path(sys.argv[2]).read_text()), folder)
"""


def cache_of_two_processes(folder: Path, run: Path) -> Path:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "--no-python", sys.executable, "-c", PROGRAM, str(folder), str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "cache"


def test_two_processes_write_the_cache_of_one(tmp_path, stage1_run):
    run = stage1_run(cached_shots=3 * 4096, steps=2)
    one = tmp_path / "one" / "cache"
    train_student(run, tmp_path / "one", one)
    (tmp_path / "run.json").write_text(run.model_dump_json())
    two = cache_of_two_processes(tmp_path / "two", tmp_path / "run.json")
    manifests = [path.relative_to(one) for path in one.rglob(MANIFEST)]
    assert len(manifests) == 3  # logits, and two features beside them
    for path in manifests:
        assert json.loads((one / path).read_text()) == json.loads((two / path).read_text())
    assert len(list(two.glob("chunk-*"))) == 3
    assert not (two / BEGUN).exists()
