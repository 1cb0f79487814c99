"""Circuits and models from files, and one-line errors for what is none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.files import load_circuit, load_dem
from syndistill.errors import SyndistillError


def test_round_trip(tmp_path: Path) -> None:
    circuit = Experiment(3, 2, "z", "si1000", 0.01).circuit()
    dem = circuit.detector_error_model()
    circuit.to_file(tmp_path / "c.stim")
    dem.to_file(tmp_path / "c.dem")
    assert load_circuit(tmp_path / "c.stim") == circuit
    assert load_dem(str(tmp_path / "c.dem")) == dem


@pytest.mark.parametrize("load", [load_circuit, load_dem])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"\xff\xfe\x00", "is no text"),
        (b"qreg q[3];\n", "is no Stim"),
        (b"", "has no detectors"),
    ],
)
def test_bad_files(tmp_path: Path, load: Callable[[Path], object], content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.stim"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SyndistillError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_circuit(tmp_path: Path) -> None:
    with pytest.raises(SyndistillError, match="Is a directory"):
        load_circuit(tmp_path)


def test_circuit_and_model_are_not_exchangeable(tmp_path: Path) -> None:
    circuit = Experiment(3, 1, "z", "si1000", 0.01).circuit()
    circuit.to_file(tmp_path / "c")
    with pytest.raises(SyndistillError, match="no Stim detector error model"):
        load_dem(tmp_path / "c")
    circuit.detector_error_model().to_file(tmp_path / "m")
    with pytest.raises(SyndistillError, match="no Stim circuit"):
        load_circuit(tmp_path / "m")
