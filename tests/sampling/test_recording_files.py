"""Folders of recordings: names, formats and line ends of two layouts, and what a folder need not hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording, RecordingProperties, find_recordings

from .recordings import as_willow, change, make_plain, refused


def test_text_as_windows_writes_it(recording: Path, broken: Path) -> None:
    for name in ("properties.yml", "obs_flips_actual.01", "circuit_noisy.stim", "circuit_ideal.stim"):
        (broken / name).write_bytes((broken / name).read_bytes().replace(b"\n", b"\r\n"))
    for name in ("properties.yml", "circuit_noisy.stim"):
        (broken / name).write_bytes(b"\xef\xbb\xbf" + (broken / name).read_bytes())
    assert Recording.load(broken).stored_shots().sha256 == Recording.load(recording).stored_shots().sha256


@pytest.mark.parametrize("stem", ["obs_flips_actual", "detection_events", "measurements", "sweep"])
def test_bits_in_either_format(recording: Path, broken: Path, stem: str) -> None:
    n_bits = {"obs_flips_actual": 1, "detection_events": 16, "measurements": 25, "sweep": 9}[stem]
    bits = RecordingProperties.load(broken).bits(stem, n_bits)
    unpacked = np.unpackbits(bits, axis=1, count=n_bits, bitorder="little")
    text = "".join("".join(map(str, row)) + "\n" for row in unpacked)
    for path in broken.glob(f"{stem}.*"):
        path.unlink()
    (broken / f"{stem}.01").write_text(text)
    whole = Recording.load(recording).stored_shots().sha256
    assert Recording.load(broken).stored_shots().sha256 == whole
    bits.tofile(broken / f"{stem}.b8")
    assert Recording.load(broken).stored_shots().sha256 == whole
    (broken / f"{stem}.01").unlink()
    assert Recording.load(broken).stored_shots().sha256 == whole
    (broken / f"{stem}.01").write_text(text[::-1][1:] + "\n")
    refused(broken, f"{stem}.b8", f"{stem}.01 differ")


def test_bits_beyond_those_of_a_shot(broken: Path) -> None:
    data = bytearray((broken / "measurements.b8").read_bytes())
    data[3] |= 0x80
    (broken / "measurements.b8").write_bytes(data)
    refused(broken, "bits set beyond the 25 of a shot")


def test_no_shots(broken: Path) -> None:
    change(broken, "properties.yml", "shots: 40", "shots: 0")
    for name in ("measurements.b8", "sweep.b8", "detection_events.b8", "obs_flips_actual.01"):
        (broken / name).write_bytes(b"")
    assert len(Recording.load(broken)) == Recording.load(broken).stored_shots().n_shots == 0


def test_no_sweep_bits_need_no_file(tmp_path: Path) -> None:
    circuit = Experiment(3, 2, "z", "si1000", 0.01).circuit()
    folder = make_plain(tmp_path / "recorded", circuit, "z", 2)
    measurements = circuit.compile_sampler(seed=3).sample(25)
    events, flips = circuit.compile_m2d_converter().convert(measurements=measurements, separate_observables=True)
    for name, bits in (("measurements", measurements), ("detection_events", events), ("obs_flips_actual", flips)):
        np.packbits(bits, axis=1, bitorder="little").tofile(folder / f"{name}.b8")
    (folder / "circuit_ideal.stim").write_text(str(circuit.without_noise()))
    assert (Recording.load(folder).stored_shots().detectors() == events).all()


def test_models_are_read_when_asked_for(broken: Path) -> None:
    (broken / "pij_from_even_for_odd.dem").unlink()
    written = Recording.load(broken).dem("circuit")
    (broken / "circuit_detector_error_model.dem").unlink()
    loaded = Recording.load(broken)
    assert loaded.dem("circuit").approx_equals(written, atol=1e-9)
    with pytest.raises(SyndistillError, match=r"pij_from_even_for_odd\.dem: No such file"):
        loaded.dem("pij")


def test_a_model_of_another_place(broken: Path) -> None:
    change(broken, "pij_from_even_for_odd.dem", r"detector\((\d), 2, 0\)", r"detector(\1, 3, 0)")
    with pytest.raises(SyndistillError, match=r"pij_from_even_for_odd\.dem has detector D\d+ at another place"):
        Recording.load(broken).dem("pij")


def test_willow(recording: Path, tmp_path: Path) -> None:
    folder = as_willow(recording, tmp_path / "google_105Q" / "d3_at_q3_3" / "X" / "r02")
    loaded, before = Recording.load(folder), Recording.load(recording)
    p = loaded.properties
    assert (p.distance, p.rounds, p.basis, p.center, p.n_shots, p.label) == (3, 2, "x", (3, 3), 40, "d3_at_q3_3/X/r02")
    assert loaded.models == ["circuit", "rl"]
    assert loaded.placement.lines == before.placement.lines
    for name, old in (("circuit", "circuit"), ("rl", "pij")):
        assert loaded.stored_shots(name).sha256 == before.stored_shots(old).sha256
    for above in (folder, folder.parent, folder.parents[1], folder.parents[2]):
        assert find_recordings(above, 3, "x") == [p]
    shutil.rmtree(folder / "decoding_results")
    assert loaded.dem("circuit").approx_equals(before.dem("circuit"), atol=1e-9)


@pytest.mark.parametrize(
    ("pattern", "by", "says"),
    [
        ('"basis": "X"', '"basis": "Z"', "says basis Z"),
        ('"rounds": 2', '"rounds": 2.5', "rounds is 2.5"),
        ('"rounds": 2', '"rounds": true', "rounds is True"),
        ('"rounds": 2', '"rounds": 5', "5 rounds"),
        ('"shots": 40', '"shots": 41', "41 shots of"),
        (r'"data_qubit_coords": \[\[', '"data_qubit_coords": [[9', "says centre"),
        (r'"data_qubit_coords".*', '"data_qubit_coords": null}', "data_qubit_coords is no list"),
        (".*", "[1]", "is no JSON object"),
        ("}$", "", "is damaged or no JSON"),
    ],
)
def test_wrong_willow(recording: Path, tmp_path: Path, pattern: str, by: str, says: str) -> None:
    folder = as_willow(recording, tmp_path / "r02")
    change(folder, "metadata.json", pattern, by) if pattern != ".*" else (folder / "metadata.json").write_text(by)
    refused(folder, says)


def test_over_long_folders() -> None:
    for name in ("a" * 300, "a/" * 3000):
        with pytest.raises(SyndistillError, match="File name too long"):
            Recording.load(name)
        with pytest.raises(SyndistillError, match="holds no recorded experiment"):
            find_recordings(name)
