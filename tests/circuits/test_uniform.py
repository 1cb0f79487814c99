"""Uniform noise is Stim's own circuit."""

import pytest
import stim

from syndistill.circuits.experiment import Experiment, uniform_every_end, uniform_memory, uniform_rounds


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("rounds", [1, 4])
def test_is_stims(basis: str, rounds: int) -> None:
    stims = stim.Circuit.generated(
        f"surface_code:rotated_memory_{basis}",
        distance=3,
        rounds=rounds,
        after_clifford_depolarization=0.01,
        after_reset_flip_probability=0.01,
        before_measure_flip_probability=0.01,
        before_round_data_depolarization=0.01,
    )
    assert uniform_memory(3, rounds, basis, 0.01) == stims
    assert Experiment(3, rounds, basis, "uniform", 0.01).circuit() == stims


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("p", [0.0, 0.01])
def test_cut_into_rounds_loses_nothing(rounds: int, p: float) -> None:
    memory = uniform_memory(3, rounds, "z", p).flattened()
    start, parts = uniform_rounds(3, rounds, "z", p)
    together = start
    for part in parts:
        together += part
    assert len(parts) == rounds
    annotations = ("DETECTOR", "OBSERVABLE_INCLUDE", "SHIFT_COORDS", "QUBIT_COORDS")
    whole = [i for i in memory if i.name not in annotations]
    # what is left over is the errors of the last reset and the data readout with its flips
    left_over = [i.name for i in whole[len(together) :]]
    assert left_over == (["X_ERROR", "X_ERROR", "M"] if p else ["M"])
    for ours, theirs in zip(together, whole, strict=False):
        assert ours.name == theirs.name
        assert ours.gate_args_copy() == theirs.gate_args_copy()
        assert sorted(t.value for t in ours.targets_copy()) == sorted(t.value for t in theirs.targets_copy())


def test_every_end_reads_ancillas_and_data_each_round() -> None:
    assert uniform_every_end(3, 4, "x", 0.01).num_measurements == 4 * (8 + 2 * 9)
