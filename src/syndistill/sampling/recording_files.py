"""The folders in which Google publishes recorded memory experiments: what lies there under which name, and its bits.

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

Axes: B shots, K bits of a shot; `packed` = bits packed 8 to a byte, little-endian (Stim's b8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os.path import isdir, isfile  # which say no, where a Path's raise for names that are too long
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.safe_files import read_json

IDEAL = "circuit_ideal.stim"


@dataclass(frozen=True)
class FolderLayout:
    """Names of files. models: of detector error models; "circuit" is that of the noisy circuit."""

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
    {"circuit": "circuit_detector_error_model.dem", "pij": "pij_from_even_for_odd.dem"},
)
WILLOW = FolderLayout(
    "metadata.json",
    "circuit_noisy_si1000.stim",
    "sweep_bits",
    {"circuit": _PATHWAY.format("si1000"), "rl": _PATHWAY.format("rl_optimized")},
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
