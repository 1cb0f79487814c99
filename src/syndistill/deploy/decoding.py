"""An engine on one circuit, as a decoder: Stim's packed bits in, probabilities of the observables out.

Axes: B shots, N detectors, O observables.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from syndistill.circuits.placement import Placement
from syndistill.decoders.contract import Decoder
from syndistill.deploy.engines import Bits, Engine, Floats
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

_ODD_BYTE = np.array([bin(byte).count("1") % 2 for byte in range(256)], bool)


class MoreRoundsThanTrained(UserWarning):
    """The network never saw so long an experiment; it decodes, and may decode badly."""


class EngineDecoder(Decoder):
    """A network on one circuit, run by an engine.

    Raises SyndistillError for a circuit of another distance, a basis that the network has no answer for, and
    observables that are no lines; warns (MoreRoundsThanTrained) for more rounds than the training shots had.
    """

    gives_probabilities = True

    def __init__(self, engine: Engine, placement: Placement, name: str | None = None) -> None:
        self.engine = engine
        self.placement = placement
        self.name = name or engine.name
        check_placement(engine, placement, self.name)
        self.n_parameters = engine.n_parameters
        self.n_detectors = len(placement.slice_N)
        self.n_observables = len(placement.lines)
        self.content_id = engine.content_id
        self._logits = engine.on(placement)
        self._between = [(o, mask) for o, mask in enumerate(_detectors_between(placement)) if mask.any()]

    def probabilities(self, detectors_packed: Bits) -> NDArray[np.float64]:
        """As `decode`, of bits packed in Stim's order, uint8 (B, ceil(N / 8)). SyndistillError for another shape."""
        row_bytes = -(-self.n_detectors // 8)
        if detectors_packed.dtype != np.uint8 or detectors_packed.shape[1:] != (row_bytes,):
            raise SyndistillError(
                f"detection events of type {detectors_packed.dtype} and shape {detectors_packed.shape}; {self.name} "
                f"takes uint8 of shape (shots, {row_bytes}), little-endian bits of {self.n_detectors} detectors"
            )
        flips_BO = flips(self._logits(detectors_packed), self.engine.output)
        for o, mask_N8 in self._between:
            turned_B = _ODD_BYTE[np.bitwise_xor.reduce(detectors_packed & mask_N8, axis=1)]
            flips_BO[:, o] = np.where(turned_B, 1 - flips_BO[:, o], flips_BO[:, o])
        return flips_BO

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return self.probabilities(shots.detectors_packed)


def check_placement(engine: Engine, placement: Placement, name: str) -> None:
    """Raises and warns as `EngineDecoder` says."""
    if placement.layout != engine.layout:
        raise SyndistillError(
            f"{name} decodes distance {engine.layout.distance}, the circuit has distance "
            f"{placement.layout.distance}; take a network of that distance"
        )
    if any(line is None for line in placement.lines):
        raise SyndistillError(
            f"{name} cannot see which line of data qubits the observable is; its flips must be those of a row (basis "
            "x) or a column (basis z) of data qubits"
        )
    engine.n_outputs(placement.basis)
    if engine.trained_rounds is not None and placement.rounds > engine.trained_rounds:
        warnings.warn(
            f"{name} was trained on at most {engine.trained_rounds} rounds, the circuit has {placement.rounds}; "
            "compare its error rate with another decoder's",
            MoreRoundsThanTrained,
            stacklevel=3,
        )


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
