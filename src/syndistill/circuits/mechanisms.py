"""The error mechanisms of a detector error model as arrays, and the shapes they have on a code.

A mechanism is one independent error: a probability, the detectors it sets off, the observables it flips. Its shape is
what is left when one forgets when it happened: which stabilisers, in its first slice or in the one after.

Axes: M mechanisms, N detectors, K detectors of one mechanism (-1 where it has fewer), O observables, U different
shapes, P places (labels of stabilisers), S stabilisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import stim
from numpy.typing import NDArray

MOST_DETECTORS = 6
"""Of one mechanism. Circuit noise of a surface code sets off four at most; a longer one has no shape here."""

MOST_DISTANCE = 25
"""Up to here the number of a shape (`shape_keys`) stays below 2^63."""

PARTS = ("first", "bulk", "last", "only", "only first", "only last")
"""Where in time a mechanism is: it touches the first slice, neither end, the last slice. Of one round: both slices, the
first alone, the last alone."""


@dataclass(frozen=True, eq=False)
class Mechanisms:
    """p_M: float64. detectors_MK: int64, in increasing order, then -1. flips_MO: bool.

    Mechanisms that set off nothing are left out, and so is what one does to a detector twice. too_long: how much of all
    probability is in mechanisms of more than MOST_DETECTORS detectors, which are left out too.
    """

    n_detectors: int
    p_M: NDArray[np.float64]
    detectors_MK: NDArray[np.int64]
    flips_MO: NDArray[np.bool_]
    too_long: float


def error_texts(dem: stim.DetectorErrorModel) -> Iterator[tuple[str, float, list[str]]]:
    """Each error as text, its probability, and the texts of its parts (" D0 D1 L0 "), with repetitions written out.

    Targets as objects take ten times as long.
    """
    for line in str(dem.flattened()).splitlines():
        if line.startswith("error"):
            head, _, targets = line.rpartition(")")
            yield line, float(head.rpartition("(")[2]), targets.split("^")


def flips(dem: stim.DetectorErrorModel) -> Iterator[tuple[float, set[int], int]]:
    """Each error's probability, the detectors it flips, and its pattern of observables; separators are joined."""
    for _, p, parts in error_texts(dem):
        detectors: set[int] = set()
        observables = 0
        for target in " ".join(parts).split():
            if target[0] == "D":
                detectors ^= {int(target[1:])}
            else:
                observables ^= 1 << int(target[1:])
        yield p, detectors, observables


def mechanisms_of(dem: stim.DetectorErrorModel) -> Mechanisms:
    """Of a model with or without suggested decompositions."""
    p, rows, patterns, long = [], [], [], 0.0
    nothing = [-1] * MOST_DETECTORS
    for chance, detectors, observables in flips(dem):
        if len(detectors) > MOST_DETECTORS:
            long += chance
        elif detectors:
            p.append(chance)
            rows.append((sorted(detectors) + nothing)[:MOST_DETECTORS])
            patterns.append(observables)
    n_observables = dem.num_observables  # which Stim counts anew at every call
    flips_MO = np.array([[row >> o & 1 for o in range(n_observables)] for row in patterns], bool)
    rows_MX = np.column_stack(
        [
            np.array(rows, np.int64).reshape(len(p), MOST_DETECTORS),
            flips_MO.reshape(len(p), n_observables).astype(np.int64),
        ]
    )
    # A decomposed model has lines of one mechanism, split in several ways: an odd number of them is what shows.
    unique_MX, which_M = np.unique(rows_MX, axis=0, return_inverse=True)
    keeps_M = np.ones(len(unique_MX))
    np.multiply.at(keeps_M, which_M.reshape(-1), 1 - 2 * np.array(p, np.float64))
    p_M = (1 - keeps_M) / 2
    detectors_MK, seen_MO = np.split(unique_MX, [MOST_DETECTORS], axis=1)
    return Mechanisms(dem.num_detectors, p_M, detectors_MK, seen_MO.astype(bool), long / max(p_M.sum() + long, 1e-300))


