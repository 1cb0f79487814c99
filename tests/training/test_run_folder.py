"""A run's folder has one process at a time, is not blocked by what a kill left, and no damage in run.json is silent."""

import subprocess
import sys

import pytest

from syndistill.errors import SyndistillError
from syndistill.training import run_folder
from syndistill.training.config import Strict
from syndistill.training.run_folder import RUN_FILE, open_run, read_run, run_key

ENDED = 2**22 + 1  # above the largest process number that Linux gives


class Run(Strict):
    seed: int = 1


def opened(folder, run=None, hashes=None):
    return open_run(folder, run or Run(), {"teacher": "t"} if hashes is None else hashes, "result")


def test_a_kill_before_the_first_file_was_renamed_blocks_nothing(tmp_path):
    (tmp_path / f".{RUN_FILE}.{ENDED}.tmp").write_text("{")
    (tmp_path / ".lock").touch()
    (tmp_path / "part").mkdir()
    with pytest.raises(SyndistillError, match="not empty"), opened(tmp_path):
        pass
    (tmp_path / "part").rmdir()
    with opened(tmp_path), opened(tmp_path):  # its holder may take it once more
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", RUN_FILE]
    (tmp_path / "signals").mkdir()
    (tmp_path / "signals" / f".state.{ENDED}.tmp").touch()
    with opened(tmp_path):
        assert list((tmp_path / "signals").iterdir()) == []


def test_a_run_from_before_an_option_is_the_same_run_with_its_default(tmp_path):
    class Later(Run):
        part_rounds: int | None = None

    with opened(tmp_path):
        before = (tmp_path / RUN_FILE).read_bytes()
    with opened(tmp_path, Later()):
        assert (tmp_path / RUN_FILE).read_bytes() == before
    for other in (Later(part_rounds=10), Later(seed=2)):
        with pytest.raises(SyndistillError, match="another configuration"), opened(tmp_path, other):
            pass


def test_what_is_not_ours_is_left_alone(tmp_path):
    for name in ("notes.txt", ".notes.txt.12.tmp"):
        (tmp_path / name).touch()
    with pytest.raises(SyndistillError, match="not empty"), opened(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.txt.12.tmp", "notes.txt"]
    (tmp_path / "notes.txt").rename(tmp_path / "result")
    with pytest.raises(SyndistillError, match="finished run"), opened(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


HOLDER = """
import sys, time
from pathlib import Path
from syndistill.safe_files import locked_folder
with locked_folder(Path(sys.argv[1]), "run folder"):
    print(flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "PATIENCE", 0.1)
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(SyndistillError, match="another process uses the run folder"), opened(tmp_path / "run"):
            pass
    finally:
        other.kill()
        other.communicate()
    with opened(tmp_path / "run"):
        pass


def test_another_run_and_every_changed_byte_are_refused(tmp_path):
    with opened(tmp_path):
        key = run_key(tmp_path)
    path = tmp_path / RUN_FILE
    whole = path.read_bytes()
    for run, hashes in ((Run(seed=2), None), (Run(), {"teacher": "u"})):
        with pytest.raises(SyndistillError, match="another configuration"), opened(tmp_path, run, hashes):
            pass
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert read_run(path)["config"] == {"seed": 1}  # white space
            assert run_key(tmp_path) == key
        except SyndistillError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0.8 * len(whole)


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "3", "", "{}"),
        '{"format": 1, "config": []}',
        '{"format": 1, "config": {}, "hashes": 3}',
        '{"format": 2, "config": {}}',
    ],
)
def test_what_is_no_run_json_is_refused(tmp_path, text):
    (tmp_path / RUN_FILE).write_text(text)
    with pytest.raises(SyndistillError, match=r"run\.json"):
        read_run(tmp_path / RUN_FILE)
