"""Stored shots: bit-packed detection events and observable flips with a content hash.

Stim seeds do not reproduce across versions or SIMD widths, so shots that are judged on are kept, packed and hashed.

Legend: B shots, N detectors, O observables; `packed` = bits packed 8 to a byte, little-endian, rows padded with zeros
(Stim's `b8`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.safe_files import replacing

FORMAT = 1
EVALUATION_SEED_START = 1 << 62
"""Stim seeds of evaluation shots lie in [2^62, 2^63); streams of training shots must stay below."""


def evaluation_seed(seed: int, batch: int, shots: int) -> int:
    """The Stim seed of one batch of evaluation shots.

    The size of the batch is part of it: Stim draws the same first shots for two sizes under one seed, and such batches
    would be counted twice when rows are added up.
    """
    if min(seed, batch, shots) < 0:
        raise SyndistillError(f"negative seed, batch or shots ({seed}, {batch}, {shots}): take integers >= 0")
    word = int(np.random.SeedSequence([seed, batch, shots]).generate_state(1, np.uint64)[0])
    return EVALUATION_SEED_START + word % EVALUATION_SEED_START


def dem_of_circuit(circuit: stim.Circuit) -> stim.DetectorErrorModel:
    """The detector error model all decoders are given: decomposed into graph-like parts, as sinter makes it.

    Exact for channels that are independent mechanisms (depolarising, X, Z, measurement flips); a general Pauli channel
    is approximated (`approximate_disjoint_errors`), which is sinter's default too.  An error that has no graph-like
    parts stays whole: decoders that need such parts refuse it, others take it.
    """
    try:
        return circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    except ValueError:
        pass
    try:
        return circuit.detector_error_model(
            decompose_errors=True, approximate_disjoint_errors=True, ignore_decomposition_failures=True
        )
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise SyndistillError(
            f"Stim finds no detector error model of the circuit ({reason}): give a circuit with deterministic detectors"
        ) from error


def _check_packed(packed: NDArray[np.uint8], n_bits: int, what: str) -> None:
    n_bytes = (n_bits + 7) // 8
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != n_bytes:
        raise SyndistillError(
            f"{what}: expected uint8 of shape (shots, {n_bytes}) for {n_bits} bits a shot, "
            f"found {packed.dtype} of shape {packed.shape}: give little-endian bits that belong to the model"
        )
    if n_bits % 8 and bool((packed[:, -1] >> (n_bits % 8)).any()):
        raise SyndistillError(
            f"{what}: bits set beyond the {n_bits} of a shot: pack little-endian, or give the right model"
        )


def _pack(bits: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.packbits(bits.astype(bool), axis=1, bitorder="little")


def _unpack(packed: NDArray[np.uint8], n_bits: int) -> NDArray[np.bool_]:
    return np.unpackbits(packed, axis=1, bitorder="little", count=n_bits).astype(bool)


@dataclass(frozen=True, eq=False)
class StoredShots:
    """Shots of one detector error model.

    `circuit` is None for shots that come with a model only.  `detectors_packed` (B, ceil(N/8)) and
    `observables_packed` (B, ceil(O/8)), uint8, become read-only.
    """

    circuit: stim.Circuit | None
    dem: stim.DetectorErrorModel
    detectors_packed: NDArray[np.uint8]
    observables_packed: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _check_packed(self.detectors_packed, self.n_detectors, "detection events")
        _check_packed(self.observables_packed, self.n_observables, "observable flips")
        if len(self.detectors_packed) != len(self.observables_packed):
            raise SyndistillError(
                f"{len(self.detectors_packed)} shots of detection events but {len(self.observables_packed)} of "
                "observable flips: one of the two is truncated"
            )
        for name in ("detectors_packed", "observables_packed"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def n_shots(self) -> int:
        return len(self.detectors_packed)

    @cached_property
    def n_detectors(self) -> int:
        return self.dem.num_detectors

    @cached_property
    def n_observables(self) -> int:
        return self.dem.num_observables

    @cached_property
    def sha256(self) -> str:
        """Content hash over the text of the detector error model and both arrays."""
        digest = hashlib.sha256(f"syndistill shots {FORMAT}\n{self.n_shots}\n{self.dem}\n".encode())
        digest.update(self.detectors_packed.tobytes())
        digest.update(self.observables_packed.tobytes())
        return digest.hexdigest()

    def detectors(self) -> NDArray[np.bool_]:
        """Detection events (B, N), in Stim's detector order."""
        return _unpack(self.detectors_packed, self.n_detectors)

    def observables(self) -> NDArray[np.bool_]:
        """Observable flips (B, O)."""
        return _unpack(self.observables_packed, self.n_observables)

    def take(self, start: int, stop: int) -> StoredShots:
        """The shots start..stop-1, as views."""
        if not 0 <= start <= stop <= self.n_shots:
            raise SyndistillError(
                f"no shots {start}..{stop} among {self.n_shots}: take 0 <= start <= stop <= {self.n_shots}"
            )
        rows = slice(start, stop)
        return StoredShots(self.circuit, self.dem, self.detectors_packed[rows], self.observables_packed[rows])

    @classmethod
    def sample(
        cls,
        circuit: stim.Circuit | stim.DetectorErrorModel,
        shots: int,
        seed: int,
        dem: stim.DetectorErrorModel | None = None,
    ) -> StoredShots:
        """Samples a circuit, or an error model alone.

        The seed goes to Stim as it is: use `evaluation_seed` for shots to be judged on.  `dem` is `dem_of_circuit`'s
        answer where the caller has it already.
        """
        if shots < 0 or not 0 <= seed < 1 << 63:
            raise SyndistillError(f"cannot sample {shots} shots with seed {seed}: take shots >= 0, seed in [0, 2^63)")
        if circuit.num_detectors == 0 or circuit.num_observables == 0:
            raise SyndistillError("the circuit has no DETECTOR or no OBSERVABLE_INCLUDE, nothing to decode: add them")
        if isinstance(circuit, stim.DetectorErrorModel):
            detectors, observables, _ = circuit.compile_sampler(seed=seed).sample(shots, bit_packed=True)
            return cls(None, circuit, detectors, observables)
        detectors, observables = circuit.compile_detector_sampler(seed=seed).sample(
            shots, separate_observables=True, bit_packed=True
        )
        return cls(circuit, dem_of_circuit(circuit) if dem is None else dem, detectors, observables)

    @classmethod
    def from_bits(
        cls,
        detectors_BN: NDArray[np.bool_],
        observables_BO: NDArray[np.bool_],
        dem: stim.DetectorErrorModel,
    ) -> StoredShots:
        """Packs unpacked bits (B, N) and (B, O), as recorded shots come."""
        for bits, n_bits, what in (
            (detectors_BN, dem.num_detectors, "detection events"),
            (observables_BO, dem.num_observables, "observable flips"),
        ):
            if bits.ndim != 2 or bits.shape[1] != n_bits:
                raise SyndistillError(
                    f"{what} have shape {bits.shape}, the detector error model has {n_bits} a shot: "
                    "give the model that belongs to these shots"
                )
        return cls(None, dem, _pack(detectors_BN), _pack(observables_BO))

    def save(self, path: str | Path) -> None:
        """Writes an .npz file (atomically).  An existing file is refused, never overwritten."""
        path = Path(path)
        if path.exists():
            raise SyndistillError(f"{path} exists: delete it or choose another name")
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array(FORMAT),
                circuit=np.array("" if self.circuit is None else str(self.circuit)),
                dem=np.array(str(self.dem)),
                detectors_packed=self.detectors_packed,
                observables_packed=self.observables_packed,
                sha256=np.array(self.sha256),
            )

    @classmethod
    def load(cls, path: str | Path) -> StoredShots:
        """Reads what `save` wrote and verifies its hash."""
        try:
            # opened here: np.load leaves its own file open when the content is damaged
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            if int(found["format"]) != FORMAT:
                raise SyndistillError(
                    f"{path} has format {int(found['format'])}, this version reads {FORMAT}: write the shots again"
                )
            text = str(found["circuit"])
            shots = cls(
                stim.Circuit(text) if text else None,
                stim.DetectorErrorModel(str(found["dem"])),
                found["detectors_packed"],
                found["observables_packed"],
            )
            stored_hash = str(found["sha256"])
        except FileNotFoundError as error:
            raise SyndistillError(f"{path} does not exist: give the path of stored shots") from error
        except SyndistillError:
            raise
        except Exception as error:  # zipfile, zlib, NumPy and Stim raise a dozen kinds for bytes that are not theirs
            raise SyndistillError(
                f"{path} is truncated or holds no stored shots ({type(error).__name__}): fetch or sample them again"
            ) from error
        if shots.sha256 != stored_hash:
            raise SyndistillError(
                f"{path}: content hash {shots.sha256[:12]} differs from the stored {stored_hash[:12]}: "
                "the shots were altered, fetch or sample them again"
            )
        return shots
