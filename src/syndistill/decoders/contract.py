"""What everything that decodes has in common.

Legend: B shots, O observables.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


class Decoder(ABC):
    """Turns shots into the probability that each observable flipped.

    A decoder is made for one detector error model (`registry.build_decoder`).

    Attributes:
        name: what tables show.
        n_parameters: trained parameters, None where the notion does not apply (matching, tables).
        gives_probabilities: False for hard decoders, whose "probabilities" are 0.0 and 1.0; calibration is measured
            only where this is True.
        n_detectors, n_observables: of the model it was made for.
        content_id: hex hash of what decides its answers: algorithm, version, settings and error model, or weights.
    """

    name: str
    n_parameters: int | None = None
    gives_probabilities: bool = False
    n_detectors: int
    n_observables: int
    content_id: str

    def decode(self, shots: StoredShots) -> NDArray[np.float64]:
        """Probability that each observable flipped, float64 (B, O) in [0, 1]; the same for the same shots.

        Raises SyndistillError when the shots' detectors or observables are not those the decoder was made for.
        """
        if (shots.n_detectors, shots.n_observables) != (self.n_detectors, self.n_observables):
            raise SyndistillError(
                f"decoder {self.name} is made for {self.n_detectors} detectors and {self.n_observables} observables, "
                f"the shots have {shots.n_detectors} and {shots.n_observables}: build it for these shots' error model"
            )
        if shots.n_shots == 0:
            return np.zeros((0, self.n_observables))
        return self._probabilities(shots)

    @abstractmethod
    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        """`decode` for at least one shot whose shape is known to fit."""


def decisions(probabilities_BO: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The decision on each observable: flipped where the probability is above 1/2 (a tie is "not flipped")."""
    return probabilities_BO > 0.5


def reference_id(algorithm: str, version: str, settings: str, dem: stim.DetectorErrorModel) -> str:
    """`content_id` of a decoder without weights.

    The error model belongs to it: matching on a device's p_ij model and on its circuit's model are two decoders.
    """
    return hashlib.sha256(f"{algorithm}\n{version}\n{settings}\n{dem}".encode()).hexdigest()


def require_graphlike(dem: stim.DetectorErrorModel, name: str) -> None:
    """Refuses a model with a component of more than two detectors.

    PyMatching drops such an error without a word, which would make it look worse than it is.
    """
    for line, _, parts in error_texts(dem):
        if any(part.count("D") > 2 for part in parts):
            raise SyndistillError(
                f"{name} needs errors of at most two detectors, the model has '{line}': "
                "make the model with decompose_errors=True"
            )


def error_texts(dem: stim.DetectorErrorModel) -> Iterator[tuple[str, float, list[str]]]:
    """Each error as text, its probability, and the texts of its parts (" D0 D1 L0 "), with repetitions written out.

    Targets as objects take ten times as long.
    """
    for line in str(dem.flattened()).splitlines():
        if line.startswith("error"):
            head, _, targets = line.rpartition(")")
            yield line, float(head.rpartition("(")[2]), targets.split("^")


def unpack_predictions(packed: NDArray[np.uint8], n_observables: int) -> NDArray[np.float64]:
    """Packed hard predictions (B, ceil(O/8)), little-endian, as the 0.0/1.0 of the contract (B, O)."""
    return np.unpackbits(packed, axis=1, bitorder="little", count=n_observables).astype(np.float64)
