"""How far a circuit is from a network's training noise, and when that is said."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import CZ_STEPS, Experiment, si1000_memory
from syndistill.circuits.placement import far_from, noise_of, place, si1000_noise
from syndistill.circuits.training_noise import NOISE_KEY, TrainingNoise, noise_in
from syndistill.errors import SyndistillError

from . import foreign

CORNERS = ((0, -1), (-1, -1), (0, 0), (-1, 0))


@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("rounds", [1, 2, 3, 9])
def test_at_home_nothing_is_said(basis: str, d: int, rounds: int) -> None:
    """Circuit, error model, and the decomposed one that sinter gives, at the ends of the range of p."""
    for p in (0.001, 0.006):
        circuit = si1000_memory(d, rounds, basis, p)
        for source in (circuit, circuit.detector_error_model(), circuit.detector_error_model(decompose_errors=True)):
            placement = place(source)
            assert far_from(si1000_noise(d), placement) is None
            assert placement.fit is not None
            assert placement.fit.p == pytest.approx(p, rel=0.25)


@pytest.mark.parametrize("noise", ["si1000", "uniform"])
def test_two_observables_at_home(noise: str) -> None:
    circuit = Experiment(3, 4, "both", noise, 0.004).circuit()
    own = noise_of(noise, 3, ("both",), (0.001, 0.006), 9)
    assert far_from(own, place(circuit, own)) is None
    memories = noise_of(noise, 3, ("x", "z"), (0.001, 0.006), 9)
    assert far_from(memories, place(circuit, memories)) is None


@pytest.mark.parametrize("p", [0.002, 0.006, 0.01])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
def test_stims_memories_are_near(basis: str, d: int, p: float) -> None:
    """On which Students are below plain matching (docs/circuits.md)."""
    assert far_from(si1000_noise(d), place(foreign.generated(basis, d, d, p))) is None


def schedules(d: int) -> dict[tuple[object, object], stim.Circuit]:
    """Every order of gates that measures the code."""
    found = {}
    for x, z in itertools.product(itertools.permutations(CORNERS), repeat=2):
        try:
            si1000_memory(3, 2, "z", 0.004, {True: x, False: z}).detector_error_model()
        except ValueError:  # the checks do not commute in time
            continue
        found[x, z] = si1000_memory(d, 3, "z", 0.004, {True: x, False: z})
    return found


def test_other_schedules_are_told() -> None:
    """Each of the 16 is read; those whose hook errors run along a line are warned of."""
    found = schedules(5)
    assert len(found) == 16
    warned = {key: far_from(si1000_noise(5), place(circuit)) for key, circuit in found.items()}
    assert warned[CZ_STEPS[True], CZ_STEPS[False]] is None
    assert all("shapes" in line for line in warned.values() if line is not None)
    hooks = [key for key in found if _is_hook_prone(found[key])]
    assert len(hooks) == 8
    assert all(warned[key] is not None for key in hooks)


def _is_hook_prone(circuit: stim.Circuit) -> bool:
    """Fewer faults than the distance make an undetected error."""
    return len(circuit.shortest_graphlike_error()) < 5


@pytest.mark.parametrize(
    ("name", "says"),
    [("after_clifford_depolarization", "strengths"), ("before_round_data_depolarization", "strengths"),
     ("before_measure_flip_probability", "strengths"), ("after_reset_flip_probability", "strengths")],
)  # fmt: skip
@pytest.mark.parametrize("d", [3, 5])
def test_one_kind_of_noise_alone_is_far(name: str, says: str, d: int) -> None:
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=d, rounds=d, **{name: 0.02})
    line = far_from(si1000_noise(d), place(circuit))
    assert line is not None
    assert says in line
    assert "si1000, p 0.001 to 0.006" in line


def test_one_wild_qubit_and_too_much_noise_are_far() -> None:
    base = si1000_memory(3, 3, "z", 0.004)
    changed = stim.Circuit()
    for n, i in enumerate(base):
        changed.append(i)
        if n == len(base) // 2:
            changed.append("X_ERROR", [4], 0.3)
    assert "strengths" in str(far_from(si1000_noise(3), place(changed)))
    assert "more of them" in str(far_from(si1000_noise(3), place(si1000_memory(3, 3, "z", 0.008))))


def test_a_signature_survives_its_file() -> None:
    noise = noise_of("si1000", 5, ("x", "z"), (0.001, 0.006), 25)
    again = noise_in({NOISE_KEY: json.loads(json.dumps(noise.to_json()))})
    assert again is not None
    assert str(again) == str(noise) == "si1000, p 0.001 to 0.006, up to 25 rounds"
    for basis, pattern in noise.patterns.items():
        other = again.patterns[basis]
        assert np.array_equal(pattern.keys_U, other.keys_U)
        assert np.array_equal(pattern.part_U, other.part_U)
        assert np.allclose(pattern.rate_U, other.rate_U, rtol=1e-4)
    assert noise_in({}) is None
    assert len(json.dumps(noise.to_json())) < 100_000
    with pytest.raises(SyndistillError, match="signature of the training noise is damaged"):
        TrainingNoise.from_json({"noise": "si1000", "patterns": {"z": {}}})


def test_many_files_are_named_shortly_and_their_strength_is_a_factor() -> None:
    home = noise_of("si1000", 3, ("z",), (0.001, 0.006), 9)
    assert (str(home), home.strength(0.0042)) == ("si1000, p 0.001 to 0.006, up to 9 rounds", "p about 0.0042")
    own = replace(home, noise="a.dem, b.dem, c.dem", p_min=0.8, p_max=1.25)
    assert str(own) == "a.dem and 2 more, their errors times 0.8 to 1.25, up to 9 rounds"
    assert str(replace(own, noise="a.dem")).startswith("a.dem, their errors")
    assert own.strength(1.04) == "about 1 times as likely"
