"""Tesseract, a search for the most likely error (arXiv:2503.10988), with the paper's short-beam settings.

Legend: B shots, O observables.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import unpack_predictions
from syndistill.decoders.reference import ReferenceDecoder, package_errors
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

# The paper's short beam, written out and not taken from the package's table, so that an upgrade cannot move it.
SHORT_BEAM: dict[str, Any] = {
    "det_beam": 15,
    "beam_climbing": True,
    "no_revisit_dets": True,
    "merge_errors": True,
    "pqlimit": 200_000,
    "det_penalty": 0.0,
    "num_det_orders": 16,
    "seed": 2384753,
}


class TesseractDecoder(ReferenceDecoder):
    """Tesseract with the short beam; one shot takes about 0.1 ms at d=3 and 10 ms at d=5 near threshold."""

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        try:
            import tesseract_decoder
        except ImportError as error:
            raise SyndistillError("decoder tesseract is not installed: pip install 'syndistill[tesseract]'") from error
        super().__init__("tesseract", version("tesseract-decoder"), repr(SHORT_BEAM), dem)
        preset = tesseract_decoder.TesseractSinterDecoder(
            **SHORT_BEAM, det_order_method=tesseract_decoder.utils.DetOrder.DetIndex
        )
        with package_errors(f"{self.name} cannot take this error model"):
            self._compiled = preset.compile_decoder_for_dem(dem=self.model)

    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        packed = self._compiled.decode_shots_bit_packed(
            bit_packed_detection_event_data=np.ascontiguousarray(shots.detectors_packed)
        )
        return unpack_predictions(packed, self.n_observables)
