"""The runtime loads no PyTorch, finds what it is asked for, and every way to run a network gives the same answers."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place
from syndistill.decoders.contract import MoreRoundsThanTrained, decisions
from syndistill.decoders.engines import slices_of
from syndistill.decoders.network import StreamingDecoder
from syndistill.decoders.onnx_engine import OnnxExperiment
from syndistill.decoders.runtime import load, on_circuit
from syndistill.decoders.torch_engine import TorchEngine, network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.files.network_file import trained_rounds
from syndistill.models.networks import load_network
from syndistill.sampling.stored import StoredShots
from syndistill.sinter_plugin import SinterDecoder

pytest.importorskip("llvmlite")
pytest.importorskip("onnxruntime")

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises from here on
import numpy as np, stim
from syndistill.circuits import placement
from syndistill.decoders import network, onnx_engine, runtime
from syndistill.deploy import export
circuit = stim.Circuit(open(sys.argv[1]).read())
detectors, _ = circuit.compile_detector_sampler(seed=1).sample(20, separate_observables=True, bit_packed=True)
compiled = runtime.load("student-d3")
folder = export.export_onnx("student-d3", circuit, "test", sys.argv[2])
answers = [runtime.on_circuit(engine, circuit).probabilities(detectors) for engine in (compiled, runtime.load(folder))]
dem = circuit.detector_error_model(decompose_errors=True)
answers.append(runtime.on_circuit(compiled, dem).probabilities(detectors))
needless = {"matplotlib", "pydantic", "pymatching", "pytorch_optimizer", "rich", "sinter", "typer"} & set(sys.modules)
assert not needless, needless
stream = network.StreamingDecoder(compiled, placement.Placement.of_lines(compiled.layout, "z"), batch=20)
stream.push(np.zeros((20, 8), np.uint8))
assert stream.posterior().shape == (20, 1)
for answer in answers[1:]:
    np.testing.assert_allclose(answer, answers[0], atol=1e-5)
"""


def test_no_pytorch(tmp_path):
    circuit = tmp_path / "memory.stim"
    circuit.write_text(str(Experiment(3, 3, "z", "si1000", 0.004).circuit()))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, circuit, tmp_path / "out"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def every_way(network, circuit, shots, folder):
    """Probabilities (B, O) by name of the way."""
    placement = place(circuit)
    slices = slices_of(shots.detectors_packed, placement)
    stream = StreamingDecoder(load(network), placement, batch=shots.n_shots)
    for events in slices[:-1]:
        stream.push(events)
    exported = export_onnx(network, circuit, "t", folder)
    return {
        "pytorch": network_decoder(load_network(network)[0], circuit, "n", {}).decode(shots),
        "pytorch engine": on_circuit(TorchEngine(network), circuit).decode(shots),
        "compiled": on_circuit(load(network), circuit).decode(shots),
        "from the error model": on_circuit(load(network), shots.dem).decode(shots),
        "stream": stream.finish(slices[-1]),
        "onnx steps": on_circuit(load(exported), circuit).decode(shots),
        "onnx experiment": OnnxExperiment(exported).decode(shots),
    }


def check_every_way(distance, rounds, basis, n_shots, folder):
    network, circuit = f"student-d{distance}", Experiment(distance, rounds, basis, "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, n_shots, 7)
    found = every_way(network, circuit, shots, folder)
    reference = found["pytorch"]
    for way, probabilities in found.items():
        np.testing.assert_allclose(probabilities, reference, atol=2e-5, rtol=0, err_msg=way)
        # A shot whose two answers are equally likely may fall either way.
        decided = np.abs(reference - 0.5) > 2e-5
        np.testing.assert_array_equal(decisions(probabilities)[decided], decisions(reference)[decided], err_msg=way)
    assert decided.mean() > 0.999
    compiled = SinterDecoder(network).compile_decoder_for_dem(dem=shots.dem)
    packed = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots.detectors_packed)
    np.testing.assert_array_equal(packed, decisions(found["from the error model"]).astype(np.uint8))


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_all_ways_agree(tmp_path, distance, basis):
    check_every_way(distance, 5, basis, 2000, tmp_path / "out")


