"""`evaluate` on what others bring: decoders that cannot serve are left out, inputs that cannot be used are one line."""

import json
import sys
import time

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import load_network, save_network

from .command_line import run

EXPERIMENT = ["--experiment", "d=3,rounds=2,basis=z,noise=si1000,p=0.004", "--shots", "50"]
LONG = "a" * 300

HYPEREDGE = """
R 0 1 2 3
E(0.1) X0 X1 X2
X_ERROR(0.05) 3
M 0 1 2 3
DETECTOR(0, 0, 0) rec[-4]
DETECTOR(1, 0, 0) rec[-3]
DETECTOR(2, 0, 0) rec[-2]
DETECTOR(3, 0, 0) rec[-1]
OBSERVABLE_INCLUDE(0) rec[-4]
"""


def evaluate(capsys, *arguments):
    """(exit code, stdout, lines of stderr without progress bars)"""
    code, out, err = run(capsys, "evaluate", *arguments)
    return code, out, [line for line in err.splitlines() if line.startswith(("error: ", "warning: ", "Traceback"))]


@pytest.fixture
def circuit(tmp_path):
    path = tmp_path / "hyperedge.stim"
    path.write_text(HYPEREDGE)
    return path


def test_one_that_cannot_serve_is_left_out(capsys, tmp_path, circuit):
    out = tmp_path / "out.json"
    names = ["pymatching", "tesseract", "belief-matching", "student-d3", "optimal"]
    code, table, said = evaluate(capsys, *names, "--circuit", circuit, "--shots", 100, "--json", out)
    assert code == 0
    assert [line.split(" is left out: ")[0] for line in said] == [
        f"warning: {name}" for name in ("pymatching", "belief-matching", "student-d3")
    ]
    found = json.loads(out.read_text())
    assert [row["decoder"] for row in found["rows"]] == ["tesseract", "optimal"]
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("tesseract", "optimal")]
    assert list(found["left_out"]) == ["pymatching", "belief-matching", "student-d3"]
    assert "at most two detectors" in found["left_out"]["pymatching"]
    assert "tesseract" in table
    assert "student-d3" not in table


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["pymatching"], ["error: pymatching needs errors of at most two detectors"]),
        (
            ["pymatching", "pymatching-correlated"],
            ["warning: pymatching is left out", "error: no decoder can serve: pymatching: pymatching needs"],
        ),
        (["tesseract", "pymatchin"], ["error: unknown decoder 'pymatchin'"]),  # a slip of the pen ends all
    ],
)
def test_none_is_left(capsys, tmp_path, circuit, names, says):
    code, out, said = evaluate(capsys, *names, "--circuit", circuit, "--shots", 100, "--json", tmp_path / "out.json")
    assert (code, out) == (2, "")
    assert len(said) == len(says)
    assert all(line.startswith(start) for line, start in zip(said, says, strict=True))
    assert not (tmp_path / "out.json").exists()


