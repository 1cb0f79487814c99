"""What the inside is worth at each budget: the rows' own numbers, counted here by hand, and a picture."""

import json
import math
from pathlib import Path

import inside_worth

RESULTS = Path(__file__).parents[2] / "results"


def lers(folder, arm):
    """seed -> LER of both bases, from the lines as they stand."""
    found = {}
    for line in (folder / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "score" and row["arm"] == arm:
            errors, shots = found.get(row["seed"], (0, 0))
            found[row["seed"]] = (errors + row["errors"], shots + row["shots"])
    return {seed: errors / shots for seed, (errors, shots) in found.items()}


def test_the_change_is_that_of_the_rows_and_the_picture_is_drawn(tmp_path, capsys):
    folder, picture = RESULTS / "inside-d5-10k", tmp_path / "worth.png"
    assert inside_worth.main([str(folder), str(RESULTS / "inside-d3"), "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    with_it, without = (lers(folder, arm) for arm in ("spatial+temporal", "baseline"))
    logs = [math.log(with_it[seed] / without[seed]) for seed in (1, 2, 3)]
    change = 100 * math.expm1(sum(logs) / 3)
    here = next(line for line in lines if "| 10,240 |" in line)
    assert f"| {change:+.1f} (" in here
    assert f"| {100 * sum(without.values()) / 3:.2f} |" in here
    assert "| 5 | local-gru-29k | 10,240 | 3,600 | 3 |" in here
    assert sum(line.startswith("| 3 |") for line in lines) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_rows_that_are_not_there_are_said_in_one_line(tmp_path, capsys):
    assert inside_worth.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there are no rows")
    assert said.count("\n") == 1
