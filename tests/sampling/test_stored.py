"""Stored shots: what is written is read back, and nothing damaged is."""

import os

import numpy as np
import pytest
import stim

from syndistill.errors import SyndistillError
from syndistill.sampling.stored import EVALUATION_SEED_START, StoredShots, dem_of_circuit, evaluation_seed


@pytest.fixture(scope="module")
def circuit():
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=2, after_clifford_depolarization=0.02
    )


@pytest.fixture
def shots(circuit):
    return StoredShots.sample(circuit, 300, seed=7)


def test_sample_shapes_and_bit_order(circuit, shots):
    events_BN, flips_BO = circuit.compile_detector_sampler(seed=7).sample(300, separate_observables=True)
    assert (shots.n_shots, shots.n_detectors, shots.n_observables) == (300, 16, 1)
    assert shots.detectors_packed.shape == (300, 2)
    assert shots.observables_packed.shape == (300, 1)
    np.testing.assert_array_equal(shots.detectors(), events_BN)
    np.testing.assert_array_equal(shots.observables(), flips_BO)


def test_same_seed_same_hash_other_seed_other_hash(circuit, shots):
    assert StoredShots.sample(circuit, 300, seed=7).sha256 == shots.sha256
    assert StoredShots.sample(circuit, 300, seed=8).sha256 != shots.sha256


def test_hash_covers_model_detectors_and_observables(shots):
    detectors, observables = shots.detectors(), shots.observables()
    assert StoredShots.from_bits(detectors, observables, shots.dem).sha256 == shots.sha256
    for bits in (detectors, observables):
        bits[17, 0] ^= True
        assert StoredShots.from_bits(detectors, observables, shots.dem).sha256 != shots.sha256
        bits[17, 0] ^= True
    other = shots.dem.copy()
    other.append("error", 0.1, [stim.target_relative_detector_id(0)])
    assert StoredShots.from_bits(detectors, observables, other).sha256 != shots.sha256


def test_save_and_load(shots, tmp_path):
    path = tmp_path / "shots.npz"
    shots.save(path)
    back = StoredShots.load(path)
    assert back.sha256 == shots.sha256
    assert back.circuit == shots.circuit
    assert back.dem == shots.dem
    np.testing.assert_array_equal(back.detectors_packed, shots.detectors_packed)
    assert os.listdir(tmp_path) == ["shots.npz"]


def test_save_and_load_without_circuit(shots, tmp_path):
    path = tmp_path / "shots.npz"
    StoredShots.from_bits(shots.detectors(), shots.observables(), shots.dem).save(path)
    assert StoredShots.load(path).circuit is None


def test_save_refuses_to_overwrite(shots, tmp_path):
    path = tmp_path / "shots.npz"
    shots.save(path)
    before = path.read_bytes()
    with pytest.raises(SyndistillError, match="exists"):
        shots.save(path)
    assert path.read_bytes() == before


def test_save_where_there_can_be_no_file(shots, tmp_path, full_disk):
    (tmp_path / "file").touch()
    with pytest.raises(SyndistillError, match="cannot write"):
        shots.save(tmp_path / "file" / "shots.npz")
    with full_disk(100), pytest.raises(SyndistillError, match="cannot write"):
        shots.save(tmp_path / "shots.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_file(shots, tmp_path, keep):
    path = tmp_path / "shots.npz"
    shots.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(SyndistillError, match="truncated or holds no stored shots"):
        StoredShots.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(SyndistillError, match="does not exist"):
        StoredShots.load(tmp_path / "none.npz")


def test_foreign_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    np.save(tmp_path / "b.npy", np.zeros(3))
    for name in ("a.npz", "b.npy"):
        with pytest.raises(SyndistillError, match="holds no stored shots"):
            StoredShots.load(tmp_path / name)


def _rewrite(shots, path, **changes):
    shots.save(path)
    with np.load(path) as archive:
        found = {name: archive[name] for name in archive.files}
    np.savez(path, **(found | changes))


def test_hash_mismatch(shots, tmp_path):
    altered = shots.detectors_packed.copy()
    altered[5, 0] ^= 1
    _rewrite(shots, tmp_path / "s.npz", detectors_packed=altered)
    with pytest.raises(SyndistillError, match="content hash"):
        StoredShots.load(tmp_path / "s.npz")


def test_other_format(shots, tmp_path):
    _rewrite(shots, tmp_path / "s.npz", format=np.array(99))
    with pytest.raises(SyndistillError, match="format 99"):
        StoredShots.load(tmp_path / "s.npz")


def test_wrong_sizes(shots):
    good = (shots.detectors_packed, shots.observables_packed)
    for detectors, observables in (
        (good[0][:, :1], good[1]),  # a byte too few
        (good[0].astype(np.int64), good[1]),
        (good[0][:200], good[1]),  # shots missing on one side
        (good[0], good[1] | 2),  # a bit beyond the one observable
    ):
        with pytest.raises(SyndistillError):
            StoredShots(None, shots.dem, detectors, observables)
    with pytest.raises(SyndistillError, match="the model that belongs"):
        StoredShots.from_bits(shots.detectors()[:, :-1], shots.observables(), shots.dem)


def test_arrays_are_read_only(shots):
    with pytest.raises(ValueError, match="read-only"):
        shots.detectors_packed[0, 0] = 1


def test_take(shots):
    part = shots.take(100, 150)
    assert part.n_shots == 50
    np.testing.assert_array_equal(part.detectors(), shots.detectors()[100:150])
    np.testing.assert_array_equal(part.observables(), shots.observables()[100:150])
    assert shots.take(300, 300).n_shots == 0
    for start, stop in ((-1, 5), (5, 4), (0, 301)):
        with pytest.raises(SyndistillError):
            shots.take(start, stop)


def test_bad_sampling(circuit):
    with pytest.raises(SyndistillError, match="shots >= 0"):
        StoredShots.sample(circuit, -1, seed=0)
    with pytest.raises(SyndistillError, match="seed"):
        StoredShots.sample(circuit, 1, seed=-1)
    with pytest.raises(SyndistillError, match="nothing to decode"):
        StoredShots.sample(stim.Circuit("M 0"), 1, seed=0)


def test_circuit_without_error_model():
    gauge = stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]")
    with pytest.raises(SyndistillError, match="no detector error model"):
        dem_of_circuit(gauge)


def test_an_error_without_graphlike_parts_stays_whole():
    """Tesseract and the exact posterior take it; matching says no in its own name."""
    three = stim.Circuit("R 0 1 2\nE(0.1) X0 X1 X2\nM 0 1 2\nDETECTOR rec[-1]\nDETECTOR rec[-2]\nDETECTOR rec[-3]")
    assert [str(i) for i in dem_of_circuit(three) if i.type == "error"] == ["error(0.1) D0 D1 D2"]


def test_evaluation_seeds_are_apart_and_disjoint():
    seeds = {evaluation_seed(s, b, n) for s in range(5) for b in range(50) for n in (100, 1000)}
    assert len(seeds) == 500
    assert all(EVALUATION_SEED_START <= seed < 1 << 63 for seed in seeds)
    with pytest.raises(SyndistillError):
        evaluation_seed(-1, 0, 1)