@pytest.mark.slow("100,000 shots through each of seven ways")
@pytest.mark.parametrize(("distance", "rounds"), [(3, 9), (5, 5)])
def test_all_ways_agree_on_many_shots(tmp_path, distance, rounds):
    check_every_way(distance, rounds, "z", 100_000, tmp_path / "out")


@pytest.mark.slow("200,000 shots in two precisions")
@pytest.mark.parametrize(("distance", "rounds"), [(3, 3), (5, 5)])
def test_int8_errs_as_often_as_float32(distance, rounds):
    """Paired: within 1 % of float32's errors, allowing for the chance that discordant shots fall unevenly."""
    circuit, network = Experiment(distance, rounds, "z", "si1000", 0.004).circuit(), f"student-d{distance}"
    shots = StoredShots.sample(circuit, 200_000, 11)
    try:
        wrong = [
            decisions(on_circuit(load(network, precision), circuit).decode(shots)) != shots.observables()
            for precision in ("float32", "int8")
        ]
    except SyndistillError as error:
        pytest.skip(str(error))
    discordant = int((wrong[0] != wrong[1]).sum())
    excess = int(wrong[1].sum()) - int(wrong[0].sum())
    assert excess - 2 * discordant**0.5 < 0.01 * wrong[0].sum()
    assert discordant < 0.02 * wrong[0].sum()


def test_more_rounds_than_trained_is_a_warning(network_file, experiment_shots):
    curriculum = {"rounds": [{"from_shots": 0, "rounds": [3]}, {"from_shots": 10, "rounds": [3, 5]}]}
    earlier = {"rounds": [{"from_shots": 0, "rounds": [25]}]}  # which it may have lost since
    path = network_file(metadata={"legs": [{"curriculum": earlier}, {"curriculum": curriculum}]})
    engine = load(path)
    assert engine.trained_rounds == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_circuit(engine, experiment_shots(rounds=5)[0])
    circuit, shots = experiment_shots(rounds=6)
    with pytest.warns(MoreRoundsThanTrained, match="trained on at most 5 rounds, the circuit has 6"):
        decoder = on_circuit(engine, circuit)
    assert decoder.decode(shots).shape == (50, 1)


def test_trained_rounds_of_what_says_nothing():
    assert trained_rounds({}) is None
    assert trained_rounds({"note": "untrained", "legs": [1, "two", None]}) is None
    assert trained_rounds({"curriculum": "long"}) is None
    assert trained_rounds({"run": {"curriculum": {"rounds": [3, {"rounds": "many"}, {}]}}}) is None
    told = {"run": {"data": {"tell_frame": True, "curriculum": {"rounds": [{"rounds": [50]}]}}}}
    assert trained_rounds({"legs": [told, {"curriculum": {"rounds": [{"rounds": [9]}]}}]}) == 9
    assert trained_rounds(told) is trained_rounds({"legs": [{}, told]}) is None
    told["run"]["data"]["tell_frame"] = False
    assert trained_rounds(told) == 50
    assert trained_rounds({"legs": {}}) is trained_rounds({"legs": []}) is None


def test_an_engine_serves_only_what_it_can(network_file, experiment_shots):
    engine = load(network_file())
    with pytest.raises(SyndistillError, match="decodes distance 3, the circuit has distance 5"):
        on_circuit(engine, experiment_shots(distance=5)[0])
    circuit, shots = experiment_shots()
    decoder = on_circuit(engine, circuit)
    for wrong in (shots.detectors(), shots.detectors_packed[:, :-1], shots.detectors_packed[0]):
        with pytest.raises(SyndistillError, match="takes uint8 of shape"):
            decoder.probabilities(wrong)
    assert decoder.probabilities(shots.detectors_packed[:0]).shape == (0, 1)
    bare = stim.Circuit(str(circuit).replace("DETECTOR(", "#"))
    with pytest.raises(SyndistillError, match="no detectors"):
        on_circuit(engine, bare)


def test_wrong_names(tmp_path):
    with pytest.raises(SyndistillError, match="there is no file nobody"):
        load("nobody")
    with pytest.raises(SyndistillError, match="cannot read"):
        load(tmp_path)
    with pytest.raises(SyndistillError, match="of family transformer"):
        load("teacher-d3")
