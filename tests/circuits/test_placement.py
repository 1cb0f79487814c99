"""Placing detectors: coordinates propose, errors decide. Every convention that circuits come in, and refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import Experiment, si1000_memory, si1000_places
from syndistill.circuits.placement import CoordinatesContradicted, Placement, noise_of, place, place_experiment
from syndistill.errors import SyndistillError

from . import foreign
from .checks import check_observables, quietly, same

DATA = Path(__file__).parents[3] / "shared" / "data"
Move = Callable[[float, float], tuple[float, float]]

MOVES: dict[str, Move] = {
    "as it is": lambda x, y: (x, y),
    "doubled": lambda x, y: (2 * x + 1, 2 * y + 1),
    "mirrored": lambda x, y: (y, x),
    "quarter turn": lambda x, y: (y, -x),
    "half turn": lambda x, y: (-x, -y),
    "flipped": lambda x, y: (-x, y),
    "diagonal": lambda x, y: (x + y + 4, x - y),
    "other diagonal": lambda x, y: (y - x, -x - y - 3),
    "far away": lambda x, y: (0.1 * x - 30, 0.1 * y + 7.3),
    "thirds": lambda x, y: (x / 3 + 100 / 3, y / 3),
    "square roots": lambda x, y: (2**0.5 * x, 2**0.5 * y),
}


@pytest.mark.parametrize("noise", ["si1000", "uniform"])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_own_circuits_are_where_they_were_made(noise: str, basis: str, d: int, rounds: int) -> None:
    experiment = Experiment(d, rounds, basis, noise, 0.004)
    placement = place_experiment(experiment)
    assert (placement.layout.distance, placement.rounds, placement.basis) == (d, rounds, basis)
    assert placement.lines in ((0,), (d - 1,))
    assert placement.fit is not None
    assert placement.fit.share == pytest.approx(1)
    if noise == "si1000":
        slices, stabilisers = si1000_places(d, rounds, basis)
        assert np.array_equal(placement.slice_N, slices)
        assert np.array_equal(placement.stabiliser_N, stabilisers)
        assert placement.fit.p == pytest.approx(0.004, rel=0.2)
    check_observables(experiment.circuit(), placement)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("gates", ["cz", "cx", "h"])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
def test_the_same_in_every_frame_and_order(move: str, gates: str, basis: str, d: int) -> None:
    """Scales, turns, mirrors, gates, orders of detectors, circuit or error model: the same place for every detector."""
    circuit = si1000_memory(d, 3, basis, 0.004) if gates == "cz" else foreign.generated(basis, d, 3)
    plain = quietly(circuit)
    if gates == "h":
        circuit = foreign.in_x_gates_only(circuit)
    other = stim.Circuit(str(foreign.moved(circuit, MOVES[move])))  # as a file holds it: six digits
    assert same(quietly(other), plain)
    assert same(quietly(other.detector_error_model(decompose_errors=True)), plain)
    shuffled, order = foreign.reordered(other, seed=5)
    found = quietly(shuffled)
    assert np.array_equal(found.slice_N, plain.slice_N[order])
    assert np.array_equal(found.stabiliser_N, plain.stabiliser_N[order])
    assert np.array_equal(found.turn_OS, plain.turn_OS)


def share_of(circuit: stim.Circuit, placement: Placement) -> dict[str, float]:
    """The share of probability in the training noise's mechanisms, for each of the four ways round, by an own count."""
    layout, rounds = placement.layout, placement.rounds
    found = {}
    for way in range(4):
        basis = ("x", "z")[(("x", "z").index(placement.basis) + way) % 2]
        home: set[frozenset[tuple[int, int]]] = set()
        slices, places = si1000_places(layout.distance, rounds, basis)
        for error in si1000_memory(layout.distance, rounds, basis, 0.001).detector_error_model().flattened():
            if error.type == "error":
                hit = [t.val for t in error.targets_copy() if t.is_relative_detector_id()]
                home.add(frozenset((int(slices[n]), int(places[n])) for n in hit))
        turn_S = np.arange(layout.n_stabilisers)
        for _ in range(way):
            turn_S = layout.turned_back_S[turn_S]
        shared = total = 0.0
        for error in circuit.detector_error_model().flattened():
            if error.type == "error":
                hit = [t.val for t in error.targets_copy() if t.is_relative_detector_id()]
                key = frozenset((int(placement.slice_N[n]), int(turn_S[placement.stabiliser_N[n]])) for n in hit)
                total += error.args_copy()[0]
                shared += error.args_copy()[0] * (key in home)
        found[f"{basis}{way}"] = shared / total
    return found


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("d", [3, 5])
def test_the_way_round_is_the_one_whose_errors_are_most_like_home(basis: str, d: int) -> None:
    circuit = foreign.generated(basis, d, 4)
    placement = quietly(circuit)
    shares = list(share_of(circuit, placement).values())
    assert shares[0] == max(shares)
    assert sorted(shares)[-2] < shares[0] - 0.05
    assert placement.fit is not None
    assert placement.fit.share == pytest.approx(shares[0], abs=0.01)


