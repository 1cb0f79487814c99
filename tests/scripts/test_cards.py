"""Cards: the times that enter are those of the network's own weights."""

import json

import cards
import pytest

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
