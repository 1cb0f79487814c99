"""Belief matching: belief propagation on the hyperedges, then matching with its posterior (arXiv:2203.04948).

Legend: B shots, O observables.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import require_graphlike
from syndistill.decoders.reference import ReferenceDecoder, package_errors
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

MAX_BP_ITERATIONS = 10


class BeliefMatchingDecoder(ReferenceDecoder):
    """The `beliefmatching` package with at most 10 iterations of product-sum belief propagation."""

    def __init__(self, dem: stim.DetectorErrorModel, *, name: str | None = None) -> None:
        try:
            from beliefmatching import BeliefMatching
        except ImportError as error:
            raise SyndistillError("belief-matching is not installed: pip install 'syndistill[belief]'") from error
        versions = f"{version('beliefmatching')} {version('ldpc')} {version('pymatching')}"
        settings = f"max_bp_iters={MAX_BP_ITERATIONS}"
        super().__init__(name or "belief-matching", "belief-matching", versions, settings, dem)
        require_graphlike(self.model, "belief-matching")
        with package_errors(f"{self.name} cannot take this error model"):
            self._decoder = BeliefMatching.from_detector_error_model(self.model, max_bp_iters=MAX_BP_ITERATIONS)

    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        return self._decoder.decode_batch(shots.detectors().astype(np.uint8)).astype(np.float64)
