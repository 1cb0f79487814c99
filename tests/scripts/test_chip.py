"""The page of a chip's recordings: all patches and lengths, from rows that are kept."""

import chip
import pytest
from tests.sampling.recordings import make_recording

from syndistill.evaluation.rows import RowsFile
from syndistill.models.networks import load_network, save_network


@pytest.fixture
def recordings(tmp_path):
    for moved in (0, 2):
        for rounds in (1, 2, 3, 4):
            make_recording(tmp_path / "all" / f"{moved}-{rounds}", 400, moved, 0.03, rounds)
    return tmp_path / "all"


@pytest.mark.filterwarnings("ignore:student-d3 was trained on si1000")
def test_the_page_of_two_patches(recordings, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    call = [str(recordings), "student-d3", "pymatching", "--distance", "3", "--rows", str(rows)]
    assert chip.main(call) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "All 3,200 recorded shots" in text
    names = ["pymatching-correlated@pij", "student-d3", "pymatching"]
    head = lines.index("| decoder | 3,3 | 5,5 | mean |")
    assert [line.split(" | ")[0] for line in lines[head + 2 : head + 5]] == [f"| {name}" for name in names]
    found = [row for row in RowsFile(rows).rows.values() if row.decoder == "student-d3"]
    fits = [cell.split(" (")[0] for cell in lines[head + 3].split(" | ")[1:4]]
    assert float(fits[2]) == pytest.approx((float(fits[0]) + float(fits[1])) / 2, abs=2e-3)
    of_length = lines[lines.index("| decoder | r=1 | r=2 | r=3 | r=4 |") + 3].strip("| ").split(" | ")[1:]
    assert sum(float(cell) for cell in of_length) == pytest.approx(sum(row.errors for row in found) / 8, abs=0.03)
    size = rows.stat().st_size
    assert chip.main([*call, "--page", str(tmp_path / "page.md")]) == 0
    assert rows.stat().st_size == size
    assert (tmp_path / "page.md").read_text().splitlines()[0] == "# Recordings of distance 3"


@pytest.mark.filterwarnings("ignore:student-d3 was trained on si1000")
def test_shots_that_were_learned_are_left_out(recordings, tmp_path, capsys):
    call = [str(recordings), "student-d3", "--distance", "3", "--rows", str(tmp_path / "rows.jsonl")]
    assert chip.main([*call, "--skip", "100"]) == 0
    text = capsys.readouterr().out
    assert "2,400 recorded shots, all but the first 100 of each recording" in text
    assert "--distance 3 --skip 100 --rows" in text
    assert {row.shots for row in RowsFile(tmp_path / "rows.jsonl").rows.values()} == {300}
    network, _ = load_network("student-d3")
    mine = tmp_path / "mine.safetensors"
    save_network(mine, network, {"seen": {"2-3": 150}})
    for options, said in ((["--skip", "100"], "has seen the first 150 shots of 2-3"), (["--skip", "-1"], "0 or more")):
        assert chip.main([str(recordings), str(mine), *call[2:], *options]) == 2
        assert said in capsys.readouterr().err


def test_an_empty_folder_is_one_line(tmp_path, capsys):
    assert chip.main([str(tmp_path), "student-d3", "--distance", "3", "--rows", str(tmp_path / "rows.jsonl")]) == 2
    assert "holds no recorded experiment" in capsys.readouterr().err
