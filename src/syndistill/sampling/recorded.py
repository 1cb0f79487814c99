"""Recorded shots of one memory experiment, checked against each other: label, circuits, measurements, events, flips.

Axes: B shots, N detectors, O observables; `packed` = bits packed 8 to a byte, little-endian (Stim's b8).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.files import load_circuit, load_dem
from syndistill.circuits.mechanisms import flips
from syndistill.circuits.memory_basis import memory_basis
from syndistill.circuits.placement import Placement, place
from syndistill.errors import SyndistillError
from syndistill.sampling.recording_files import IDEAL, SYCAMORE, RecordingProperties
from syndistill.sampling.stored import StoredShots, dem_of_circuit

FIRES_AT_RANDOM, SHOULD_NOT = 0.4, 0.25
"""A detector that fires more often than the one where the model says less than the other; the Sycamore recordings' fire
.73 to 1.38 times as often as their circuits say, at most in 23 % of the shots."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Shots of one recorded experiment, or a part of them.

    circuit: the noisy circuit. detectors_packed uint8 (B, ceil(N/8)); observables_packed uint8 (B, ceil(O/8)).
    """

    properties: RecordingProperties
    circuit: stim.Circuit
    detectors_packed: NDArray[np.uint8]
    observables_packed: NDArray[np.uint8]

    @classmethod
    def load(cls, folder: str | Path) -> Recording:
        """Reads a folder of either layout (`recording_files`) and checks that its files are of one experiment.

        Raises SyndistillError where distance, rounds, basis or centre are not the circuit's, the circuits differ in
        more than noise, a file has another size, or events and flips do not follow from the measurements. Warns of
        detectors that fire at random.
        """
        properties = RecordingProperties.load(folder)
        circuit = load_circuit(properties.folder / properties.files.noisy)
        _check_counts(properties, properties.files.noisy, circuit)
        _check_label(properties, circuit)
        flips_packed = properties.bits("obs_flips_actual", circuit.num_observables)
        if properties.has_bits("measurements"):
            events_packed, from_measurements = _convert_measurements(properties, circuit)
            if properties.has_bits("detection_events"):
                given_packed = properties.bits("detection_events", circuit.num_detectors)
                _require_same(properties, "detection_events", given_packed, events_packed)
            _require_same(properties, "obs_flips_actual", flips_packed, from_measurements)
        else:
            events_packed = properties.bits("detection_events", circuit.num_detectors)
        recording = cls(properties, circuit, events_packed, flips_packed)
        recording._warn_of_randomness()
        return recording

    def __len__(self) -> int:
        return len(self.detectors_packed)

    @cached_property
    def placement(self) -> Placement:
        """The detectors in the canonical layout."""
        return place(self.circuit)

    @property
    def models(self) -> list[str]:
        """The names that `dem` knows."""
        return list(self.properties.files.models)

    def dem(self, name: str) -> stim.DetectorErrorModel:
        """The model of that name, "circuit" (of the noisy circuit, whose file may be missing) or one fitted to data."""
        if name not in self.models:
            raise SyndistillError(f"detector error model {name!r} is unknown; pick one of {', '.join(self.models)}")
        path = self.properties.folder / self.properties.files.models[name]
        if name == "circuit" and not path.exists():
            return dem_of_circuit(self.circuit)
        dem = load_dem(path)
        _check_counts(self.properties, self.properties.files.models[name], dem, self.circuit)
        if (stranger := _other_place(dem, self.circuit)) is not None:
            raise SyndistillError(
                f"{path} has detector D{stranger} at another place than {self.properties.files.noisy}; they are of "
                "different experiments"
            )
        return dem

    def stored_shots(self, dem: str = "circuit") -> StoredShots:
        """The shots as decoders take them, with one of the models."""
        return StoredShots(self.circuit, self.dem(dem), self.detectors_packed, self.observables_packed)

    def take(self, rows: slice | NDArray[np.integer]) -> Recording:
        """The chosen shots."""
        return replace(
            self, detectors_packed=self.detectors_packed[rows], observables_packed=self.observables_packed[rows]
        )

    def split_even_odd(self) -> tuple[Recording, Recording]:
        """Shots at even and at odd positions of these files.

        The field fits on even and reports on odd shots of the *original* files. Files that kept the even-numbered
        shots only split into original shots 0, 4, 8, ... and 2, 6, 10, ...: the p_ij model has seen both parts.
        """
        return self.take(slice(0, None, 2)), self.take(slice(1, None, 2))

    def split_fit_dev(self, n_dev: int) -> tuple[Recording, Recording]:
        """(fit, dev): `n_dev` shots spread evenly over the recording, so that both see the same drift."""
        n = len(self)
        if not 0 < n_dev < n:
            raise SyndistillError(f"cannot keep {n_dev} of {n} shots for development; take 1 to {n - 1}")
        dev_rows = np.arange(n_dev) * n // n_dev
        return self.take(np.setdiff1d(np.arange(n), dev_rows)), self.take(dev_rows)

    def _warn_of_randomness(self) -> None:
        n = len(self)
        if n == 0:
            return
        n_detectors = self.circuit.num_detectors
        seen_N = np.zeros(n_detectors)
        for start in range(0, n, 4096):
            part = self.detectors_packed[start : start + 4096]
            seen_N += np.unpackbits(part, axis=1, bitorder="little", count=n_detectors).sum(axis=0)
        suspects = np.flatnonzero(seen_N / n > FIRES_AT_RANDOM)
        if len(suspects) == 0:
            return
        expected_N = _event_rates(dem_of_circuit(self.circuit))
        suspects = suspects[expected_N[suspects] < SHOULD_NOT]
        sure = (seen_N[suspects] / n - expected_N[suspects]) * np.sqrt(n) > 3.0  # 6 deviations, of at most .5 a shot
        if sure.any():
            first = suspects[sure][0]
            warnings.warn(
                f"{self.properties.folder}: {sure.sum()} of {n_detectors} detectors fire nearly at random, D{first} in "
                f"{seen_N[first] / n:.0%} of the shots where the circuit's noise says {expected_N[first]:.0%}; shots "
                "or initial states may be of another experiment",
                stacklevel=3,
            )


def _require_same(
    properties: RecordingProperties, stem: str, given: NDArray[np.uint8], computed: NDArray[np.uint8]
) -> None:
    if not np.array_equal(given, computed):
        raise SyndistillError(
            f"{properties.folder / stem} is not what measurements and {properties.files.sweep} give; delete the wrong "
            "one of them, or fetch the folder anew"
        )


def _event_rates(dem: stim.DetectorErrorModel) -> NDArray[np.float64]:
    """How often each detector fires, (N,)."""
    bias_N = np.ones(dem.num_detectors)
    for p, detectors, _ in flips(dem):
        bias_N[list(detectors)] *= 1 - 2 * p
    return (1 - bias_N) / 2


def _check_counts(
    properties: RecordingProperties,
    name: str,
    found: stim.Circuit | stim.DetectorErrorModel,
    circuit: stim.Circuit | None = None,
) -> None:
    """Against what properties.yml says, and against the noisy circuit."""
    path, said = properties.folder / name, properties.counts
    has = {"circuit_detectors": found.num_detectors, "circuit_observables": found.num_observables}
    if isinstance(found, stim.Circuit):
        has |= {"circuit_measurements": found.num_measurements}
        if name == IDEAL:  # noise models may leave the choice of initial states out
            has |= {"circuit_sweep_bits": found.num_sweep_bits}
    for key, value in has.items():
        if key in said and value != said[key]:
            raise SyndistillError(
                f"{path} has {value} {key.removeprefix('circuit_').replace('_', ' ')} where {properties.path.name} "
                f"says {said[key]}; they are of different experiments"
            )
    if circuit is None:
        return
    here, there = ((one.num_detectors, one.num_observables) for one in (found, circuit))
    if here != there:
        raise SyndistillError(
            f"{path} has {here[0]} detectors and {here[1]} observables where {properties.files.noisy} has {there[0]} "
            f"and {there[1]}; they are of different experiments"
        )


def _other_place(dem: stim.DetectorErrorModel, circuit: stim.Circuit) -> int | None:
    """The first detector whose coordinates, where both say them, differ."""
    of_circuit = circuit.get_detector_coordinates()
    for detector, said in dem.get_detector_coordinates().items():
        both = list(zip(said, of_circuit.get(detector, []), strict=False))
        if any(abs(a - b) > 0.01 for a, b in both):
            return detector
    return None


def _check_label(properties: RecordingProperties, circuit: stim.Circuit) -> None:
    """Distance, rounds, centre and basis as properties.yml says them."""
    detectors = properties.rounds * (properties.distance**2 - 1)
    measurements = detectors + properties.distance**2
    if (circuit.num_detectors, circuit.num_measurements) != (detectors, measurements):
        raise SyndistillError(
            f"{properties.path} says distance {properties.distance} and {properties.rounds} rounds, which take "
            f"{detectors} detectors and {measurements} measurements, and {properties.files.noisy} has "
            f"{circuit.num_detectors} and {circuit.num_measurements}; they are of different experiments"
        )
    coords = circuit.get_detector_coordinates()
    places = {tuple(c[:2]) for c in coords.values() if len(c) >= 2}
    if places:  # symmetric about the centre
        center = tuple(float(x) for x in np.mean(sorted(places), axis=0))
        if np.abs(np.subtract(center, properties.center)).max() > 0.01:
            raise SyndistillError(
                f"{properties.path} says centre ({properties.center[0]:g}, {properties.center[1]:g}), the detectors of "
                f"{properties.files.noisy} lie about ({center[0]:g}, {center[1]:g}); they are of different experiments"
            )
    basis = memory_basis(circuit) or (_sycamore_basis(coords) if properties.files is SYCAMORE else None)
    if basis not in (None, properties.basis):
        raise SyndistillError(
            f"{properties.path} says basis {properties.basis.upper()}, {properties.files.noisy} is a memory of basis "
            f"{str(basis).upper()}; mend the label, or fetch the folder anew"
        )


def _sycamore_basis(coords: dict[int, list[float]]) -> str | None:
    """Of the chip's ZXXZ circuits, which are the same for X and Z but for where their checks sit.

    Checks of type X are at (odd row, even column), of type Z at (even, odd), in all 65 recordings in X here and in a
    circuit in Z; a memory's first slice has those of its basis.
    """
    start = min(c[2] for c in coords.values() if len(c) >= 3) if coords else 0
    parities = {(c[0] % 2, c[1] % 2) for c in coords.values() if len(c) == 3 and c[2] == start}
    if len(parities) != 1:
        return None
    return {(1.0, 0.0): "x", (0.0, 1.0): "z"}.get(parities.pop())


def _convert_measurements(
    properties: RecordingProperties, circuit: stim.Circuit
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Packed detection events and observable flips computed from measurements and initial states."""
    ideal = load_circuit(properties.folder / IDEAL)
    _check_counts(properties, IDEAL, ideal, circuit)
    if _annotations(ideal) != _annotations(circuit):
        raise SyndistillError(
            f"{properties.folder / IDEAL} and {properties.files.noisy} differ in their detectors or observables; they "
            "are of different experiments"
        )
    measurements = properties.bits("measurements", ideal.num_measurements)
    sweep = properties.bits(properties.files.sweep, ideal.num_sweep_bits)
    events_packed, flips_packed = ideal.compile_m2d_converter().convert(
        measurements=measurements,
        sweep_bits=sweep if ideal.num_sweep_bits else None,
        separate_observables=True,
        bit_packed=True,
    )
    return events_packed, flips_packed


def _annotations(circuit: stim.Circuit) -> list[tuple[str, tuple[float, ...], frozenset[int]]]:
    """Detectors with their coordinates, and observables, as sets of measurements."""
    found, measured = [], 0
    for instruction in circuit.flattened():
        if instruction.name in ("DETECTOR", "OBSERVABLE_INCLUDE"):
            records = frozenset(measured + target.value for target in instruction.targets_copy())
            found.append((instruction.name, tuple(instruction.gate_args_copy()), records))
        else:
            measured += instruction.num_measurements
    return found
