"""Networks as decoders: any line of data qubits, any of the coordinate conventions, and what they refuse."""

import numpy as np
import pytest
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import decisions
from syndistill.decoders.network import network_decoder
from syndistill.errors import SyndistillError
from syndistill.models.presets import build
from syndistill.sampling.stored import StoredShots, dem_of_circuit

D = 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    return build("teacher-tiny", D)


def with_observable_on(circuit: stim.Circuit, basis: str, line: int) -> stim.Circuit:
    """The same experiment, its observable read from another line of data qubits (measured row by row)."""
    data = range(line * D, line * D + D) if basis == "x" else range(line, D * D, D)
    moved = stim.Circuit()
    for instruction in circuit:
        if instruction.name != "OBSERVABLE_INCLUDE":
            moved.append(instruction)
    moved.append("OBSERVABLE_INCLUDE", [stim.target_rec(q - D * D) for q in data], 0)
    return moved


def wrong_shots(network, circuit):
    shots = StoredShots.sample(circuit, 2000, seed=3)
    decoder = network_decoder(network, shots.dem, circuit, "network")
    return decisions(decoder.decode(shots)) != shots.observables(), shots.detectors(), decoder.placement.lines


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("line", [1, 2])
def test_every_line_is_decided_as_well_as_line_0(network, basis, line):
    circuit = Experiment(D, 3, basis, "si1000", 0.01).circuit()
    wrong, detectors, lines = wrong_shots(network, circuit)
    moved_wrong, moved_detectors, moved_lines = wrong_shots(network, with_observable_on(circuit, basis, line))
    np.testing.assert_array_equal(detectors, moved_detectors)  # the same errors happened
    assert (lines, moved_lines) == ((0,), (line,))
    assert wrong.any()
    np.testing.assert_array_equal(wrong, moved_wrong)


def test_joint_network_gives_both_observables():
    torch.manual_seed(6)
    circuit = Experiment(D, 2, "both", "uniform", 0.01).circuit()
    shots = StoredShots.sample(circuit, 50, seed=4)
    network = build("teacher-tiny", D, "joint4")
    probabilities_BO = network_decoder(network, shots.dem, circuit, "joint").decode(shots)
    assert probabilities_BO.shape == (50, 2)
    assert ((probabilities_BO >= 0) & (probabilities_BO <= 1)).all()


def test_refusals(network):
    five = Experiment(5, 2, "z", "uniform", 0.01).circuit()
    with pytest.raises(SyndistillError, match="distance 3, the circuit has distance 5"):
        network_decoder(network, dem_of_circuit(five), five, "network")
    three = Experiment(D, 2, "z", "uniform", 0.01).circuit()
    with pytest.raises(SyndistillError, match="give the circuit, not only its DEM"):
        network_decoder(network, dem_of_circuit(three), None, "network")
