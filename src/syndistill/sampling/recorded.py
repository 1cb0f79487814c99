"""Recorded shots of one memory experiment, checked against each other: label, circuits, measurements, events, flips.

They come in the folders in which Google publishes them:

| | Sycamore | Willow |
|---|---|---|
| source | Nature 614, 676 (2023) | Nature 638, 920 (2025) |
| data | 10.5281/zenodo.6804040 | 10.5281/zenodo.13273331 |
| folder | `surface_code_bX_d3_r05_center_3_5/` | `d3_at_q4_5/X/r10/` |
| what it is | properties.yml | metadata.json: basis, rounds, shots, distance, data_qubit_coords |
| circuits | circuit_ideal.stim, circuit_noisy.stim | circuit_ideal.stim, circuit_noisy_si1000.stim |
| bits | measurements, sweep, detection_events, obs_flips_actual | the same, sweep_bits for sweep |
| models | two .dem files | decoding_results/PATHWAY/error_model.dem |

Sycamore's is known from its files. Willow's is known from descriptions of its README and from code that others publish
for it, not from the 5.7 GB of files themselves: names and keys are as there, counts of bits follow from the circuits,
and its labels X and Z are called arbitrary there, as the code is an XZZX one. Bits lie in Stim's formats b8 or 01.

Axes: B shots, N detectors, O observables, K bits of a shot;
`packed` = bits packed 8 to a byte, little-endian (Stim's b8).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os.path import isdir, isfile  # which say no, where a Path's raise for names that are too long
from pathlib import Path
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.files import load_circuit, load_dem
from syndistill.circuits.mechanisms import flips
from syndistill.circuits.memory_basis import memory_basis
from syndistill.circuits.placement import Placement, place
from syndistill.errors import SyndistillError
from syndistill.safe_files import read_json
from syndistill.sampling.stored import StoredShots, dem_of_circuit

IDEAL = "circuit_ideal.stim"
NOISY_CIRCUIT = "circuit"
"""The error model of the recording's noisy circuit; the others were fitted to data."""


SEEN_KEY = "seen"
"""In a network's metadata: of which recordings, by label, how many first shots were learned from or looked at."""


def shots_seen(metadata: Mapping[str, Any]) -> dict[str, int]:
    """What a network's metadata say of SEEN_KEY, and of its own run; earlier versions say the latter alone."""
    said = metadata.get(SEEN_KEY)
    seen = dict(said) if isinstance(said, Mapping) else {}
    run = metadata.get("run")
    data = run.get("data") if isinstance(run, Mapping) else None
    of = data.get("recorded") if isinstance(data, Mapping) else None
    if not isinstance(of, Mapping) or seen:
        return seen
    n_shots = int(of.get("shots", 0)) + int(of.get("dev_shots", 0))
    return {Path(str(folder)).name: n_shots for folder in of.get("folders", [of.get("folder")])}