def test_what_a_network_was_trained_on_decides() -> None:
    """Trained on Stim's circuits in their own coordinates, the other way round is home."""
    circuit = foreign.generated("z", 3, 4)
    uniform = noise_of("uniform", 3, ("x", "z"), (0.001, 0.01), 9)
    assert place(circuit).basis == "x"
    assert place(circuit, uniform).basis == "z"
    assert same(place(circuit, uniform), place_experiment(Experiment(3, 4, "z", "uniform", 0.004)))


@pytest.mark.parametrize("name", ["closing_at_last_round_d5_chromobius", "closing_at_last_round_tqec",
                                  "memory_x_d5_pymatching", "sycamore_bZ_d5_r03_circuit_noisy"])  # fmt: skip
def test_circuits_of_others(name: str) -> None:
    path = DATA / "circuits" / f"{name}.stim"
    if not path.exists():
        pytest.skip("the circuits of others are not here")
    circuit = stim.Circuit.from_file(path)
    placement = quietly(circuit)
    assert same(quietly(circuit.detector_error_model(decompose_errors=True)), placement)
    assert placement.fit is not None
    assert placement.fit.share > 0.99
    check_observables(circuit, placement)


@pytest.mark.parametrize("path", sorted((DATA / "faults").glob("*.stim")), ids=lambda path: path.stem)
def test_inputs_that_went_wrong(path: Path) -> None:
    """Each is a memory that can be read: its errors are all known, whatever its coordinates say."""
    circuit = stim.Circuit.from_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoordinatesContradicted)
        placement = place(circuit)
    assert placement.fit is not None
    assert placement.fit.share > 0.99
    check_observables(circuit, placement)


@pytest.mark.parametrize("folder", ["d3_r01_center_3_5", "d3_r05_center_7_5", "d5_r03_center_5_5"])
def test_recorded_circuits(folder: str) -> None:
    path = DATA / "sycamore_x_even" / f"surface_code_bX_{folder}"
    if not path.exists():
        pytest.skip("the Sycamore recordings are not here")
    circuit = stim.Circuit.from_file(path / "circuit_noisy.stim")
    # Of one round half a turn changes the rates alone, and a fitted model has others than the circuit.
    model = "circuit_detector_error_model.dem" if folder[4:6] == "01" else "pij_from_even_for_odd.dem"
    fitted = stim.DetectorErrorModel.from_file(path / model)
    placement = quietly(circuit)
    assert placement.rounds == int(folder[4:6])
    assert same(quietly(fitted), placement)
    check_observables(circuit, placement)


# How others name times, axes and what is not there.


def closing_at_the_last_round(circuit: stim.Circuit) -> stim.Circuit:
    last = max(c[2] for c in circuit.get_detector_coordinates().values())
    return foreign.recoordinated(circuit, lambda _, c: [*c[:2], min(c[2], last - 1), *c[3:]])


