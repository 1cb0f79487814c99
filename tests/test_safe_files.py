"""Files are whole or as they were, sealed content is what was written, and a lock has one holder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syndistill.errors import SyndistillError
from syndistill.safe_files import (
    file_sha256,
    foreign_files,
    json_sha256,
    locked,
    locked_folder,
    read_json,
    read_sealed,
    remove_stale,
    replacing,
    sealed,
    write_json,
    write_sealed,
    write_text,
)
from syndistill.safe_lines import SealedLines, TornLine, append_text

from .reporting import Heard

ENDED = 2**22 + 1  # above the largest process number that Linux gives


def test_what_is_written_is_whole_or_as_it_was(tmp_path, full_disk):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [1, None, "é"]})
    assert read_json(path, "") == {"a": [1, None, "é"]}
    with full_disk(1000), pytest.raises(SyndistillError, match=r"cannot write .*nothing was changed"):
        write_text(path, "x" * 5000)
    with pytest.raises(ZeroDivisionError), replacing(path) as beside:
        beside.write_text(f"{beside.write_text('half') / 0}")
    with pytest.raises(SyndistillError, match="not finite"):
        write_json(path, float("nan"))
    assert read_json(path, "") == {"a": [1, None, "é"]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(SyndistillError, match="cannot write"):
        write_text(path / "below-a-file", "")


def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    (tmp_path / f".a.json.{ENDED}.tmp").touch()
    (tmp_path / f".b.json.{ENDED}.tmp").touch()
    (tmp_path / f".a.json.{os.getppid()}.tmp").touch()  # that process lives
    write_text(tmp_path / "a.json", "")
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", f".b.json.{ENDED}.tmp", f".a.json.{os.getppid()}.tmp"}


def test_a_folder_s_owner_removes_all_that_is_left_but_not_below_another_lock(tmp_path):
    for folder in ("mine", "mine/part", "mine/locked"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f".x.{os.getpid()}.tmp").touch()
        (tmp_path / folder / "kept.tmp").touch()
    (tmp_path / "mine" / "folder").mkdir()
    (tmp_path / "mine" / f".folder.{ENDED}.tmp").mkdir()
    (tmp_path / "mine" / "locked" / ".lock").touch()
    assert [p.name for p in foreign_files(tmp_path / "mine" / "locked")] == ["kept.tmp"]
    assert foreign_files(tmp_path / "none") == []
    remove_stale(tmp_path / "mine")
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob(".*.tmp"))
    assert left == [f"mine/locked/.x.{os.getpid()}.tmp"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: data.replace(b"12", b"13"),
        lambda data: data.replace(b'"a"', b'"b"'),
        lambda data: data.replace(b'"sha256"', b'"sha255"'),
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
        lambda data: b'{"a": "1' + b"0" * 5000 + b'"}',
    ],
)
def test_a_damaged_sealed_file_is_one_line(tmp_path, damage):
    path = tmp_path / "run.json"
    write_sealed(path, {"a": 12})
    assert read_sealed(path, "mend it", dict[str, int]) == {"a": 12}
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SyndistillError, match=r"mend it$") as caught:
        read_sealed(path, "mend it", dict[str, int])
    assert "\n" not in str(caught.value)


def test_files_of_earlier_versions_have_no_seal(tmp_path):
    write_json(tmp_path / "old.json", {"a": 1})
    assert read_sealed(tmp_path / "old.json", "") == {"a": 1}
    with pytest.raises(SyndistillError, match="cannot read"):
        read_sealed(tmp_path / "none.json", "")


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    assert file_sha256(tmp_path / "a").startswith("ca978112ca1bbdca")
    assert json_sha256({"a": 1, "b": 2.5}) == json_sha256({"b": 2.5, "a": 1}) != json_sha256({"a": 1, "b": 2})


HOLDER = """
import sys, time
from pathlib import Path
from syndistill.safe_files import locked_folder
with locked_folder(Path(sys.argv[1]), "run folder"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SyndistillError, match="another process uses the run folder"), locked_folder(
            tmp_path / "run", "run folder", wait=0.1
        ):
            pass
        heard = Heard()
        holder.kill()
        with locked(tmp_path / "run" / ".lock", "the run", wait=20, reporter=heard), locked_folder(
            tmp_path / "run", "run folder"
        ):  # the holder may take it once more
            pass
        assert heard.said in ([], ["waiting for another process that uses the run"])
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SyndistillError, match="cannot use the run folder"), locked_folder(
        tmp_path / "file" / "run", "run folder"
    ):
        pass


WRITER = """
import sys
from pathlib import Path
from syndistill.safe_lines import SealedLines
lines, known = SealedLines(Path(sys.argv[1]), ""), set()
for number in range(60):
    with lines.held():
        known |= {content["number"] for _, content in lines.new()}
        if number not in known:
            lines.append([{"number": number, "text": "x" * 9000}])
"""


def test_processes_that_append_at_once_write_every_line_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert [content["number"] for _, content in SealedLines(path, "").new()] == list(range(60))


def test_a_torn_line_is_left_out_by_readers_and_cut_off_by_writers(tmp_path):
    path = tmp_path / "rows.jsonl"
    with SealedLines(path, "").held():
        SealedLines(path, "").append([{"a": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-3])
    with pytest.warns(TornLine, match="left out"):
        assert [content for _, content in SealedLines(path, "").new()] == [{"a": 1}]
    assert path.read_bytes() == whole + whole[:-3]
    lines = SealedLines(path, "")
    with pytest.warns(TornLine), lines.held():
        assert [content for _, content in lines.new()] == [{"a": 1}]
    with lines.held():
        lines.append([{"a": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [sealed({"a": 1}), sealed({"a": 2})]


@pytest.mark.parametrize("size", [10, 25])
def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, full_disk, size):
    path = Path(tmp_path / "log")
    append_text(path, "0123456789\n")
    with full_disk(size), pytest.raises(SyndistillError, match=r"cannot write .*free some space"):
        append_text(path, "x" * 50 + "\n")
    assert path.read_text() == "0123456789\n"
