"""Streaming equals the whole history, for every engine; it stays small; what is refused changes nothing."""

import tracemalloc

import numpy as np
import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement, place
from syndistill.decoders.engines import slices_of
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.network import NetworkDecoder, StreamingDecoder
from syndistill.decoders.onnx_engine import OnnxEngine
from syndistill.decoders.torch_engine import TorchEngine, network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.sampling.stored import StoredShots

llvm = pytest.importorskip("llvmlite.binding")
NEEDS_VNNI = pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512vnni", False), reason="this processor has no AVX-512 VNNI"
)
B, R, S = 20, 4, 8
LAYOUT = Layout(3)
OF_Z = Placement.of_lines(LAYOUT, "z")


@pytest.fixture(scope="module")
def engines(network_file, tmp_path_factory):
    """(name, basis) -> engine."""

    def make(name, basis="z"):
        both = basis == "both"
        if name == "kernel":
            return KernelEngine(network_file(both=both))
        if name == "onnx":
            pytest.importorskip("onnxruntime")
            folder = tmp_path_factory.mktemp("exported") / basis
            circuit = Experiment(3, 2, basis, "uniform" if both else "si1000", 0.01).circuit()
            return OnnxEngine(export_onnx(network_file(both=both), circuit, "t", folder))
        return TorchEngine(str(network_file(name, both=both)))

    return make


ENGINES = ["kernel", "onnx", "flat_gru", "transformer"]


def whole_history(name, network_file, circuit, shots):
    family = "transformer" if name == "transformer" else "flat_gru"
    network, metadata = load_network(network_file(family, both=circuit.num_observables == 2))
    return network_decoder(network, circuit, "n", metadata).decode(shots)


@pytest.mark.parametrize("basis", ["x", "both"])
@pytest.mark.parametrize("name", ENGINES)
def test_rounds_one_by_one_give_the_whole_history(engines, network_file, experiment_shots, name, basis):
    circuit, shots = experiment_shots(basis, R, B)
    expected = whole_history(name, network_file, circuit, shots)
    engine = engines(name, basis)
    placement = place(circuit, engine.home)
    slices = slices_of(shots.detectors_packed, placement)
    stream = StreamingDecoder(engine, placement, batch=B)
    for events in slices[:-1]:
        stream.push(events)
        before = stream.posterior()
        np.testing.assert_array_equal(stream.posterior(), before)  # asking changes nothing
    assert stream.rounds_done == R
    np.testing.assert_allclose(stream.finish(slices[-1].astype(bool)), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        NetworkDecoder(engine, placement).decode(shots), expected, atol=1e-5, rtol=0
    )
    stream.restart()
    stream.push_rounds(slices[:-1])
    np.testing.assert_allclose(stream.finish(slices[-1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_the_posterior_is_the_answer_to_a_readout_without_events(engines, experiment_shots, name):
    circuit, shots = experiment_shots("z", R, B)
    slices = slices_of(shots.detectors_packed, place(circuit))
    asked, finished = (StreamingDecoder(engines(name), place(circuit), batch=B) for _ in range(2))
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
    placement = place(circuit)
    slices = slices_of(shots.detectors_packed, placement)
    of_line, of_0 = (
        StreamingDecoder(engines("kernel"), Placement.of_lines(LAYOUT, basis, [k]), batch=B) for k in (line, 0)
    )
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
    slices = slices_of(shots.detectors_packed, place(circuit))
    noisy = slices.copy()
    off_basis = place(circuit).layout.is_x_S
    noisy[0, :, off_basis] = noisy[-1, :, off_basis] = 1
    answers = []
    for given in (slices, noisy):
        stream = StreamingDecoder(engines(name), Placement.of_lines(LAYOUT, "z", [1]), batch=B)
        stream.push_rounds(given[:-1])
        answers.append(stream.finish(given[-1]))
    np.testing.assert_array_equal(*answers)
    assert noisy[0, :, off_basis].all()  # what was given stays as it was


def test_a_hundred_thousand_rounds(engines):
    """The state neither grows nor leaves its range, and the answer does not depend on how the rounds came."""
    rng = np.random.default_rng(3)
    events = (rng.random((1000, 2, S)) < 0.1).astype(np.uint8)
    in_one, in_pieces = (StreamingDecoder(engines("kernel"), OF_Z, batch=2) for _ in range(2))
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
    stream = StreamingDecoder(engines(name), OF_Z, batch=B)
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
    ]:
        with pytest.raises(SyndistillError, match=said):
            Placement.of_lines(LAYOUT, *arguments)
    for placement, batch, said in [
        (OF_Z, 0, "take a whole number of 1 to"),
        (Placement.of_lines(Layout(5), "z"), 1, "the circuit has distance 5"),
        (Placement.of_lines(LAYOUT, "both"), 1, "knows one basis at a time"),
        ("z", 1, "a str is no placement"),
    ]:
        with pytest.raises(SyndistillError, match=said):
            StreamingDecoder(engine, placement, batch)


def test_joint_networks(network_file, experiment_shots):
    path = network_file(output="joint4")
    circuit, shots = experiment_shots("both", R, B)
    expected = network_decoder(load_network(path)[0], circuit, "n", {}).decode(shots)
    slices = slices_of(shots.detectors_packed, place(circuit))
    stream = StreamingDecoder(KernelEngine(path), place(circuit), batch=B)
    stream.push_rounds(slices[:-1])
    np.testing.assert_allclose(stream.finish(slices[-1]), expected, atol=1e-6, rtol=0)
    with pytest.raises(SyndistillError, match="joint4"):
        StreamingDecoder(KernelEngine(path), OF_Z)


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=NEEDS_VNNI)])
@pytest.mark.parametrize("distance", [3, 5])
def test_ten_thousand_rounds_in_experiments_of_25(distance, precision):
    """400 experiments one after the other on the same stream: each is answered as by a decoder that has just begun."""
    engine = KernelEngine(f"student-d{distance}-frame", precision)
    circuit = Experiment(distance, 25, "z", "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 400 * 5, 3)
    placement = place(circuit, engine.home)
    expected = NetworkDecoder(engine, placement).probabilities(shots.detectors_packed).reshape(400, 5)
    slices = slices_of(shots.detectors_packed, placement).reshape(26, 400, 5, -1)
    stream = StreamingDecoder(engine, placement, batch=5)
    for number in range(400):
        stream.push_rounds(np.ascontiguousarray(slices[:-1, number]))
        np.testing.assert_allclose(stream.finish(slices[-1, number])[:, 0], expected[number], atol=1e-6)
        stream.restart()
