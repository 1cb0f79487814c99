"""The compiled kernel is the network: every size, register width, group and basis; and int8 is int8."""

import numpy as np
import pytest
import torch

from syndistill.circuits.placement import place
from syndistill.decoders.engines import PRECISIONS, slices_of
from syndistill.decoders.kernel_engine import Kernel
from syndistill.decoders.kernels.flat import MANY, pack
from syndistill.decoders.kernels.vector_code import INT8_MAX, Machine
from syndistill.decoders.kernels.weights import load_compilable
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels
from syndistill.models.networks import load_network
from syndistill.sampling.shots import shots_from_detectors

from .conftest import latin_square

llvm = pytest.importorskip("llvmlite.binding")
NEEDS_VNNI = pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512vnni", False), reason="this processor has no AVX-512 VNNI"
)


@torch.inference_mode()
def torch_logits(path, circuit, shots):
    """Line 0's logits (B, O) by PyTorch."""
    outputs = load_network(path)[0](shots_from_detectors(shots.detectors(), place(circuit)))
    return outputs.logits_BKLC[:, -1, 0].numpy()


def kernel_logits(kernel, circuit, shots):
    placement = place(circuit)
    return kernel.decode(shots.detectors_packed, kernel.places(placement), placement.rounds)


SIZES = [
    {"width": 12, "readout_width": 8},
    {"width": 16, "readout_width": 16, "readout_layers": 0},
    {"width": 33, "readout_width": 21, "readout_layers": 2},
    {"width": 60, "readout_width": 32},
    {"width": 30, "readout_width": 12, "frame_memory": True},
]


@pytest.mark.parametrize(("dials", "lanes"), latin_square(SIZES, [4, 8, 16]))
def test_logits_are_those_of_pytorch(network_file, experiment_shots, dials, lanes):
    path = network_file(**dials)
    circuit, shots = experiment_shots(n_shots=MANY + 17)
    kernel = Kernel(load_compilable(path), "z", lanes=lanes)
    expected = torch_logits(path, circuit, shots)
    assert expected.std() > 0.1  # the shots tell something
    np.testing.assert_allclose(kernel_logits(kernel, circuit, shots), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("output", "basis", "distance", "frame"), [
    ("two_channel", "x", 3, False), ("two_channel", "both", 3, True), ("joint4", "both", 3, False),
    ("two_channel", "z", 5, True), ("two_channel", "x", 7, False), ("two_channel", "x", 3, True),
    ("two_channel", "both", 3, False),
])  # fmt: skip
def test_every_basis_output_and_distance(network_file, experiment_shots, output, basis, distance, frame):
    path = network_file(output=output, distance=distance, width=24, frame_memory=frame)
    circuit, shots = experiment_shots(basis, rounds=3, n_shots=20, distance=distance)
    kernel = Kernel(load_compilable(path), basis)
    expected = torch_logits(path, circuit, shots)
    np.testing.assert_allclose(kernel_logits(kernel, circuit, shots), expected, atol=2e-5, rtol=1e-5)


def test_each_shot_on_its_own_in_any_group(network_file, experiment_shots):
    circuit, shots = experiment_shots(n_shots=29)
    kernel = Kernel(load_compilable(network_file(frame_memory=True)), "z")
    together = kernel_logits(kernel, circuit, shots)
    for start, stop in ((0, 1), (5, 5 + MANY - 1), (3, 3 + MANY), (11, 29), (7, 7)):
        found = kernel_logits(kernel, circuit, shots.take(start, stop))
        np.testing.assert_array_equal(found, together[start:stop])


def test_rounds_of_a_stream_are_those_of_whole_shots(network_file, experiment_shots):
    circuit, shots = experiment_shots(n_shots=13)
    kernel = Kernel(load_compilable(network_file(frame_memory=True)), "z")
    states, parities = kernel.packed.new_states(13)
    slices = np.ascontiguousarray(slices_of(shots.detectors_packed, place(circuit)))
    places_of = [a.ctypes.data for a in (states, parities)]
    rounds, last = slices[:-1].copy(), slices[-1].copy()
    logits = np.empty((13, 1), np.float32)
    assert kernel.function("step", 13)(*places_of, rounds.ctypes.data, 13, len(rounds)) == 0
    assert kernel.function("readout", 13)(*places_of, last.ctypes.data, logits.ctypes.data, 13) == 0
    np.testing.assert_array_equal(logits, kernel_logits(kernel, circuit, shots))


@NEEDS_VNNI
def test_frames_stay_floats_in_int8(network_file, experiment_shots):
    circuit, shots = experiment_shots(n_shots=19, rounds=12)
    weights = load_compilable(network_file(width=22, frame_memory=True))
    found, exact = (kernel_logits(Kernel(weights, "z", precision), circuit, shots) for precision in PRECISIONS)
    assert np.abs(found - exact).max() < 0.2 * exact.std()
    assert np.median(np.abs(found - exact)) > 1e-4


