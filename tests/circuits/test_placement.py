"""Placing detectors by coordinates, in every convention that circuits come in, and refusing what is no surface code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import Placement, canonical_qubits, place_circuit, place_dem
from syndistill.errors import SyndistillError

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "sycamore_x_even"
SHOTS = 512


def check(circuit: stim.Circuit, basis: str, rounds: int, override: str | None = None) -> Placement:
    """Everything that can be said of a placement without noise models or luck."""
    placement = place_circuit(circuit, override)
    layout = placement.layout
    assert (placement.basis, placement.rounds) == (basis, rounds)
    assert len(placement.slice_N) == len(placement.stabiliser_N) == circuit.num_detectors
    present = np.zeros((rounds + 1, layout.n_stabilisers), dtype=int)
    np.add.at(present, (placement.slice_N, placement.stabiliser_N), 1)
    want = np.ones_like(present)
    want[[0, -1]] = layout.on_basis_S(basis)
    assert (present == want).all()
    check_lines(circuit, placement, override)
    return placement


def check_lines(circuit: stim.Circuit, placement: Placement, override: str | None) -> None:
    """Line labels that follow from the events are those of circuits that read the lines themselves, shot by shot."""
    layout, basis = placement.layout, placement.basis
    _, data = canonical_qubits(circuit, override)
    measured = [
        t.value for i in circuit.flattened() if stim.gate_data(i.name).produces_measurements for t in i.targets_copy()
    ]
    assert placement.lines[0] is not None
    every_line = circuit.copy()
    for line in range(layout.distance):
        qubits = [data[k] for k in layout.line_data(basis, line)]
        last = [len(measured) - 1 - measured[::-1].index(q) - len(measured) for q in qubits]
        every_line.append("OBSERVABLE_INCLUDE", [stim.target_rec(r) for r in last], line + 1)
    events, flips = every_line.compile_detector_sampler(seed=1).sample(SHOTS, separate_observables=True)
    slices = np.zeros((SHOTS, placement.rounds + 1, layout.n_stabilisers), dtype=int)
    slices[:, placement.slice_N, placement.stabiliser_N] = events
    final = slices.sum(1) % 2
    from_first = final @ layout.line_matrix(basis) % 2
    assert (flips[:, 1:] == (flips[:, [1]] + from_first) % 2).all()
    assert (flips[:, 0] == flips[:, 1 + placement.lines[0]]).all()
    assert flips[:, 1:].any(0).all()
    assert (flips[:, 1] != flips[:, 2]).any()


@pytest.mark.parametrize("noise", ["si1000", "uniform"])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_generated_circuits(noise: str, basis: str, d: int, rounds: int) -> None:
    circuit = Experiment(d, rounds, basis, noise, 0.01).circuit()
    placement = check(circuit, basis, rounds)
    if noise == "si1000":
        assert placement.lines == (0,)
        stabilisers = np.arange(d * d - 1)
        assert (placement.stabiliser_N[placement.slice_N == 0] == stabilisers[placement.layout.on_basis_S(basis)]).all()


def test_ancillas_are_where_the_stabilisers_are() -> None:
    """Stim's X ancillas get Hadamards: the placement's types agree, in either basis."""
    for basis in ("x", "z"):
        circuit = Experiment(5, 2, basis, "uniform", 0.0).circuit()
        turned = {t.value for i in circuit.flattened() if i.name == "H" for t in i.targets_copy()}
        placement = place_circuit(circuit)
        ancillas, data = canonical_qubits(circuit)
        assert [q in turned for q in ancillas] == placement.layout.is_x_S.tolist()
        assert len({*ancillas, *data}) == 49


def test_both_bases_of_stims_circuits_agree() -> None:
    x, z = (canonical_qubits(Experiment(5, r, b, "uniform", 0.0).circuit()) for b, r in (("x", 3), ("z", 1)))
    assert x == z


def moved(circuit: stim.Circuit, move: Callable[[float, float], tuple[float, float]], kinds: bool) -> stim.Circuit:
    """The circuit in other coordinates, with time carried by SHIFT_COORDS."""
    result = stim.Circuit()
    now = 0.0
    for i in circuit.flattened():
        args = i.gate_args_copy()
        if i.name == "QUBIT_COORDS":
            result.append("QUBIT_COORDS", i.targets_copy(), move(*args))
        elif i.name == "DETECTOR":
            if args[2] != now:
                result.append("SHIFT_COORDS", [], [0, 0, args[2] - now])
                now = args[2]
            result.append("DETECTOR", i.targets_copy(), [*move(*args[:2]), 0, *(args[3:] if kinds else [])])
        else:
            result.append(i)
    return result


MOVES: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "doubled": lambda x, y: (2 * x + 1, 2 * y + 1),
    "mirrored": lambda x, y: (y, x),
    "quarter turn": lambda x, y: (y, -x),
    "flipped": lambda x, y: (-x, y),
    "diagonal": lambda x, y: (x + y + 4, x - y),
    "other diagonal": lambda x, y: (y - x, -x - y - 3),
    "far away": lambda x, y: (0.1 * x - 30, 0.1 * y + 7.3),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("rounds", [1, 3])
def test_any_lattice_with_fourth_coordinates(move: str, basis: str, d: int, rounds: int) -> None:
    circuit = moved(Experiment(d, rounds, basis, "si1000", 0.01).circuit(), MOVES[move], kinds=True)
    check(circuit, basis, rounds)


@pytest.mark.parametrize("move", MOVES)
def test_basis_named_by_the_caller(move: str) -> None:
    circuit = moved(Experiment(3, 3, "x", "si1000", 0.01).circuit(), MOVES[move], kinds=False)
    check(circuit, "x", 3, override="x")
    assert place_circuit(circuit).basis == "z"  # what a CZ circuit does not say; the geometry then is turned


@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_from_the_dem_alone(basis: str) -> None:
    circuit = Experiment(3, 3, basis, "si1000", 0.01).circuit()
    whole, alone = place_circuit(circuit), place_dem(circuit.detector_error_model())
    assert alone.basis == basis
    assert (alone.slice_N == whole.slice_N).all()
    assert (alone.stabiliser_N == whole.stabiliser_N).all()
    assert set(alone.lines) == {None}


@pytest.mark.parametrize("folder", ["d3_r01_center_3_5", "d3_r05_center_7_5", "d5_r03_center_5_5"])
def test_recorded_circuits(folder: str) -> None:
    path = RECORDINGS / f"surface_code_bX_{folder}" / "circuit_noisy.stim"
    if not path.exists():
        pytest.skip("the Sycamore recordings are not here")
    circuit = stim.Circuit.from_file(path)
    check(circuit, "x", int(folder[4:6]), override="x")


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("noise", ["si1000", "uniform"])
def test_two_observables(noise: str, move: str) -> None:
    circuit = Experiment(3, 2, "both", noise, 0.01).circuit()
    placement, other = place_circuit(circuit), place_circuit(moved(circuit, MOVES[move], kinds=True))
    assert placement.lines == (0, 0)
    assert set(other.lines) in ({0}, {2})
    assert (placement.slice_N == other.slice_N).all()
    kinds = [c[3] for _, c in sorted(circuit.get_detector_coordinates().items())]
    for p in (placement, other):
        assert p.basis == "both"
        assert (p.layout.is_x_S[p.stabiliser_N] == (np.array(kinds) < 3)).all()


def test_a_bent_observable_has_no_line() -> None:
    circuit = Experiment(3, 1, "z", "si1000", 0.01).circuit()
    bent = stim.Circuit("\n".join(str(i) for i in circuit if i.name != "OBSERVABLE_INCLUDE"))
    bent.append("OBSERVABLE_INCLUDE", [stim.target_rec(-9), stim.target_rec(-6), stim.target_rec(-2)], 0)
    assert place_circuit(bent).lines == (None,)


def edited(circuit: stim.Circuit, which: int, coords: list[float] | None) -> stim.Circuit:
    """The circuit with other coordinates on its detector number `which`, or without it."""
    result = stim.Circuit()
    seen = -1
    for i in circuit.flattened():
        seen += i.name == "DETECTOR"
        if i.name == "DETECTOR" and seen == which:
            if coords is not None:
                result.append("DETECTOR", i.targets_copy(), coords)
        else:
            result.append(i)
    return result


def refused(circuit: stim.Circuit, *says: str, basis: str | None = None) -> None:
    with pytest.raises(SyndistillError) as caught:
        place_circuit(circuit, basis)
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message


def test_other_codes_are_refused() -> None:
    make = stim.Circuit.generated
    refused(make("surface_code:unrotated_memory_z", distance=3, rounds=3), "12 places", "D")
    refused(make("surface_code:unrotated_memory_z", distance=5, rounds=1), "places", "D")
    refused(make("repetition_code:memory", distance=5, rounds=3), "D0 lacks coordinates (x, y, t)")
    refused(make("color_code:memory_xyz", distance=5, rounds=3), "9 places", "D")
    refused(stim.Circuit("M 0"), "no detectors")


def test_even_or_oblong_codes_are_refused() -> None:
    make = stim.Circuit.generated
    refused(make("surface_code:rotated_memory_z", distance=4, rounds=3), "15 places", "D")
    circuit = stim.Circuit()
    for t in range(3):
        for x in range(2):
            for y in range(4):
                circuit.append("DETECTOR", [], [x, y, t])
    refused(circuit, "not those of a rotated surface code of distance 3", "D0 at (0, 0, 0)")


@pytest.mark.parametrize("which", [0, 6, 13, 20])
def test_one_bad_detector_is_named(which: int) -> None:
    circuit = Experiment(3, 3, "z", "si1000", 0.01).circuit()
    coords = circuit.get_detector_coordinates()
    x, y, *rest = coords[which]
    refused(edited(circuit, which, []), f"D{which} lacks coordinates (x, y, t)")
    refused(edited(circuit, which, [x, y]), f"D{which} lacks coordinates (x, y, t)")
    for dx, dy in ((0.25, 0), (0.5, 0.5), (40, 0), (0.001, 0)):
        refused(edited(circuit, which, [x + dx, y + dy, *rest]), f"D{which} at ({x + dx:g}, {y + dy:g}, {rest[0]:g}")


def test_every_detector_of_one_stabiliser_shifted() -> None:
    circuit = Experiment(5, 3, "z", "si1000", 0.01).circuit()
    coords = circuit.get_detector_coordinates()
    members = [n for n, c in coords.items() if c[:2] == [1.5, 1.5]]
    for n in members:
        circuit = edited(circuit, n, [1.75, *coords[n][1:]])
    refused(circuit, "rotated surface code of distance 5", f"D{members[0]} at (1.75, 1.5, ")


def test_duplicate_and_missing_detectors() -> None:
    circuit = Experiment(3, 3, "z", "si1000", 0.01).circuit()
    coords = circuit.get_detector_coordinates()
    assert coords[5][2] == coords[6][2] == 1
    refused(edited(circuit, 6, coords[5]), "D6 at (", "where D5 already is")
    x, y = coords[13][:2]
    refused(edited(circuit, 13, None), "slice 2 of 4 lacks", f"grid cell ({x + 0.5:g}, {y + 0.5:g})")


def test_detector_in_a_slice_that_lacks_it() -> None:
    circuit = Experiment(3, 3, "z", "si1000", 0.01).circuit()
    coords = circuit.get_detector_coordinates()
    off = next(n for n, c in coords.items() if c[2] == 1 and c[3] == 0)
    refused(edited(circuit, off, [*coords[off][:2], 3, 0]), f"D{off} at (", "off-basis")
    refused(edited(circuit, off, [*coords[off][:2], 0, 0]), "D0 at (", "first round")
    one_slice = stim.Circuit()
    for i in circuit.flattened():
        args = i.gate_args_copy()
        one_slice.append(i.name, i.targets_copy(), [*args[:2], 0, *args[3:]] if i.name == "DETECTOR" else args)
    refused(one_slice, "at one time", "D0 at (")


def test_wrong_basis_and_missing_kind() -> None:
    circuit = Experiment(3, 3, "z", "si1000", 0.01).circuit()
    refused(circuit, "memory in basis both", "D0 at (", basis="both")
    both = Experiment(3, 2, "both", "si1000", 0.01).circuit()
    refused(moved(both, lambda x, y: (x, y), kinds=False), "D0 lacks coordinates (x, y, t, kind)")
    x, y, t, _ = both.get_detector_coordinates()[9]
    refused(edited(both, 9, [x, y, t, 7]), "fourth coordinate", "D9")
