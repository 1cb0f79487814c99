"""Exported folders: what they hold, that it runs without PyTorch to the same answers, and what they refuse."""

import json

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place
from syndistill.decoders.engines import slices_of
from syndistill.decoders.kernels.weights import load_compilable
from syndistill.decoders.network import NetworkDecoder
from syndistill.decoders.onnx_engine import GRAPH_FILES, Manifest, OnnxEngine, OnnxExperiment, with_hash
from syndistill.decoders.torch_engine import network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.safe_files import file_sha256
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.calibration import log_odds

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
CASES = [("x", 3), ("z", 5), ("both", 3)]
FILES = ["experiment.onnx", "manifest.json", "readout.onnx", "step.onnx"]
TRAINED = {"run": {"noise": "si1000", "curriculum": {"p_min": 0.001, "p_max": 0.006, "rounds": [{"rounds": [3, 9]}]}}}


@pytest.fixture(scope="module")
def folder(network_file, tmp_path_factory):
    circuit = Experiment(3, 4, "z", "si1000", 0.02).circuit()
    return export_onnx(network_file(metadata=TRAINED), circuit, "mine", tmp_path_factory.mktemp("out") / "student")


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("family", "output", "basis", "distance", "frame"), [
    *((family, "two_channel", basis, d, {}) for family in ("flat_gru", "local_gru") for basis, d in CASES),
    ("flat_gru", "joint4", "both", 3, {}),
    *((f, "two_channel", b, 3, {"frame_memory": True}) for f in ("flat_gru", "local_gru") for b in ("x", "both")),
    ("local_gru", "two_channel", "x", 5, {"frame_memory": True, "turn_x": True}),
    ("local_gru", "two_channel", "z", 3, {"frame_memory": True, "events_alone": True}),
    ("local_gru", "two_channel", "both", 3, {"frame_memory": True, "agree_after": 1}),
    ("local_gru", "two_channel", "x", 5, {"frame_memory": True, "agree_after": 2, "turn_x": True}),
])  # fmt: skip
def test_the_experiment_graph_is_the_network(
    network_file, experiment_shots, tmp_path, family, output, basis, distance, frame
):
    path = network_file(family, output=output, distance=distance, readout_layers=2, both=basis == "both", **frame)
    circuit, shots = experiment_shots(basis, rounds=5, n_shots=100, distance=distance)
    found = OnnxExperiment(export_onnx(path, circuit, "t", tmp_path / "out")).decode(shots)
    network, metadata = load_network(path)
    expected = network_decoder(network, circuit, "n", metadata).decode(shots)
    assert log_odds(expected).std() > 0.1
    odds = [log_odds(some).clip(-8, 8) for some in (found, expected)]  # beyond, a probability in float32 says no more
    np.testing.assert_allclose(*odds, atol=1e-4, rtol=1e-4)


