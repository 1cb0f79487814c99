"""Streaming equals the whole history, for every engine; it stays small; what is refused changes nothing."""

import tracemalloc

import numpy as np
import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_circuit
from syndistill.decoders.network import network_decoder
from syndistill.deploy.decoding import EngineDecoder
from syndistill.deploy.engines import slices_of
from syndistill.deploy.export import export_onnx
from syndistill.deploy.kernel_engine import KernelEngine
from syndistill.deploy.onnx_engine import OnnxEngine
from syndistill.deploy.streaming import StreamingDecoder
from syndistill.deploy.torch_engine import TorchEngine
from syndistill.errors import SyndistillError
from syndistill.models.saving import load_network

pytest.importorskip("llvmlite")
B, R, S = 20, 4, 8


@pytest.fixture(scope="module")
def engines(network_file, tmp_path_factory):
    """(name, basis) -> engine."""

    def make(name, basis="z"):
        if name == "kernel":
            return KernelEngine(network_file())
        if name == "onnx":
            pytest.importorskip("onnxruntime")
            folder = tmp_path_factory.mktemp("exported") / basis
            noise = "uniform" if basis == "both" else "si1000"
            return OnnxEngine(export_onnx(network_file(), Experiment(3, 2, basis, noise, 0.01).circuit(), "t", folder))
        return TorchEngine(str(network_file(name)))

    return make


ENGINES = ["kernel", "onnx", "flat_gru", "conv_gru", "transformer"]


def whole_history(name, network_file, circuit, shots):
    family = name if name in ("conv_gru", "transformer") else "flat_gru"
    return network_decoder(load_network(network_file(family))[0], shots.dem, circuit, "n").decode(shots)


