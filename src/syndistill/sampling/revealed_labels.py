"""Soft labels of an oracle that is told more than the decoder: little noise where the exact posterior is out of reach.

The posterior given the events and something revealed of the true errors is, on the mean over what is revealed, the
posterior given the events alone (tower property), so that it teaches the same; and the more it averages over, the less
it scatters (Rao-Blackwell). Here the oracle is told, for each pattern of off-basis events, whether one error of the
class with that pattern fired, but not which; and every error of a class of which more than one fired. What is left to
sum over are patterns of on-basis events, half as many bits.

Axes: B shots, R rounds, S stabilisers, L lines, O observables, P their patterns (2), N on-basis detectors,
D all detectors, A errors, M members of classes, C classes, G classes that fired once, of all shots one after the other.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import Placement, place_circuit
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots, shots_from_detectors, with_posterior
from syndistill.sampling.sweep_plan import NONE, SweepModel, sweep_model

MOST_OPEN = 17
"""Detectors open at once (d=5 needs 13): two states of 2^18 numbers, 4 MB."""

_LARGEST = 5
_AT_A_TIME = 1024


class RevealedLabels:
    """Draws shots of one experiment with the posterior of an oracle that knows part of their errors.

    Raises SyndistillError for basis "both", for distances above 5, and where numba is not installed.
    """

    def __init__(self, experiment: Experiment) -> None:
        if experiment.basis == "both":
            raise SyndistillError("revealed labels: basis both has no off-basis events to reveal; take x and z")
        if experiment.distance > _LARGEST:
            raise SyndistillError(
                f"revealed labels: distance {experiment.distance} has too many on-basis patterns a slice; they exist "
                f"for distances up to {_LARGEST}"
            )
        circuit = experiment.circuit()
        self.placed: Placement = place_circuit(circuit)
        self.dem: stim.DetectorErrorModel = circuit.detector_error_model()
        self.model: SweepModel = sweep_model(self.dem, self.placed)

    def draw(self, n_shots: int, seed: int) -> Shots:
        """Shots with one end, `labels_BKLO` as drawn and `posterior_BKLP` as revealed. A function of the seed."""
        sampler = self.dem.compile_sampler(seed=seed)
        parts = []
        for first in range(0, n_shots, _AT_A_TIME):
            events, labels, errors = sampler.sample(min(_AT_A_TIME, n_shots - first), return_errors=True)
            parts.append((events, labels, self.flipped(events, errors)))
        events_BD, labels_BO, flipped_B = (np.concatenate(part) for part in zip(*parts, strict=True))
        shots = shots_from_detectors(events_BD, self.placed, labels_BO)
        posterior_BP = torch.from_numpy(np.stack([1 - flipped_B, flipped_B], -1).astype(np.float32))
        return with_posterior(shots, posterior_BP[:, None], tuple(line or 0 for line in self.placed.lines))

    def flipped(self, events_BD: NDArray[np.bool_], errors_BA: NDArray[np.bool_]) -> NDArray[np.float64]:
        """P(observable flipped | events, what is revealed of the errors), float64 (B,)."""
        sweep = _compiled()
        plan, detector_N, error_M, class_M = self.model
        fired_BM = errors_BA[:, error_M]
        times_BC = np.add.reduceat(fired_BM, plan.class_start_C[:-1], axis=1, dtype=np.int64)
        seen_BN = events_BD[:, detector_N].astype(np.uint8)
        turned_B = np.zeros(len(seen_BN), np.uint8)
        shot, member = np.nonzero(fired_BM & (times_BC > 1)[:, class_M])
        np.bitwise_xor.at(turned_B, shot, plan.member_flip_M[member])
        for end in range(2):
            n = plan.member_ends_M2[member, end]
            np.bitwise_xor.at(seen_BN, (shot[n != NONE], n[n != NONE]), 1)
        shot, member = np.nonzero(fired_BM & (times_BC == 1)[:, class_M])
        fired_GM = np.stack([class_M[member], member], axis=1)
        by_first = np.lexsort((plan.class_first_C[fired_GM[:, 0]], shot))
        start_B = np.searchsorted(shot, np.arange(len(seen_BN) + 1))
        flipped_B = sweep(plan, seen_BN, start_B, fired_GM[by_first], MOST_OPEN)
        return np.where(turned_B, 1 - flipped_B, flipped_B)


def revealed_shots(experiment: Experiment, n_shots: int, seed: int) -> Shots:
    """Fresh shots with one end, at `rounds`, and the oracle's posterior. Same arguments: same shots."""
    return _revealed_labels(experiment).draw(n_shots, seed)


@lru_cache(maxsize=1024)  # 51 rates, two bases, several numbers of rounds; up to 1 s each to prepare
def _revealed_labels(experiment: Experiment) -> RevealedLabels:
    return RevealedLabels(experiment)


def _compiled():  # type: ignore[no-untyped-def]
    try:
        import numba  # noqa: F401
    except ImportError:
        raise SyndistillError("revealed labels need numba: pip install 'syndistill[labels]'") from None
    from syndistill.sampling.sweep_kernel import sweep

    return sweep
