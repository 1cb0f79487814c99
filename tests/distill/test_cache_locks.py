"""One process writes a cache while others wait, and what a kill left is cleaned up."""

import subprocess
import sys

from syndistill.distill.student import train_student

from ..reporting import Heard

ENDED = 2**22 + 1  # above the largest process number that Linux gives
HOLDER = """
import sys, time
from pathlib import Path
from syndistill.safe_files import locked_folder
with locked_folder(Path(sys.argv[1]), "cache"):
    print(flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)
"""


def test_a_run_waits_for_the_cache_that_another_one_writes(tmp_path, stage1_run):
    cache = tmp_path / "cache"
    (cache / "signals").mkdir(parents=True)
    (cache / "signals").rmdir()
    (cache / f".begun.json.{ENDED}.tmp").write_text("{")
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(cache), str(tmp_path / "end")], stdout=subprocess.PIPE)
    other.stdout.readline()

    class Ending(Heard):
        def say(self, line):
            super().say(line)
            (tmp_path / "end").touch()

    heard = Ending()
    train_student(stage1_run(steps=2), tmp_path / "run", cache, heard)
    other.communicate(timeout=10)
    assert heard.said[0] == f"waiting for another process that uses the cache {cache}"
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith(".tmp")]
