"""The basis of a memory from the circuit alone, whatever gates it is made of."""

from pathlib import Path

import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.memory_basis import memory_basis

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_own_circuits(noise: str, rounds: int, basis: str) -> None:
    assert memory_basis(Experiment(3, rounds, basis, noise, 0.01).circuit()) == basis


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
def test_two_observables_have_none(noise: str) -> None:
    assert memory_basis(Experiment(3, 2, "both", noise, 0.01).circuit()) is None


def without(circuit: stim.Circuit, replaced: dict[str, tuple[str, ...]]) -> stim.Circuit:
    """Instructions by name as others, on the same targets."""
    changed = stim.Circuit()
    for instruction in circuit.flattened():
        for name in replaced.get(instruction.name, (instruction.name,)):
            changed.append(name, instruction.targets_copy(), instruction.gate_args_copy())
    return changed


@pytest.mark.parametrize("basis", ["x", "z"])
def test_other_gates_for_the_same(basis: str) -> None:
    """X memories of H, R and M alone; Z memories that are reset and read in X behind Hadamards."""
    stims = stim.Circuit.generated(f"surface_code:rotated_memory_{basis}", distance=3, rounds=3)
    hadamards = without(stims, {"RX": ("R", "H"), "MX": ("H", "M")})
    assert hadamards.num_measurements == stims.num_measurements
    assert memory_basis(hadamards) == basis
    turned = without(stims, {"R": ("RX", "H"), "M": ("H", "MX"), "RX": ("R", "H"), "MX": ("H", "M")})
    assert memory_basis(turned) == basis


def kinds(circuit: stim.Circuit, kind: int) -> stim.Circuit:
    """A fourth coordinate that is the same for all detectors."""
    changed = stim.Circuit()
    for i in circuit.flattened():
        coords = [*i.gate_args_copy(), kind] if i.name == "DETECTOR" else i.gate_args_copy()
        changed.append(i.name, i.targets_copy(), coords)
    return changed


def test_a_fourth_coordinate_of_another_meaning() -> None:
    for basis in ("x", "z"):
        stims = stim.Circuit.generated(f"surface_code:rotated_memory_{basis}", distance=3, rounds=3)
        for kind in (1, 4, 7):
            assert memory_basis(kinds(stims, kind)) == basis


def test_what_says_nothing() -> None:
    frames = Experiment(3, 3, "x", "si1000", 0.01).circuit()
    bare = stim.Circuit()
    for i in frames:
        args = i.gate_args_copy()
        bare.append(i.name, i.targets_copy(), args[:3] if i.name == "DETECTOR" else args)
    assert memory_basis(bare) is None
    assert memory_basis(stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]")) is None


@pytest.mark.skipif(not DATA.exists(), reason="the circuits of others are not here")
@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("circuits/closing_at_last_round_d5_chromobius.stim", "x"),
        ("circuits/closing_at_last_round_tqec.stim", "z"),
        ("circuits/memory_x_d5_pymatching.stim", "x"),
        ("circuits/sycamore_bZ_d5_r03_circuit_noisy.stim", None),
        ("faults/z-memory-with-mx-ancillas.stim", "z"),
        ("faults/z_kind12.stim", "z"),
    ],
)
def test_circuits_of_others(name: str, basis: str | None) -> None:
    assert memory_basis(stim.Circuit.from_file(DATA / name)) == basis
