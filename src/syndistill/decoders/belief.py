"""Belief matching: belief propagation on the hyperedges, then matching with its posterior (arXiv:2203.04948).

Legend: B shots, O observables.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import Decoder, reference_id, require_graphlike
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

MAX_BP_ITERATIONS = 10


class BeliefMatchingDecoder(Decoder):
    """The `beliefmatching` package with at most 10 iterations of product-sum belief propagation."""

    def __init__(self, dem: stim.DetectorErrorModel, *, name: str | None = None) -> None:
        try:
            from beliefmatching import BeliefMatching
        except ImportError as error:
            raise SyndistillError("belief-matching is not installed: pip install 'syndistill[belief]'") from error
        require_graphlike(dem, "belief-matching")
        self.name = name or "belief-matching"
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        versions = f"{version('beliefmatching')} {version('ldpc')} {version('pymatching')}"
        self.content_id = reference_id("belief-matching", versions, f"max_bp_iters={MAX_BP_ITERATIONS}", dem)
        self._decoder = BeliefMatching.from_detector_error_model(dem, max_bp_iters=MAX_BP_ITERATIONS)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return self._decoder.decode_batch(shots.detectors().astype(np.uint8)).astype(np.float64)
