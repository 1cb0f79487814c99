"""The table of long experiments: paired ratios and both fits, from rows that are kept."""

from types import SimpleNamespace

import long
import pytest

NETWORK = "student-d3"


@pytest.mark.filterwarnings("ignore:student-d3 was trained on at most 25 rounds")
def test_the_table_and_that_a_second_call_decodes_nothing(tmp_path, capsys):
    call = [NETWORK, "--rows", str(tmp_path / "rows.jsonl"), "--shots", "300", "--early-shots", "400", "--bases", "z"]
    call += ["--rounds", "5", "9", "15", "25", "40", "60"]
    assert long.main(call) == 0
    first, size = capsys.readouterr().out, (tmp_path / "rows.jsonl").stat().st_size
    lines = first.splitlines()
    assert lines[0] == "## d=3, SI1000 p=0.004, basis z"
    assert lines[2] == "| decoder | r=5 | r=9 | r=15 | r=25 | r=40 | r=60 |"
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| pymatching-correlated", f"| {NETWORK}"]
    assert lines[4].count("(") == 0
    assert lines[5].count(" to ") == 6
    assert lines[9].count(" to ") == 2
    picture = tmp_path / "long.png"
    assert long.main([*call, "--page", str(tmp_path / "page.md"), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page.md").read_text().strip() == first.strip()
    assert (tmp_path / "rows.jsonl").stat().st_size == size


@pytest.mark.parametrize(("rounds", "said"), [
    (("5", "9", "15"), "0 numbers of rounds from 25 to 100"),
    (("3", "9", "25", "50", "100"), "1 numbers of rounds from 5 to 15: a fit needs 3"),
])  # fmt: skip
def test_too_few_to_fit(tmp_path, capsys, rounds, said):
    call = [NETWORK, "--rows", str(tmp_path / "rows.jsonl"), "--shots", "50", "--early-shots", "50", "--bases", "z"]
    call += ["--rounds", *rounds]
    assert long.main(call) == 2
    assert f"error: {said}" in capsys.readouterr().err
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_decoder_that_has_lost_the_frame_is_said_to_be_a_coin():
    """A fit needs error rates below one half; another decoder's row beside it is fitted."""
    rounds = (5, 9, 15, 25, 50, 100)
    errors = {"good": (50, 90, 140, 220, 350, 450), "lost": (50, 90, 160, 300, 480, 503)}
    found = {
        r: SimpleNamespace(rows=[SimpleNamespace(decoder=name, errors=e[i], shots=1000) for name, e in errors.items()])
        for i, r in enumerate(rounds)
    }
    early, late, ratio = long._per_round(found, "lost").split(" | ")
    assert (late, ratio) == ("a coin after 100", "-")
    assert early.count(" to ") == 1
    assert long._per_round(found, "good").count(" to ") == 2