@NEEDS_VNNI
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_int8_weights_are_bytes_and_their_arithmetic_is_exact(network_file, experiment_shots, lanes):
    """Against the same arithmetic in numpy: bytes of weights and states, the rest in floats."""
    weights = load_compilable(network_file(width=22))
    circuit, shots = experiment_shots(n_shots=19)
    kernel = Kernel(weights, "z", "int8", lanes)
    start = kernel.packed.offsets["recurrent"]
    columns = -(-22 // lanes)
    stored = kernel.packed.blob[start:].view(np.int8)[: columns * 24 * 3 * lanes]  # 22 inputs are padded to 24
    by_gate = stored.reshape(columns, 6, 3, lanes, 4).transpose(2, 0, 3, 1, 4).reshape(3, columns * lanes, 24)
    matrix = weights.tensors["gru.weight_hh_l0"].reshape(3, 22, 22)
    largest = np.abs(matrix).max(-1, keepdims=True)
    np.testing.assert_array_equal(by_gate[:, :22, :22], np.rint(matrix / largest * INT8_MAX))
    assert not by_gate[:, 22:].any()
    assert not by_gate[:, :, 22:].any()
    expected = emulated_int8(weights, np.rint(matrix / largest * INT8_MAX), largest / INT8_MAX, circuit, shots)
    found = kernel_logits(kernel, circuit, shots)
    exact = kernel_logits(Kernel(weights, "z"), circuit, shots)
    # A state that lies between two bytes may be rounded either way, which a few shots then show.
    assert np.median(np.abs(found - expected)) < 1e-5
    assert np.median(np.abs(exact - expected)) > 1e-3


def emulated_int8(weights, bytes_GDK, scale_GD1, circuit, shots):
    t, (_, d, _) = weights.tensors, bytes_GDK.shape
    slices = slices_of(shots.detectors_packed, place(circuit)).astype(np.float64)
    state = np.tile(t["start.z"].astype(np.float64), (shots.n_shots, 1))
    top = max(1.0, float(np.abs(t["start.z"]).max()))
    parity = np.zeros_like(slices[0])
    for events in slices[:-1]:
        parity = (parity + events) % 2
        from_bits = np.concatenate([events, parity], 1) @ t["gru.weight_ih_l0"].T + t["gru.bias_ih_l0"]
        state_bytes = np.rint(state * INT8_MAX / top)
        recurrent = np.einsum("bk,gdk->bgd", state_bytes, bytes_GDK) * scale_GD1[..., 0] * top / INT8_MAX
        recurrent += t["gru.bias_hh_l0"].reshape(3, d)
        gates = from_bits.reshape(-1, 3, d)
        reset, update = (1 / (1 + np.exp(-(gates[:, g] + recurrent[:, g]))) for g in (0, 1))
        new = np.tanh(gates[:, 2] + reset * recurrent[:, 2])
        state = (1 - update) * new + update * state
    last = slices[-1]
    bits = torch.tensor(np.concatenate([state, last, (parity + last) % 2], 1), dtype=torch.float64)
    hidden = torch.nn.functional.gelu(bits @ torch.tensor(t["decide.0.weight"]).double().T
                                      + torch.tensor(t["decide.0.bias"]))  # fmt: skip
    for layer in range(weights.readout_layers):
        part = {name.split(".")[2]: (torch.tensor(t[name]).double(), torch.tensor(t[name[:-6] + "bias"]).double())
                for name in t if name.startswith("decide.2.") and name.endswith(f".{layer}.weight")}  # fmt: skip
        inner = torch.nn.functional.layer_norm(hidden, hidden.shape[1:], *part["norms"])
        inner = torch.nn.functional.gelu(torch.nn.functional.linear(inner, *part["ins"]))
        hidden = hidden + torch.nn.functional.linear(inner, *part["outs"])
    head, bias = weights.heads("z")
    return (hidden.numpy() @ head.T + bias).astype(np.float32)


def test_bytes_of_another_circuit_are_refused(network_file, experiment_shots):
    circuit, shots = experiment_shots(rounds=3)
    kernel = Kernel(load_compilable(network_file()), "z")
    with pytest.raises(SyndistillError, match="2 bytes a shot where the circuit's has 3"):
        kernel.decode(shots.detectors_packed[:, :-1], kernel.places(place(circuit)), 3)


def test_a_start_beyond_one_is_scaled_for_int8(network_file):
    weights = load_compilable(network_file())
    weights.tensors["start.z"][2] = -3.0
    assert pack(weights, "z", Machine(16, True, True), int8=True).state_scale == 3.0
    assert pack(weights, "x", Machine(16, True, True), int8=True).state_scale == 1.0


def test_refusals(network_file, monkeypatch):
    weights = load_compilable(network_file())
    with pytest.raises(SyndistillError, match="precision 'int4' is unknown"):
        Kernel(weights, "z", "int4")
    monkeypatch.setattr(llvm, "get_host_cpu_features", dict)
    with pytest.raises(SyndistillError, match="no AVX-512 VNNI"):
        Kernel(weights, "z", "int8")
    with pytest.raises(SyndistillError, match="joint4 network"):
        pack(load_compilable(network_file(output="joint4")), "x", Machine(16, True, True), int8=False)


def test_outputs_of_a_basis():
    assert [n_channels("two_channel", b) for b in ("x", "z", "both")] == [1, 1, 2]
    assert n_channels("joint4", "both") == 4
    with pytest.raises(SyndistillError, match="joint4 network decodes two-observable shots"):
        n_channels("joint4", "z")


def test_networks_of_one_shape_share_code_and_keep_their_weights(network_file, experiment_shots):
    paths = [network_file(width=12, readout_width=8, seed=seed) for seed in (1, 2)]
    circuit, shots = experiment_shots(n_shots=MANY + 3)
    kernels = [Kernel(load_compilable(path), "z") for path in paths]
    assert kernels[0]._functions is kernels[1]._functions
    found = [kernel_logits(kernel, circuit, shots) for kernel in kernels]
    for path, logits in zip(paths, found, strict=True):
        np.testing.assert_allclose(logits, torch_logits(path, circuit, shots), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.01
    other = Kernel(load_compilable(network_file(width=13, readout_width=8)), "z")
    assert other._functions is not kernels[0]._functions
