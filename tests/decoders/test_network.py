"""Networks as decoders: any observable, circuits in any of the coordinate conventions, two observables, refusals."""

import numpy as np
import pytest
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.decoders.contract import FarFromTraining, decisions
from syndistill.decoders.matching import MatchingDecoder
from syndistill.decoders.torch_engine import network_decoder
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, load_network
from syndistill.sampling.stored import StoredShots, dem_of_circuit

D = 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    return build("teacher-tiny", D)


def with_observable_on(circuit: stim.Circuit, qubits: list[int]) -> stim.Circuit:
    """The same experiment, its observable read from other data qubits (measured row by row)."""
    moved = stim.Circuit()
    for instruction in circuit:
        if instruction.name != "OBSERVABLE_INCLUDE":
            moved.append(instruction)
    moved.append("OBSERVABLE_INCLUDE", [stim.target_rec(q - D * D) for q in qubits], 0)
    return moved


def wrong_shots(network, circuit):
    shots = StoredShots.sample(circuit, 2000, seed=3)
    decoder = network_decoder(network, circuit, "network", {})
    return decisions(decoder.decode(shots)) != shots.observables(), shots.detectors(), decoder.placement.lines


def bent(basis: str) -> list[int]:
    """Line 0 times a check that shares qubits with it."""
    layout = Layout(D)
    line, on_basis = set(layout.line_data(basis, 0)), np.flatnonzero(layout.on_basis_S(basis))
    found = [line ^ set(layout.supports[s]) for s in on_basis if 0 < len(line & set(layout.supports[s])) < 2 * D]
    return sorted(next(qubits for qubits in found if len(qubits) > D or not qubits <= line))


@pytest.mark.parametrize(("basis", "qubits", "line"), [
    ("x", [3, 4, 5], 1), ("x", [6, 7, 8], 2), ("z", [1, 4, 7], 1), ("z", [2, 5, 8], 2),
    ("x", bent("x"), None), ("z", bent("z"), None),
])  # fmt: skip
def test_every_observable_is_decided_as_well_as_line_0(network, basis, qubits, line):
    circuit = Experiment(D, 3, basis, "si1000", 0.006).circuit()
    wrong, detectors, lines = wrong_shots(network, circuit)
    moved_wrong, moved_detectors, moved_lines = wrong_shots(network, with_observable_on(circuit, qubits))
    np.testing.assert_array_equal(detectors, moved_detectors)  # the same errors happened
    assert (lines, moved_lines) == ((0,), (line,))
    assert wrong.any()
    np.testing.assert_array_equal(wrong, moved_wrong)


def test_joint_network_gives_both_observables():
    torch.manual_seed(6)
    circuit = Experiment(D, 2, "both", "uniform", 0.01).circuit()
    shots = StoredShots.sample(circuit, 50, seed=4)
    network = build("teacher-tiny", D, "joint4")
    probabilities_BO = network_decoder(network, circuit, "joint", {}).decode(shots)
    assert probabilities_BO.shape == (50, 2)
    assert ((probabilities_BO >= 0) & (probabilities_BO <= 1)).all()


@pytest.mark.parametrize("name", ["student-d3", "teacher-d3"])
def test_two_observables_one_basis_at_a_time_are_decoded_as_well_as_by_matching(name):
    """Asked about both at once, networks that never saw such shots made 21 % errors where matching makes 3.8."""
    network, metadata = load_network(name)
    circuit = Experiment(D, 5, "both", "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 8000 if name == "student-d3" else 2000, seed=5)
    errors = [
        int((decisions(decoder.decode(shots)) != shots.observables()).any(1).sum())
        for decoder in (network_decoder(network, circuit, name, metadata), MatchingDecoder(dem_of_circuit(circuit)))
    ]
    assert errors[1] > 40
    assert errors[0] < 1.1 * errors[1]


def test_the_error_model_alone_is_enough(network):
    circuit = Experiment(D, 3, "z", "si1000", 0.006).circuit()
    shots = StoredShots.sample(circuit, 200, seed=3)
    found = [network_decoder(network, of, "n", {}).decode(shots) for of in (circuit, dem_of_circuit(circuit))]
    np.testing.assert_array_equal(*found)


def test_a_circuit_far_from_the_training_noise_is_told():
    network, metadata = load_network("student-d3")
    with pytest.warns(FarFromTraining, match=r"student-d3 was trained on si1000.*more of them than it has seen"):
        network_decoder(network, Experiment(D, 3, "z", "si1000", 0.02).circuit(), "student-d3", metadata)


def test_refusals(network):
    five = Experiment(5, 2, "z", "uniform", 0.01).circuit()
    for source in (five, dem_of_circuit(five)):
        with pytest.raises(SyndistillError, match="distance 3, the circuit has distance 5"):
            network_decoder(network, source, "network", {})
