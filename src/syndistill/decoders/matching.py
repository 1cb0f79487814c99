"""Matching with PyMatching: plain, correlated, and after belief propagation on the hyperedges (arXiv:2203.04948).

Legend: B shots, N detectors, O observables.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import require_graphlike, unpack_predictions
from syndistill.decoders.reference import ReferenceDecoder, likelier_first, package_errors
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


class MatchingDecoder(ReferenceDecoder):
    """PyMatching on a decomposed error model; `correlated` is its two-pass form (arXiv:1310.0863)."""

    def __init__(self, dem: stim.DetectorErrorModel, *, correlated: bool = False) -> None:
        algorithm = "pymatching-correlated" if correlated else "pymatching"
        super().__init__(algorithm, pymatching.__version__, "", dem)
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


MAX_BP_ITERATIONS = 10


class BeliefMatchingDecoder(ReferenceDecoder):
    """The `beliefmatching` package with at most 10 iterations of product-sum belief propagation."""

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        try:
            from beliefmatching import BeliefMatching
        except ImportError as error:
            raise SyndistillError("belief-matching is not installed: pip install 'syndistill[belief]'") from error
        versions = f"{version('beliefmatching')} {version('ldpc')} {version('pymatching')}"
        settings = f"max_bp_iters={MAX_BP_ITERATIONS}"
        super().__init__("belief-matching", versions, settings, dem)
        require_graphlike(self.model, "belief-matching")
        with package_errors(f"{self.name} cannot take this error model"):
            self._decoder = BeliefMatching.from_detector_error_model(self.model, max_bp_iters=MAX_BP_ITERATIONS)

    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        return self._decoder.decode_batch(shots.detectors().astype(np.uint8)).astype(np.float64)
