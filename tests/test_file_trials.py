"""The trials of benchmarks/file_trials.py: nothing that happens to files ends in a traceback or another result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parents[1] / "benchmarks" / "file_trials.py"


def failures(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TRIALS), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert "in all:" in done.stdout, done.stderr[-3000:]
    return done.stdout[-6000:] if done.returncode else ""


def test_a_few_trials_of_evaluation_and_stored_shots():
    few = ("--damage", "30", "--kills", "2", "--exact", "6", "--full", "3")
    assert failures("--only", "evaluate", "evaluate-again", "stored", *few) == ""


@pytest.mark.slow(reason="many runs of every verb, a quarter of an hour")
def test_many_trials_of_every_verb():
    assert failures("--damage", "500", "--kills", "30", "--exact", "54", "--full", "18") == ""
