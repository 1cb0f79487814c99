"""SI1000 circuits: detection rate, matching's logical error rate, distance, linearity in p.

Statistical bounds are 5.5 standard deviations (two-sided 4e-8 a comparison, below 1e-6 for the file).
"""

import numpy as np
import pymatching
import pytest
import stim

from syndistill.circuits.experiment import si1000_memory

SIGMAS = 5.5


def test_detection_rate() -> None:
    events = si1000_memory(3, 3, "z", 0.004).compile_detector_sampler(seed=5).sample(100_000)
    per_shot = events.mean(1)
    error = SIGMAS * per_shot.std() / np.sqrt(len(per_shot))
    assert abs(per_shot.mean() - 0.100) < error + 0.0005  # known to three digits


def wrong_by_matching(circuit: stim.Circuit, shots: int, correlated: bool) -> float:
    dem = circuit.detector_error_model(decompose_errors=True)
    events, flips = circuit.compile_detector_sampler(seed=11).sample(shots, separate_observables=True)
    matching = pymatching.Matching.from_detector_error_model(dem, enable_correlations=correlated)
    return float((matching.decode_batch(events, enable_correlations=correlated) != flips).mean())


# Matching's logical error rates on Google's circuits, and the number of shots that they were measured on.
@pytest.mark.parametrize(
    ("d", "p", "correlated", "known", "known_shots", "shots"),
    [
        (3, 0.002, False, 0.01427, 100_000, 200_000),
        (3, 0.002, True, 0.01290, 100_000, 200_000),
        (3, 0.004, False, 0.0508, 100_000, 200_000),
        (3, 0.004, True, 0.0467, 100_000, 200_000),
        (5, 0.004, False, 0.0529, 200_000, 50_000),
        (5, 0.004, True, 0.0429, 200_000, 50_000),
    ],
)
def test_matching_as_on_googles_circuits(
    d: int, p: float, correlated: bool, known: float, known_shots: int, shots: int
) -> None:
    rate = wrong_by_matching(si1000_memory(d, d, "z", p), shots, correlated)
    sigma = np.sqrt(known * (1 - known) * (1 / shots + 1 / known_shots))
    assert abs(rate - known) < SIGMAS * sigma + 5e-5


def test_x_memory_is_as_hard_as_z_memory() -> None:
    shots, known = 200_000, 0.0508
    rate = wrong_by_matching(si1000_memory(3, 3, "x", 0.004), shots, correlated=False)
    sigma = np.sqrt(known * (1 - known) * (1 / shots + 1 / 100_000))
    assert abs(rate - known) < SIGMAS * sigma + 0.04 * known  # within 4 %


@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_schedule_keeps_the_distance(d: int, basis: str) -> None:
    assert len(si1000_memory(d, d, basis, 0.001).shortest_graphlike_error()) == d


@pytest.mark.parametrize("basis", ["x", "z"])
def test_no_hook_error_that_matching_does_not_see(basis: str) -> None:
    circuit = si1000_memory(3, 3, basis, 0.001)
    errors = circuit.search_for_undetectable_logical_errors(
        dont_explore_detection_event_sets_with_size_above=6,
        dont_explore_edges_with_degree_above=4,
        dont_explore_edges_increasing_symptom_degree=False,
    )
    assert len(errors) == 3


def test_noise_is_linear_in_p() -> None:
    weak, strong = (si1000_memory(3, 2, "x", p).flattened() for p in (0.001, 0.004))
    noisy = 0
    for a, b in zip(weak, strong, strict=True):
        assert (a.name, a.targets_copy()) == (b.name, b.targets_copy())
        if a.name in ("DETECTOR", "QUBIT_COORDS", "OBSERVABLE_INCLUDE"):
            assert a.gate_args_copy() == b.gate_args_copy()
        else:
            assert [4 * x for x in a.gate_args_copy()] == pytest.approx(b.gate_args_copy())
            noisy += len(a.gate_args_copy())
    assert noisy > 20


def layers(circuit: stim.Circuit) -> list[list[stim.CircuitInstruction]]:
    found: list[list[stim.CircuitInstruction]] = [[]]
    for instruction in circuit:
        if instruction.name == "TICK":
            found.append([])
        elif instruction.name not in ("QUBIT_COORDS", "DETECTOR", "OBSERVABLE_INCLUDE"):
            found[-1].append(instruction)
    return found


def test_every_qubit_gets_its_noise_in_every_layer() -> None:
    """The channels of SI1000, one layer of a middle round after the other."""
    p, d = 0.001, 3
    n = 2 * d * d - 1
    middle = layers(si1000_memory(d, 3, "z", p))[11:21]  # layer 0 is the preparation, then ten per round
    names = ["H", "CZ", "H", "CZ", "CZ", "H", "CZ", "H", "M", "R"]
    assert [layer[0].name for layer in middle] == names
    for layer in middle:
        hit = {}
        for noise in layer:
            if noise.name in ("DEPOLARIZE1", "DEPOLARIZE2", "X_ERROR"):
                for t in noise.targets_copy():
                    hit.setdefault(t.value, []).append((noise.name, round(noise.gate_args_copy()[0] / p, 6)))
        idle = [("DEPOLARIZE1", 0.1)]
        waiting = [("DEPOLARIZE1", 0.1), ("DEPOLARIZE1", 2)]
        used = {t.value for t in layer[0].targets_copy()}
        assert sorted(hit) == list(range(n))
        for q, channels in hit.items():
            want = {
                "H": idle,
                "CZ": [("DEPOLARIZE2", 1)] if q in used else idle,
                "M": [("DEPOLARIZE1", 1)] if q in used else waiting,
                "R": [("X_ERROR", 2)] if q in used else waiting,
            }[layer[0].name]
            assert channels == want
        if layer[0].name == "M":
            assert layer[0].gate_args_copy() == pytest.approx([5 * p])
