"""The Sycamore folders: sizes, events recomputed from measurements, matching's logical error rate."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pymatching
import pytest
import stim

from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording, RecordingProperties, find_recordings
from syndistill.sampling.shots import shots_from_detectors

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "sycamore_x_even"
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason="the Sycamore recordings are not here")


def make_recording(folder: Path, shots: int = 40) -> Path:
    """A folder in the Sycamore layout from a simulated experiment with random initial states."""
    folder.mkdir(parents=True)
    generated = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=2, before_measure_flip_probability=0.05
    ).flattened()
    noisy = stim.Circuit()
    for instruction in generated:
        noisy.append(instruction)
        if instruction.name == "RX":  # random initial states, as in the experiment
            for k, t in enumerate(instruction.targets_copy()):
                noisy.append("CZ", [stim.target_sweep_bit(k), t.value])
    ideal = noisy.without_noise()
    sweep = np.random.default_rng(1).integers(0, 2, (shots, 9)).astype(bool)
    # the frames of a sweep bit are added by hand: Stim's sampler takes them for 0
    measurements = noisy.compile_sampler(seed=1).sample(shots)
    data = [t.value for i in generated if i.name == "RX" for t in i.targets_copy()]
    for k, q in enumerate(data):
        flipped = flips_of(ideal, q)
        measurements ^= sweep[:, [k]] & flipped
    converter = ideal.compile_m2d_converter()
    events, flips = converter.convert(measurements=measurements, sweep_bits=sweep, separate_observables=True)
    dem = noisy.detector_error_model(decompose_errors=True)
    files = {
        "properties.yml": "type: surface_code_memory_experiment\nbasis: X\nrounds: 2\ndistance: 3\n"
        f"shots: {shots}\ncenter_data_qubit_row: 3\ncenter_data_qubit_col: 5\n"
        f"circuit_measurements: {noisy.num_measurements}\ncircuit_sweep_bits: 9\n"
        f"circuit_detectors: {noisy.num_detectors}\ncircuit_observables: 1\n",
        "circuit_ideal.stim": str(ideal),
        "circuit_noisy.stim": str(noisy),
        "circuit_detector_error_model.dem": str(dem),
        "pij_from_even_for_odd.dem": str(dem),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    for name, bits in (("measurements", measurements), ("sweep", sweep), ("detection_events", events)):
        np.packbits(bits, axis=1, bitorder="little").tofile(folder / f"{name}.b8")
    (folder / "obs_flips_actual.01").write_text("".join(f"{int(f)}\n" for f in flips[:, 0]))
    return folder


def flips_of(ideal: stim.Circuit, qubit: int) -> np.ndarray:
    """Measurements that a Z on `qubit` after its reset flips, bool (1, M)."""
    circuit = stim.Circuit()
    for instruction in ideal:
        if instruction.name == "CZ" and any(t.is_sweep_bit_target for t in instruction.targets_copy()):
            continue
        circuit.append(instruction)
        if instruction.name == "RX":
            circuit.append("Z_ERROR", [qubit], 1.0)
    simulator = stim.FlipSimulator(batch_size=1, disable_stabilizer_randomization=True)
    simulator.do(circuit)
    return simulator.get_measurement_flips().T


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("recorded") / "surface_code_bX_d3_r02_center_3_5")


@pytest.fixture
def broken(recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording, tmp_path / "broken"))


def refused(folder: Path, *says: str) -> None:
    with pytest.raises(SyndistillError) as caught:
        Recording.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message


def test_load(recording: Path) -> None:
    loaded = Recording.load(recording)
    p = loaded.properties
    assert (p.distance, p.rounds, p.basis, p.center, p.n_shots) == (3, 2, "x", (3, 5), 40)
    assert len(loaded) == 40
    for name in ("pij", "circuit"):
        stored = loaded.stored_shots(name)
        events = np.unpackbits(
            np.fromfile(recording / "detection_events.b8", dtype=np.uint8).reshape(40, -1), axis=1, bitorder="little"
        )
        assert (stored.detectors() == events[:, : p.n_detectors]).all()
        flips = [line == "1" for line in (recording / "obs_flips_actual.01").read_text().split()]
        assert stored.observables()[:, 0].tolist() == flips
        assert any(flips)
    with pytest.raises(SyndistillError, match="'best' is unknown"):
        loaded.stored_shots("best")


@pytest.mark.parametrize("absent", [["detection_events.b8"], ["measurements.b8", "sweep.b8"]])
def test_either_events_or_measurements_suffice(recording: Path, broken: Path, absent: list[str]) -> None:
    for name in absent:
        (broken / name).unlink()
    assert Recording.load(broken).stored_shots().sha256 == Recording.load(recording).stored_shots().sha256


@pytest.mark.parametrize("name", ["measurements.b8", "sweep.b8", "detection_events.b8", "obs_flips_actual.01"])
@pytest.mark.parametrize("change", [-1, -4, 1])
def test_wrong_sizes(broken: Path, name: str, change: int) -> None:
    data = (broken / name).read_bytes()
    (broken / name).write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    per_shot = len(data) // 40
    found = len(data) + change
    refused(broken, name, f"has {found} bytes ({found / per_shot:g} shots)", f"expected {len(data)} (40 shots of")


@pytest.mark.parametrize("name", ["sweep.b8", "obs_flips_actual.01", "circuit_noisy.stim", "properties.yml"])
def test_missing_files(broken: Path, name: str) -> None:
    (broken / name).unlink()
    refused(broken, name)


def test_neither_events_nor_measurements(broken: Path) -> None:
    (broken / "detection_events.b8").unlink()
    (broken / "measurements.b8").unlink()
    refused(broken, "detection_events.b8", "No such file")


def test_contents_that_do_not_belong_together(broken: Path) -> None:
    original = {p.name: p.read_bytes() for p in broken.iterdir()}

    def spoil(name: str, data: bytes, *says: str) -> None:
        (broken / name).write_bytes(data)
        refused(broken, *says)
        (broken / name).write_bytes(original[name])

    events = bytearray(original["detection_events.b8"])
    events[7] ^= 1
    spoil("detection_events.b8", bytes(events), "detection_events.b8 is not what measurements.b8")
    flips = original["obs_flips_actual.01"].translate(bytes.maketrans(b"01", b"10"))
    spoil("obs_flips_actual.01", flips, "obs_flips_actual.01 is not what")
    spoil("obs_flips_actual.01", original["obs_flips_actual.01"].replace(b"0", b"2"), "characters 0 or 1")
    spoil("obs_flips_actual.01", original["obs_flips_actual.01"].replace(b"\n", b" "), "characters 0 or 1")
    d5 = stim.Circuit.generated("surface_code:rotated_memory_x", distance=5, rounds=2)
    spoil("circuit_noisy.stim", str(d5).encode(), "circuit_noisy.stim has 48 detectors", "says 16 and 1")
    spoil("circuit_ideal.stim", str(d5).encode(), "circuit_ideal.stim has 48 detectors", "says 16 and 1")
    more = original["circuit_ideal.stim"] + b"\nM 0\n"
    spoil("circuit_ideal.stim", more, "26 measurements and 9 sweep bits", "says 25 and 9")
    spoil("properties.yml", original["properties.yml"].replace(b"rounds: 2", b""), "rounds is 'missing'")
    spoil("properties.yml", original["properties.yml"].replace(b": 40", b": many"), "shots is 'many'")
    spoil("properties.yml", original["properties.yml"].replace(b"basis: X", b"basis: Y"), "basis is 'y'")
    Recording.load(broken)


def test_model_of_another_experiment(broken: Path) -> None:
    (broken / "pij_from_even_for_odd.dem").write_text("error(0.1) D0 L0\n")
    loaded = Recording.load(broken)
    loaded.stored_shots("circuit")
    with pytest.raises(SyndistillError, match=r"pij_from_even_for_odd\.dem has 1 detectors"):
        loaded.stored_shots("pij")


def test_splits(recording: Path) -> None:
    loaded = Recording.load(recording)
    whole = loaded.stored_shots().detectors()
    even, odd = loaded.split_even_odd()
    assert (even.stored_shots().detectors() == whole[::2]).all()
    assert (odd.stored_shots().detectors() == whole[1::2]).all()
    assert len(even.split_fit_dev(1)[1]) == 1
    numbered = replace(loaded, detectors_packed=np.arange(80, dtype=np.uint8).reshape(40, 2))
    fit, dev = (part.detectors_packed[:, 0] // 2 for part in numbered.split_fit_dev(12))
    assert (len(fit), len(dev)) == (28, 12)
    assert sorted([*fit, *dev]) == list(range(40))
    assert set(np.diff(dev)) == {3, 4}
    for n_dev in (0, -1, 40, 41):
        with pytest.raises(SyndistillError, match="for development"):
            loaded.split_fit_dev(n_dev)


def test_find(recording: Path) -> None:
    assert find_recordings(recording.parent) == find_recordings(recording) == [RecordingProperties.load(recording)]
    assert find_recordings(recording.parent, distance=3, basis="x")
    for wanted in ({"distance": 5}, {"basis": "z"}):
        with pytest.raises(SyndistillError, match=r"no recorded experiment of .* \(1 in all\)"):
            find_recordings(recording.parent, **wanted)
    with pytest.raises(SyndistillError, match=r"\(0 in all\)"):
        find_recordings(recording.parent / "nowhere")


@needs_recordings
def test_all_of_the_data_is_found() -> None:
    found = find_recordings(RECORDINGS)
    assert len(found) == 65
    assert {(f.basis, f.n_shots, f.n_observables) for f in found} == {("x", 25_000, 1)}
    assert [f.rounds for f in find_recordings(RECORDINGS, distance=5)] == list(range(1, 26, 2))
    assert {f.center for f in find_recordings(RECORDINGS, distance=3)} == {(3, 5), (5, 3), (5, 7), (7, 5)}


@needs_recordings
@pytest.mark.parametrize("name", ["d3_r01_center_5_7", "d3_r25_center_3_5", "d5_r05_center_5_5"])
def test_recorded_events_follow_from_measurements(name: str) -> None:
    """`load` refuses a folder whose events are not those of its measurements; the rest follows from the events."""
    loaded = Recording.load(RECORDINGS / f"surface_code_bX_{name}")
    stored = loaded.stored_shots()
    shots = shots_from_detectors(stored.detectors(), loaded.placement, stored.observables())
    assert shots.labels_BKLO is not None
    line = loaded.placement.lines[0]
    assert (shots.labels_BKLO[:, 0, line, 0].numpy() == stored.observables()[:, 0]).all()


@needs_recordings
def test_matching_on_the_circuit_model() -> None:
    """About 4.05 % per round at d=3 (mean of four centres, all shots); here r=5 alone, (1 - (1-2E)^(1/5))/2.

    25,000 shots a centre give that mean a standard deviation of .00035; centres and rounds differ by some .003.
    With a bound of .006 a false alarm is far below 1e-6, a wrong pairing of shots and flips gives .5.
    """
    per_round = []
    for properties in find_recordings(RECORDINGS, distance=3):
        if properties.rounds == 5:
            stored = Recording.load(properties.folder).stored_shots("circuit")
            predicted = pymatching.Matching.from_detector_error_model(stored.dem).decode_batch(stored.detectors())
            wrong = (predicted != stored.observables()).mean()
            per_round.append((1 - (1 - 2 * wrong) ** 0.2) / 2)
    assert len(per_round) == 4
    assert abs(np.mean(per_round) - 0.0405) < 0.006
