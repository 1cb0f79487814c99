"""Circuits that track both observables: matching's error rates, determinism, and the Hadamard frames.

Statistical bounds are 5.5 standard deviations (two-sided 4e-8 a comparison, below 1e-6 for the file).
"""

import numpy as np
import pymatching
import pytest
import stim

from syndistill.circuits.experiment import Experiment, si1000_memory, two_observable_memory

SIGMAS = 5.5


def test_matching_on_uniform_noise() -> None:
    """Known: wrong on Z .0111, X .0123, either .0229, correlated either .0141; taken for measured on 100,000 shots.

    Here 500,000 shots give .0114, .0127, .0236 and .0148.
    """
    circuit = two_observable_memory(5, 5, "uniform", 0.005)
    dem = circuit.detector_error_model(decompose_errors=True)
    shots = 100_000
    events, flips = circuit.compile_detector_sampler(seed=3).sample(shots, separate_observables=True)

    def agrees(wrong: np.ndarray, known: float) -> bool:
        sigma = np.sqrt(known * (1 - known) * (1 / shots + 1 / 100_000))
        return abs(wrong.mean() - known) < SIGMAS * sigma + 5e-5

    wrong = pymatching.Matching.from_detector_error_model(dem).decode_batch(events) != flips
    assert agrees(wrong[:, 0], 0.0123)
    assert agrees(wrong[:, 1], 0.0111)
    assert agrees(wrong.any(1), 0.0229)
    correlated = pymatching.Matching.from_detector_error_model(dem, enable_correlations=True)
    wrong = correlated.decode_batch(events, enable_correlations=True) != flips
    assert agrees(wrong.any(1), 0.0141)


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_every_stabiliser_has_a_detector_in_every_slice(noise: str, d: int, rounds: int) -> None:
    circuit = two_observable_memory(d, rounds, noise, 0.01)
    assert (circuit.num_detectors, circuit.num_observables) == ((rounds + 1) * (d * d - 1), 2)
    # Stim refuses to build a model if a detector or an observable is not deterministic
    dem = circuit.detector_error_model(decompose_errors=True)
    assert (dem.num_detectors, dem.num_observables) == (circuit.num_detectors, 2)


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
def test_distance_of_both_observables(noise: str) -> None:
    circuit = two_observable_memory(3, 3, noise, 0.001)
    assert len(circuit.shortest_graphlike_error()) == 3


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
def test_observables_are_the_lines_and_anticommute(noise: str) -> None:
    """A Pauli on the shared corner qubit before the last noiseless products flips what it should."""
    circuit = two_observable_memory(3, 2, noise, 0.0)
    last_products = max(k for k, i in enumerate(circuit) if i.name == "MPP" and circuit[k - 1].name != "MPP")
    both = [i for i in circuit if i.name == "OBSERVABLE_INCLUDE"][-2:]
    supports = [{t.value: t.pauli_type for t in i.targets_copy()} for i in both]
    (corner,) = supports[0].keys() & supports[1].keys()
    assert supports[0][corner] != supports[1][corner]
    for observable in (0, 1):
        letter = supports[observable][corner]
        hit = circuit[:last_products]
        hit.append(f"{letter}_ERROR", [corner], 1.0)
        hit += circuit[last_products:]
        _, flips = hit.compile_detector_sampler(seed=0).sample(4, separate_observables=True)
        assert (flips[:, observable] == 0).all()  # commutes with its own letter
        assert (flips[:, 1 - observable] == 1).all()


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_middle_of_the_experiment_is_the_memory_experiments(noise: str, basis: str) -> None:
    """Error mechanisms that touch only middle slices, seen by one type, are those of the memory circuit."""
    rounds = 5
    both, single = (
        mechanisms(Experiment(3, rounds, b, noise, 0.001).circuit(), 0 if basis == "x" else 3) for b in ("both", basis)
    )
    assert len(single) > 15
    assert both == pytest.approx(single, rel=1e-6)


def mechanisms(circuit: stim.Circuit, kind: int) -> dict[frozenset[tuple[float, ...]], float]:
    """Probability of each set of detectors of one type inside slices 2 and 3 of 6."""
    coords = circuit.get_detector_coordinates()
    if len(coords[0]) == 3:  # Stim's own circuits: types from the places of the two-observable circuit
        known = two_observable_memory(3, 1, "uniform", 0.0).get_detector_coordinates().values()
        kinds = {(c[0], c[1]): c[3] for c in known}
        coords = {n: [*c, kinds[c[0], c[1]]] for n, c in coords.items()}
    found: dict[frozenset[tuple[float, ...]], float] = {}
    for error in circuit.detector_error_model().flattened():
        if error.type != "error":
            continue
        hits = [tuple(coords[t.val]) for t in error.targets_copy() if t.is_relative_detector_id()]
        if all(c[2] in (2, 3) for c in hits) and (key := frozenset(c for c in hits if c[3] == kind)):
            p, q = found.get(key, 0.0), error.args_copy()[0]
            found[key] = p + q - 2 * p * q
    return found


def test_memory_readout_and_noiseless_end_differ_only_at_the_ends() -> None:
    """The two-observable SI1000 circuit is not merely the memory circuit: data wait once more at either end."""
    both, single = two_observable_memory(3, 1, "si1000", 0.01), si1000_memory(3, 1, "z", 0.01)
    count = [sum(len(i.targets_copy()) for i in c if i.name == "DEPOLARIZE1") for c in (both, single)]
    # two layers of 9 waiting data qubits, with two channels each, and the 8 measured ancillas' own channel
    assert count[0] - count[1] == 2 * 2 * 9 + 8
