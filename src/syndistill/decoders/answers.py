"""From what a network says of line 0 to what is asked: the circuit's own observables.

A network answers for line 0 of a basis. An observable is such a line, or both, or none, times checks whose values every
shot shows (`circuits.observables`). A circuit of two bases is asked about one basis at a time where the network learned
no other way.

Axes: B shots, N detectors, S stabilisers, O observables, C logits (1 of basis x or z, 2 of both, 4 classes of joint4),
P patterns of (x line, z line) flips: bit 0 is the x line, bit 1 the z line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import TrainingNoise

Packed = NDArray[np.uint8]

_ODD_BYTE = np.array([bin(byte).count("1") % 2 for byte in range(256)], bool)
_PATTERN_OF_CLASS = [0, 2, 1, 3]  # of I, X, Z, Y: X flips the Z observable, Z the X observable


@dataclass(frozen=True, eq=False)
class Question:
    """One experiment to ask a network about. kept_N: the circuit's detectors that it has, None for all of them."""

    placement: Placement
    kept_N: NDArray[np.int64] | None

    def packed(self, detectors_packed: Packed) -> Packed:
        """The shots' bits that the question is about, (B, ceil(N / 8))."""
        if self.kept_N is None:
            return detectors_packed
        bits_BN = np.unpackbits(detectors_packed, axis=1, bitorder="little")
        return np.packbits(bits_BN[:, self.kept_N], axis=1, bitorder="little")


def learned_both(output: str, home: TrainingNoise | None) -> bool:
    """Whether a network knows shots of two observables: its answers are joint, or it was trained on such shots."""
    return output == "joint4" or (home is not None and "both" in home.patterns)


class Answers:
    """The questions that a circuit's shots are, and the observables' flips from the answers."""

    def __init__(self, placement: Placement, output: str, home: TrainingNoise | None) -> None:
        self.placement, self.output = placement, output
        alone = placement.basis != "both" or learned_both(output, home)
        bases = (placement.basis,) if alone else ("x", "z")
        self.questions = [question(placement, basis) for basis in bases]
        turned_ON = placement.turn_OS[:, placement.stabiliser_N]
        masks = np.packbits(turned_ON, axis=1, bitorder="little")
        self._turned = [(o, mask_N8) for o, mask_N8 in enumerate(masks) if mask_N8.any()]

    def flips(self, logits: Sequence[NDArray[np.floating]], detectors_packed: Packed) -> NDArray[np.float64]:
        """Probability that each observable flipped, (B, O), from the logits (B, C) of each question."""
        flips_BO = self.untouched(logits)
        for o, mask_N8 in self._turned:
            turned_B = _ODD_BYTE[np.bitwise_xor.reduce(detectors_packed & mask_N8, axis=1)]
            flips_BO[:, o] = np.where(turned_B, 1 - flips_BO[:, o], flips_BO[:, o])
        return flips_BO

    def untouched(self, logits: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
        """As `flips`, of the observables without their checks."""
        logits = [np.asarray(one, np.float64) for one in logits]
        basis, holds_O2 = self.placement.basis, self.placement.holds_O2
        if basis != "both":
            return expit(logits[0]) * holds_O2[:, ("x", "z").index(basis)]
        patterns_BP = pattern_probabilities(np.concatenate(logits, 1), self.output)
        odd_OP = (holds_O2 @ [1, 2])[:, None] & np.arange(4)
        return (patterns_BP @ np.isin(odd_OP, (1, 2)).T.astype(np.float64)).clip(0, 1)


def pattern_probabilities(logits_BC: NDArray[np.float64], output: str) -> NDArray[np.float64]:
    """(B, P) of joint4's classes, or of the x and the z line's own logits, taken for independent."""
    if output == "joint4":
        return softmax(logits_BC, axis=1)[:, _PATTERN_OF_CLASS]
    x_B, z_B = expit(logits_BC).T
    return np.stack([(1 - x_B) * (1 - z_B), x_B * (1 - z_B), (1 - x_B) * z_B, x_B * z_B], 1)


def question(placement: Placement, basis: str) -> Question:
    """The circuit as an experiment in `basis`: without the detectors that such a one has not, in its first and its last
    slice."""
    ends_N = (placement.slice_N == 0) | (placement.slice_N == placement.rounds)
    kept_N = np.flatnonzero(~ends_N | placement.layout.on_basis_S(basis)[placement.stabiliser_N])
    if len(kept_N) == len(ends_N):
        return Question(replace(placement, basis=basis), None)
    slice_N, stabiliser_N = placement.slice_N[kept_N], placement.stabiliser_N[kept_N]
    return Question(replace(placement, basis=basis, slice_N=slice_N, stabiliser_N=stabiliser_N), kept_N)
