"""Circuits and models from files, and one-line errors for what is none."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.files import MAX_NESTING, load_circuit, load_dem
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


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # the last two begin with a byte-order mark
def test_text_from_any_editor(tmp_path: Path, newline: str, encoding: str) -> None:
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=20)  # it has a REPEAT
    dem = stim.DetectorErrorModel("error(0.1) D0 L0\nrepeat 5 {\n    error(0.1) D0 D1\n    shift_detectors 1\n}\n")
    (tmp_path / "c.stim").write_bytes(str(circuit).replace("\n", newline).encode(encoding))
    (tmp_path / "m.dem").write_bytes(str(dem).replace("\n", newline).encode(encoding))
    assert load_circuit(tmp_path / "c.stim") == circuit
    assert load_dem(tmp_path / "m.dem") == dem


ROUND = "M 0\nDETECTOR rec[-1] rec[-2]\nSHIFT_COORDS(0,0,1)\nTICK\n"
SMALL = "M 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]\n"


@pytest.mark.parametrize(
    ("load", "text", "says"),
    [
        (load_circuit, f"M 0\nREPEAT 1000000000000 {{\n{ROUND}}}\n", "1,000,000,000,000 detectors"),
        (load_circuit, f"M 0\nREPEAT 9223372036854775808 {{\n{ROUND}}}\n", "Number too large"),
        (load_circuit, f"{SMALL}REPEAT 1000000000000 {{\nTICK\n}}\n", "1,000,000,000,004 instructions"),
        (load_circuit, f"{SMALL}REPEAT 1000000000000 {{\nREPEAT 1000000000000 {{\nTICK\n}}\n}}\n", "instructions"),
        (load_circuit, "REPEAT 2 {\n" * 30_000 + SMALL + "}\n" * 30_000, f"more than {MAX_NESTING} REPEAT"),
        (load_circuit, "M 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(4000000000) rec[-1]\n", "4,000,000,001 observables"),
        (load_dem, "repeat 1000000000000 {\nerror(.1) D0 L0\nshift_detectors 1\n}\n", "1,000,000,000,000 detectors"),
        (load_dem, "repeat 1000000000000 {\nerror(.1) D0 L0\n}\n", "1,000,000,000,001 instructions"),
        (load_dem, "error(.1) D4000000000 L0\n", "4,000,000,001 detectors"),
        (load_dem, "error(.1) D0 L4000000000\n", "4,000,000,001 observables"),
        (load_dem, "repeat 2 {\n" * 30_000 + "error(.1) D0\n" + "}\n" * 30_000, f"more than {MAX_NESTING} REPEAT"),
    ],
)
def test_what_cannot_be_worked_with_is_refused_at_once(
    tmp_path: Path, load: Callable[[Path], object], text: str, says: str
) -> None:
    path = tmp_path / "endless"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(SyndistillError, match=says) as caught:
        load(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)


def test_long_experiments_stay_possible(tmp_path: Path) -> None:
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=20_000)
    circuit.to_file(tmp_path / "long.stim")
    assert load_circuit(tmp_path / "long.stim").num_detectors == 160_000


@pytest.mark.parametrize("load", [load_circuit, load_dem])
@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000], ids=["name", "path"])
def test_over_long_paths(load: Callable[[Path], object], name: str) -> None:
    with pytest.raises(SyndistillError, match="File name too long; check the path"):
        load(Path(name))
