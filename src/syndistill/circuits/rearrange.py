"""Where the errors put detectors, when coordinates say something else or nothing.

Two detectors are coupled as much as errors set off both of them. On a surface code the couplings say which stabilisers
are neighbours and which slices follow each other.

Axes: M mechanisms, N detectors, P places, S stabilisers, T slices.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.circuits.mechanisms import MOST_DETECTORS, Mechanisms

Couplings = NDArray[np.float64]

BELONGS = 0.75
"""The least share of a detector's errors that must have a known shape. Over all 16 schedules of two-qubit gates that
measure a rotated code, d=3 and 5, the least of any detector is .92; two exchanged neighbours come to .53."""

_TRIES = 8


def weights(mechanisms: Mechanisms) -> NDArray[np.float64]:
    """Probabilities cut at three times their median: structure counts here, one wild error rate does not."""
    p_M = mechanisms.p_M
    return np.minimum(p_M, 3 * np.median(p_M)) if len(p_M) else p_M


def coupled(mechanisms: Mechanisms, label_N: NDArray[np.int64], n_labels: int) -> Couplings:
    """Symmetric (labels, labels): how much mechanisms couple detectors of two labels; 0 on the diagonal."""
    found = np.zeros((n_labels, n_labels))
    weight_M = weights(mechanisms)
    for a, b in combinations(range(MOST_DETECTORS), 2):
        pair_M = mechanisms.detectors_MK[:, b] >= 0
        first, second = (label_N[mechanisms.detectors_MK[pair_M, k]] for k in (a, b))
        np.add.at(found, (first, second), weight_M[pair_M])
    found += found.T
    np.fill_diagonal(found, 0)
    return found


def closing_exchanged(mechanisms: Mechanisms, place_N: NDArray[np.int64], order_N: NDArray[np.int64]) -> list[int]:
    """The places whose last two detectors stand in the wrong order: errors couple the last one, and not the other, with
    the one before both. Where the two carry the same time, coordinates do not say which comes first."""
    last_P = np.zeros(int(place_N.max()) + 1, np.int64)
    np.maximum.at(last_P, place_N, order_N)
    age_N = last_P[place_N] - order_N
    couplings = np.zeros((len(last_P), 2))  # of the third last detector with the second last and the last one
    weight_M = weights(mechanisms)
    for a, b in combinations(range(MOST_DETECTORS), 2):
        pair_M = mechanisms.detectors_MK[:, b] >= 0
        for one, other in ((a, b), (b, a)):
            at, near = mechanisms.detectors_MK[pair_M, one], mechanisms.detectors_MK[pair_M, other]
            for age in (0, 1):
                these = (place_N[at] == place_N[near]) & (age_N[at] == 2) & (age_N[near] == age)
                np.add.at(couplings[:, 1 - age], place_N[at][these], weight_M[pair_M][these])
    return np.flatnonzero(couplings[:, 1] > couplings[:, 0]).tolist()


def in_time(mechanisms: Mechanisms, slice_N: NDArray[np.int64], n_slices: int) -> NDArray[np.int64] | None:
    """For each slice as it was ordered where it belongs, (T,), if errors couple slices that do not follow each other.

    None where they are in order. Of the two directions the one that keeps more slices in order.
    """
    coupled_TT = coupled(mechanisms, slice_N, n_slices)
    steps_TT = np.abs(np.subtract.outer(np.arange(n_slices), np.arange(n_slices)))
    if coupled_TT[steps_TT > 1].sum() <= 0.1 * coupled_TT[steps_TT == 1].sum() or (coupled_TT.sum(1) == 0).any():
        return None
    laplacian_TT = np.diag(coupled_TT.sum(1)) - coupled_TT
    # The second eigenvector of a chain rises from one end to the other (Fiedler).
    order_T = np.linalg.eigh(laplacian_TT)[1][:, 1].argsort()
    if 2 * (np.diff(order_T) < 0).sum() > n_slices - 1:
        order_T = order_T[::-1]
    return order_T.argsort()


def expected_couplings(codes_UK: NDArray[np.int64], rate_U: NDArray[np.float64], layout: Layout) -> Couplings:
    """(S, S): how circuit noise couples two stabilisers. The training noise's shapes, at these rates, and their images
    under half a turn."""
    n_stabilisers = layout.n_stabilisers
    found = np.zeros((n_stabilisers, n_stabilisers))
    for a, b in combinations(range(codes_UK.shape[1]), 2):
        pair_U = (codes_UK[:, a] >= 0) & (codes_UK[:, b] >= 0)
        np.add.at(found, tuple(codes_UK[pair_U, k] % n_stabilisers for k in (a, b)), rate_U[pair_U])
    found += found.T
    np.fill_diagonal(found, 0)
    half_turn_S = layout.turned_S[layout.turned_S]
    return found + found[np.ix_(half_turn_S, half_turn_S)]


def agreement(coupled_PP: Couplings, expected_SS: Couplings, stabiliser_P: NDArray[np.int64]) -> float:
    """Cosine of the couplings with those of the stabilisers that the places are said to be."""
    moved_PP = expected_SS[np.ix_(stabiliser_P, stabiliser_P)]
    norm = np.linalg.norm(coupled_PP) * np.linalg.norm(expected_SS)
    return float((coupled_PP * moved_PP).sum() / norm) if norm else 0.0


def typed(couplings: Couplings, is_type: NDArray[np.bool_]) -> Couplings:
    """The same of norm 1, and more than that for two of one type: places of one type become stabilisers of one type."""
    norm = np.linalg.norm(couplings)
    same_type = np.equal.outer(is_type, is_type).astype(np.float64)
    return couplings / (norm if norm else 1.0) + same_type


def in_space(
    coupled_PP: Couplings, expected_SS: Couplings, stabiliser_P: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The stabilisers of the places (P,) by couplings alone, beginning with those given: none where any two of them
    exchanged agree better.

    From None it is a quadratic assignment problem, which has no sure answer: who asks checks the agreement.
    """
    if stabiliser_P is not None:
        return _exchanged(coupled_PP, expected_SS, stabiliser_P)
    from scipy.optimize import quadratic_assignment  # takes half a second to load, and is hardly ever wanted

    best_P: NDArray[np.int64] = np.arange(len(coupled_PP))
    best = -1.0
    for seed in range(_TRIES):
        rng = np.random.default_rng(seed)
        options = {"maximize": True, "P0": "barycenter" if seed == 0 else "randomized", "rng": rng}
        start_P = quadratic_assignment(coupled_PP, expected_SS, method="faq", options=options).col_ind
        found_P = _exchanged(coupled_PP, expected_SS, np.asarray(start_P))
        if (value := agreement(coupled_PP, expected_SS, found_P)) > best:
            best_P, best = found_P, value
    return best_P