def most_of_each(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """What networks together have seen, of what each has by label."""
    found: dict[str, int] = {}
    for seen in several:
        found |= {label: max(found.get(label, 0), n_shots) for label, n_shots in seen.items()}
    return found


@dataclass(frozen=True)
class FolderLayout:
    """Names of files. models: of detector error models."""

    properties: str
    noisy: str
    sweep: str
    models: dict[str, str]


_PATHWAY = "decoding_results/correlated_matching_decoder_with_{}_prior/error_model.dem"
SYCAMORE = FolderLayout(
    "properties.yml",
    "circuit_noisy.stim",
    "sweep",
    # "pij": fitted by Google to the correlations of the even-numbered shots
    {NOISY_CIRCUIT: "circuit_detector_error_model.dem", "pij": "pij_from_even_for_odd.dem"},
)
WILLOW = FolderLayout(
    "metadata.json",
    "circuit_noisy_si1000.stim",
    "sweep_bits",
    {NOISY_CIRCUIT: _PATHWAY.format("si1000"), "rl": _PATHWAY.format("rl_optimized")},
)


@dataclass(frozen=True)
class RecordingProperties:
    """What is said of one experiment; `center` is the (row, column) of its central data qubit.

    counts: of circuit_measurements, circuit_sweep_bits, circuit_detectors and circuit_observables, those that are said.
    """

    folder: Path
    distance: int
    rounds: int
    basis: str
    center: tuple[float, float]
    n_shots: int
    files: FolderLayout
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The part of the path that tells experiments apart."""
        parts = self.folder.absolute().parts
        return "/".join(parts[-3:]) if self.files is WILLOW else parts[-1]

    @property
    def path(self) -> Path:
        return self.folder / self.files.properties

    @property
    def noisy_circuit(self) -> Path:
        return self.folder / self.files.noisy

    @classmethod
    def load(cls, folder: str | Path) -> RecordingProperties:
        folder = Path(folder)
        files = WILLOW if not isfile(folder / SYCAMORE.properties) and _is_willow(folder) else SYCAMORE
        said = _Said(folder / files.properties)
        counts = [f"circuit_{what}" for what in ("measurements", "sweep_bits", "detectors", "observables")]
        return cls(
            folder=folder,
            distance=said.number("distance"),
            rounds=said.number("rounds"),
            basis=said.basis(),
            center=said.center(),
            n_shots=said.number("shots"),
            files=files,
            counts={key: said.number(key) for key in counts if key in said.values},
        )

    def bits(self, stem: str, n_bits: int) -> NDArray[np.uint8]:
        """Packed bits of every shot, uint8 (B, ceil(K/8)), from STEM.b8 or STEM.01; both must say the same.

        Raises SyndistillError for a file of another size, for other characters, and where there is none.
        """
        if n_bits == 0:
            return np.zeros((self.n_shots, 0), np.uint8)
        binary, text = self.folder / f"{stem}.b8", self.folder / f"{stem}.01"
        if not self.has_bits(stem):
            raise SyndistillError(
                f"cannot read {binary} or {text.name}: No such file or directory; fetch the folder anew"
            )
        if not text.exists():
            return self._binary(binary, n_bits)
        packed = np.packbits(self._text(text, n_bits), axis=1, bitorder="little")
        if binary.exists() and not np.array_equal(packed, self._binary(binary, n_bits)):
            raise SyndistillError(f"{binary} and {text} differ; delete the wrong one of them")
        return packed

    def has_bits(self, stem: str) -> bool:
        return any((self.folder / f"{stem}.{format}").exists() for format in ("b8", "01"))

    def _binary(self, path: Path, n_bits: int) -> NDArray[np.uint8]:
        packed = self._rows(path, _read_bytes(path), (n_bits + 7) // 8)
        if n_bits % 8 and (packed[:, -1] >> n_bits % 8).any():
            raise SyndistillError(f"{path} has bits set beyond the {n_bits} of a shot; it is of another experiment")
        return packed

    def _text(self, path: Path, n_bits: int) -> NDArray[np.uint8]:
        """0/1 (B, K) from lines of characters 0 and 1, which may end as Windows ends them."""
        lines = self._rows(path, _read_bytes(path).replace(b"\r\n", b"\n"), n_bits + 1)
        bits_BK = lines[:, :-1] - np.uint8(ord("0"))
        if (lines[:, -1] != ord("\n")).any() or (bits_BK > 1).any():
            raise SyndistillError(
                f"{path} is not one line of {n_bits} characters 0 or 1 per shot; fetch the folder anew"
            )
        return bits_BK

    def _rows(self, path: Path, data: bytes, per_shot: int) -> NDArray[np.uint8]:
        expected = self.n_shots * per_shot
        if len(data) != expected:
            raise SyndistillError(
                f"{path} has {len(data)} bytes ({len(data) / per_shot:g} shots), expected {expected} ({self.n_shots} "
                f"shots of {per_shot} bytes, {self.path.name} says); it is truncated or of another experiment"
            )
        return np.frombuffer(data, np.uint8).reshape(self.n_shots, per_shot)


class _Said:
    """The values of properties.yml (lines `key: value`) or of metadata.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = _json(path) if path.name == WILLOW.properties else _yaml(path)

    def number(self, key: str) -> int:
        value = self.values.get(key, "missing")
        if not (isinstance(value, str | int) and not isinstance(value, bool) and str(value).isdecimal()):
            raise SyndistillError(f"{self.path}: {key} is {value!r}, expected a whole number")
        if len(str(value)) > 9:
            raise SyndistillError(f"{self.path}: {key} is larger than any recording's; mend it")
        return int(value)

    def basis(self) -> str:
        basis = str(self.values.get("basis", "missing")).lower()
        if basis not in ("x", "z"):
            raise SyndistillError(f"{self.path}: basis is {basis!r}, expected X or Z")
        return basis

    def center(self) -> tuple[float, float]:
        if self.path.name == SYCAMORE.properties:
            return self.number("center_data_qubit_row"), self.number("center_data_qubit_col")
        try:
            points = np.array(self.values["data_qubit_coords"], float)
            row, col = points.mean(axis=0).tolist()
        except (KeyError, TypeError, ValueError):
            raise SyndistillError(f"{self.path}: data_qubit_coords is no list of (row, column); mend it") from None
        return row, col


def _yaml(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SyndistillError(
            f"cannot read {path} ({error.strerror}); give the folder of one recorded experiment"
        ) from None
    except UnicodeDecodeError:
        raise SyndistillError(f"{path} is no text; give the folder of one recorded experiment") from None
    pairs = (line.partition("#")[0].partition(":") for line in lines)
    return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}


def _json(path: Path) -> dict[str, Any]:
    values = read_json(path, "give the folder of one recorded experiment")
    if not isinstance(values, dict):
        raise SyndistillError(f"{path} is no JSON object; give the folder of one recorded experiment")
    return values


def _is_willow(folder: Path) -> bool:
    """metadata.json alone would be too common a name."""
    return isfile(folder / WILLOW.properties) and isfile(folder / IDEAL)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {error.strerror}; fetch the folder anew") from None


def find_recordings(
    folder: str | Path, distance: int | None = None, basis: str | None = None
) -> list[RecordingProperties]:
    """Every experiment in `folder`: itself, right under it, or as Willow's lie; by distance, basis, centre and rounds.

    Raises SyndistillError where there is none of that distance and basis ("x" or "z").
    """
    found: list[Path] = []
    if isdir(folder):
        found += [path.parent for depth in ("", "*/") for path in Path(folder).glob(f"{depth}{SYCAMORE.properties}")]
        for depth in ("", "*/", "*/*/", "*/*/*/"):  # its root holds patches, which hold bases, which hold rounds
            found += [p.parent for p in Path(folder).glob(f"{depth}{WILLOW.properties}") if _is_willow(p.parent)]
    experiments = [RecordingProperties.load(one) for one in dict.fromkeys(found)]
    chosen = [e for e in experiments if distance in (None, e.distance) and basis in (None, e.basis)]
    if not chosen:
        wanted = "".join(f" of {k} {v}" for k, v in (("distance", distance), ("basis", basis)) if v is not None)
        raise SyndistillError(
            f"{folder} holds no recorded experiment{wanted} ({len(experiments)} in all); check the path"
        )
    return sorted(chosen, key=lambda e: (e.distance, e.basis, e.center, e.rounds))


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
        """Reads a folder of either layout and checks that its files are of one experiment.

        Raises SyndistillError where distance, rounds, basis or centre are not the circuit's, the circuits differ in
        more than noise, a file has another size, or events and flips do not follow from the measurements. Warns of
        detectors that fire at random.
        """
        properties = RecordingProperties.load(folder)
        circuit = load_circuit(properties.noisy_circuit)
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
        if name == NOISY_CIRCUIT and not path.exists():
            return dem_of_circuit(self.circuit)
        dem = load_dem(path)
        _check_counts(self.properties, self.properties.files.models[name], dem, self.circuit)
        if (stranger := _other_place(dem, self.circuit)) is not None:
            raise SyndistillError(
                f"{path} has detector D{stranger} at another place than {self.properties.files.noisy}; they are of "
                "different experiments"
            )
        return dem

    def stored_shots(self, dem: str = NOISY_CIRCUIT) -> StoredShots:
        """The shots as decoders take them, with one of the models."""
        return StoredShots(self.circuit, self.dem(dem), self.detectors_packed, self.observables_packed)

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