NAMED: dict[str, Callable[[stim.Circuit], stim.Circuit]] = {
    "closing detectors at the last round's time": closing_at_the_last_round,
    "and declared before the round's": lambda c: foreign.reordered(closing_at_the_last_round(c), seed=11)[0],
    "time first": lambda c: foreign.recoordinated(c, lambda _, x: [x[2], x[0], x[1]]),
    "time second": lambda c: foreign.recoordinated(c, lambda _, x: [x[0], x[2], x[1]]),
    "time in seconds": lambda c: foreign.recoordinated(c, lambda _, x: [*x[:2], 1e-6 * x[2] + 3]),
    "X checks half a round later": lambda c: foreign.recoordinated(
        c, lambda _, x: [*x[:2], x[2] + 0.5 * ((x[0] + x[1]) % 4 == 2)]
    ),
    "more coordinates": lambda c: foreign.recoordinated(c, lambda n, x: [*x[:3], 7.0, n]),
    "a fourth coordinate of another meaning": lambda c: foreign.recoordinated(c, lambda n, x: [*x[:3], 1 + n % 2]),
    "none, but qubits have": lambda c: foreign.without_coordinates(c, qubits_too=False),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("rounds", [2, 4])
def test_other_names_of_time_and_place(name: str, rounds: int) -> None:
    circuit = foreign.generated("z", 3, rounds)
    plain, found = quietly(circuit), quietly(NAMED[name](circuit))
    order = np.arange(circuit.num_detectors)
    if name.startswith("and declared"):
        order = foreign.reordered(circuit, seed=11)[1]
    assert np.array_equal(found.slice_N, plain.slice_N[order])
    assert np.array_equal(found.stabiliser_N, plain.stabiliser_N[order])


@pytest.mark.parametrize("d", [3, 5])
def test_no_coordinates_at_all(d: int) -> None:
    """The ancilla that a detector compares says what belongs together, errors say where it is."""
    circuit = foreign.generated("z", d, 4)
    with pytest.warns(CoordinatesContradicted, match="placed by the errors"):
        found = place(foreign.without_coordinates(circuit, qubits_too=True))
    assert same(found, quietly(circuit))
    with pytest.raises(SyndistillError, match="D0 lacks coordinates"):
        place(foreign.without_coordinates(circuit, qubits_too=True).detector_error_model())


@pytest.mark.parametrize("basis", ["x", "z"])
def test_empty_detectors_where_a_slice_has_none(basis: str) -> None:
    circuit = foreign.generated(basis, 3, 3)
    plain, found = quietly(circuit), quietly(foreign.with_empty_detectors(circuit))
    assert np.array_equal(found.slice_N[8:], plain.slice_N)
    assert np.array_equal(found.stabiliser_N[8:], plain.stabiliser_N)
    off = ~found.layout.on_basis_S(found.basis)[found.stabiliser_N[:8]]
    assert off.all()
    assert sorted(found.slice_N[:8].tolist()) == [0] * 4 + [3] * 4


# Observables as the errors see them.


def records(*data: int, d: int = 3) -> list[int]:
    """Stim's generator reads the data qubits last, column by column."""
    return [k - d * d for k in data]


OBSERVABLES: dict[str, tuple[list[list[int]], list[tuple[int, int]]]] = {
    "any row": ([records(3, 4, 5)], [(1, 0)]),
    "a line times a check": ([records(0, 1, 2, 3, 6)], [(1, 0)]),
    "records named twice": ([records(0, 1, 2) + 2 * records(4, 5)], [(1, 0)]),
    "two lines": ([records(0, 1, 2), records(6, 7, 8)], [(1, 0), (1, 0)]),
    "the product of two lines, which checks know": ([records(0, 1, 2, 3, 4, 5)], [(0, 0)]),
    "nothing that is ever flipped": ([records(0, 1, 2), []], [(1, 0), (0, 0)]),
    "three": ([records(0, 1, 2), records(3, 4, 5), records(0, 1, 2, 6, 7, 8)], [(1, 0), (1, 0), (0, 0)]),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_observables(name: str) -> None:
    observables, holds = OBSERVABLES[name]
    circuit = foreign.observing(foreign.generated("z", 3, 3), *observables)
    placement = quietly(circuit)
    assert [tuple(row) for row in placement.holds_O2.astype(int).tolist()] == holds
    check_observables(circuit, placement)
    assert same(quietly(circuit.detector_error_model()), placement)


def test_both_observables_and_their_product() -> None:
    circuit = Experiment(3, 3, "both", "si1000", 0.004).circuit()
    paulis = [i for i in circuit.flattened() if i.name == "OBSERVABLE_INCLUDE"]
    product = circuit.copy()
    for i in paulis:
        product.append("OBSERVABLE_INCLUDE", i.targets_copy(), 2)
    placement = quietly(circuit)
    assert placement.basis == "both"
    assert placement.holds_O2.tolist() in ([[True, False], [False, True]], [[False, True], [True, False]])
    check_observables(circuit, placement)
    assert placement.holds_O2.sum() == 2


def test_an_observable_that_is_no_logical_operator_is_refused() -> None:
    circuit = foreign.generated("z", 3, 3)
    says = []
    for record in range(-17, -9):  # the last results of the ancillas: half of them are random
        changed = stim.Circuit(str(circuit))
        changed.append("OBSERVABLE_INCLUDE", [stim.target_rec(record)], 0)
        with pytest.raises(SyndistillError) as caught:
            place(changed)
        says.append("observable L0 is" in str(caught.value) or "non-deterministic observables" in str(caught.value))
    assert all(says)


def test_lines_without_a_circuit() -> None:
    layout = place(si1000_memory(3, 1, "z", 0.004)).layout
    assert Placement.of_lines(layout, "z").lines == (0,)
    assert Placement.of_lines(layout, "both", (2, 1)).lines == (2, 1)
    for basis, lines, says in (
        ("y", None, "unknown"),
        ("z", (3,), "0..2"),
        ("both", (0,), "give 2"),
        ("x", ("0",), "0..2"),
    ):
        with pytest.raises(SyndistillError, match=says):
            Placement.of_lines(layout, basis, lines)  # type: ignore[arg-type]
