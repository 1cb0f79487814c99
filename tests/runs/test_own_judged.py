"""Tables and verdict on a Student of own files, where a decoder can't serve all of them."""

import pytest

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.tables import per_round_table
from syndistill.runs.own_judged import verdict

from ..evaluation.test_rows import pair, row

MINE, START, RIVAL = "mine.safetensors", "student-d3", "pymatching-correlated"


def judged(**errors):
    """A comparison on 1,000 shots; the Student alone is right or wrong where it differs from another."""
    names = {"mine": MINE, "start": START, "rival": RIVAL, "optimum": "optimal"}
    hard = {"shots": 1_000, "calibration": None}
    rows = [row(decoder=names[name], errors=n, errors_per_observable=(n,), **hard) for name, n in errors.items()]
    mine = errors["mine"]
    alone = {name: {"only_a_wrong": max(0, mine - n), "only_b_wrong": max(0, n - mine)} for name, n in errors.items()}
    pairs = [
        pair(a=MINE, b=names[name], shots=1_000, both_wrong=min(mine, errors[name]), **counts)
        for name, counts in alone.items()
        if name != "mine"
    ]
    return Comparison(rows, pairs)


def test_a_decoder_that_was_left_out_is_compared_on_the_other_files():
    files = {"a": judged(mine=90, start=95, rival=120), "b": judged(mine=90, start=95)}
    said = verdict(files, MINE, START)
    assert "This Student errs on 9.00% of 2,000 shots." in said
    assert "25.0% less than correlated matching on the 1 of 2 files that it can decode" in said
    assert "5.3% less than student-d3, where it began (p" in said
    assert "WARNING" not in said


def test_one_that_is_worse_is_warned_of_where_both_were_judged():
    said = verdict({"a": judged(mine=90, start=95, rival=80), "b": judged(mine=1, start=95)}, MINE, START)
    assert "12.5% more than correlated matching on the 1 of 2 files" in said
    assert said.endswith("WARNING: it is not better than pymatching-correlated: take that one, or give --minutes more.")


@pytest.mark.parametrize(("mine", "said"), [(100, "50% of the way"), (79, "Level with the optimum"), (82, "Level")])
def test_the_way_to_the_optimum_ends_there(mine, said):
    assert said in verdict({"a": judged(mine=mine, start=130, rival=120, optimum=80)}, MINE, START)


def test_an_error_per_round_needs_three_lengths_and_no_coin():
    lengths = {r: judged(mine=20 * r, start=30 * r, rival=25 * r) for r in (3, 5, 9)}
    lengths[5] = judged(mine=100, start=500)
    table = per_round_table(lengths, "t")
    cells = {name: list(column.cells) for name, column in zip(("decoder", "epsilon"), table.columns, strict=False)}
    said = dict(zip(cells["decoder"], cells["epsilon"], strict=True))
    assert float(said[MINE]) > 0
    assert said[START] == "a coin after 5 rounds"
    assert said[RIVAL] == "2 numbers of rounds"
    assert list(table.columns[-1].cells)[-1].split() == ["0.075", "-", "0.225"]
