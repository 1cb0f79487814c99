"""Minimum-weight perfect matching with PyMatching, plain and correlated.

Legend: B shots, O observables.
"""

from __future__ import annotations

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import require_graphlike, unpack_predictions
from syndistill.decoders.reference import ReferenceDecoder, likelier_first, package_errors
from syndistill.sampling.stored import StoredShots


class MatchingDecoder(ReferenceDecoder):
    """PyMatching on a decomposed error model; `correlated` is its two-pass form (arXiv:1310.0863)."""

    def __init__(self, dem: stim.DetectorErrorModel, *, correlated: bool = False, name: str | None = None) -> None:
        algorithm = "pymatching-correlated" if correlated else "pymatching"
        super().__init__(name or algorithm, algorithm, pymatching.__version__, "", dem)
        require_graphlike(self.model, algorithm)
        self._correlated = correlated
        # The switch is needed twice: here and in decode_batch.
        with package_errors(f"{self.name} cannot take this error model"):
            self._matching = pymatching.Matching.from_detector_error_model(self.model, enable_correlations=correlated)

    def _prepared(self, dem: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
        return likelier_first(dem)

    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        packed = self._matching.decode_batch(
            np.ascontiguousarray(shots.detectors_packed),
            bit_packed_shots=True,
            bit_packed_predictions=True,
            enable_correlations=self._correlated,
        )
        return unpack_predictions(packed, self.n_observables)