@pytest.mark.parametrize("basis", ["x", "both"])
@pytest.mark.parametrize("name", ENGINES)
def test_rounds_one_by_one_give_the_whole_history(engines, network_file, experiment_shots, name, basis):
    circuit, shots = experiment_shots(basis, R, B)
    slices = slices_of(shots.detectors_packed, place_circuit(circuit))
    expected = whole_history(name, network_file, circuit, shots)
    engine = engines(name, basis)
    stream = StreamingDecoder(engine, basis, batch=B)
    for events in slices[:-1]:
        stream.push(events)
        before = stream.posterior()
        np.testing.assert_array_equal(stream.posterior(), before)  # asking changes nothing
    assert stream.rounds_done == R
    np.testing.assert_allclose(stream.finish(slices[-1].astype(bool)), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        EngineDecoder(engine, place_circuit(circuit)).decode(shots), expected, atol=1e-5, rtol=0
    )
    stream.restart()
    stream.push_rounds(slices[:-1])
    np.testing.assert_allclose(stream.finish(slices[-1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_the_posterior_is_the_answer_to_a_readout_without_events(engines, experiment_shots, name):
    circuit, shots = experiment_shots("z", R, B)
    slices = slices_of(shots.detectors_packed, place_circuit(circuit))
    asked, finished = (StreamingDecoder(engines(name), "z", batch=B) for _ in range(2))
    for stream in (asked, finished):
        stream.push_rounds(slices[:-1])
    answer = asked.posterior()
    np.testing.assert_array_equal(answer, finished.finish(np.zeros((B, S), np.uint8)))
    assert answer.std() > 0.01


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_every_line(engines, experiment_shots, basis, line):
    """Line l's flip is line 0's, turned by the final values of the stabilisers between the two."""
    circuit, shots = experiment_shots(basis, R, B)
    placement = place_circuit(circuit)
    slices = slices_of(shots.detectors_packed, placement)
    of_line, of_0 = (StreamingDecoder(engines("kernel"), basis, [k], batch=B) for k in (line, 0))
    for stream in (of_line, of_0):
        stream.push_rounds(slices[:-1])
    final_BS = np.bitwise_xor.reduce(slices, axis=0)
    turned = (final_BS @ placement.layout.line_matrix(basis)[:, [line]]) % 2 == 1
    assert 0 < turned.sum() < B
    expected = of_0.finish(slices[-1])
    np.testing.assert_allclose(of_line.finish(slices[-1]), np.where(turned, 1 - expected, expected), atol=1e-12)


@pytest.mark.parametrize("name", ENGINES)
def test_undefined_events_do_not_matter(engines, experiment_shots, name):
    circuit, shots = experiment_shots("z", R, B)
    slices = slices_of(shots.detectors_packed, place_circuit(circuit))
    noisy = slices.copy()
    off_basis = place_circuit(circuit).layout.is_x_S
    noisy[0, :, off_basis] = noisy[-1, :, off_basis] = 1
    answers = []
    for given in (slices, noisy):
        stream = StreamingDecoder(engines(name), "z", [1], batch=B)
        stream.push_rounds(given[:-1])
        answers.append(stream.finish(given[-1]))
    np.testing.assert_array_equal(*answers)
    assert noisy[0, :, off_basis].all()  # what was given stays as it was


def test_a_hundred_thousand_rounds(engines):
    """The state neither grows nor leaves its range, and the answer does not depend on how the rounds came."""
    rng = np.random.default_rng(3)
    events = (rng.random((1000, 2, S)) < 0.1).astype(np.uint8)
    in_one, in_pieces = (StreamingDecoder(engines("kernel"), "z", batch=2) for _ in range(2))
    in_pieces.push_rounds(events)
    tracemalloc.start()
    for _ in range(99):
        in_pieces.push_rounds(events)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10_000
    assert peak < 10_000
    in_one.push_rounds(np.tile(events, (100, 1, 1)))
    assert in_one.rounds_done == in_pieces.rounds_done == 100_000
    answer = in_one.posterior()
    assert ((answer > 0) & (answer < 1)).all()
    np.testing.assert_array_equal(in_pieces.posterior(), answer)


@pytest.mark.parametrize("name", ["kernel", "onnx", "flat_gru"])
def test_refused_events_change_nothing(engines, name):
    good = (np.random.default_rng(1).random((2, B, S)) < 0.2).astype(np.uint8)
    stream = StreamingDecoder(engines(name), "z", batch=B)
    with pytest.raises(SyndistillError, match="no round was pushed yet"):
        stream.posterior()
    stream.push(good[0])
    before = stream.posterior()
    strange = good[1].copy()
    strange[3, 2] = 2
    for wrong, said in [
        (np.full((B, S), np.nan), "events are float64"),
        (good[1][:, :-1], r"shape \(1, 20, 7\); give a numpy array, uint8 or bool, of shape \(rounds, 20, 8\)"),
        (good[1][:3], "shape"),
        (strange, "neither 0 nor 1"),
    ]:
        with pytest.raises(SyndistillError, match=said):
            stream.push(wrong)
    with pytest.raises(SyndistillError, match="neither 0 nor 1"):
        stream.finish(strange * stream.layout.on_basis_S("both"))
    assert stream.rounds_done == 1
    np.testing.assert_array_equal(stream.posterior(), before)
    stream.finish(good[1])
    for late in (lambda: stream.push(good[0]), stream.posterior):
        with pytest.raises(SyndistillError, match="the experiment is finished"):
            late()


def test_wrong_streams(engines):
    engine = engines("kernel")
    for arguments, said in [
        (("y",), "basis 'y' is unknown"),
        (("z", [3]), r"lines \[3\] for basis z; give 1 of 0..2"),
        (("both", [0]), "give 2 of 0..2"),
        (("z", None, 0), "take a whole number of 1 to"),
    ]:
        with pytest.raises(SyndistillError, match=said):
            StreamingDecoder(engine, *arguments)


def test_joint_networks(network_file, experiment_shots):
    path = network_file(output="joint4")
    circuit, shots = experiment_shots("both", R, B)
    expected = network_decoder(load_network(path)[0], shots.dem, circuit, "n").decode(shots)
    slices = slices_of(shots.detectors_packed, place_circuit(circuit))
    stream = StreamingDecoder(KernelEngine(path), "both", batch=B)
    stream.push_rounds(slices[:-1])
    np.testing.assert_allclose(stream.finish(slices[-1]), expected, atol=1e-6, rtol=0)
    with pytest.raises(SyndistillError, match="joint4"):
        StreamingDecoder(KernelEngine(path), "z")
