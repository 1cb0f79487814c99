"""An engine on one circuit, as a decoder: Stim's packed bits in, probabilities of the observables out.

Axes: B shots, N detectors, O observables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from syndistill.circuits.placement import Placement
from syndistill.decoders.contract import Decoder, warn_of_more_rounds
from syndistill.deploy.engines import Bits, Engine, Floats, require_engine
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

_ODD_BYTE = np.array([bin(byte).count("1") % 2 for byte in range(256)], bool)


class EngineDecoder(Decoder):
    """A network on one circuit, run by an engine.

    Raises SyndistillError for a circuit of another distance, a basis that the network has no answer for, and
    observables that are no lines; warns (MoreRoundsThanTrained) for more rounds than the training shots had.
    """

    gives_probabilities = True

    def __init__(self, engine: Engine, placement: Placement, name: str | None = None) -> None:
        require_engine(engine)
        self.engine = engine
        self.placement = placement
        self.name = name or engine.name
        if any(line is None for line in getattr(placement, "lines", ())):
            raise SyndistillError(
                f"{self.name} cannot see which line of data qubits the observable is; its flips must be those of a row "
                "(basis x) or a column (basis z) of data qubits"
            )
        self._logits = engine.on(placement)
        warn_of_more_rounds(self.name, engine.trained_rounds, placement.rounds)
        self.n_parameters = engine.n_parameters
        self.n_detectors = len(placement.slice_N)
        self.n_observables = len(placement.lines)
        self.content_id = engine.content_id
        self._between = [(o, mask) for o, mask in enumerate(_detectors_between(placement)) if mask.any()]

    def probabilities(self, detectors_packed: Bits) -> NDArray[np.float64]:
        """As `decode`, of bits packed in Stim's order, uint8 (B, ceil(N / 8)). SyndistillError for another shape."""
        flips_BO = flips(self._logits(detectors_packed), self.engine.output)
        for o, mask_N8 in self._between:
            turned_B = _ODD_BYTE[np.bitwise_xor.reduce(detectors_packed & mask_N8, axis=1)]
            flips_BO[:, o] = np.where(turned_B, 1 - flips_BO[:, o], flips_BO[:, o])
        return flips_BO

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return self.probabilities(shots.detectors_packed)


def flips(logits_BO: Floats, output: str) -> NDArray[np.float64]:
    """Probability of each observable's flip (line 0): of one or two logits, or of the classes I, X, Z, Y."""
    if output != "joint4":
        return expit(logits_BO.astype(np.float64))
    classes = softmax(logits_BO.astype(np.float64), axis=1)  # X flips the Z observable
    return np.stack([classes[:, 2] + classes[:, 3], classes[:, 1] + classes[:, 3]], 1).clip(0, 1)


def _detectors_between(placement: Placement) -> Bits:
    """(O, ceil(N / 8)) packed: the detectors whose parity tells an observable's line from line 0, which is asked."""
    bases = ("x", "z") if placement.basis == "both" else (placement.basis,)
    columns = [
        placement.layout.line_matrix(basis)[placement.stabiliser_N, line]
        for basis, line in zip(bases, placement.lines, strict=True)
    ]
    return np.packbits(np.array(columns, np.uint8), axis=1, bitorder="little")
