"""Paired evaluation: the same shots for all, counts that agree with a direct count, and reruns that resume."""

import json

import numpy as np
import pytest
import stim

from syndistill.decoders.contract import Decoder
from syndistill.decoders.registry import build_decoder
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import circuit_sha256, compare, compare_recorded
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed
from syndistill.statistics.calibration import ece, nll
from syndistill.statistics.rates import mcnemar, wilson

from ..reporting import Heard, Stopping

ROW_KEYS = {"decoder", "shots", "errors", "ler", "low", "high", "us_per_shot", "parameters"}
PAIR_KEYS = {"a", "b", "only_a_wrong", "only_b_wrong", "p_value"}


class Guess(Decoder):
    """Says the same probability always, and remembers the shots that it was given."""

    def __init__(self, dem, probability, name, parameters=None, soft=True):
        self.name, self.n_parameters, self.gives_probabilities = name, parameters, soft
        self.n_detectors, self.n_observables = dem.num_detectors, dem.num_observables
        self.content_id = f"{name} {probability}"
        self.probability, self.seen = probability, []

    def _probabilities(self, shots):
        self.seen.append((shots.n_shots, shots.sha256))
        return np.full((shots.n_shots, self.n_observables), self.probability)


@pytest.fixture(scope="module")
def circuit():
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=2, after_clifford_depolarization=0.03
    )


@pytest.fixture(scope="module")
def dem(circuit):
    return dem_of_circuit(circuit)


@pytest.fixture
def decoders(dem):
    return [build_decoder(name, dem) for name in ("pymatching", "pymatching-correlated", "optimal")]


def test_counts_equal_a_direct_count(circuit, dem, decoders):
    found = compare(decoders, circuit, 2500, seed=4, batch=1000)
    batches = [StoredShots.sample(circuit, n, evaluation_seed(4, i, n)) for i, n in enumerate((1000, 1000, 500))]
    probabilities = [np.concatenate([d.decode(b) for b in batches]) for d in decoders]
    flips_BO = np.concatenate([b.observables() for b in batches])
    wrong = [((p > 0.5) != flips_BO)[:, 0] for p in probabilities]
    for row, w in zip(found.rows, wrong, strict=True):
        assert (row.shots, row.errors, row.errors_per_observable) == (2500, w.sum(), (w.sum(),))
        assert row.us_per_shot > 0
    assert [(p.a, p.b) for p in found.pairs] == [
        ("pymatching", "pymatching-correlated"),
        ("pymatching", "optimal"),
        ("pymatching-correlated", "optimal"),
    ]
    for pair, (i, j) in zip(found.pairs, [(0, 1), (0, 2), (1, 2)], strict=True):
        counts = (wrong[i] & ~wrong[j]).sum(), (~wrong[i] & wrong[j]).sum(), (wrong[i] & wrong[j]).sum()
        assert (pair.only_a_wrong, pair.only_b_wrong, pair.both_wrong) == counts
    assert found.rows[0].nll is None
    assert found.rows[2].nll == pytest.approx(nll(probabilities[2], flips_BO))
    assert found.rows[2].ece == pytest.approx(ece(probabilities[2], flips_BO), abs=5e-3)


def test_all_decode_the_same_shots_after_warm_up(circuit, dem):
    a, b = Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")
    found = compare([a, b], circuit, 700, seed=1, batch=300)
    assert a.seen == b.seen
    assert [n for n, _ in a.seen] == [256, 300, 300, 100]
    assert len({sha for _, sha in a.seen}) == 4
    assert found.rows[0].shots_sha256 == found.rows[1].shots_sha256 == found.pairs[0].shots_sha256
    assert found.rows[0].errors + found.rows[1].errors == 700


def test_json_has_the_promised_keys(circuit, decoders):
    found = compare(decoders, circuit, 400, seed=2)
    report = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(report) == {"rows", "pairs"}
    assert all(set(row) >= ROW_KEYS for row in report["rows"])
    assert all(set(pair) >= PAIR_KEYS for pair in report["pairs"])
    for row in report["rows"]:
        assert row["ler"] == row["errors"] / 400
        assert (row["low"], row["high"]) == wilson(row["errors"], 400)
    for pair in report["pairs"]:
        assert pair["p_value"] == mcnemar(pair["only_a_wrong"], pair["only_b_wrong"])


def test_several_observables(dem):
    circuit = stim.Circuit("""
        R 0 1 2
        X_ERROR(0.3) 0 1
        M 0 1 2
        DETECTOR rec[-3]
        OBSERVABLE_INCLUDE(0) rec[-3]
        OBSERVABLE_INCLUDE(1) rec[-2]
    """)
    never = Guess(dem_of_circuit(circuit), 0.0, "never", soft=False)
    row = compare([never], circuit, 1000, seed=3).rows[0]
    flips_BO = StoredShots.sample(circuit, 1000, evaluation_seed(3, 0, 1000)).observables()
    assert row.errors_per_observable == tuple(flips_BO.sum(axis=0))
    assert row.errors == flips_BO.any(axis=1).sum()
    assert row.errors < sum(row.errors_per_observable)


