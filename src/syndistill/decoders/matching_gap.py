"""Matching with a confidence: the gap between the best correction that flips the observable and the best that does not.

Legend: B shots, N detectors.
"""

from __future__ import annotations

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray
from scipy.special import expit

from syndistill.decoders.contract import Decoder, reference_id, require_graphlike
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


class MatchingGapDecoder(Decoder):
    """Two matchings a shot, of weight w0 without a flip and w1 with one: P(flip) = 1 / (1 + exp(w1 - w0)).

    The observable becomes one more detector, set to 0, then to 1; an error that flips it with one detector is then an
    edge between the two. Errors that flip it with two detectors have no such edge: SyndistillError for models that have
    them (an observable that does not run along a boundary), and for more than one observable. Decisions are those of
    plain matching; correlated matching has no such gap, its second pass was measured to decide worse when forced.
    """

    gives_probabilities = True

    def __init__(self, dem: stim.DetectorErrorModel, *, name: str = "matching-gap") -> None:
        self.name = name
        if dem.num_observables != 1:
            raise SyndistillError(f"{self.name} is for one observable, the model has {dem.num_observables}")
        require_graphlike(dem, self.name)
        self.n_detectors = dem.num_detectors
        self.n_observables = 1
        self.content_id = reference_id("matching-gap", pymatching.__version__, "", dem)
        self._matching = pymatching.Matching.from_detector_error_model(_observable_as_detector(dem, name))

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        bits_BN = np.zeros((shots.n_shots, self.n_detectors + 1), np.uint8)
        bits_BN[:, :-1] = shots.detectors()
        weights = []
        for flip in (0, 1):
            bits_BN[:, -1] = flip
            _, found = self._matching.decode_batch(bits_BN, return_weights=True)
            weights.append(found)
        return expit(weights[0] - weights[1])[:, None]


def _observable_as_detector(dem: stim.DetectorErrorModel, name: str) -> stim.DetectorErrorModel:
    """The same errors with L0 as detector D(N)."""
    changed = stim.DetectorErrorModel()
    observable = stim.DemTarget.relative_detector_id(dem.num_detectors)
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        targets = [observable if t.is_logical_observable_id() else t for t in instruction.targets_copy()]
        changed.append("error", instruction.args_copy(), targets)
    changed.append("detector", [], [observable])
    try:
        require_graphlike(changed, name)
    except SyndistillError as error:
        raise SyndistillError(
            f"{name} needs an observable along a boundary, where no error flips it with two detectors ({error})"
        ) from None
    return changed
