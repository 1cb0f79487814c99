"""From line 0 to the circuit's observables: against a reference that counts every pattern, in every engine."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import stim
import torch
from scipy.special import expit, softmax

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement, noise_of, place
from syndistill.decoders.answers import Answers, learned_both, question
from syndistill.decoders.contract import decisions
from syndistill.decoders.engines import slices_of
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.network import StreamingDecoder
from syndistill.decoders.onnx_engine import OnnxEngine, OnnxExperiment
from syndistill.decoders.runtime import on_circuit
from syndistill.decoders.torch_engine import TorchEngine, network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.models.networks import load_network
from syndistill.sampling.stored import StoredShots
from syndistill.sinter_plugin import SinterDecoder

llvm = pytest.importorskip("llvmlite.binding")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
NETWORK, B, D = "student-d3", 300, 3
LAYOUT = Layout(D)
HOLDS = [(1, 0), (0, 1), (1, 1), (0, 0)]


def placed(basis: str, holds: list[tuple[int, int]], seed: int = 3) -> Placement:
    """A memory whose observables hold these lines, times random checks."""
    placement = place(Experiment(D, 3, basis, "si1000", 0.004).circuit())
    turn_OS = np.random.default_rng(seed).integers(0, 2, (len(holds), 8), np.uint8) * LAYOUT.on_basis_S(basis)
    return replace(placement, holds_O2=np.array(holds, bool), turn_OS=turn_OS.astype(np.uint8))


def line_chances(logits: list[np.ndarray], basis: str, output: str) -> dict[tuple[int, int], np.ndarray]:
    """Of every (x line, z line) flip, one by one."""
    if output == "joint4":
        i, x, z, y = softmax(logits[0], axis=1).T
        return {(0, 0): i, (0, 1): x, (1, 0): z, (1, 1): y}
    columns = np.concatenate(logits, axis=1).T
    p = {b: expit(column) for b, column in zip("xz" if basis == "both" else basis, columns, strict=True)}
    return {
        (x, z): (p.get("x", 0) if x else 1 - p.get("x", 0)) * (p.get("z", 0) if z else 1 - p.get("z", 0))
        for x, z in itertools.product((0, 1), repeat=2)
    }


def reference(placement: Placement, logits: list[np.ndarray], output: str, detectors: np.ndarray) -> np.ndarray:
    chances = line_chances(logits, placement.basis, output)
    found = np.zeros((len(detectors), placement.n_observables))
    for o, (holds_2, turn_S) in enumerate(zip(placement.holds_O2, placement.turn_OS, strict=True)):
        for b, shot in enumerate(detectors):
            checks = sum(int(turn_S[placement.stabiliser_N[n]]) for n in np.flatnonzero(shot))
            for flips, chance in chances.items():
                if (sum(int(h) * f for h, f in zip(holds_2, flips, strict=True)) + checks) % 2:
                    found[b, o] += np.broadcast_to(chance, len(detectors))[b]
    return found


@pytest.mark.parametrize(("basis", "output", "home"), [
    ("x", "two_channel", None), ("z", "two_channel", None), ("both", "two_channel", None),
    ("both", "two_channel", "both"), ("both", "joint4", None),
])  # fmt: skip
@pytest.mark.parametrize("n_observables", [0, 1, 4, 9])
def test_against_every_pattern(basis, output, home, n_observables):
    possible = [h for h in HOLDS if basis == "both" or not h["zx".index(basis)]]
    placement = placed(basis, [possible[o % len(possible)] for o in range(n_observables)] or [(0, 0)])
    if not n_observables:
        placement = replace(placement, holds_O2=placement.holds_O2[:0], turn_OS=placement.turn_OS[:0])
    noise = None if home is None else noise_of("uniform", D, (home,), (0.001, 0.01), 5)
    rng = np.random.default_rng(n_observables)
    detectors = rng.random((20, len(placement.slice_N))) < 0.3
    answers = Answers(placement, output, noise)
    widths = [4] if output == "joint4" else [2] if home else [1] * (2 if basis == "both" else 1)
    assert len(answers.questions) == len(widths)
    logits = [3 * rng.standard_normal((20, width)) for width in widths]
    found = answers.flips(logits, np.packbits(detectors, axis=1, bitorder="little"))
    assert found.shape == (20, n_observables)
    np.testing.assert_allclose(found, reference(placement, logits, output, detectors), atol=1e-12)


def test_what_a_question_leaves_out():
    """Of a basis, detectors in the first and last slice are on-basis; all others stay, in their order."""
    both = place(Experiment(D, 3, "both", "si1000", 0.004).circuit())
    bits = np.random.default_rng(1).random((7, len(both.slice_N))) < 0.5
    for basis in ("x", "z"):
        asked = question(both, basis)
        memory = place(Experiment(D, 3, basis, "si1000", 0.004).circuit())
        here, there = (
            sorted(zip(p.slice_N.tolist(), p.stabiliser_N.tolist(), strict=True)) for p in (asked.placement, memory)
        )
        assert here == there
        slices = slices_of(asked.packed(np.packbits(bits, axis=1, bitorder="little")), asked.placement)
        expected = slices_of(np.packbits(bits, axis=1, bitorder="little"), both)
        expected[[0, -1]] *= LAYOUT.on_basis_S(basis)
        np.testing.assert_array_equal(slices, expected)
        assert question(memory, basis).kept_N is None


def test_who_learned_both():
    noise = {bases: noise_of("uniform", D, bases, (0.001, 0.01), 5) for bases in (("x", "z"), ("both",))}
    assert learned_both("joint4", None)
    assert learned_both("two_channel", noise["both",])
    assert not learned_both("two_channel", noise["x", "z"])
    assert not learned_both("two_channel", None)


# The same weights in every engine.


def observing(circuit, *observables):
    """With observables of these data qubits (read row by row) in place of its own."""
    changed = stim.Circuit()
    for instruction in circuit.flattened():
        if instruction.name != "OBSERVABLE_INCLUDE":
            changed.append(instruction)
    for o, qubits in enumerate(observables):
        changed.append("OBSERVABLE_INCLUDE", [stim.target_rec(q - D * D) for q in qubits], o)
    return changed


def reordered(circuit, seed=4):
    """All detectors at the end, in another order; for each its number before."""
    coords, measured, detectors, changed = circuit.get_detector_coordinates(), 0, [], stim.Circuit()
    for i in circuit.flattened():
        if i.name == "DETECTOR":
            detectors.append([measured + t.value for t in i.targets_copy()])
        elif i.name != "SHIFT_COORDS":
            changed.append(i)
            measured += i.num_measurements
    order = np.random.default_rng(seed).permutation(len(detectors))
    for n in order.tolist():
        changed.append("DETECTOR", [stim.target_rec(r - measured) for r in detectors[n]], coords[n])
    return changed, order


def with_empty_detectors(circuit, n=None):
    """And the first `n` (None: all) of the off-basis detectors that the ends have not, which compare nothing."""
    coords = circuit.get_detector_coordinates()
    first, last = (end(c[2] for c in coords.values()) for end in (min, max))
    on = {tuple(c[:2]) for c in coords.values() if c[2] == first}
    off = sorted({tuple(c[:2]) for c in coords.values()} - on)
    changed = stim.Circuit()
    for t, point in list(itertools.product((first, last), off))[:n]:
        changed.append("DETECTOR", [], [*point, t])
    for i in circuit.flattened():
        if i.name == "DETECTOR":
            changed.append("DETECTOR", i.targets_copy(), coords[changed.num_detectors - len(range(n or 2 * len(off)))])
        elif i.name != "SHIFT_COORDS":
            changed.append(i)
    return changed


def int8_or_none(circuit, shots):
    if not llvm.get_host_cpu_features().get("avx512vnni", False):
        return None
    return on_circuit(KernelEngine(NETWORK, "int8"), circuit).decode(shots)


def every_engine(circuit, shots, folder):
    """Probabilities (B, O) by engine; int8 on its own."""
    network, metadata = load_network(NETWORK)
    found = {
        "pytorch": network_decoder(network, circuit, "n", metadata).decode(shots),
        "pytorch engine": on_circuit(TorchEngine(NETWORK), circuit).decode(shots),
        "compiled": on_circuit(KernelEngine(NETWORK), circuit).decode(shots),
    }
    placement = place(circuit)
    if placement.basis != "both":
        exported = export_onnx(NETWORK, circuit, "t", folder)
        found["onnx experiment"] = OnnxExperiment(exported).decode(shots)
        found["onnx steps"] = on_circuit(OnnxEngine(exported), circuit).decode(shots)
        stream = StreamingDecoder(KernelEngine(NETWORK), placement, B)
        slices = slices_of(shots.detectors_packed, placement)
        stream.push_rounds(slices[:-1])
        found["stream"] = stream.finish(slices[-1])
    for name, flips in found.items():
        np.testing.assert_allclose(flips, found["pytorch"], atol=2e-5, rtol=0, err_msg=name)
    packed = SinterDecoder(NETWORK).compile_decoder_for_dem(dem=shots.dem).decode_shots_bit_packed(
        bit_packed_detection_event_data=shots.detectors_packed
    )
    n = shots.n_observables
    np.testing.assert_array_equal(
        np.unpackbits(packed, axis=1, bitorder="little", count=n), decisions(found["compiled"]), err_msg="sinter"
    )
    return found["pytorch"], int8_or_none(circuit, shots)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain_circuit(basis="z"):
    return Experiment(D, 3, basis, "si1000", 0.005).circuit()


@pytest.mark.parametrize("basis", ["x", "z"])
def test_lines_products_and_several_observables(tmp_path, basis):
    """Each observable is told right exactly where the plain circuit's is: the rest of it every shot shows."""
    line = [set(LAYOUT.line_data(basis, k)) for k in range(D)]
    checks = [set(LAYOUT.supports[s]) for s in np.flatnonzero(LAYOUT.on_basis_S(basis))]
    plain = plain_circuit(basis)
    shots = StoredShots.sample(plain, B, 5)
    expected, expected_8 = every_engine(plain, shots, tmp_path / "plain")
    wrong = decisions(expected) != shots.observables()
    assert wrong.any()
    observables = [line[0] ^ checks[0], line[2] ^ checks[1] ^ checks[3], line[0] ^ line[1], line[1], checks[2]]
    changed = observing(plain, *(sorted(qubits) for qubits in observables))
    again = StoredShots.sample(changed, B, 5)
    np.testing.assert_array_equal(again.detectors(), shots.detectors())  # the same errors happened
    found, found_8 = every_engine(changed, again, tmp_path / "changed")
    holds = np.array([True, True, False, True, False])
    np.testing.assert_array_equal((decisions(found) != again.observables())[:, holds], np.repeat(wrong, 3, axis=1))
    np.testing.assert_array_equal(found[:, ~holds], again.observables()[:, ~holds])
    if found_8 is not None:
        wrong_8 = decisions(expected_8) != shots.observables()
        np.testing.assert_array_equal(
            (decisions(found_8) != again.observables())[:, holds], np.repeat(wrong_8, 3, axis=1)
        )


