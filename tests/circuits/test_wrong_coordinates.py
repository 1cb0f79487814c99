"""Coordinates that errors contradict, and what is refused."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import stim

from syndistill.circuits.experiment import si1000_memory, si1000_places
from syndistill.circuits.placement import CoordinatesContradicted, place
from syndistill.errors import SyndistillError

from . import foreign
from .checks import quietly, same

# Coordinates that are wrong: errors are believed, and it is said.


def exchanged(circuit: stim.Circuit, a: list[float], b: list[float], times: list[float] | None = None) -> stim.Circuit:
    """Detectors at place a say b, and the other way round; at some times alone."""

    def other(_: int, c: list[float]) -> list[float]:
        if times is not None and c[2] not in times:
            return c
        return [*(b if c[:2] == a else a if c[:2] == b else c[:2]), *c[2:]]

    return foreign.recoordinated(circuit, other)


@pytest.mark.parametrize("d", [3, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_any_two_exchanged_places_are_put_right(basis: str, d: int) -> None:
    circuit = foreign.generated(basis, d, 4)
    plain = quietly(circuit)
    places = sorted({tuple(c[:2]) for c in circuit.get_detector_coordinates().values()})
    pairs = list(itertools.combinations(places, 2))
    for a, b in pairs if d == 3 else pairs[::40]:
        changed = exchanged(circuit, list(a), list(b))
        with pytest.warns(CoordinatesContradicted):
            assert same(place(changed), plain), (a, b)


def test_exchanged_and_reversed_times_are_put_right() -> None:
    circuit = foreign.generated("z", 3, 5)
    plain = quietly(circuit)
    for a, b in ((1, 3), (0, 2), (2, 5), (0, 5)):
        swap = {a: b, b: a}
        changed = foreign.recoordinated(circuit, lambda _, c, swap=swap: [*c[:2], swap.get(int(c[2]), c[2])])
        if 0 in (a, b) or 5 in (a, b):  # ends lack the off-basis detectors: such times can't be those of any memory
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CoordinatesContradicted)
                try:
                    found = place(changed)
                except SyndistillError:
                    continue
                assert same(found, plain), (a, b)
        else:
            with pytest.warns(CoordinatesContradicted, match="order the slices"):
                assert same(place(changed), plain)


def test_two_detectors_exchanged_in_one_round_are_refused() -> None:
    circuit = foreign.generated("z", 5, 4)
    changed = exchanged(circuit, [2.0, 2.0], [6.0, 6.0], times=[2.0])
    with pytest.raises(SyndistillError, match=r"the errors that set off detector D\d+ at \((2, 2|6, 6), 2\) are not"):
        place(changed)


def test_detectors_turned_against_the_qubits() -> None:
    """Nothing but the observable's qubits would tell; the errors that flip it do."""
    circuit = foreign.generated("z", 3, 4)
    turned = foreign.recoordinated(circuit, lambda _, c: [6 - c[0], 6 - c[1], *c[2:]])
    plain, found = quietly(circuit), quietly(turned)
    assert np.array_equal(found.stabiliser_N, plain.stabiliser_N)
    assert np.array_equal(found.turn_OS, plain.turn_OS)


def test_qubits_in_another_frame_than_the_detectors() -> None:
    circuit = foreign.generated("z", 3, 4)
    assert same(quietly(foreign.recoordinated(circuit, lambda _, c: c, lambda x, y: (-y, 7 * x))), quietly(circuit))


# What is no memory of a rotated code is refused in one line that names a detector.


def refused(source: stim.Circuit | stim.DetectorErrorModel, *says: str) -> None:
    with pytest.raises(SyndistillError) as caught:
        place(source)
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message


def test_other_codes_are_refused() -> None:
    make = stim.Circuit.generated
    noise = {"after_clifford_depolarization": 0.01, "before_measure_flip_probability": 0.01}
    refused(make("surface_code:unrotated_memory_z", distance=3, rounds=3, **noise), "12 places", "D")
    refused(make("surface_code:unrotated_memory_z", distance=5, rounds=1, **noise), "places", "D")
    refused(make("repetition_code:memory", distance=5, rounds=3, **noise), "D0 lacks coordinates (x, y, t)")
    refused(make("color_code:memory_xyz", distance=5, rounds=3, after_clifford_depolarization=0.01), "9 places", "D")
    refused(make("surface_code:rotated_memory_z", distance=4, rounds=3, **noise), "15 places", "D")
    refused(stim.Circuit("M 0"), "no detectors")
    refused(make("surface_code:rotated_memory_z", distance=27, rounds=2, **noise), "distance 27", "up to 25")
    refused(stim.Circuit("DETECTOR(0, 0, 0)"), "at one time")


def edited(circuit: stim.Circuit, which: int, coords: list[float] | None) -> stim.Circuit:
    """The circuit with other coordinates on its detector number `which`, or without it."""
    result, seen = stim.Circuit(), -1
    for i in circuit.flattened():
        seen += i.name == "DETECTOR"
        if i.name == "DETECTOR" and seen == which:
            if coords is not None:
                result.append("DETECTOR", i.targets_copy(), coords)
        else:
            result.append(i)
    return result


@pytest.mark.parametrize("which", [0, 6, 13, 20])
def test_one_bad_detector_is_named(which: int) -> None:
    circuit = si1000_memory(3, 3, "z", 0.004)
    x, y, *rest = circuit.get_detector_coordinates()[which]
    refused(edited(circuit, which, []), f"D{which} lacks coordinates (x, y, t)")
    refused(edited(circuit, which, [x, y]), f"D{which} lacks coordinates (x, y, t)")
    for dx, dy in ((0.25, 0), (0.5, 0.5), (40, 0), (0.001, 0)):
        refused(edited(circuit, which, [x + dx, y + dy, *rest]), f"D{which} at ({x + dx:g}, {y + dy:g}, {rest[0]:g}")


def test_a_stabiliser_that_is_off_the_lattice_is_placed_by_its_errors() -> None:
    circuit = si1000_memory(5, 3, "z", 0.004)
    coords = circuit.get_detector_coordinates()
    off = foreign.recoordinated(circuit, lambda n, c: [1.75, *c[1:]] if c[:2] == [1.5, 1.5] else c)
    member = next(n for n, c in coords.items() if c[:2] == [1.5, 1.5])
    with pytest.warns(CoordinatesContradicted, match=rf"D{member} at \(1.75, 1.5, "):
        assert same(place(off), quietly(circuit))
    silent = foreign.recoordinated(
        si1000_memory(5, 3, "z", 0.0), lambda n, c: [1.75, *c[1:]] if c[:2] == [1.5, 1.5] else c
    )
    refused(silent, "not those of a rotated surface code of distance 5")


def test_duplicate_and_missing_detectors() -> None:
    circuit = si1000_memory(3, 3, "z", 0.004)
    coords = circuit.get_detector_coordinates()
    assert coords[5][2] == coords[6][2] == 1
    refused(edited(circuit, 6, coords[5]), "detectors where others have", "D")
    refused(edited(circuit, 13, None), "detectors where others have", "D")
    refused(edited(circuit, 0, None), "detectors", "D")


def test_a_circuit_without_noise_is_placed_by_its_coordinates() -> None:
    placement = place(si1000_memory(3, 3, "z", 0.0))
    slices, stabilisers = si1000_places(3, 3, "z")
    assert np.array_equal(placement.slice_N, slices)
    assert np.array_equal(placement.stabiliser_N, stabilisers)
    assert placement.fit is None