@dataclass(frozen=True, eq=False)
class Shapes:
    """The different shapes of a circuit's mechanisms on labelled places.

    codes_UK: int64, (slice less the mechanism's first) * n_places + place, -1 where there are fewer; part_U: the index
    in PARTS; total_U: their probabilities' sum over time; shape_M: of which shape each mechanism is, whose detectors
    (in increasing order of rows) are detectors_MK.
    """

    n_places: int
    rounds: int
    codes_UK: NDArray[np.int64]
    part_U: NDArray[np.int64]
    total_U: NDArray[np.float64]
    shape_M: NDArray[np.int64]
    detectors_MK: NDArray[np.int64]

    def mean_U(self) -> NDArray[np.float64]:
        """Mean probability over the times at which the shape could happen: it does not grow with the rounds."""
        spans_U = (self.codes_UK >= self.n_places).any(1)
        # A shape in the bulk begins in slice 1..rounds-1, one of two slices in 1..rounds-2.
        times_U = np.where(self.part_U == PARTS.index("bulk"), self.rounds - 1 - spans_U, 1)
        return self.total_U / np.maximum(times_U, 1)

    def keys_U(self, stabiliser_P: NDArray[np.int64], n_stabilisers: int) -> NDArray[np.int64]:
        """A number for each shape when its places are these stabilisers; -1 where it spans more than two slices."""
        slice_UK, place_UK = np.divmod(self.codes_UK, self.n_places)
        there_UK = self.codes_UK >= 0
        moved_UK = np.where(there_UK, slice_UK * n_stabilisers + stabiliser_P[place_UK], -1)
        keys_U = shape_keys(np.sort(moved_UK, axis=1), n_stabilisers)
        return np.where((slice_UK > 1).any(1), -1, keys_U)


def shape_keys(codes_UK: NDArray[np.int64], n_stabilisers: int) -> NDArray[np.int64]:
    """One number for each row of increasing codes (slice * n_stabilisers + stabiliser, -1 for none)."""
    base = 2 * n_stabilisers + 1
    keys_U = np.zeros(len(codes_UK), np.int64)
    for column in codes_UK.T:
        keys_U = keys_U * base + column + 1
    return keys_U


def shapes_of(
    mechanisms: Mechanisms, slice_N: NDArray[np.int64], place_N: NDArray[np.int64], n_places: int, rounds: int
) -> Shapes:
    """Of mechanisms whose detectors have these slices and places."""
    there_MK = mechanisms.detectors_MK >= 0
    slice_MK = slice_N[mechanisms.detectors_MK]
    first_M = np.where(there_MK, slice_MK, rounds + 1).min(1, initial=rounds + 1)
    last_M = np.where(there_MK, slice_MK, -1).max(1, initial=-1)
    codes_MK = np.where(there_MK, (slice_MK - first_M[:, None]) * n_places + place_N[mechanisms.detectors_MK], -1)
    starts_M, ends_M = first_M == 0, last_M == rounds
    if rounds == 1:
        part_M = np.where(starts_M & ends_M, PARTS.index("only"), PARTS.index("only first") + ~starts_M)
    else:
        part_M = np.select([starts_M, ends_M], [PARTS.index("first"), PARTS.index("last")], PARTS.index("bulk"))
    rows_MX = np.column_stack([np.sort(codes_MK, axis=1), part_M])
    unique_UX, shape_M = np.unique(rows_MX, axis=0, return_inverse=True)
    shape_M = shape_M.reshape(-1)
    total_U = np.bincount(shape_M, mechanisms.p_M, minlength=len(unique_UX)).astype(np.float64)
    return Shapes(n_places, rounds, unique_UX[:, :-1], unique_UX[:, -1], total_U, shape_M, mechanisms.detectors_MK)
