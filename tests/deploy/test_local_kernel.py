"""The compiled local GRU is the network: every size, register width, batch and basis, whole shots and streams."""

from functools import partial

import numpy as np
import pytest
import torch

from syndistill.circuits.placement import place
from syndistill.decoders.engines import slices_of
from syndistill.decoders.kernel_engine import Kernel, KernelEngine
from syndistill.decoders.kernels.local import COARSE_TABLES, FINE_TABLES, split
from syndistill.decoders.kernels.weights import load_compilable
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.shots import shots_from_detectors

from .conftest import latin_square

llvm = pytest.importorskip("llvmlite.binding")
NEEDS_VNNI = pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512vnni", False), reason="this processor has no AVX-512 VNNI"
)
SIZES = [
    {"width": 8, "readout_width": 32},
    {"width": 6, "readout_width": 9, "readout_layers": 0},
    {"width": 13, "readout_width": 28, "readout_layers": 2},
    {"width": 10, "readout_width": 20, "frame_memory": True},
    {"width": 10, "readout_width": 20, "frame_memory": True, "events_alone": True},
    {"width": 10, "readout_width": 20, "frame_memory": True, "agree_after": 2},
]
BATCHES = (1, 3, 16, 17, 100)


@pytest.fixture(scope="session")
def local_file(network_file):
    """(output, distance, turn_x, **dials) -> path of a local GRU with random weights; the same call, the same file."""
    return partial(network_file, "local_gru", next_events=False)


@torch.inference_mode()
def torch_logits(path, circuit, shots):
    """Line 0's logits (B, 1) by PyTorch."""
    outputs = load_network(path)[0](shots_from_detectors(shots.detectors(), place(circuit)))
    return outputs.logits_BKLC[:, -1, 0].numpy()


def kernel_logits(kernel, circuit, shots):
    placement = place(circuit)
    return kernel.decode(shots.detectors_packed, kernel.places(placement), placement.rounds)


def streamed_logits(engine, circuit, shots, several=1):
    """Through a stream of the engine, `several` rounds at a time; asked twice, since asking must change nothing."""
    placement = place(circuit)
    slices = slices_of(shots.detectors_packed, placement)
    stream = engine.stream(placement.basis, shots.n_shots)
    for start in range(0, placement.rounds, several):
        stream.push(slices[start : min(start + several, placement.rounds)])
        if start == 0:
            stream.logits(slices[-1])
    return stream.logits(slices[-1])


WAYS = [(3, "z", False), (3, "x", False), (5, "x", True), (7, "z", True)]


@pytest.mark.parametrize(("dials", "lanes", "way"), latin_square(SIZES, [4, 8, 16], WAYS))
def test_logits_are_those_of_pytorch(local_file, experiment_shots, dials, lanes, way):
    distance, basis, turn_x = way
    path = local_file(distance=distance, turn_x=turn_x, **dials)
    circuit, shots = experiment_shots(basis, rounds=4, n_shots=40, distance=distance)
    kernel = Kernel(load_compilable(path), basis, lanes=lanes)
    expected = torch_logits(path, circuit, shots)
    assert expected.std() > 0.03  # the shots tell something
    np.testing.assert_allclose(kernel_logits(kernel, circuit, shots), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rounds", [1, 2, 7])
@pytest.mark.parametrize("batch", BATCHES)
def test_every_batch_and_number_of_rounds(local_file, experiment_shots, batch, rounds):
    path = local_file(distance=5)
    circuit, shots = experiment_shots("x", rounds=rounds, n_shots=batch, distance=5)
    kernel = Kernel(load_compilable(path), "x")
    expected = torch_logits(path, circuit, shots)
    np.testing.assert_allclose(kernel_logits(kernel, circuit, shots), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=NEEDS_VNNI)])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("basis", "turn_x"), [("z", True), ("x", True), ("x", False)])
def test_a_stream_gives_what_whole_shots_give(local_file, experiment_shots, precision, batch, basis, turn_x):
    circuit, shots = experiment_shots(basis, rounds=5, n_shots=batch)
    engine = KernelEngine(local_file(turn_x=turn_x, width=6), precision)
    whole = engine.on(place(circuit))(shots.detectors_packed)
    for several in (1, 3):
        # int8 keeps its exact states, so that both ways round the same numbers.
        np.testing.assert_array_equal(streamed_logits(engine, circuit, shots, several), whole)


def test_a_stream_restarts_and_refuses_counts(local_file, experiment_shots):
    circuit, shots = experiment_shots(rounds=3, n_shots=5)
    stream = KernelEngine(local_file()).stream("z", 5)
    slices = slices_of(shots.detectors_packed, place(circuit))
    answers = []
    for _ in range(2):
        stream.push(slices[:-1])
        with pytest.raises(SyndistillError, match="neither 0 nor 1"):
            stream.push(np.full_like(slices[:1], 3))
        answers.append(stream.logits(slices[-1]))
        stream.restart()
    np.testing.assert_array_equal(*answers)


