"""The exact posterior of a small detector error model, from two Walsh-Hadamard transforms.

The mechanisms of an error model are independent, so P(detectors, observables) is a convolution over bit vectors.  Put
log(1 - 2 p_i) at index mask_i of a zero vector w of length 2^n; with H the Walsh-Hadamard transform the characters are
chi = exp((sum(w) - H w) / 2), and P = H chi / 2^n.

Legend: B shots, K joint observable patterns (2^O), M detector patterns (2^N), O observables.  Detector i is bit i of a
detector pattern, observable j is bit j of an observable pattern.
"""

from __future__ import annotations

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import Decoder, reference_id
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

MAX_BITS = 26
"""Detectors plus observables: the table holds 2^26 float64, 0.5 GiB."""

_LEVELS = 4  # butterfly levels per pass over memory, done as one 16 x 16 matrix product
_CHUNK = 1 << 16  # values handled at a time, so that the temporary stays in cache
_LOG_OF_ZERO = -1e3  # stands for log(1 - 2 p) at p = 1/2: exp(-1e3) is 0, and no inf - inf arises


def walsh_hadamard(values: NDArray[np.float64]) -> None:
    """Replaces values, contiguous float64 of length 2^n, by H values, H_ij = (-1)^popcount(i & j), in place."""
    n = values.size.bit_length() - 1
    if values.ndim != 1 or values.size != 1 << n or values.dtype != np.float64 or not values.flags.c_contiguous:
        raise ValueError(f"not a contiguous float64 vector of length 2^n: {values.dtype} {values.shape}")
    for low in range(0, n, _LEVELS):
        side = 1 << min(_LEVELS, n - low)
        blocks = values.reshape(-1, side, 1 << low)
        kernel = _hadamard(side)
        outer, _, inner = blocks.shape
        columns = min(inner, max(1, _CHUNK // side))
        rows = max(1, _CHUNK // (side * columns))
        for o in range(0, outer, rows):
            for i in range(0, inner, columns):
                tile = blocks[o : o + rows, :, i : i + columns]
                if inner == 1:  # one large product in place of many with a single column
                    tile[:, :, 0] = tile[:, :, 0] @ kernel
                else:
                    tile[...] = kernel @ tile


def _hadamard(side: int) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _log_characters(dem: stim.DetectorErrorModel) -> tuple[NDArray[np.float64], int]:
    """w of the module's text, and the pattern that is certain to be flipped: a mechanism of p > 1/2 is a certain flip
    followed by one of 1 - p."""
    n_detectors = dem.num_detectors
    weights = np.zeros(1 << (n_detectors + dem.num_observables))
    certain = 0
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        mask = 0
        for target in instruction.targets_copy():
            if target.is_relative_detector_id():
                mask ^= 1 << target.val
            elif target.is_logical_observable_id():
                mask ^= 1 << (n_detectors + target.val)
        p = instruction.args_copy()[0]
        if p > 0.5:
            certain ^= mask
            p = 1.0 - p
        weights[mask] += np.log1p(-2.0 * p) if p < 0.5 else _LOG_OF_ZERO
    return weights, certain


class ExactPosterior:
    """P(detectors, observables) of a detector error model as a table.

    Attributes:
        joint_KM: float64 (2^O, 2^N), sums to 1.
        resolution: probabilities below it are rounding noise and are lifted to it, which bounds log-odds to about +-36.
    """

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        n_bits = self.n_detectors + self.n_observables
        if n_bits > MAX_BITS or self.n_observables == 0:
            raise SyndistillError(
                f"optimal: the model has {self.n_detectors} detectors and {self.n_observables} observables, the exact "
                f"posterior takes 1 observable or more and {MAX_BITS} bits in all (d=3, rounds=3): take fewer rounds"
            )
        table, certain = _log_characters(dem)
        total = table.sum()
        walsh_hadamard(table)
        np.subtract(total, table, out=table)
        table *= 0.5
        np.exp(table, out=table)
        walsh_hadamard(table)
        table *= 2.0**-n_bits
        if certain:
            table = table[np.arange(table.size) ^ certain]
        self.resolution = float(np.finfo(np.float64).eps * table.max())
        np.maximum(table, self.resolution, out=table)
        table /= table.sum()
        self.joint_KM = table.reshape(1 << self.n_observables, 1 << self.n_detectors)

    def _pattern_B(self, detectors_packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        words = np.zeros((len(detectors_packed), 8), np.uint8)
        words[:, : detectors_packed.shape[1]] = detectors_packed
        return words.view("<i8")[:, 0]

    def class_probabilities(self, detectors_packed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """P(observable pattern | detectors), (B, 2^O); pattern bit j = observable j."""
        joint_BK = self.joint_KM[:, self._pattern_B(detectors_packed)].T
        return joint_BK / joint_BK.sum(axis=1, keepdims=True)

    def log_odds(self, detectors_packed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """log P(observable flipped | detectors) - log P(not flipped | detectors), (B, O)."""
        joint_BK = self.joint_KM[:, self._pattern_B(detectors_packed)].T
        flips_KO = self._flips_KO().astype(np.float64)
        return np.log(joint_BK @ flips_KO) - np.log(joint_BK @ (1.0 - flips_KO))

    def _flips_KO(self) -> NDArray[np.bool_]:
        patterns_K = np.arange(1 << self.n_observables)
        return (patterns_K[:, None] >> np.arange(self.n_observables) & 1).astype(bool)

    def optimum(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least logical error rate and the least NLL (nats) that any decoder can have, each per observable (O,)."""
        ler_O, nll_O = np.zeros(self.n_observables), np.zeros(self.n_observables)
        for o, flips_K in enumerate(self._flips_KO().T):
            for start in range(0, self.joint_KM.shape[1], _CHUNK):
                chunk_KM = self.joint_KM[:, start : start + _CHUNK]
                flipped_M, kept_M = chunk_KM[flips_K].sum(axis=0), chunk_KM[~flips_K].sum(axis=0)
                total_M = flipped_M + kept_M
                ler_O[o] += np.minimum(flipped_M, kept_M).sum()
                nll_O[o] -= (flipped_M * np.log(flipped_M / total_M) + kept_M * np.log(kept_M / total_M)).sum()
        return ler_O, nll_O


def posterior_table(dem: stim.DetectorErrorModel) -> ExactPosterior:
    """The exact posterior of a model of at most 26 detectors plus observables; seconds and under 1 GiB at 25."""
    return ExactPosterior(dem)


class OptimalDecoder(Decoder):
    """Looks the exact posterior up: on this model no decoder has a lower error rate per observable, or a lower NLL."""

    gives_probabilities = True

    def __init__(self, dem: stim.DetectorErrorModel, *, name: str | None = None) -> None:
        self.posterior = posterior_table(dem)
        self.name = name or "optimal"
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        self.content_id = reference_id("optimal", "1", "", dem)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        class_BK = self.posterior.class_probabilities(shots.detectors_packed)
        return np.clip(class_BK @ self.posterior._flips_KO().astype(np.float64), 0.0, 1.0)