def test_a_missing_package_leaves_its_decoder_out(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tesseract_decoder", None)
    code, table, said = evaluate(capsys, "tesseract", "pymatching", *EXPERIMENT)
    assert code == 0
    assert said == [
        "warning: tesseract is left out: decoder tesseract is not installed: pip install 'syndistill[tesseract]'"
    ]
    assert "pymatching" in table
    code, _, said = evaluate(capsys, "tesseract", *EXPERIMENT)
    assert code == 2
    assert said == ["error: decoder tesseract is not installed: pip install 'syndistill[tesseract]'"]


@pytest.fixture
def recording(tmp_path):
    """Of 60 shots, the last of which has an event that no error of its p_ij model explains."""
    folder = tmp_path / "recording"
    folder.mkdir()
    circuit = Experiment(3, 2, "z", "si1000", 0.005).circuit()
    events, flips = circuit.compile_detector_sampler(seed=1).sample(60, separate_observables=True)
    events[:, 0], events[-1, 0] = False, True
    (folder / "circuit_noisy.stim").write_text(str(circuit))
    dem = circuit.detector_error_model(decompose_errors=True)
    without = [i for i in dem.flattened() if i.type != "error" or "D0" not in str(i).replace("^", " ").split()]
    (folder / "pij_from_even_for_odd.dem").write_text("\n".join(map(str, without)) + "\ndetector D0\n")
    np.packbits(events, axis=1, bitorder="little").tofile(folder / "detection_events.b8")
    np.packbits(flips, axis=1, bitorder="little").tofile(folder / "obs_flips_actual.b8")
    (folder / "properties.yml").write_text(
        "distance: 3\nrounds: 2\nbasis: Z\nshots: 60\ncenter_data_qubit_row: 1\ncenter_data_qubit_col: 1\n"
    )
    return folder


def test_one_that_fails_on_the_way_is_left_out_with_its_rows(capsys, tmp_path, recording):
    out, rows = tmp_path / "out.json", tmp_path / "rows.jsonl"
    names = ["pymatching@pij", "pymatching", "optimal"]
    command = [*names, "--recorded", recording, "--batch", 25, "--rows", rows]
    for _ in range(2):  # the second time the rows of two batches lie there
        code, _, said = evaluate(capsys, *command, "--json", out, "--force")
        assert code == 0
        assert len(said) == 1
        assert said[0].startswith("warning: pymatching@pij is left out: pymatching@pij cannot decode these shots")
        found = json.loads(out.read_text())
        assert [(row["decoder"], row["shots"]) for row in found["rows"]] == [("pymatching", 60), ("optimal", 60)]
        assert [(pair["a"], pair["b"], pair["shots"]) for pair in found["pairs"]] == [("pymatching", "optimal", 60)]
        assert list(found["left_out"]) == ["pymatching@pij"]


@pytest.mark.parametrize("named", [
    lambda name: {"folders": ["elsewhere/other", f"elsewhere/{name}"]},
    lambda name: {"folder": f"elsewhere/{name}"},  # as earlier versions named it
])  # fmt: skip
def test_shots_that_a_network_has_seen_are_said_and_left_out(capsys, tmp_path, recording, named):
    network, _ = load_network("student-d3")
    path = tmp_path / "mine.safetensors"
    data = {"recorded": {**named(recording.name), "shots": 30, "dev_shots": 10}}
    save_network(path, network, {"run": {"data": data}})
    command = [path, "pymatching", "--recorded", recording]
    code, _, said = evaluate(capsys, *command)
    assert (code, said[0]) == (0, f"warning: {path} has seen the first 40 of these shots; judge it with --skip 40")
    code, _, said = evaluate(capsys, f"{path},pymatching-correlated", "pymatching", "--recorded", recording)
    assert f"warning: {path},pymatching-correlated has seen the first 40 of these shots" in said[0]
    out = tmp_path / "out.json"
    code, _, said = evaluate(capsys, *command, "--skip", 40, "--json", out)
    assert code == 0
    assert not any("has seen" in line for line in said)
    assert {row["shots"] for row in json.loads(out.read_text())["rows"]} == {20}
    code, _, said = evaluate(capsys, *command, "--skip", 40, "--shots", 21)
    assert code == 2
    assert said[-1] == f"error: 21 shots after the first 40 asked of {recording.name}, which has 60; ask for fewer"
    code, _, said = evaluate(capsys, "pymatching", *EXPERIMENT, "--skip", 5)
    assert (code, said[-1]) == (2, "error: sampled shots are none that a network has seen; leave skip out")


def test_a_circuit_without_noise_is_nothing_to_judge_on(capsys, tmp_path):
    path = tmp_path / "quiet.stim"
    path.write_text(str(Experiment(3, 2, "z", "si1000", 0.004).circuit().without_noise()))
    code, _, said = evaluate(capsys, "pymatching", "--circuit", path, "--shots", 50)
    assert code == 2
    assert said == [f"error: {path} has no noise, so no shot has an error; add it, or name the noisy circuit"]


def test_models_of_a_recording_are_read_when_asked_for(capsys, recording):
    (recording / "pij_from_even_for_odd.dem").unlink()
    code, _, said = evaluate(capsys, "pymatching", "student-d3", "--recorded", recording)
    assert (code, said) == (0, [])
    code, _, said = evaluate(capsys, "pymatching@pij", "pymatching", "--recorded", recording)
    assert code == 0
    assert len(said) == 1
    assert "pij_from_even_for_odd.dem: No such file" in said[0]


def test_a_recording_without_shots(capsys, recording):
    for name in ("detection_events.b8", "obs_flips_actual.b8"):
        (recording / name).write_bytes(b"")
    properties = recording / "properties.yml"
    properties.write_text(properties.read_text().replace("shots: 60", "shots: 0"))
    code, _, said = evaluate(capsys, "pymatching", "--recorded", recording)
    assert code == 2
    assert said == ["error: the recording recording has no shots, so nothing to judge on; take another one"]


def test_many_observables(capsys, tmp_path):
    """71 times the same one: whoever takes so many answers as for one."""
    one = Experiment(3, 2, "z", "uniform", 0.01).circuit()
    (line,) = [i for i in one if i.name == "OBSERVABLE_INCLUDE"]
    many = one.copy()
    for k in range(1, 71):
        many.append("OBSERVABLE_INCLUDE", line.targets_copy(), k)
    errors = []
    for circuit in (one, many):
        path, out = tmp_path / "c.stim", tmp_path / "out.json"
        circuit.to_file(path)
        names = ["pymatching", "pymatching-correlated", "tesseract", "belief-matching", "student-d3", "optimal"]
        code, _, said = evaluate(capsys, *names, "--circuit", path, "--shots", 500, "--json", out, "--force")
        assert code == 0
        errors.append({row["decoder"]: row["errors"] for row in json.loads(out.read_text())["rows"]})
    assert len(said) == 1
    assert "optimal: the model has 71 observables" in said[0]
    assert errors[0].pop("optimal") > 0
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["pymatching", "--circuit", LONG, "--shots", 9],
        ["pymatching", "--circuit", "a/" * 3000, "--shots", 9],
        ["pymatching", "--recorded", LONG],
        ["pymatching", *EXPERIMENT, "--json", LONG],
        ["pymatching", *EXPERIMENT, "--rows", LONG],
        [LONG, *EXPERIMENT],
        [f"{LONG}.safetensors", *EXPERIMENT],
        ["pymatching", "--experiment", "d=3,rounds=9223372036854775808,basis=z,noise=si1000,p=0.004", "--shots", 9],
        ["pymatching", "--experiment", f"d=3,rounds={'9' * 5000},basis=z,noise=si1000,p=0.004", "--shots", 9],
        ["pymatching", "--experiment", "d=99999999999,rounds=3,basis=z,noise=si1000,p=0.004", "--shots", 9],
    ],
)
def test_what_cannot_be_is_one_line_at_once(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    code, out, said = evaluate(capsys, *arguments)
    assert time.perf_counter() - start < 2
    assert (code, out) == (2, "")
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_an_endless_circuit(capsys, tmp_path):
    path = tmp_path / "endless.stim"
    path.write_text("M 0\nREPEAT 1000000000000 {\nM 0\nDETECTOR rec[-1] rec[-2]\n}\nOBSERVABLE_INCLUDE(0) rec[-1]\n")
    start = time.perf_counter()
    code, _, said = evaluate(capsys, "pymatching", "--circuit", path, "--shots", 9)
    assert time.perf_counter() - start < 2
    assert (code, said) == (2, [said[0]])
    assert "1,000,000,000,000 detectors" in said[0]


def test_likely_errors_end_to_end(capsys, tmp_path):
    """Correlated matching raised on these; a certain flip costs nobody anything."""
    one = Experiment(3, 2, "z", "uniform", 0.01).circuit().flattened()
    first_tick = next(k for k, instruction in enumerate(one) if instruction.name == "TICK")
    (one[:first_tick] + stim.Circuit("X_ERROR(1) 1\nX_ERROR(0.99) 8") + one[first_tick:]).to_file(tmp_path / "c.stim")
    out = tmp_path / "out.json"
    names = ["pymatching", "pymatching-correlated", "tesseract", "belief-matching", "optimal"]
    code, _, said = evaluate(capsys, *names, "--circuit", tmp_path / "c.stim", "--shots", 1000, "--json", out)
    assert (code, said) == (0, [])
    assert all(row["ler"] < 0.1 for row in json.loads(out.read_text())["rows"])


@pytest.mark.slow(reason="the errors of a circuit of 1,000 rounds are looked at: a quarter of a minute")
def test_a_thousand_rounds():
    """A network with a frame decodes them as it does a few."""
    subject = Subject.from_experiment("d=3,rounds=1000,basis=z,noise=si1000,p=0.0005")
    student, matching = subject.compare(["student-d3-frame", "pymatching"], 200, 0).rows
    # binomial, true rates near .08 and .12, 6 standard deviations: false alarm below 1e-8
    assert 0 < student.ler < 0.20
    assert 0 < matching.ler < 0.26