def test_two_observables_and_their_product(tmp_path):
    circuit = stim.Circuit()
    for i in Experiment(D, 3, "both", "si1000", 0.004).circuit().flattened():
        circuit.append(i)
        if i.name == "OBSERVABLE_INCLUDE":
            circuit.append("OBSERVABLE_INCLUDE", i.targets_copy(), 2)
    shots = StoredShots.sample(circuit, B, 5)
    found, _ = every_engine(circuit, shots, tmp_path / "out")
    x, z, product = found.T
    np.testing.assert_allclose(product, x * (1 - z) + z * (1 - x), atol=1e-6)


@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_the_order_of_detectors_does_not_matter(tmp_path, basis):
    plain = plain_circuit(basis)
    changed, order = reordered(plain)
    shots = StoredShots.sample(plain, B, 5)
    again = StoredShots.from_bits(
        shots.detectors()[:, order], shots.observables(), changed.detector_error_model(decompose_errors=True)
    )
    expected, expected_8 = every_engine(plain, shots, tmp_path / "plain")
    found, found_8 = every_engine(changed, again, tmp_path / "changed")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_8, expected_8)


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("n", [None, 3])
def test_empty_detectors_do_not_matter(tmp_path, basis, n):
    """Also where a shot's detectors then fill no whole number of bytes, and whatever is said of them."""
    plain = plain_circuit(basis)
    changed = with_empty_detectors(plain, n)
    shots = StoredShots.sample(plain, B, 5)
    empty = changed.num_detectors - plain.num_detectors
    assert empty == (8 if n is None else n)
    expected, expected_8 = every_engine(plain, shots, tmp_path / "plain")
    for value in (0, 1):
        bits = np.column_stack([np.full((B, empty), value, bool), shots.detectors()])
        again = StoredShots.from_bits(bits, shots.observables(), changed.detector_error_model(decompose_errors=True))
        found, found_8 = every_engine(changed, again, tmp_path / f"changed{value}")
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found_8, expected_8)
        logits = KernelEngine(NETWORK).on(place(changed))(again.detectors_packed)
        np.testing.assert_array_equal(logits, KernelEngine(NETWORK).on(place(plain))(shots.detectors_packed))
