"""The Sycamore folders: sizes, events recomputed from measurements, matching's logical error rate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pymatching
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording, RecordingProperties, _check_label, find_recordings
from syndistill.sampling.shots import shots_from_detectors

from .recordings import change, make_plain, refused

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "sycamore_x_even"
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason="the Sycamore recordings are not here")


def test_load(recording: Path) -> None:
    loaded = Recording.load(recording)
    p = loaded.properties
    assert (p.distance, p.rounds, p.basis, p.center, p.n_shots) == (3, 2, "x", (3, 3), 40)
    assert len(loaded) == 40
    for name in ("pij", "circuit"):
        stored = loaded.stored_shots(name)
        events = np.unpackbits(
            np.fromfile(recording / "detection_events.b8", dtype=np.uint8).reshape(40, -1), axis=1, bitorder="little"
        )
        assert (stored.detectors() == events[:, :16]).all()
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
    spoil("detection_events.b8", bytes(events), "detection_events is not what measurements and sweep give")
    flips = original["obs_flips_actual.01"].translate(bytes.maketrans(b"01", b"10"))
    spoil("obs_flips_actual.01", flips, "obs_flips_actual is not what")
    spoil("obs_flips_actual.01", original["obs_flips_actual.01"].replace(b"0", b"2"), "characters 0 or 1")
    spoil("obs_flips_actual.01", original["obs_flips_actual.01"].replace(b"\n", b" "), "characters 0 or 1")
    d5 = stim.Circuit.generated("surface_code:rotated_memory_x", distance=5, rounds=2)
    spoil("circuit_noisy.stim", str(d5).encode(), "circuit_noisy.stim has 48 detectors", "says 16")
    spoil("circuit_ideal.stim", str(d5).encode(), "circuit_ideal.stim has 48 detectors", "says 16")
    more = original["circuit_ideal.stim"] + b"\nM 0\n"
    spoil("circuit_ideal.stim", more, "26 measurements", "says 25")
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


def test_find(recording: Path) -> None:
    assert find_recordings(recording.parent) == find_recordings(recording) == [RecordingProperties.load(recording)]
    assert find_recordings(recording.parent, distance=3, basis="x")
    for wanted in ({"distance": 5}, {"basis": "z"}):
        with pytest.raises(SyndistillError, match=r"no recorded experiment of .* \(1 in all\)"):
            find_recordings(recording.parent, **wanted)
    with pytest.raises(SyndistillError, match=r"\(0 in all\)"):
        find_recordings(recording.parent / "nowhere")


@pytest.mark.parametrize(
    ("pattern", "by", "says"),
    [
        ("basis: X", "basis: Z", "says basis Z, circuit_noisy.stim is a memory of basis X"),
        ("rounds: 2", "rounds: 3", "says distance 3 and 3 rounds, which take 24 detectors and 33 measurements"),
        ("distance: 3", "distance: 5", "says distance 5 and 2 rounds"),
        ("row: 3", "row: 5", r"says centre \(5, 3\), the detectors of circuit_noisy.stim lie about \(3, 3\)"),
        ("shots: 40", "shots: 20", r"has 80 bytes \(40 shots\), expected 40 \(20 shots"),
        ("shots: 40", "shots: 0", "expected 0"),
        ("shots: 40", "shots: 99999999999999999999", "shots is larger than any"),
        ("measurements: 25", "measurements: 26", "has 25 measurements where properties.yml says 26"),
        ("sweep_bits: 9", "sweep_bits: 8", "has 9 sweep bits where properties.yml says 8"),
        ("detectors: 16", "detectors: 15", "has 16 detectors where properties.yml says 15"),
        ("observables: 1", "observables: 2", "has 1 observables where properties.yml says 2"),
    ],
)
def test_labels_are_held_against_circuit_and_shots(broken: Path, pattern: str, by: str, says: str) -> None:
    change(broken, "properties.yml", pattern, by)
    with pytest.raises(SyndistillError, match=says) as caught:
        Recording.load(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("noise", ["uniform", "si1000"])  # the second of CZ and H, with data qubits in either frame
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_the_basis_is_that_of_the_circuit(tmp_path: Path, noise: str, basis: str, rounds: int) -> None:
    """Events and flips alone, as others record them: no measurements, no initial states."""
    circuit = Experiment(3, rounds, basis, noise, 0.01).circuit()
    folder = make_plain(tmp_path / "recorded", circuit, basis, rounds)
    # A Z memory of Stim's generator has the errors of SI1000's X memory, and is placed as one. Of one round all ways
    # have the same mechanisms, and either basis may be the likelier.
    read_as = basis if noise == "si1000" else "xz"["zx".index(basis)]
    assert Recording.load(folder).placement.basis == read_as or rounds == 1
    change(folder, "properties.yml", "basis: .", f"basis: {'XZ'['xz'.index(basis) - 1]}")
    refused(folder, "says basis", f"is a memory of basis {basis.upper()}")


def test_circuits_of_two_experiments(broken: Path) -> None:
    change(broken, "circuit_ideal.stim", r"(OBSERVABLE_INCLUDE\(0\)) rec\[-3\]", r"\1 rec[-2]")
    refused(broken, "circuit_ideal.stim and circuit_noisy.stim differ in their detectors or observables")


def test_shots_that_are_not_of_the_circuit_are_warned_of(tmp_path: Path) -> None:
    circuit = Experiment(3, 2, "z", "si1000", 0.004).circuit()
    folder = make_plain(tmp_path / "recorded", circuit, "z", 2, shots=2000)
    Recording.load(folder)
    events = np.fromfile(folder / "detection_events.b8", np.uint8).reshape(2000, 2)
    events[::2, 0] ^= 4  # as from initial states that are not those of the shots
    events.tofile(folder / "detection_events.b8")
    with pytest.warns(UserWarning, match=r"1 of 16 detectors fire nearly at random, D2 in (49|50|51)% .* says \d%"):
        Recording.load(folder)


@needs_recordings
def test_all_labels_of_the_data_are_right(tmp_path: Path) -> None:
    """ZXXZ circuits, in X; under the label Z the same folder is refused."""
    for properties in find_recordings(RECORDINGS):
        _check_label(properties, stim.Circuit.from_file(properties.folder / "circuit_ideal.stim"))
    with pytest.raises(SyndistillError, match="says basis Z"):
        _check_label(replace(properties, basis="z"), stim.Circuit.from_file(properties.folder / "circuit_ideal.stim"))


@needs_recordings
def test_the_basis_of_the_chip_in_z() -> None:
    circuit = stim.Circuit.from_file(RECORDINGS.parent / "circuits" / "sycamore_bZ_d5_r03_circuit_noisy.stim")
    found = find_recordings(RECORDINGS, distance=5)[1]
    assert found.rounds == 3
    _check_label(replace(found, basis="z"), circuit)
    with pytest.raises(SyndistillError, match="says basis X"):
        _check_label(found, circuit)


@needs_recordings
def test_all_of_the_data_is_found() -> None:
    found = find_recordings(RECORDINGS)
    assert len(found) == 65
    assert {(f.basis, f.n_shots, f.counts["circuit_observables"]) for f in found} == {("x", 25_000, 1)}
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
