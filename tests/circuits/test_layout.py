"""The canonical geometry: counts, symmetry, and lines that stabilisers carry into one another."""

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import place
from syndistill.errors import SyndistillError

DISTANCES = (3, 5, 7, 11)


def pauli(layout: Layout, letter: str, qubits: list[int]) -> stim.PauliString:
    string = stim.PauliString(layout.distance**2)
    for q in qubits:
        string[q] = letter
    return string


def stabilisers(layout: Layout) -> list[stim.PauliString]:
    letters = np.where(layout.is_x_S, "X", "Z")
    return [pauli(layout, str(a), support) for a, support in zip(letters, layout.supports, strict=True)]


@pytest.mark.parametrize("d", DISTANCES)
def test_counts_and_order(d: int) -> None:
    layout = Layout(d)
    assert layout.n_stabilisers == len(layout.cells_S2) == len(layout.supports) == d * d - 1
    assert layout.n_lines == d
    assert layout.is_x_S.sum() == (d * d - 1) // 2
    assert layout.cells_S2.tolist() == sorted(layout.cells_S2.tolist())
    weights = [len(s) for s in layout.supports]
    assert weights.count(2) == 2 * (d - 1)
    assert weights.count(4) == d * d - 1 - 2 * (d - 1)
    boundary_x = {c for (r, c), x in zip(layout.cells_S2.tolist(), layout.is_x_S, strict=True) if x and c in (0, d)}
    assert boundary_x == {0, d}


@pytest.mark.parametrize("d", DISTANCES)
def test_half_turn_keeps_types_and_quarter_turn_swaps_them(d: int) -> None:
    layout = Layout(d)
    types = {(r, c): bool(x) for (r, c), x in zip(layout.cells_S2.tolist(), layout.is_x_S, strict=True)}
    assert {(d - r, d - c): x for (r, c), x in types.items()} == types
    assert {(c, d - r): not x for (r, c), x in types.items()} == types


@pytest.mark.parametrize("d", DISTANCES)
def test_is_a_code_with_these_logicals(d: int) -> None:
    layout = Layout(d)
    group = stabilisers(layout)
    x_line, z_line = (pauli(layout, b.upper(), layout.line_data(b, 0)) for b in ("x", "z"))
    assert all(a.commutes(b) for a in group for b in (*group, x_line, z_line))
    assert not x_line.commutes(z_line)
    # from_stabilizers refuses dependent generators: d*d - 1 stabilisers and one logical fix every qubit
    assert len(stim.Tableau.from_stabilizers([*group, z_line])) == d * d


@pytest.mark.parametrize("d", DISTANCES)
@pytest.mark.parametrize("basis", ["x", "z"])
def test_stabilisers_carry_each_line_to_the_next(d: int, basis: str) -> None:
    layout = Layout(d)
    group = stabilisers(layout)
    matrix_SL = layout.line_matrix(basis)
    first = pauli(layout, basis.upper(), layout.line_data(basis, 0))
    for line in range(d):
        want = pauli(layout, basis.upper(), layout.line_data(basis, line))
        product = first.copy()
        for s in np.flatnonzero(matrix_SL[:, line]):
            product *= group[s]
        assert product == want
        if line + 1 < d:
            for s in layout.line_stabilisers(basis)[line]:
                want *= group[s]
            assert want == pauli(layout, basis.upper(), layout.line_data(basis, line + 1))


def test_on_basis() -> None:
    layout = Layout(3)
    assert layout.on_basis_S("both").all()
    assert (layout.on_basis_S("x") == layout.is_x_S).all()
    assert (layout.on_basis_S("z") == ~layout.is_x_S).all()
    with pytest.raises(SyndistillError, match="basis 'y'"):
        layout.on_basis_S("y")


@pytest.mark.parametrize("d", [-3, 0, 1, 2, 4])
def test_bad_distance(d: int) -> None:
    with pytest.raises(SyndistillError, match="odd number >= 3"):
        Layout(d)


@pytest.mark.parametrize("d", DISTANCES)
def test_turned_stabilisers_swap_types_and_keep_lines(d: int) -> None:
    layout = Layout(d)
    assert sorted(layout.turned_S.tolist()) == list(range(layout.n_stabilisers))
    assert np.array_equal(layout.is_x_S[layout.turned_S], ~layout.is_x_S)
    assert np.array_equal(layout.line_matrix("x")[layout.turned_S], layout.line_matrix("z"))


def test_a_turned_x_experiment_is_nearly_a_z_one() -> None:
    """Of the probability of all mechanisms, what differs is a sixth; untouched, nothing would fit."""

    def mechanisms(basis: str, turn: bool) -> dict[frozenset[tuple[int, int]], float]:
        circuit = Experiment(3, 5, basis, "si1000", 0.004).circuit()
        placed, found = place(circuit), dict[frozenset[tuple[int, int]], float]()
        place_S = placed.layout.turned_back_S if turn else np.arange(8)
        for error in circuit.detector_error_model().flattened():
            if error.type == "error":
                targets = [t.val for t in error.targets_copy() if t.is_relative_detector_id()]
                key = frozenset((int(place_S[placed.stabiliser_N[n]]), int(placed.slice_N[n])) for n in targets)
                found[key] = found.get(key, 0) + error.args_copy()[0]
        return found

    def difference(a: dict[frozenset[tuple[int, int]], float], b: dict[frozenset[tuple[int, int]], float]) -> float:
        return sum(abs(a.get(key, 0) - b.get(key, 0)) for key in a.keys() | b.keys()) / sum(a.values())

    z = mechanisms("z", turn=False)
    assert difference(z, mechanisms("x", turn=True)) < 0.17
    assert difference(z, mechanisms("x", turn=False)) > 0.5


@pytest.mark.parametrize("distance", [3, 5])
def test_neighbours_share_a_data_qubit_and_a_place_is_one_direction(distance):
    layout = Layout(distance)
    places_SS, supports = layout.places_SS, [set(qubits) for qubits in layout.supports]
    assert [[place < 9 for place in row] for row in places_SS] == [[bool(a & b) for b in supports] for a in supports]
    assert (places_SS.diagonal() == 4).all()
    steps = {
        (place, *(layout.cells_S2[source] - layout.cells_S2[target]))
        for target, row in enumerate(places_SS.tolist())
        for source, place in enumerate(row)
        if place < 9
    }
    assert len(steps) == len({place for place, *_ in steps}) == 9


def test_the_corners_of_a_data_qubit_are_the_stabilisers_that_touch_it():
    layout = Layout(5)
    for qubit, corners in enumerate(layout.corners_Q4.tolist()):
        touching = {s for s, qubits in enumerate(layout.supports) if qubit in qubits}
        assert {s for s in corners if s < layout.n_stabilisers} == touching
    assert layout.corners_Q4[0].tolist()[3] == [tuple(cell) for cell in layout.cells_S2.tolist()].index((1, 1))
