"""Lines of observables told by an error model alone: the same as the circuit says, or a refusal."""

import numpy as np
import pytest
import stim

from syndistill.circuits.dem_lines import place_dem_lines
from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_circuit
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import dem_of_circuit


def same(a, b):
    return (
        (a.layout, a.rounds, a.basis, a.lines) == (b.layout, b.rounds, b.basis, b.lines)
        and np.array_equal(a.slice_N, b.slice_N)
        and np.array_equal(a.stabiliser_N, b.stabiliser_N)
    )


def moved(circuit, observable, qubits, d):
    """The same experiment, the observable read from other data qubits (the last d*d measurements, row by row)."""
    changed = stim.Circuit()
    for instruction in circuit.flattened():
        if instruction.name != "OBSERVABLE_INCLUDE" or instruction.gate_args_copy()[0] != observable:
            changed.append(instruction)
    changed.append("OBSERVABLE_INCLUDE", [stim.target_rec(q - d * d) for q in qubits], observable)
    return changed


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("basis", ["x", "z", "both"])
@pytest.mark.parametrize("noise", ["si1000", "uniform"])
@pytest.mark.parametrize("distance", [3, 5])
def test_the_error_model_says_what_the_circuit_says(distance, noise, basis, rounds):
    circuit = Experiment(distance, rounds, basis, noise, 0.004).circuit()
    assert same(place_dem_lines(dem_of_circuit(circuit)), place_circuit(circuit))


@pytest.mark.parametrize("noise", ["after_clifford_depolarization", "before_measure_flip_probability"])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_stims_generator(basis, noise):
    circuit = stim.Circuit.generated(f"surface_code:rotated_memory_{basis}", distance=3, rounds=3, **{noise: 0.01})
    assert same(place_dem_lines(circuit.detector_error_model(decompose_errors=True)), place_circuit(circuit))


@pytest.mark.parametrize("basis", ["x", "z"])
def test_every_line_is_found(basis):
    d = 5
    circuit = Experiment(d, 3, basis, "si1000", 0.004).circuit()
    for line in range(d):
        qubits = range(line * d, line * d + d) if basis == "x" else range(line, d * d, d)
        dem = dem_of_circuit(moved(circuit, 0, qubits, d))
        assert place_dem_lines(dem).lines == (line,)


def test_an_observable_that_is_no_line_is_refused():
    d = 3
    circuit = Experiment(d, 3, "z", "si1000", 0.004).circuit()
    bent = [1, 4, 6]  # column 0 times the stabiliser on data qubits 0, 1, 3, 4
    with pytest.raises(SyndistillError, match="no column of data qubits"):
        place_dem_lines(dem_of_circuit(moved(circuit, 0, bent, d)))


def test_more_observables_than_the_memory_has():
    circuit = Experiment(3, 3, "z", "si1000", 0.004).circuit()
    circuit.append("OBSERVABLE_INCLUDE", [stim.target_rec(-1), stim.target_rec(-4), stim.target_rec(-7)], 1)
    with pytest.raises(SyndistillError, match="2 observables where a memory in basis z has 1"):
        place_dem_lines(circuit.detector_error_model(decompose_errors=True))
