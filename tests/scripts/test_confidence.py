"""The confidence recipe: figures that add up, a picture, and refusals that write nothing."""

import json

import confidence
import pytest

EXPERIMENT = "d=3,rounds=2,basis=z,noise=si1000,p=0.005"
QUICK = ["--experiment", EXPERIMENT, "--shots", "600"]


def test_figures_and_picture(tmp_path, capsys):
    figures, picture = tmp_path / "confidence.json", tmp_path / "confidence.png"
    command = ["matching-gap", "student-d3", *QUICK, "--json", str(figures), "--picture", str(picture)]
    assert confidence.main(command) == 0
    rows = json.loads(figures.read_text())["rows"]
    assert [row["decoder"] for row in rows] == ["matching-gap", "student-d3"]
    assert len({row["shots_sha256"] for row in rows}) == 1
    for row in rows:
        assert row["kept"][0][0] == row["shots"] == 600
        shots, errors = zip(*row["kept"], strict=True)
        assert list(shots) == sorted(shots, reverse=True)
        assert list(errors) == sorted(errors, reverse=True)
        assert sum(row["reliability"]["counts"]) == 600
        assert set(row["reliability"]) == {"counts", "predicted", "observed"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "student-d3: T " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pymatching", *QUICK], "pymatching gives no probabilities"),
        (["nobody", *QUICK], "nobody"),
        (["matching-gap", "--experiment", "d=3"], "lacks"),
    ],
)
def test_refusals(tmp_path, capsys, arguments, said):
    assert confidence.main([*arguments, "--json", str(tmp_path / "a.json")]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
