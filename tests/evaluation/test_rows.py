"""Rows add up, are never counted twice, and damaged files are refused with the line's number."""

import json

import numpy as np
import pytest

from syndistill.errors import SyndistillError
from syndistill.evaluation.rows import Pair, Row, RowsFile, combine, pair_key, row_key
from syndistill.safe_lines import TornLine
from syndistill.statistics.calibration import CalibrationSums, nll
from syndistill.statistics.rates import mcnemar, wilson

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.random((300, 2)) * 0.4 + RNG.choice([0, 0.6], (300, 2))  # none near a tie
WRONG = np.zeros((300, 2), bool)
for _index in range(3):  # batches of 100 shots, of which 6 and 7 + index are wrong, 10 + index in any observable
    WRONG[100 * _index : 100 * _index + 6, 0] = True
    WRONG[100 * _index + 3 : 100 * _index + 10 + _index, 1] = True
LABELS = (PROBABILITIES > 0.5) ^ WRONG


def row(index=0, decoder="a", **changes):
    part = slice(100 * index, 100 * index + 100)
    values = {
        "decoder": decoder,
        "decoder_id": f"id of {decoder}",
        "experiment": "d=3",
        "circuit_sha256": "c0",
        "batch": f"seed=1,index={index},shots=100",
        "shots_sha256": f"s{index}",
        "shots": 100,
        "errors": 10 + index,
        "errors_per_observable": (6, 7 + index),
        "seconds": 0.5,
        "parameters": 1234,
        "calibration": CalibrationSums.of(PROBABILITIES[part], LABELS[part]),
    }
    return Row(**(values | changes))


def pair(index=0, **changes):
    values = {
        "a": "a",
        "b": "b",
        "a_id": "id of p",
        "b_id": "id of q",
        "experiment": "d=3",
        "circuit_sha256": "c0",
        "batch": f"seed=1,index={index},shots=100",
        "shots_sha256": f"s{index}",
        "shots": 100,
        "only_a_wrong": 3 + index,
        "only_b_wrong": 9,
        "both_wrong": 4,
    }
    return Pair(**(values | changes))


def test_derived_numbers():
    one = row()
    assert one.ler == 0.1
    assert (one.low, one.high) == wilson(10, 100)
    assert one.us_per_shot == 5000
    assert one.nll == pytest.approx(nll(PROBABILITIES[:100], LABELS[:100]))
    assert one.ece is not None
    assert one.best_temperature is not None
    hard = row(calibration=None)
    assert (hard.nll, hard.ece, hard.best_temperature) == (None, None, None)
    assert pair().p_value == mcnemar(3, 9)
    assert pair().ratio.ratio == pytest.approx(7 / 13)
    assert pair(only_a_wrong=0, both_wrong=0).ratio is None


def test_keys_tell_decoder_circuit_and_batch_only():
    assert row().key == row_key("id of a", "c0", "seed=1,index=0,shots=100")
    assert row(decoder="renamed", decoder_id="id of a", errors=12, seconds=9.0).key == row().key
    keys = {row().key, row(1).key, row(decoder="b").key, row(circuit_sha256="c1").key, pair().key}
    assert len(keys) == 5
    assert pair().flipped().key == pair().key == pair_key("id of q", "id of p", "c0", pair().batch)


def test_combine_rows():
    (total,) = combine([row(0), row(1), row(2)])
    assert (total.shots, total.errors, total.errors_per_observable, total.seconds) == (300, 33, (18, 24), 1.5)
    assert total.nll == pytest.approx(nll(PROBABILITIES, LABELS))
    (other_order,) = combine([row(2), row(0), row(1)])
    assert (other_order.key, other_order.shots_sha256) == (total.key, total.shots_sha256)
    assert len({total.key, row(0).key, combine([row(0), row(1)])[0].key}) == 3
    assert combine([row(0)]) == [row(0)]


def test_combine_keeps_decoders_and_circuits_apart():
    found = combine([row(0), row(0, "b"), row(1), row(0, circuit_sha256="c1")])
    assert [(r.decoder, r.circuit_sha256, r.shots) for r in found] == [
        ("a", "c0", 200),
        ("b", "c0", 100),
        ("a", "c1", 100),
    ]


def test_combine_pairs_whatever_their_orientation():
    (total,) = combine([pair(0), pair(1).flipped(), pair(2)])
    assert (total.a, total.only_a_wrong, total.only_b_wrong, total.both_wrong, total.shots) == ("a", 12, 27, 12, 300)


def test_combine_refuses_a_batch_twice():
    with pytest.raises(SyndistillError, match="comes twice"):
        combine([row(0), row(1), row(0)])
    with pytest.raises(SyndistillError, match="comes twice"):
        combine([pair(0), pair(0).flipped()])


