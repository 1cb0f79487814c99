"""The exact posterior of a detector error model: no decoder of its shots has a lower error rate, or a lower NLL.

Two ways (`sampling.exact_posterior`): a table of all patterns by Walsh-Hadamard transforms for up to 26 bits in all,
and a message passed from slice to slice for few detectors a slice and any number of rounds.

Legend: B shots, K joint observable patterns (2^O), M detector patterns (2^N), N detectors, O observables, T slices.
Detector i is bit i of a detector pattern, observable j is bit j of an observable pattern.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import flips
from syndistill.decoders.contract import Decoder, reference_id
from syndistill.errors import SyndistillError
from syndistill.sampling.exact_posterior import MAX_SLICE_BITS, slice_chain, xor_distribution
from syndistill.sampling.stored import StoredShots

MAX_BITS = 26
"""Detectors plus observables of a table: it holds 2^26 float64, 0.5 GiB."""

MAX_MESSAGE_BITS = 13
"""Detectors of one slice plus observables: a block's matrix holds 2^26 float32, 0.25 GiB."""

_CHUNK = 1 << 16  # patterns added up at a time

Classes = Callable[[StoredShots], NDArray[np.float64]]
"""P(observable pattern | detectors), (B, K)."""


class ExactPosterior:
    """P(detectors, observables) of a detector error model, of at most 26 detectors plus observables, as a table;
    seconds and under 1 GiB at 25.

    Attributes:
        joint_KM: float64 (2^O, 2^N), sums to 1; values below 2.2e-16 of the largest are rounding noise and are
            lifted to it, which bounds log-odds to about +-36.
    """

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        n_bits = self.n_detectors + self.n_observables
        if n_bits > MAX_BITS or self.n_observables == 0:
            raise SyndistillError(
                f"optimal: the model has {self.n_detectors} detectors and {self.n_observables} observables, the table "
                f"of all patterns takes 1 observable or more and {MAX_BITS} bits (d=3, rounds=3): take fewer rounds"
            )
        n = self.n_detectors
        mechanisms = []
        for p, detectors, observables in flips(dem):
            mechanisms.append((sum(1 << d for d in detectors) | observables << n, p))
        table = xor_distribution(mechanisms, n_bits)
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


class OptimalDecoder(Decoder):
    """Answers with the exact posterior: on this model nothing has a lower error rate per observable, or a lower NLL."""

    gives_probabilities = True

    name = "optimal"

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        self.content_id = reference_id("optimal", "1", "", dem)
        if self.n_detectors + self.n_observables <= MAX_BITS:
            self._classes = _by_table(ExactPosterior(dem))
        else:
            self._classes = _by_slices(dem)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        class_BK = self._classes(shots)
        patterns_K = np.arange(1 << self.n_observables)
        flips_KO = patterns_K[:, None] >> np.arange(self.n_observables) & 1
        return np.clip(class_BK @ flips_KO.astype(np.float64), 0.0, 1.0)


def _by_table(posterior: ExactPosterior) -> Classes:
    return lambda shots: posterior.class_probabilities(shots.detectors_packed)


def _by_slices(dem: stim.DetectorErrorModel) -> Classes:
    """Slices are the detectors of equal time, the third coordinate."""
    if dem.num_observables > MAX_MESSAGE_BITS:
        raise SyndistillError(
            f"optimal: the model has {dem.num_observables} observables; their joint patterns can be weighed up to "
            f"{MAX_MESSAGE_BITS}: leave this decoder out"
        )
    coords = dem.get_detector_coordinates()
    if any(len(coords.get(n, [])) < 3 for n in range(dem.num_detectors)):
        raise SyndistillError(
            f"optimal: a model of {dem.num_detectors} detectors, more than a table's {MAX_BITS} bits, needs detector "
            "coordinates (x, y, t), to go from slice to slice; add them, or take fewer rounds"
        )
    times = sorted({coords[n][2] for n in coords})
    slice_N = np.array([times.index(coords[n][2]) for n in range(dem.num_detectors)])
    seen: Counter[int] = Counter()
    bit_N = np.zeros_like(slice_N)
    for n, t in enumerate(slice_N.tolist()):
        bit_N[n] = seen[t]
        seen[t] += 1
    if max(seen.values()) > MAX_SLICE_BITS or max(seen.values()) + dem.num_observables > MAX_MESSAGE_BITS:
        raise SyndistillError(
            f"optimal: the model has {dem.num_detectors} detectors and {dem.num_observables} observables, and up to "
            f"{max(seen.values())} detectors at one time; the exact posterior takes {MAX_BITS} bits in all, or "
            f"{MAX_SLICE_BITS} detectors at a time, {MAX_MESSAGE_BITS} bits with the observables: take a smaller code"
        )
    chain = slice_chain(dem, slice_N, bit_N, max(seen.values()))

    def classes(shots: StoredShots) -> NDArray[np.float64]:
        patterns_BT = np.zeros((shots.n_shots, len(times)), np.int64)
        events_BN = shots.detectors()
        for n in range(shots.n_detectors):
            patterns_BT[:, slice_N[n]] |= events_BN[:, n].astype(np.int64) << bit_N[n]
        return chain.posterior(patterns_BT)

    return classes
