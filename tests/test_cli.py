"""The command line: verbs, what they write, and what they say to wrong input."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.cli import main as cli
from syndistill.evaluation.gate import judge_teacher
from syndistill.models.networks import build, load_network, save_network, weights_hash
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.recipes import recipe
from syndistill.runs import console, gated

from .command_line import refused, run, snapshot
from .reporting import Stopping

EXPERIMENT = "d=3,rounds=2,basis=z,noise=si1000,p=0.004"
SMALL = ("steps=6", "batch_size=16", "threads=1", "checkpoint_minutes=0", "log_every=2")
TRAIN = ["train", "teacher-tiny", *(word for setting in SMALL for word in ("--set", f"training.{setting}"))]


@pytest.fixture(autouse=True)
def few_gate_shots(monkeypatch):
    few = {"shots": 200}
    monkeypatch.setattr(gated, "judge_teacher", lambda network, **options: judge_teacher(network, **options | few))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two untrained networks' paths: good.safetensors and student.safetensors."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    save_network(folder / "good.safetensors", build("teacher-tiny", 3), {"note": "untrained"})
    save_network(folder / "student.safetensors", build("flat-gru-5k", 3), {})
    return folder


def hash_of(path):
    return weights_hash(load_network(path)[0])


@pytest.mark.parametrize("verb", [None, "train", "distill", "evaluate", "bench", "export", "info"])
def test_help(capsys, verb):
    code, out, _ = run(capsys, *([] if verb is None else [verb]), "--help")
    assert code == 0
    assert "Usage: " in out
    if verb is None:
        assert all(name in out for name in ("train", "distill", "evaluate", "bench", "export", "info"))
        assert run(capsys, "--version")[1].startswith("syndistill 0.")


def test_main_takes_the_command_line_and_shows_help_without_one(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["syndistill"])
    assert cli.main() == 0
    assert "Usage: " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["syndistill", "trane"])
    assert cli.main() == 2
    assert capsys.readouterr().err == "error: No such command 'trane'. Did you mean 'train'? Try --help.\n"


def test_evaluate_writes_rows_and_pairs(capsys, tmp_path, networks):
    out, rows = tmp_path / "out.json", tmp_path / "rows.jsonl"
    command = ["evaluate", "pymatching", "optimal", networks / "student.safetensors", "--experiment", EXPERIMENT,
               "--shots", 300, "--seed", 4, "--batch", 200, "--rows", rows, "--threads", 1]  # fmt: skip
    code, table, _ = run(capsys, *command, "--json", out)
    assert code == 0
    assert all(word in table for word in ("LER", "optimal", "student.safetensors", "p-value"))
    found = json.loads(out.read_text())
    assert set(found) == {"rows", "pairs"}
    assert [row["decoder"] for row in found["rows"]] == ["pymatching", "optimal", str(networks / "student.safetensors")]
    for row in found["rows"]:
        assert {"decoder", "shots", "errors", "ler", "low", "high", "us_per_shot", "parameters"} <= set(row)
        assert row["shots"] == 300
        assert row["ler"] == row["errors"] / 300
        assert row["low"] <= row["ler"] <= row["high"]
    assert [row["parameters"] is None for row in found["rows"]] == [True, True, False]
    assert [row["nll"] is None for row in found["rows"]] == [True, False, False]
    assert len(found["pairs"]) == 3
    for pair in found["pairs"]:
        assert {"a", "b", "only_a_wrong", "only_b_wrong", "p_value"} <= set(pair)
    # again: nothing is decoded twice, the same numbers; a written file needs --force
    kept = rows.read_text()
    before = out.read_bytes()
    assert "--force" in refused(capsys, *command, "--json", out)
    assert run(capsys, *command, "--json", out, "--force")[0] == 0
    assert out.read_bytes() == before
    assert rows.read_text() == kept


def test_evaluate_a_circuit_file(capsys, tmp_path, networks):
    path = tmp_path / "memory.stim"
    path.write_text(str(Experiment.parse(EXPERIMENT).circuit()))
    code, table, _ = run(
        capsys, "evaluate", networks / "student.safetensors", "--circuit", path, "--shots", 50, "--threads", 1
    )
    assert code == 0
    assert "memory.stim" in table


@pytest.fixture
def recording(tmp_path):
    """A folder in the layout of the Sycamore recordings, 40 simulated shots of our own circuit."""
    folder = tmp_path / "recording"
    folder.mkdir()
    circuit = Experiment(3, 3, "x", "si1000", 0.01).circuit()
    (folder / "circuit_noisy.stim").write_text(str(circuit))
    dem = circuit.detector_error_model(decompose_errors=True)
    (folder / "circuit_detector_error_model.dem").write_text(str(dem))
    heavier = stim.DetectorErrorModel(str(dem).replace("error(0.0", "error(0.1"))
    (folder / "pij_from_even_for_odd.dem").write_text(str(heavier))
    events, flips = circuit.compile_detector_sampler(seed=1).sample(40, separate_observables=True)
    np.packbits(events, axis=1, bitorder="little").tofile(folder / "detection_events.b8")
    (folder / "obs_flips_actual.01").write_text("".join(f"{int(flip)}\n" for flip in flips[:, 0]))
    properties = {
        "distance": 3, "rounds": 3, "basis": "X", "center_data_qubit_row": 1, "center_data_qubit_col": 1, "shots": 40,
        "circuit_measurements": circuit.num_measurements, "circuit_sweep_bits": 0,
        "circuit_detectors": circuit.num_detectors, "circuit_observables": 1,
    }  # fmt: skip
    (folder / "properties.yml").write_text("".join(f"{key}: {value}\n" for key, value in properties.items()))
    return folder


def test_evaluate_a_recording_on_both_error_models(capsys, tmp_path, networks, recording):
    out = tmp_path / "out.json"
    names = ["pymatching", "pymatching@pij", "pymatching-correlated@pij", networks / "good.safetensors"]
    code, _, err = run(
        capsys, "evaluate", *names, "--recorded", recording, "--json", out, "--batch", 16, "--threads", 1
    )
    assert code == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert [row["decoder"] for row in rows] == [str(name) for name in names]
    assert {row["shots"] for row in rows} == {40}
    assert len({row["decoder_id"] for row in rows}) == 4
    for arguments, said in [
        (["pymatching@dij"], "'dij' is unknown"),
        ([f"{networks / 'good.safetensors'}@pij"], "takes no error model"),
        (["pymatching", "--seed", 1], "--seed"),
        (["pymatching", "--shots", 41], "which has 40"),
    ]:
        assert said in refused(capsys, "evaluate", *arguments, "--recorded", recording)
    events = recording / "detection_events.b8"
    events.write_bytes(events.read_bytes()[:-1])
    assert "truncated" in refused(capsys, "evaluate", "pymatching", "--recorded", recording)


def broken(networks, kind, folder):
    """A damaged copy of a network."""
    tensors, metadata = load_tensors(networks / "student.safetensors")
    path = folder / f"{kind}.safetensors"
    name = next(iter(tensors))
    if kind == "nan":
        tensors[name] = tensors[name] * float("nan")
    elif kind == "foreign":
        tensors["of.another"] = torch.zeros(3)
    save_tensors(path, tensors, metadata)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    return path


EVALUATE = ["--experiment", EXPERIMENT, "--shots", 50]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pymatchin", *EVALUATE], "did you mean 'pymatching'"),
        (["nowhere.safetensors", *EVALUATE], "no file nowhere.safetensors"),
        (["pymatching@pij", *EVALUATE], "recorded shots only"),
        (["pymatching", "pymatching", *EVALUATE], "named twice"),
        (["pymatching"], "exactly one of"),
        (["pymatching", *EVALUATE, "--circuit", "x.stim"], "exactly one of"),
        (["pymatching", "--experiment", EXPERIMENT], "no shots"),
        (["pymatching", "--experiment", EXPERIMENT, "--shots", 0], "must be positive"),
        (["pymatching", "--experiment", "d=4,rounds=2,basis=z,noise=si1000,p=0.004", "--shots", 9], "distance 4"),
        (["pymatching", "--experiment", EXPERIMENT.replace("basis", "base"), "--shots", 9], "'base'"),
        (["pymatching", "--circuit", "nowhere.stim", "--shots", 9], "nowhere.stim"),
        (["pymatching", "--recorded", "nowhere"], "properties.yml"),
        (["pymatching", *EVALUATE, "--json", "no/such/folder/out.json"], "no/such/folder"),
        (["pymatching", *EVALUATE, "--rows", "no/such/folder/rows"], "no/such/folder"),
        (["optimal", "--experiment", EXPERIMENT.replace("d=3", "d=5"), "--shots", 9], "smaller code"),
        ([*EVALUATE], "Missing argument"),
        (["pymatching", *EVALUATE, "--seeed", 1], "--seeed"),
        (["pymatching", "--experiment", EXPERIMENT, "--shots", "many"], "'--shots'"),
    ],
)
def test_wrong_evaluations(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "evaluate", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "said"), [("nan", "NaN"), ("foreign", "foreign weights"), ("truncated", "not those that were written")]
)
def test_broken_networks(capsys, tmp_path, networks, kind, said):
    path = broken(networks, kind, tmp_path)
    assert said in refused(capsys, "evaluate", path, *EVALUATE)
    assert said in refused(capsys, "info", path)


def noisy_memory(task):
    return str(stim.Circuit.generated(task, distance=3, rounds=3, before_measure_flip_probability=0.01))


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        ("", "no detectors"),
        ("no stim", "no Stim circuit"),
        (noisy_memory("repetition_code:memory"), "D0 lacks coordinates"),
        (noisy_memory("surface_code:unrotated_memory_z"), "no memory of a rotated surface code"),
    ],
)
def test_circuits_that_are_no_surface_code(capsys, tmp_path, networks, circuit, said):
    path = tmp_path / "circuit.stim"
    path.write_text(circuit)
    decoder = networks / "student.safetensors"
    assert said in refused(capsys, "evaluate", decoder, "--circuit", path, "--shots", 9)


def test_train_writes_a_teacher_and_its_run_json_repeats_it(capsys, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    code, out, err = run(capsys, *TRAIN, "--out", first)
    assert code == 0, err
    assert out.strip() == str(first / "teacher.safetensors")
    assert {"run.json", "metrics.jsonl", "teacher.safetensors"} <= {p.name for p in first.iterdir()}
    before = snapshot(first)
    assert "finished run" in refused(capsys, *TRAIN, "--out", first) and snapshot(first) == before  # noqa: PT018
    assert run(capsys, "train", first / "run.json", "--out", second)[0] == 0
    assert hash_of(second / "teacher.safetensors") == hash_of(first / "teacher.safetensors")


def test_an_interrupted_run_goes_on_to_the_same_weights(capsys, tmp_path, monkeypatch):
    assert run(capsys, *TRAIN, "--out", tmp_path / "whole")[0] == 0
    cut = tmp_path / "cut"
    with monkeypatch.context() as patched:
        patched.setattr(console, "terminal_reporter", lambda: nullcontext(Stopping("Teacher", 4)))
        code, _, err = run(capsys, *TRAIN, "--out", cut)
    assert code == 130
    assert f"interrupted: the same command goes on from the last checkpoint in {cut}" in err
    other = [a.replace("steps=6", "steps=7") for a in TRAIN]
    assert "training.steps: 6 there, 7 now" in refused(capsys, *other, "--out", cut)
    assert run(capsys, *TRAIN, "--out", cut)[0] == 0
    assert hash_of(cut / "teacher.safetensors") == hash_of(tmp_path / "whole" / "teacher.safetensors")


def distil(networks, *more):
    """A command of seconds, with a cache of one chunk."""
    return ["distill", "baseline-tiny", "--set", f"teacher={networks / 'good.safetensors'}", "--set",
            "data.cached_shots=4096", "--set", "training.steps=5", "--set", "training.batch_size=32", "--set",
            "training.threads=1", *more]  # fmt: skip


def test_distill_gates_caches_and_repeats(capsys, tmp_path, networks):
    first, second, cache = tmp_path / "first", tmp_path / "second", tmp_path / "cache"
    code, out, err = run(capsys, *distil(networks), "--out", first, "--cache", cache)
    assert code == 2
    assert out == ""
    assert sum(line.startswith("error: the gate refuses") for line in err.splitlines()) == 1
    assert not cache.exists()
    command = [*distil(networks), "--accept-any-teacher", "--cache", cache]
    assert run(capsys, *command, "--out", first)[0] == 0
    written = snapshot(cache)
    replay = ["distill", first / "run.json", "--accept-any-teacher", "--cache", cache]
    assert run(capsys, *replay, "--out", second)[0] == 0
    assert hash_of(second / "student.safetensors") == hash_of(first / "student.safetensors")
    assert snapshot(cache) == written
    # the same cache under another Teacher is refused, and stays
    other = tmp_path / "other"
    other.mkdir()
    torch.manual_seed(1)
    save_network(other / "good.safetensors", build("teacher-tiny", 3), {})
    error = run(capsys, *distil(other), "--accept-any-teacher", "--cache", cache, "--out", tmp_path / "third")
    assert error[0] == 2
    assert "another teacher" in error[2]
    assert snapshot(cache) == written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "teacher-tiny", "--set", "training.step=1", "--out", "new"], "did you mean 'steps'"),
        (["train", "teacher-tyni", "--out", "new"], "did you mean 'teacher-tiny'"),
        (["train", "baseline-tiny", "--out", "new"], "syndistill distill"),
        (["train", "teacher-tiny", "--out", "file/below"], "cannot use file/below"),
        (["train", "teacher-tiny", "--out", "mine"], "not empty"),
        (["train", "teacher-tiny"], "--out"),
        (["train", "file", "--out", "new"], "no JSON"),
        (["distill", "baseline-tiny", "--set", "start_from=no.safetensors", "--out", "new"], "there is no file"),
        (["distill", "baseline-tiny", "--set", "teacher=nobody", "--out", "new"], "nobody"),
        (["info", "nobody"], "no shipped network"),
    ],
)
def test_wrong_runs_write_nothing(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("not a folder")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    assert said in refused(capsys, *arguments)
    assert snapshot(tmp_path) == before
    assert not Path("new").exists()


def test_info_lists_and_describes(capsys, networks):
    code, out, _ = run(capsys, "info")
    assert code == 0
    assert all(name in out for name in ("teacher-tiny", "baseline-d3", "pymatching-correlated", "flat-gru-20k"))
    code, out, _ = run(capsys, "info", "student-d3")
    assert code == 0
    assert "flat_gru of distance 3, output two_channel, 19,058 parameters" in out
    assert "learned from si1000, p 0.001 to 0.006, up to 25 rounds" in out
    assert "d=3,rounds=9,basis=z,noise=si1000,p=0.004: LER 0.1084 (0.1057 to 0.1111), 50,000 shots" in out
    assert "recipe student-d3 (syndistill distill student-d3 --out DIR)" in out
    assert len(out.splitlines()) < 30
    many = run(capsys, "info", "student-sycamore-d3")[1]
    assert " more scores\n" in many
    assert len(many.splitlines()) < 30
    assert "noise that its file does not say" in run(capsys, "info", networks / "good.safetensors")[1]
    code, out, _ = run(capsys, "info", networks / "good.safetensors", "--json")
    assert code == 0
    told = json.loads(out.split("\n", 1)[1])
    assert told["parameters"] == build("teacher-tiny", 3).n_parameters()
    assert set(told["multiply_adds_per_round"]) == {"r=3", "r=9", "r=25"}
    assert told["sha256"] == hash_of(networks / "good.safetensors")
    assert told["metadata"] == {"note": "untrained"}
    steps = recipe("labels-d3").training.steps
    assert f'"steps": {steps}' in run(capsys, "info", "labels-d3", "--json")[1]
    assert "multiply_adds_per_round" in run(capsys, "info", "flat-gru-5k", "--json")[1]
