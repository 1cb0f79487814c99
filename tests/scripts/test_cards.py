"""Cards: the times that enter are those of the network's own weights."""

import json
from dataclasses import replace

import cards
import pytest

from syndistill.evaluation.rows import Row
from syndistill.models.networks import load_network, weights_hash

NAME = "student-d3"
TIMES = {"us_per_shot": 0.12345, "single_p50": 3.0, "single_p99": 9.0, "push_p50": None, "push_p99": None, "round": 0.5}


@pytest.fixture
def speed():
    own = weights_hash(load_network(NAME)[0])
    row = {"experiment": "d=3", "decoder": NAME, **TIMES}
    rows = [row | {"decoder_id": f"{sha256}-{way}"} for sha256 in (own, "0" * 64) for way in ("compiled", "int8")]
    return {"machine": {"processor": "a chip", "cores": 2, "load": 0.0}, "rows": rows}


def test_a_card_holds_its_own_networks_times(speed):
    found = cards.card_of(NAME, [], speed)["microseconds"]
    assert found["machine"]["processor"] == "a chip"
    assert [entry["run_by"] for entry in found["measured"]] == ["compiled", "int8"]
    assert found["measured"][0] == {"experiment": "d=3", "run_by": "compiled", **TIMES, "us_per_shot": 0.123}
    assert not {"microseconds", "confidence"} & set(cards.card_of(NAME, []))


def test_a_card_holds_its_own_networks_confidence():
    figures = {"experiment": "d=3", "shots": 9, "ece": 0.1, "best_temperature": 1.0, "kept": [[9, 1]]}
    figures["reliability"] = {"counts": [9]}
    own = weights_hash(load_network(NAME)[0])
    rows = [figures | {"decoder_id": sha256, "decoder": "a"} for sha256 in (own, "0" * 64)]
    assert cards.card_of(NAME, [], None, {"rows": rows})["confidence"] == [figures]


def test_a_wrong_file_of_figures(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    (tmp_path / "speed.json").write_text("none")
    for name in ("speed.json", "nowhere.json"):
        assert cards.main(["--rows", str(rows), "--speed", str(tmp_path / name)]) == 2
        assert "benchmarks/decoding_speed.py makes it" in capsys.readouterr().err


def test_what_the_benchmark_writes_is_read(speed, tmp_path):
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(speed))
    assert cards._read([path], "the benchmark") == [speed]


def row(rounds, errors, basis="z", network=NAME):
    sha256 = weights_hash(load_network(network)[0])
    experiment = f"d=3,rounds={rounds},basis={basis},noise=si1000,p=0.004"
    return Row(network, sha256, experiment, "c" * 64, f"{rounds}{basis}", "s", 1_000, errors, (errors,), 1.0, 1, None)


def test_a_card_says_the_late_error_per_round_where_there_are_long_experiments():
    short = [row(rounds, errors) for rounds, errors in ((3, 30), (25, 200))]
    assert "late_error_per_round" not in cards.card_of(NAME, short)
    (found,) = cards.card_of(NAME, [*short, row(50, 320), row(100, 435), row(25, 210, "x")])["late_error_per_round"]
    assert found["experiments"] == "d=3,basis=z,noise=si1000,p=0.004"
    assert found["rounds"] == [25, 50, 100]
    assert found["low"] < found["error"] < found["high"]
    assert found["error"] == pytest.approx(0.01, rel=0.1)


def test_recordings_are_scores_and_no_long_experiments():
    recorded = replace(row(25, 90), experiment="surface_code_bX_d3_r25_center_3_5")
    found = cards.card_of(NAME, [recorded])
    assert [score["experiment"] for score in found["scores"]] == [recorded.experiment]
    assert "late_error_per_round" not in found


def test_cards_are_of_shipped_networks(capsys, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    assert cards.main(["student-d4", "--rows", str(rows)]) == 2
    assert "'student-d4' is no shipped network" in capsys.readouterr().err
