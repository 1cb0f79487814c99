"""What everything that decodes has in common.

Legend: B shots, O observables.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import error_texts
from syndistill.circuits.placement import Placement, far_from
from syndistill.circuits.training_noise import TrainingNoise
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
        if not isinstance(shots, StoredShots):
            raise SyndistillError(f"a {type(shots).__name__} is no StoredShots; StoredShots.from_bits makes one")
        if (shots.n_detectors, shots.n_observables) != (self.n_detectors, self.n_observables):
            raise SyndistillError(
                f"decoder {self.name} is made for {self.n_detectors} detectors and {self.n_observables} observables, "
                f"the shots have {shots.n_detectors} and {shots.n_observables}: build it for these shots' error model"
            )
        if shots.n_shots == 0:
            return np.zeros((0, self.n_observables))
        probabilities_BO = self._probabilities(shots)
        if not ((probabilities_BO >= 0) & (probabilities_BO <= 1)).all():  # also where they are NaN
            raise SyndistillError(f"decoder {self.name} gives probabilities outside [0, 1]; it can't serve this model")
        return probabilities_BO

    @abstractmethod
    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        """`decode` for at least one shot whose shape is known to fit."""


class MoreRoundsThanTrained(UserWarning):
    """The network never saw so long an experiment; it decodes, and may decode badly."""


def warn_of_more_rounds(name: str, trained: int | None, rounds: int) -> None:
    """Warns where a network is asked about more rounds than its training shots had (None: unknown)."""
    if trained is not None and rounds > trained:
        warnings.warn(
            f"{name} was trained on at most {trained} rounds, the circuit has {rounds}; compare its error rate with "
            "another decoder's",
            MoreRoundsThanTrained,
            stacklevel=4,
        )


class FarFromTraining(UserWarning):
    """The errors of a circuit are not those that the network was trained on; it decodes, and may decode badly."""


def warn_of_other_noise(name: str, home: TrainingNoise | None, placement: Placement) -> None:
    """Warns, with what is shared and what not, where a circuit is far from a network's training noise."""
    if home is not None and (line := far_from(home, placement)) is not None:
        warnings.warn(f"{name} was {line}; compare its error rate with matching's", FarFromTraining, stacklevel=4)


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


def unpack_predictions(packed: NDArray[np.uint8], n_observables: int) -> NDArray[np.float64]:
    """Packed hard predictions (B, ceil(O/8)), little-endian, as the 0.0/1.0 of the contract (B, O)."""
    return np.unpackbits(packed, axis=1, bitorder="little", count=n_observables).astype(np.float64)
