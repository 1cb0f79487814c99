"""Two processes that write a cache together write what one writes alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

from syndistill.distill.manifest import BEGUN, MANIFEST

PROGRAM = """
import sys
from pathlib import Path
from syndistill.distill.run import StudentRun, train_student
folder = Path(sys.argv[1])
train_student(StudentRun.model_validate_json(Path(sys.argv[2]).read_text()), folder)
"""


def cache_of(folder: Path, run: Path, processes: int) -> Path:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*launcher, "--no-python", sys.executable, "-c", PROGRAM, str(folder), str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "cache"


def test_two_processes_write_the_cache_of_one(tmp_path, stage1_run):
    run = tmp_path / "run.json"
    run.write_text(stage1_run(cached_shots=3 * 4096, steps=2).model_dump_json())
    one, two = (cache_of(tmp_path / str(n), run, n) for n in (1, 2))
    manifests = [path.relative_to(one) for path in one.rglob(MANIFEST)]
    assert len(manifests) == 3  # logits, and two features beside them
    for path in manifests:
        assert json.loads((one / path).read_text()) == json.loads((two / path).read_text())
    assert len(list(two.glob("chunk-*"))) == 3
    assert not (two / BEGUN).exists()