@NEEDS_VNNI
@pytest.mark.parametrize("dials", SIZES, ids=lambda dials: f"width-{dials['width']}")
@pytest.mark.parametrize("basis", ["x", "z"])
def test_int8_is_close(local_file, experiment_shots, dials, basis):
    """A weight is off by up to 1/254 of its row's largest, a state by 1/254: of the spread of logits a few percent, a
    tenth at worst; more would be an error in the arithmetic, and nothing at all would be float32."""
    path = local_file(distance=5, **dials)
    circuit, shots = experiment_shots(basis, rounds=6, n_shots=100, distance=5)
    weights = load_compilable(path)
    exact, found = (
        kernel_logits(Kernel(weights, basis, precision), circuit, shots) for precision in ("float32", "int8")
    )
    error = np.abs(found - exact) / exact.std()
    assert 1e-4 < np.median(error) < 0.03
    assert error.max() < 0.15


@NEEDS_VNNI
def test_bits_are_exact_in_int8(local_file, experiment_shots):
    """Without recurrence only the bits are multiplied, whose weights have 16 bits; what is left is the tables'."""
    weights = load_compilable(local_file(distance=3, readout_layers=0))
    for name, tensor in weights.tensors.items():
        if ".recurrent." in name:
            tensor[:] = 0
        if name.startswith("project") and name.endswith("weight"):
            tensor.reshape(len(tensor), 4, -1)[:, :, : weights.width] = 0
    circuit, shots = experiment_shots(rounds=3, n_shots=50)
    exact, found = (
        kernel_logits(Kernel(weights, "z", precision), circuit, shots) for precision in ("float32", "int8")
    )
    np.testing.assert_allclose(found, exact, atol=2e-4 * exact.std() + 1e-5)


def test_tables_follow_their_functions():
    for tables, most in ((COARSE_TABLES, 4e-4), (FINE_TABLES, 1e-5)):
        for segments in tables.values():
            x = np.linspace(-20, 20, 4001)
            scaled = np.clip(x, -15.49, 15.49)
            number = np.rint(scaled).astype(int)
            coefficients = segments.table().astype(np.float64)[:, number % 32]
            found = sum(c * (scaled - number) ** k for k, c in enumerate(coefficients))
            assert np.abs(found - segments.function(x * segments.width)).max() < most


def test_chunks_are_nearly_equal():
    assert split(8, 6) == [range(4), range(4, 8)]
    assert [len(part) for part in split(13, 6)] == [4, 5, 4]


@pytest.mark.parametrize("next_events", [False, True])
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_the_same_tensors_config_and_hash(local_file, output, next_events):
    path = local_file(output, width=7, readout_layers=2, next_events=next_events)
    network, _ = load_network(path)
    found = load_compilable(path)
    state = network.state_dict()
    assert set(found.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found.tensors[name], tensor.numpy())
    assert found.n_parameters == network.n_parameters()
    assert found.sha256 == weights_hash(network)
    assert (found.distance, found.width, found.readout_width, found.readout_layers) == (3, 7, 8, 2)
    assert found.turn_x


def test_refusals(local_file, network_file, tmp_path, monkeypatch):
    weights = load_compilable(local_file())
    with pytest.raises(SyndistillError, match="precision 'int4' is unknown"):
        Kernel(weights, "z", "int4")
    with pytest.raises(SyndistillError, match=r"answer for basis x or z .* not for both .*torch_engine"):
        Kernel(weights, "both")
    joint = KernelEngine(local_file(output="joint4"))
    with pytest.raises(SyndistillError, match="through PyTorch"):
        joint.stream("both", 1)
    with pytest.raises(SyndistillError, match="of family transformer; only flat_gru and local_gru run without PyTorch"):
        load_compilable(network_file("transformer"))
    with pytest.raises(SyndistillError, match="there is no file"):
        load_compilable(tmp_path / "nowhere.safetensors")
    tensors, header = load_tensors(local_file())
    del tensors["cell.inputs.1"]
    save_tensors(tmp_path / "lacking.safetensors", tensors, header)
    with pytest.raises(SyndistillError, match=r"lacks weights cell\.inputs\.1"):
        load_compilable(tmp_path / "lacking.safetensors")
    monkeypatch.setattr(llvm, "get_host_cpu_features", dict)
    with pytest.raises(SyndistillError, match="no AVX-512 VNNI"):
        Kernel(weights, "z", "int8")


def test_bytes_of_another_circuit_are_refused(local_file, experiment_shots):
    circuit, shots = experiment_shots(rounds=3)
    kernel = Kernel(load_compilable(local_file()), "z")
    with pytest.raises(SyndistillError, match="2 bytes a shot where the circuit's has 3"):
        kernel.decode(shots.detectors_packed[:, :-1], kernel.places(place(circuit)), 3)
    assert kernel.decode(shots.detectors_packed[:0], kernel.places(place(circuit)), 3).shape == (0, 1)


def test_networks_of_one_shape_share_code(local_file):
    kernels = [Kernel(load_compilable(local_file(seed=seed)), "z") for seed in (1, 2)]
    assert kernels[0]._functions is kernels[1]._functions
    other = Kernel(load_compilable(local_file(width=7)), "z")
    assert other._functions is not kernels[0]._functions