def _exchanged(coupled_PP: Couplings, expected_SS: Couplings, stabiliser_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two places exchanged as long as that agrees better (2-opt)."""
    from scipy.optimize import quadratic_assignment

    start = np.column_stack([np.arange(len(stabiliser_P)), stabiliser_P])
    options = {"maximize": True, "partial_guess": start, "rng": np.random.default_rng(0)}
    return np.asarray(quadratic_assignment(coupled_PP, expected_SS, method="2opt", options=options).col_ind)


def strangers(mechanisms: Mechanisms, known_M: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Detectors of whose errors less than BELONGS are such as circuit noise makes at their places, the worst first.

    known_M: whether each mechanism's shape is one that some schedule makes.
    """
    weight_M = weights(mechanisms)
    total_N, fits_N = np.zeros(mechanisms.n_detectors), np.zeros(mechanisms.n_detectors)
    for detector_M in mechanisms.detectors_MK.T:
        there_M = detector_M >= 0
        np.add.at(total_N, detector_M[there_M], weight_M[there_M])
        np.add.at(fits_N, detector_M[there_M], (weight_M * known_M)[there_M])
    fit_N = np.where(total_N > 0, fits_N / np.maximum(total_N, 1e-300), 1.0)
    found = np.flatnonzero(fit_N < BELONGS)
    return found[np.argsort(fit_N[found])]
