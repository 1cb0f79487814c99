"""`syndistill bench` and `syndistill export`: what they print and write, and what they refuse."""

import json

import numpy as np
import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import Decoder
from syndistill.decoders.onnx_engine import Manifest
from syndistill.deploy.bench import bench_decoder, default_decoders, measure
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.sampling.stored import StoredShots

from ..command_line import refused, run

pytest.importorskip("llvmlite")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
EXPERIMENT = "d=3,rounds=2,basis=z,noise=si1000,p=0.004"
QUICK = ["--shots", 200, "--seconds", 0.01]


@pytest.fixture(scope="module")
def subject():
    return Subject.from_experiment(EXPERIMENT)


def test_every_way_of_a_network_is_another_decoder_with_its_answers(subject, network_file):
    shots = StoredShots.sample(subject.circuit, 200, 1)
    path = network_file()
    names = [str(path), *(f"{path}:{way}" for way in ("compiled", "onnx", "pytorch"))]
    decoders = [bench_decoder(subject, name) for name in names]
    assert [decoder.name for decoder in decoders] == names
    assert decoders[0].content_id == decoders[1].content_id  # compiled is the default
    assert len({decoder.content_id for decoder in decoders}) == 3
    for decoder in decoders[1:]:
        np.testing.assert_allclose(decoder.decode(shots), decoders[0].decode(shots), atol=1e-5)
    with pytest.raises(SyndistillError, match="only flat_gru"):
        bench_decoder(subject, f"{network_file('transformer')}:compiled")


def test_default_decoders_are_of_the_distance(subject):
    assert default_decoders(subject)[:2] == ["pymatching", "pymatching-correlated"]
    assert {"student-d3", "teacher-d3"} <= set(default_decoders(subject))
    five = Subject.from_experiment(EXPERIMENT.replace("d=3", "d=5"))
    assert not {"student-d3", "teacher-d3"} & set(default_decoders(five))


class Waiting(Decoder):
    """Takes 10 us a shot by its own clock."""

    name = content_id = "waiting"

    def __init__(self, shots, sleep):
        self.n_detectors, self.n_observables, self._sleep = shots.n_detectors, shots.n_observables, sleep

    def _probabilities(self, shots):
        self._sleep(1e-5 * shots.n_shots)
        return np.zeros((shots.n_shots, self.n_observables))


def test_times_are_per_shot(subject, monkeypatch):
    """With a clock that only the decoder moves."""
    now = [0.0]
    shots = StoredShots.sample(subject.circuit, 300, 1)
    decoder = Waiting(shots, lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.perf_counter_ns", lambda: round(now[0] * 1e9))
    (found,) = measure([decoder], shots, seconds=0.05)
    assert found.us_per_shot == pytest.approx(10)
    assert found.single_p50 == pytest.approx(10, rel=1e-3)
    assert found.batch == 300
    (small,) = measure([decoder], shots, seconds=0.0105)  # 7 turns of 1.5 ms
    assert small.batch in (149, 150)
    assert small.us_per_shot == pytest.approx(10)
    assert (found.push_p50, found.round) == (None, None)
    with pytest.raises(SyndistillError, match="take at least 100 shots"):
        measure([decoder], shots.take(0, 99))


def test_the_verb_prints_a_table_and_writes_figures(capsys, tmp_path, network_file):
    out = tmp_path / "out.json"
    path = network_file()
    code, table, err = run(capsys, "bench", "pymatching", path, f"{path}:onnx", "--experiment", EXPERIMENT, *QUICK,
                           "--json", out)  # fmt: skip
    assert code == 0, err
    assert all(word in table for word in ("pymatching", "LER", "us/shot", "one shot p50", "round", "200 shots"))
    content = json.loads(out.read_text())
    assert set(content["machine"]) == {"processor", "cores", "load"}
    rows = content["rows"]
    assert [row["decoder"] for row in rows] == ["pymatching", str(path), f"{path}:onnx"]
    for row in rows:
        assert row["shots"] == 200
        assert 0 < row["us_per_shot"] < row["single_p50"] <= row["single_p99"]
    assert [row["round"] is None for row in rows] == [True, False, True]
    assert rows[1]["round"] < rows[1]["push_p50"] <= rows[1]["push_p99"]


def test_the_verb_on_a_circuit_file(capsys, tmp_path, network_file):
    circuit = tmp_path / "mine.stim"
    circuit.write_text(str(Experiment.parse(EXPERIMENT).circuit()))
    code, table, _ = run(capsys, "bench", network_file(), "--circuit", circuit, *QUICK)
    assert code == 0
    assert "mine.stim" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "pymatching"], "exactly one of"),
        (["bench", "pymatchin", "--experiment", EXPERIMENT], "did you mean 'pymatching'"),
        (["bench", "student-d3:fast", "--experiment", EXPERIMENT], "unknown decoder 'student-d3:fast'"),
        (["bench", "teacher-d3:int8", "--experiment", EXPERIMENT], "of family transformer"),
        (["bench", "student-d3", "--experiment", EXPERIMENT.replace("d=3", "d=5")], "the circuit has distance 5"),
        (["bench", "student-d3", "student-d3:compiled", "--experiment", EXPERIMENT], "same content"),
        (["bench", "pymatching", "--experiment", EXPERIMENT, "--shots", 99], "--shots"),
        (["bench", "pymatching", "--experiment", EXPERIMENT, "--json", "no/folder/out.json"], "no/folder"),
        (["export", "student-d3", "--out", "new"], "exactly one of"),
        (["export", "student-d3", "--out", "new", "--experiment", EXPERIMENT, "--to", "tflite"], "--to onnx"),
        (["export", "nobody", "--out", "new", "--experiment", EXPERIMENT], "there is no file nobody"),
        (["export", "teacher-d3", "--out", "new", "--experiment", EXPERIMENT], "of family transformer"),
        (["export", "student-d3", "--experiment", EXPERIMENT], "--out"),
    ],
)
def test_wrong_commands_write_nothing(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_exports(capsys, tmp_path, network_file):
    out = tmp_path / "exported"
    code, said, err = run(capsys, "export", network_file(), "--out", out, "--experiment", EXPERIMENT)
    assert code == 0, err
    assert said.strip() == str(out)
    assert Manifest.load(out).content["experiment"]["label"] == EXPERIMENT