def test_impossible_counts_are_refused():
    for change in ({"shots": 0}, {"errors": 101}, {"errors": -1}, {"errors": 1.0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match=r"counts|seconds|errors"):
            row(**change)
    with pytest.raises(ValueError, match="counts"):
        pair(only_b_wrong=60, both_wrong=60)


def test_file_round_trip(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowsFile(path).append([row(0), pair(0)])
    RowsFile(path).append([row(1), row(0), row(0, "b", calibration=None, parameters=None)])
    back = RowsFile(path)
    assert len(path.read_text().splitlines()) == 4
    assert list(back.pairs.values()) == [pair(0)]
    rows = list(back.rows.values())
    assert rows == [row(0), row(1), row(0, "b", calibration=None, parameters=None)]


def test_file_that_cannot_be_used(tmp_path):
    with pytest.raises(SyndistillError, match="cannot use"):
        RowsFile(tmp_path / "missing" / "rows.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(SyndistillError, match="line 1 is damaged"):
        RowsFile(tmp_path / "binary")


def _altered(**changes):
    """A line of earlier versions, which had no hash, with other content."""
    return lambda line: json.dumps(_unsealed(line) | changes) + "\n"


def _unsealed(line):
    return {key: value for key, value in json.loads(line).items() if key != "sha256"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2] + "\n",
        lambda line: "\n",
        lambda line: "[]\n",
        lambda line: "3\n",
        _altered(format=2),
        _altered(kind="other"),
        _altered(key="0"),
        _altered(decoder_id="other"),
        _altered(errors=1000),
        _altered(errors=7),
        _altered(errors_per_observable=[5, 8]),
        _altered(errors_per_observable=[6, 6], errors=10),
        lambda line: line.replace('"errors":11', '"errors":10'),
        lambda line: line.replace('"seconds":0.5', '"seconds":1.5'),
        lambda line: line.replace('"sha256"', '"sha255"'),
        _altered(errors="10"),
        _altered(colour="red"),
        _altered(calibration={"nll_sum": 1.0}),
        _altered(errors_per_observable=3),
    ],
)
def test_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    RowsFile(path).append([row(0), pair(0), row(1)])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], damage(lines[2])]))
    before = path.read_bytes()
    with pytest.raises(SyndistillError, match=r"line 3 .*delete that line"):
        RowsFile(path)
    assert path.read_bytes() == before


def test_missing_field_and_repeated_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowsFile(path).append([row(0)])
    fields = _unsealed(path.read_text())
    path.write_text(path.read_text() * 2)
    with pytest.raises(SyndistillError, match="line 2 repeats"):
        RowsFile(path)
    del fields["seconds"]
    path.write_text(json.dumps(fields) + "\n")
    with pytest.raises(SyndistillError, match="line 1 is damaged"):
        RowsFile(path)


def test_no_path_keeps_rows_in_memory():
    rows = RowsFile(None)
    rows.append([row(0), pair(0)])
    assert len(rows.rows) == len(rows.pairs) == 1


def test_a_torn_last_line_is_cut_off_with_a_warning_and_its_batch_comes_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowsFile(path).append([row(0), row(1)])
    whole = path.read_bytes()
    for cut in (1, 100):
        path.write_bytes(whole[:-cut])
        with pytest.warns(TornLine, match="cut short"):
            rows = RowsFile(path)
        assert list(rows.rows.values()) == [row(0)]
        rows.append([row(1)])
        assert path.read_bytes() == whole


def test_two_that_append_at_once_never_count_a_batch_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    one, other = RowsFile(path), RowsFile(path)
    one.append([row(0), row(0, "b")])
    other.append([row(0), row(1)])
    one.append([row(1), pair(0)])
    assert list(RowsFile(path).rows.values()) == [row(0), row(0, "b"), row(1)] == list(one.rows.values())
    other.append([])
    assert (other.rows, other.pairs) == (one.rows, one.pairs)


def test_lines_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowsFile(path).append([row(0), pair(0)])
    path.write_text("".join(json.dumps(_unsealed(line)) + "\n" for line in path.read_text().splitlines()))
    rows = RowsFile(path)
    assert (list(rows.rows.values()), list(rows.pairs.values())) == ([row(0)], [pair(0)])


@pytest.mark.parametrize("changes", [{"only_a_wrong": 3}, {"both_wrong": 2}, {"shots_sha256": "other"}])
def test_pairs_are_held_against_rows(tmp_path, changes):
    path = tmp_path / "rows.jsonl"
    fitting = {"a_id": "id of a", "b_id": "id of b", "only_a_wrong": 6, "only_b_wrong": 6, "both_wrong": 4}
    RowsFile(path).append([pair(**fitting), row(0), row(0, "b")])
    assert len(RowsFile(path).pairs) == 1
    path.unlink()
    RowsFile(path).append([pair(**(fitting | changes)), row(0), row(0, "b")])
    with pytest.raises(SyndistillError, match=r"line 1 is damaged .*row"):
        RowsFile(path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, full_disk):
    path = tmp_path / "rows.jsonl"
    rows = RowsFile(path)
    rows.append([row(0)])
    before = path.read_bytes()
    with full_disk(len(before) + 100), pytest.raises(SyndistillError, match="free some space"):
        rows.append([row(1)])
    assert path.read_bytes() == before
    assert list(rows.rows) == [row(0).key]
    rows.append([row(1)])
    assert list(RowsFile(path).rows.values()) == [row(0), row(1)]