def test_an_observable_on_another_line(network_file, tmp_path):
    circuit = stim.Circuit()
    for instruction in Experiment(3, 3, "z", "si1000", 0.02).circuit():
        if instruction.name != "OBSERVABLE_INCLUDE":
            circuit.append(instruction)
    circuit.append("OBSERVABLE_INCLUDE", [stim.target_rec(q - 9) for q in (2, 5, 8)], 0)
    shots = StoredShots.sample(circuit, 100, 5)
    found = OnnxExperiment(export_onnx(network_file(), circuit, "t", tmp_path / "out")).decode(shots)
    expected = network_decoder(load_network(network_file())[0], circuit, "n", {}).decode(shots)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_what_a_loader_of_whole_experiments_sees(folder, experiment_shots):
    """One float input (batch, detectors), one float output (batch, observables), any batch, one file."""
    graph = session(folder / "experiment.onnx")
    (given,), (answer,) = graph.get_inputs(), graph.get_outputs()
    _, shots = experiment_shots("z", rounds=4, n_shots=9)
    assert (given.name, given.type, given.shape) == ("detectors", "tensor(float)", ["batch", shots.n_detectors])
    assert (answer.name, answer.type, answer.shape) == ("flips", "tensor(float)", ["batch", 1])
    detectors = shots.detectors().astype(np.float32)
    together = graph.run(None, {"detectors": detectors})[0]
    alone = np.concatenate([graph.run(None, {"detectors": row[None]})[0] for row in detectors])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_step_and_readout_graphs_are_the_network(folder, network_file, experiment_shots):
    circuit, shots = experiment_shots("z", rounds=4, n_shots=50)
    network, _ = load_network(network_file(metadata=TRAINED))
    slices = slices_of(shots.detectors_packed, place(circuit))
    stream = OnnxEngine(folder).stream("z", 50)
    stream.push(slices[:-1])
    decoder = network_decoder(network, circuit, "n", {})
    np.testing.assert_allclose(stream.logits(slices[-1]), log_odds(decoder.decode(shots)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["flat_gru", "local_gru"])
def test_the_step_graph_moves_frames(network_file, experiment_shots, tmp_path, family):
    path, (circuit, shots) = network_file(family, frame_memory=True), experiment_shots("z", rounds=6, n_shots=50)
    slices = slices_of(shots.detectors_packed, place(circuit))
    stream = OnnxEngine(export_onnx(path, circuit, "t", tmp_path / "out")).stream("z", 50)
    expected = log_odds(network_decoder(load_network(path)[0], circuit, "n", {}).decode(shots))
    for _ in range(2):
        for events in slices[:-1]:
            stream.push(events[None])
        np.testing.assert_allclose(stream.logits(slices[-1]), expected, atol=1e-4, rtol=0)
        stream.restart()


def test_the_manifest(folder, network_file):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    content = json.loads((folder / "manifest.json").read_text())
    network, _ = load_network(network_file(metadata=TRAINED))
    assert content["network"]["weights_sha256"] == weights_hash(network)
    assert content["network"]["trained_rounds"] == 9
    assert content["files"] == {name: file_sha256(folder / name) for name in FILES if name.endswith(".onnx")}
    circuit = Experiment(3, 4, "z", "si1000", 0.02).circuit()
    expected, found = place(circuit), Manifest.load(folder).placement
    np.testing.assert_array_equal(found.slice_N, expected.slice_N)
    np.testing.assert_array_equal(found.stabiliser_N, expected.stabiliser_N)
    assert (found.layout, found.rounds, found.basis, found.lines) == (expected.layout, 4, "z", (0,))
    np.testing.assert_array_equal(
        np.float32(content["start_D"]["z"]), load_compilable(network_file(metadata=TRAINED)).tensors["start.z"]
    )


def test_the_same_export_is_the_same_to_the_byte(folder, network_file, tmp_path):
    circuit = Experiment(3, 4, "z", "si1000", 0.02).circuit()
    again = export_onnx(network_file(metadata=TRAINED), circuit, "mine", tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the folder with one file changed by a function of its bytes (None deletes it)."""

    def make(name, change):
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in FILES:
            content = (folder / file).read_bytes()
            content = content if file != name else change(content)
            if content is not None:
                (copy / file).write_bytes(content)
        return copy

    return make


@pytest.mark.parametrize(("name", "change", "said"), [
    ("step.onnx", lambda content: content[:-9], "step.onnx is missing or not the file"),
    ("experiment.onnx", lambda content: None, "experiment.onnx is missing"),
    ("manifest.json", lambda content: None, "cannot read .*manifest.json"),
    ("manifest.json", lambda content: content[:-9], "manifest.json is damaged or no JSON"),
    ("manifest.json", lambda content: b"[]", "no manifest of format 2"),
    ("manifest.json", lambda content: content.replace(b'"start_D"', b'"started"'), "not the manifest that was written"),
])  # fmt: skip
def test_damaged_folders(damaged, name, change, said):
    with pytest.raises(SyndistillError, match=said):
        OnnxEngine(damaged(name, change))


def rehashed(folder, change):
    """The folder with its manifest changed and hashed anew."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    del content["sha256"]
    (folder / "manifest.json").write_text(json.dumps(with_hash(content)))


@pytest.mark.parametrize(("section", "key", "value"), [
    ("start_D", "z", [0.0, "a"]), ("start_D", "z", None), ("start_D", "z", [[0.0]]), ("experiment", "distance", 10**6),
    ("experiment", "distance", 4), ("experiment", "rounds", 0), ("experiment", "basis", "y"),
    ("experiment", "basis", "x"), ("experiment", "holds_O2", [[True]]), ("experiment", "holds_O2", []),
    ("experiment", "holds_O2", [[False, True]] * 2), ("experiment", "turn_OS", [[0]]), ("experiment", "turn_OS", None),
    ("experiment", "turn_OS", [[2] * 8]),
    ("experiment", "slice_N", [0.5]), ("experiment", "slice_N", []),
    ("experiment", "stabiliser_N", [900] * 32), ("network", "output", "three"),
    ("network", "trained_rounds", "nine"), ("files", "more.onnx", "0"), ("files", "step.onnx", 3),
])  # fmt: skip
def test_a_manifest_whose_parts_do_not_fit(damaged, section, key, value):
    copy = damaged("", None)
    rehashed(copy, lambda content: content[section].update({key: value}))
    with pytest.raises(SyndistillError, match=r"do not fit together|is missing or not the file"):
        OnnxEngine(copy)


@pytest.mark.parametrize("engine", [OnnxEngine, OnnxExperiment])
def test_only_what_the_manifest_lists_is_run(damaged, engine):
    """Graphs, start state and experiment of the manifest as they were written, or nothing."""
    copy = damaged("", None)
    rehashed(copy, lambda content: content["files"].pop("experiment.onnx"))
    with pytest.raises(SyndistillError, match="do not fit together"):
        engine(copy)


def test_a_corrupt_graph_whose_hash_fits(damaged, folder):
    """The hash guards against accidents; ONNX Runtime's own refusal becomes one line too."""
    copy = damaged("step.onnx", lambda content: b"no graph at all")
    files = {name: file_sha256(copy / name) for name in GRAPH_FILES}
    rehashed(copy, lambda content: content.update(files=files))
    with pytest.raises(SyndistillError, match=r"step.onnx is no graph that runs \("):
        OnnxEngine(copy)


def test_refused_exports_write_nothing(network_file, folder, tmp_path):
    three, five = (Experiment(d, 2, "z", "si1000", 0.01).circuit() for d in (3, 5))
    two = Experiment(3, 2, "both", "si1000", 0.01).circuit()
    for network, circuit, where, said in [
        (network_file(), five, "new", "decodes distance 3, the circuit has distance 5"),
        (network_file("transformer"), three, "new", "of family transformer"),
        (network_file(output="joint4"), three, "new", "joint4"),
        (network_file(), two, "new", "knows one basis at a time, the circuit has both"),
        (network_file(), three, "taken", "taken exists"),
        (network_file(), three, "file/below", "cannot write"),
    ]:
        (tmp_path / "taken").mkdir(exist_ok=True)
        (tmp_path / "file").write_text("mine")
        with pytest.raises(SyndistillError, match=said):
            export_onnx(network, circuit, "t", tmp_path / where)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken"]


def test_a_folder_serves_its_basis_and_any_rounds(folder, network_file, experiment_shots):
    engine = OnnxEngine(folder)
    with pytest.raises(SyndistillError, match="exported for basis z, not x"):
        engine.stream("x", 1)
    circuit, shots = experiment_shots("z", rounds=7, n_shots=30)
    expected = network_decoder(load_network(network_file(metadata=TRAINED))[0], circuit, "n", {}).decode(shots)
    found = NetworkDecoder(engine, place(circuit)).decode(shots)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