def test_rerun_resumes_and_extends(circuit, dem, tmp_path):
    path = tmp_path / "rows.jsonl"
    a, b = Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")
    first = compare([a, b], circuit, 600, seed=1, batch=300, rows_file=path)
    content = path.read_bytes()
    a.seen, b.seen = [], []
    assert compare([b, a], circuit, 600, seed=1, batch=300, rows_file=path).pairs[0] == first.pairs[0].flipped()
    again = compare([a, b], circuit, 600, seed=1, batch=300, rows_file=path)
    assert again.to_json() == first.to_json()
    assert a.seen == b.seen == []
    assert path.read_bytes() == content
    more = compare([a, b], circuit, 900, seed=1, batch=300, rows_file=path)
    assert [n for n, _ in a.seen] == [256, 300]
    assert path.read_bytes().startswith(content)
    assert more.to_json()["pairs"] == compare([a, b], circuit, 900, seed=1, batch=300).to_json()["pairs"]


def test_interrupted_run_resumes(circuit, dem, tmp_path):
    path = tmp_path / "rows.jsonl"

    bar = Stopping("shots", 1200).bar("shots", 1800)
    with pytest.raises(KeyboardInterrupt):
        compare([Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")], circuit, 900, 1, batch=300, rows_file=path, bar=bar)
    a, b = Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")
    resumed = compare([a, b], circuit, 900, 1, batch=300, rows_file=path)
    assert [n for n, _ in a.seen] == [256, 300, 300]
    assert [r.errors for r in resumed.rows] == [
        r.errors for r in compare([Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")], circuit, 900, 1, batch=300).rows
    ]


def test_a_decoder_added_later_is_paired_with_the_others(circuit, dem, tmp_path):
    path = tmp_path / "rows.jsonl"
    a, b = Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")
    compare([a], circuit, 500, seed=1, rows_file=path)
    found = compare([a, b], circuit, 500, seed=1, rows_file=path)
    assert found.pairs[0].only_a_wrong + found.pairs[0].only_b_wrong == 500
    assert len(path.read_text().splitlines()) == 3


def test_other_seed_batch_circuit_or_weights_are_other_rows(circuit, dem, tmp_path):
    path = tmp_path / "rows.jsonl"
    other = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=2, after_clifford_depolarization=0.02
    )
    compare([Guess(dem, 0.1, "a")], circuit, 200, seed=1, rows_file=path)
    compare([Guess(dem, 0.1, "a")], circuit, 200, seed=2, rows_file=path)
    compare([Guess(dem, 0.1, "a")], circuit, 200, seed=1, batch=100, rows_file=path)
    compare([Guess(dem, 0.2, "a")], circuit, 200, seed=1, rows_file=path)
    compare([Guess(dem, 0.1, "a")], other, 200, seed=1, rows_file=path)
    assert len(path.read_text().splitlines()) == 6


def test_rows_of_other_shots_are_refused(circuit, dem, tmp_path):
    """As after an upgrade of Stim: the recorded rows are of shots that cannot be drawn again."""
    path = tmp_path / "rows.jsonl"
    compare([Guess(dem, 0.1, "a")], circuit, 200, seed=1, rows_file=path)
    fields = json.loads(path.read_text()) | {"shots_sha256": "other"}
    del fields["sha256"]
    path.write_text(json.dumps(fields) + "\n")
    with pytest.raises(SyndistillError, match=r"other shots|different shots"):
        compare([Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")], circuit, 200, seed=1, rows_file=path)


def test_progress_reaches_the_total(circuit, dem):
    heard = Heard()
    bar = heard.bar("shots", 500)
    compare([Guess(dem, 0.1, "a"), Guess(dem, 0.9, "b")], circuit, 250, 1, batch=100, bar=bar)
    assert [done for _, done, _ in heard.counted] == [100, 200, 300, 400, 450, 500]


def test_bad_input(circuit, dem):
    a = Guess(dem, 0.1, "a")
    with pytest.raises(SyndistillError, match="must be positive"):
        compare([a], circuit, 0, seed=1)
    with pytest.raises(SyndistillError, match="no decoders"):
        compare([], circuit, 10, seed=1)
    with pytest.raises(SyndistillError, match="same name"):
        compare([a, Guess(dem, 0.2, "a")], circuit, 10, seed=1)
    for bad in (float("nan"), 1.5):
        with pytest.raises(SyndistillError, match=r"probabilities outside \[0, 1\]"):
            compare([Guess(dem, bad, "bad")], circuit, 10, seed=1)


def test_recorded_shots_take_the_same_road(circuit, dem, decoders, tmp_path):
    path = tmp_path / "rows.jsonl"
    stored = [StoredShots.sample(circuit, 500, seed=s) for s in (1, 2)]
    found = compare_recorded(decoders, stored, rows_file=path, experiment="chip")
    flips_BO = np.concatenate([s.observables() for s in stored])
    for row, decoder in zip(found.rows, decoders, strict=True):
        decided_BO = np.concatenate([decoder.decode(s) for s in stored]) > 0.5
        assert (row.shots, row.errors, row.experiment) == (1000, (decided_BO != flips_BO).sum(), "chip")
        assert row.circuit_sha256 == circuit_sha256(circuit)
    content = path.read_bytes()
    assert compare_recorded(decoders, stored[::-1], rows_file=path, experiment="chip").to_json() == found.to_json()
    assert path.read_bytes() == content


def test_recorded_bad_input(circuit, dem, decoders):
    one = StoredShots.sample(circuit, 5, seed=1)
    other = StoredShots.from_bits(one.detectors(), one.observables(), dem)
    with pytest.raises(SyndistillError, match="2 circuits"):
        compare_recorded(decoders, [one, other])
    for empty in ([], [one.take(0, 0)]):
        with pytest.raises(SyndistillError, match=r"no shots|0 circuits"):
            compare_recorded(decoders, empty)
    with pytest.raises(SyndistillError, match="comes twice"):
        compare_recorded(decoders, [one, one])
