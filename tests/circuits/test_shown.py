"""What show says and draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import stim

from syndistill.circuits.placement import place, si1000_noise
from syndistill.circuits.shown import draw, observable, summary

from ..command_line import refused, run
from . import foreign


def lines(circuit: stim.Circuit) -> str:
    placement = place(circuit)
    return "\n".join(summary(circuit, placement, si1000_noise(placement.layout.distance)))


def test_it_says_what_was_understood() -> None:
    said = lines(foreign.generated("z", 3, 4))
    assert "distance 3, 4 rounds, basis Z" in said
    assert "read as basis X, the way round that shares 100.0%" in said
    assert "L0: line 0 of basis X" in said
    assert "p about" in said
    assert "far from home" not in said
    wild = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=3, before_round_data_depolarization=0.02
    )
    assert "far from home: errors of other strengths" in lines(wild)
    assert "without noise nothing says which way round" in lines(foreign.generated("z", 3, 4, 0.0))


def test_observables_in_words() -> None:
    circuit = foreign.observing(
        foreign.generated("z", 3, 3), [-9, -8, -7], [-9, -8, -7, -6, -3], [-9, -8, -7, -6, -5, -4], []
    )
    placement = place(circuit)
    words = [observable(placement, o) for o in range(4)]
    assert words[0] == "line 0 of basis X"
    assert words[1] == "line 0 of basis X times 1 check"
    assert words[2].startswith("the product of ")
    assert words[3] == "flipped by no error"


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture_is_the_same_twice(tmp_path: Path, suffix: str) -> None:
    circuit = foreign.generated("x", 3, 2)
    placement = place(circuit)
    files = [tmp_path / f"{name}{suffix}" for name in ("a", "b")]
    for file in files:
        draw(circuit, placement, si1000_noise(3), "title", file)
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert len(first) > 10_000


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circuit, model, picture = (tmp_path / name for name in ("a.stim", "a.dem", "a.svg"))
    generated = foreign.generated("z", 3, 3)
    circuit.write_text(str(generated))
    model.write_text(str(generated.detector_error_model()))
    code, said, _ = run(capsys, "show", circuit, "--network", "student-d3", "--svg", picture)
    assert code == 0
    assert "trained on si1000" in said
    assert picture.stat().st_size > 10_000
    assert run(capsys, "show", model)[0] == 0
    for arguments, says in (
        (["show", str(circuit), "--network", "student-d5"], "decodes distance 5"),
        (["show", str(circuit), "--svg", str(tmp_path / "a.txt")], "a picture is .svg"),
        (["show", str(tmp_path / "none.stim")], "cannot read"),
        (["show", str(circuit), "--svg", str(tmp_path / "a.stim" / "b.svg")], "cannot write"),
    ):
        assert says in refused(capsys, *arguments)
