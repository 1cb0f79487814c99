"""Recorded shots in the folder layout of Google's Sycamore surface-code experiment.

Source: Google Quantum AI, Nature 614, 676 (2023), data DOI 10.5281/zenodo.6804040. A folder holds one experiment:
properties.yml, circuit_ideal.stim, circuit_noisy.stim, two detector error models, obs_flips_actual.01, and
detection_events.b8, or measurements.b8 with sweep.b8, or all three.

Axes: B shots, N detectors, O observables; `packed` = bits packed 8 to a byte, little-endian (Stim's b8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.files import load_circuit, load_dem
from syndistill.circuits.placement import Placement, place_circuit
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

# "pij": fitted by Google to the correlations of the even-numbered shots; "circuit": from the noisy circuit.
DEM_FILES = {"pij": "pij_from_even_for_odd.dem", "circuit": "circuit_detector_error_model.dem"}


@dataclass(frozen=True)
class RecordingProperties:
    """What properties.yml says of one experiment; `center` is the (row, column) of its central data qubit."""

    folder: Path
    distance: int
    rounds: int
    basis: str
    center: tuple[int, int]
    n_shots: int
    n_measurements: int
    n_sweep_bits: int
    n_detectors: int
    n_observables: int

    @classmethod
    def load(cls, folder: str | Path) -> RecordingProperties:
        folder = Path(folder)
        path = folder / "properties.yml"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SyndistillError(
                f"cannot read {path} ({type(error).__name__}); give the folder of one recorded experiment"
            ) from None
        values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

        def number(key: str) -> int:
            if not values.get(key, "").isdecimal():
                raise SyndistillError(f"{path}: {key} is {values.get(key, 'missing')!r}, expected a whole number")
            return int(values[key])

        basis = values.get("basis", "missing").lower()
        if basis not in ("x", "z"):
            raise SyndistillError(f"{path}: basis is {basis!r}, expected X or Z")
        return cls(
            folder=folder,
            distance=number("distance"),
            rounds=number("rounds"),
            basis=basis,
            center=(number("center_data_qubit_row"), number("center_data_qubit_col")),
            n_shots=number("shots"),
            n_measurements=number("circuit_measurements"),
            n_sweep_bits=number("circuit_sweep_bits"),
            n_detectors=number("circuit_detectors"),
            n_observables=number("circuit_observables"),
        )


def find_recordings(
    folder: str | Path, distance: int | None = None, basis: str | None = None
) -> list[RecordingProperties]:
    """Every experiment right under `folder` (or `folder` itself), by distance, basis, centre and rounds.

    Raises SyndistillError where there is none of that distance and basis ("x" or "z").
    """
    found = [RecordingProperties.load(p.parent) for p in Path(folder).glob("properties.yml")]
    found += [RecordingProperties.load(p.parent) for p in Path(folder).glob("*/properties.yml")]
    chosen = [f for f in found if distance in (None, f.distance) and basis in (None, f.basis)]
    if not chosen:
        wanted = "".join(f" of {k} {v}" for k, v in (("distance", distance), ("basis", basis)) if v is not None)
        raise SyndistillError(f"{folder} holds no recorded experiment{wanted} ({len(found)} in all); check the path")
    return sorted(chosen, key=lambda f: (f.distance, f.basis, f.center, f.rounds))


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
        """Reads and checks one folder: sizes, and that events and flips follow from the measurements if given."""
        properties = RecordingProperties.load(folder)
        circuit = load_circuit(properties.folder / "circuit_noisy.stim")
        _check_counts(properties, "circuit_noisy.stim", circuit.num_detectors, circuit.num_observables)
        flips_packed = np.packbits(_read_01(properties), axis=1, bitorder="little")
        events_path = properties.folder / "detection_events.b8"
        if (properties.folder / "measurements.b8").exists():
            events_packed, from_measurements = _convert_measurements(properties)
            if events_path.exists() and not np.array_equal(_read_events(properties), events_packed):
                raise SyndistillError(
                    f"{events_path} is not what measurements.b8 and sweep.b8 give; delete the wrong one of them"
                )
            if not np.array_equal(from_measurements, flips_packed):
                raise SyndistillError(
                    f"{properties.folder}: obs_flips_actual.01 is not what measurements.b8 and sweep.b8 give; "
                    "fetch the folder anew"
                )
        else:
            events_packed = _read_events(properties)
        return cls(properties, circuit, events_packed, flips_packed)

    def __len__(self) -> int:
        return len(self.detectors_packed)

    @cached_property
    def placement(self) -> Placement:
        """The detectors in the canonical layout. The circuit is ZXXZ: only properties.yml knows its basis."""
        return place_circuit(self.circuit, self.properties.basis)

    def dem(self, name: str) -> stim.DetectorErrorModel:
        """The model "pij" (fitted to even shots) or "circuit" (from the noisy circuit)."""
        if name not in DEM_FILES:
            raise SyndistillError(f"detector error model {name!r} is unknown; pick one of {', '.join(DEM_FILES)}")
        dem = load_dem(self.properties.folder / DEM_FILES[name])
        _check_counts(self.properties, DEM_FILES[name], dem.num_detectors, dem.num_observables)
        return dem

    def stored_shots(self, dem: str = "pij") -> StoredShots:
        """The shots as decoders take them, with one of the two models."""
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


def _check_counts(properties: RecordingProperties, name: str, detectors: int, observables: int) -> None:
    if (detectors, observables) != (properties.n_detectors, properties.n_observables):
        raise SyndistillError(
            f"{properties.folder / name} has {detectors} detectors and {observables} observables where properties.yml "
            f"says {properties.n_detectors} and {properties.n_observables}; they are of different experiments"
        )


def _read_bytes(properties: RecordingProperties, name: str, bytes_per_shot: int) -> NDArray[np.uint8]:
    """uint8 (B, bytes per shot); a file of any other size is refused."""
    path = properties.folder / name
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {error.strerror}; fetch the folder anew") from None
    expected = properties.n_shots * bytes_per_shot
    if len(data) != expected:
        raise SyndistillError(
            f"{path} has {len(data)} bytes ({len(data) / bytes_per_shot:g} shots), expected {expected} "
            f"({properties.n_shots} shots of {bytes_per_shot} bytes); it is truncated or of another experiment"
        )
    return data.reshape(properties.n_shots, bytes_per_shot)


def _read_events(properties: RecordingProperties) -> NDArray[np.uint8]:
    return _read_bytes(properties, "detection_events.b8", (properties.n_detectors + 7) // 8)


def _read_01(properties: RecordingProperties) -> NDArray[np.uint8]:
    """Observable flips, uint8 0/1 (B, O), from lines of characters 0 and 1."""
    lines = _read_bytes(properties, "obs_flips_actual.01", properties.n_observables + 1)
    flips_BO = lines[:, :-1] - np.uint8(ord("0"))
    if (lines[:, -1] != ord("\n")).any() or (flips_BO > 1).any():
        raise SyndistillError(
            f"{properties.folder / 'obs_flips_actual.01'} is not one line of {properties.n_observables} characters "
            "0 or 1 per shot; fetch the folder anew"
        )
    return flips_BO


def _convert_measurements(properties: RecordingProperties) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Packed detection events and observable flips computed from measurements and initial states."""
    ideal = load_circuit(properties.folder / "circuit_ideal.stim")
    _check_counts(properties, "circuit_ideal.stim", ideal.num_detectors, ideal.num_observables)
    if (ideal.num_measurements, ideal.num_sweep_bits) != (properties.n_measurements, properties.n_sweep_bits):
        raise SyndistillError(
            f"{properties.folder / 'circuit_ideal.stim'} has {ideal.num_measurements} measurements and "
            f"{ideal.num_sweep_bits} sweep bits where properties.yml says {properties.n_measurements} and "
            f"{properties.n_sweep_bits}; they are of different experiments"
        )
    measurements = _read_bytes(properties, "measurements.b8", (properties.n_measurements + 7) // 8)
    sweep = _read_bytes(properties, "sweep.b8", (properties.n_sweep_bits + 7) // 8)
    events_packed, flips_packed = ideal.compile_m2d_converter().convert(
        measurements=measurements,
        sweep_bits=sweep,
        separate_observables=True,
        bit_packed=True,
    )
    return events_packed, flips_packed
