"""Soft labels of an oracle that is told more than the decoder: little noise where the exact posterior is out of reach.

The posterior given the events and something revealed of the true errors is, on the mean over what is revealed, the
posterior given the events alone (tower property), so that it teaches the same; and the more it averages over, the less
it scatters (Rao-Blackwell). Here the oracle is told, for each pattern of off-basis events, whether one error of the
class with that pattern fired, but not which; and every error of a class of which more than one fired. What is left to
sum over are patterns of on-basis events, half as many bits.

For several ends of one shot the errors are those of `circuits.memory_model`, which says what each shows at every end.

Axes: B shots, R rounds, S stabilisers, K ends, L lines, O observables, P their patterns (2), T slices of one end,
D detectors and A errors of one end's model, N on-basis detectors, M members of classes, C classes, G classes that fired
once (GM: class, member), of all shots one after the other, J joint errors of all ends, X bits that they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count
from types import ModuleType

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import flips
from syndistill.circuits.placement import Placement
from syndistill.errors import SyndistillError
from syndistill.sampling.chosen import Chosen, until_chosen
from syndistill.sampling.own_noise import Memory, joint_dem, joint_errors, placed_model, split_bits
from syndistill.sampling.shots import (
    Shots,
    concatenate,
    ends_of_one,
    shots_from_detectors,
    with_posterior,
)
from syndistill.sampling.sweep_plan import NONE, SweepModel, SweepProblem, common_detectors, sweep_model

MOST_OPEN = 18
"""Detectors open at once (d=5 needs 13): two states of 2^19 numbers, 8 MB."""

_LARGEST = 5
_AT_A_TIME = 1024
Sample = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]
"""Detectors, observables and errors of a block of shots."""


class RevealedLabels:
    """Draws shots of one experiment with the posterior of an oracle that knows part of their errors.

    Raises SyndistillError for basis "both", for distances above 5, and where numba is not installed.
    """

    def __init__(self, experiment: Memory) -> None:
        if experiment.basis == "both":
            raise SyndistillError("revealed labels: basis both has no off-basis events to reveal; take x and z")
        if experiment.distance > _LARGEST:
            raise SyndistillError(
                f"revealed labels: distance {experiment.distance} has too many on-basis patterns a slice; they exist "
                f"for distances up to {_LARGEST}"
            )
        self.dem: stim.DetectorErrorModel
        self.placed: Placement
        self.dem, self.placed = placed_model(experiment)
        self.line = self.placed.lines[0] or 0
        self.model: SweepModel = sweep_model(self.dem, self.placed)

    def closing_order_N2(self) -> NDArray[np.int64]:
        """Slice and stabiliser of the plan's detectors."""
        detector_N = self.model.detector_N
        return np.stack([self.placed.slice_N[detector_N], self.placed.stabiliser_N[detector_N]], axis=1)

    def draw(
        self, n_shots: int, seed: int, kept_N: NDArray[np.int64] | None = None, chosen: Chosen | None = None
    ) -> Shots:
        """Shots with one end, `labels_BKLO` as drawn and `posterior_BKLP` as revealed. A function of the seed, and of
        what is chosen.

        chosen: shots are drawn until so many were chosen, and these counted alone. kept_N: of those only these
        (increasing), since labels are what costs.
        """
        samples = _samples(self.dem, n_shots, seed, kept_N, None if chosen is None else self._of_detectors(chosen))
        return concatenate([self.labelled(*sample) for sample in samples])

    def _of_detectors(self, chosen: Chosen) -> Callable[[NDArray[np.bool_]], torch.Tensor]:
        """The same choice, of a block's detectors in place of shots."""
        return lambda events_BD: chosen(shots_from_detectors(events_BD, self.placed))

    def labelled(
        self, events_BD: NDArray[np.bool_], labels_BO: NDArray[np.bool_], errors_BA: NDArray[np.bool_]
    ) -> Shots:
        """Shots with one end from a sample of this experiment's error model."""
        return self.with_flipped(events_BD, labels_BO, self.flipped(events_BD, errors_BA))

    def with_flipped(
        self, events_BD: NDArray[np.bool_], labels_BO: NDArray[np.bool_], flipped_B: NDArray[np.float64]
    ) -> Shots:
        """Shots with one end and this P(observable flipped)."""
        shots = shots_from_detectors(events_BD, self.placed, labels_BO)
        posterior_BP = torch.from_numpy(np.stack([1 - flipped_B, flipped_B], -1).astype(np.float32))
        return with_posterior(shots, posterior_BP[:, None], (self.line,))

    def flipped(self, events_BD: NDArray[np.bool_], errors_BA: NDArray[np.bool_]) -> NDArray[np.float64]:
        """P(observable flipped | events, what is revealed of the errors), float64 (B,)."""
        return sweeps().flipped_alone(self.problem(events_BD, errors_BA), MOST_OPEN)

    def problem(self, events_BD: NDArray[np.bool_], errors_BA: NDArray[np.bool_]) -> SweepProblem:
        """What the sweep is asked: the events without known errors, and the classes that fired once."""
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
        return SweepProblem(plan, seen_BN, start_B, fired_GM[by_first], turned_B)


class RevealedEnds:
    """The same at several ends of one shot: each is a problem of its own, of the errors that show at it, and begins as
    the others do.

    Raises what RevealedLabels does.
    """

    def __init__(self, experiment: Memory) -> None:
        self.experiment = experiment
        _revealed_labels(experiment)  # refuses what can't be revealed
        self.errors = joint_errors(experiment)
        self.dem = joint_dem(self.errors)
        self.columns: dict[int, NDArray[np.int64]] = {}
        self.common: dict[tuple[int, int], int] = {}

    def draw(
        self,
        n_shots: int,
        seed: int,
        ends: tuple[int, ...],
        kept_N: NDArray[np.int64] | None = None,
        chosen: Chosen | None = None,
    ) -> Shots:
        """Shots with these ends, as RevealedLabels.draw."""
        samples = _samples(self.dem, n_shots, seed, kept_N, None if chosen is None else self._of_bits(chosen))
        return concatenate([self._some(shown_BX, errors_BJ, ends) for shown_BX, _, errors_BJ in samples])

    def _of_bits(self, chosen: Chosen) -> Callable[[NDArray[np.bool_]], torch.Tensor]:
        """Of the bits of `joint_dem`, in place of shots."""
        last = self.experiment.rounds
        of_last = self._end(last)
        of_detectors = of_last._of_detectors(chosen)

        def of_bits(shown_BX: NDArray[np.bool_]) -> torch.Tensor:
            events_BRS, last_BKS, _, _ = split_bits(shown_BX, self.errors)
            return of_detectors(_detectors(events_BRS, last_BKS, last, of_last.placed))

        return of_bits

    def _some(self, shown_BX: NDArray[np.bool_], errors_BJ: NDArray[np.bool_], ends: tuple[int, ...]) -> Shots:
        events_BRS, last_BKS, label_BK, _ = split_bits(shown_BX, self.errors)
        problems, events_KBD = [], []
        for end in ends:
            labels, column_J = self._end(end), self._columns(end)
            errors_BA = np.zeros((len(shown_BX), labels.dem.num_errors), np.bool_)
            shot, j = np.nonzero(errors_BJ & (column_J != NONE))
            np.bitwise_xor.at(errors_BA, (shot, column_J[j]), True)
            events_KBD.append(_detectors(events_BRS, last_BKS, end, labels.placed))
            problems.append(labels.problem(events_KBD[-1], errors_BA))
        flipped_KB = sweeps().flipped_together(problems, [self._common(end, ends[-1]) for end in ends], MOST_OPEN)
        parts = [
            self._end(end).with_flipped(events_BD, label_BK[:, [end - 1]], flipped_B)
            for end, events_BD, flipped_B in zip(ends, events_KBD, flipped_KB, strict=True)
        ]
        return ends_of_one(parts, torch.from_numpy(events_BRS.astype(np.uint8)))

    def _common(self, end: int, last: int) -> int:
        """How many detectors may be closed by the plan of the last end for this one."""
        if (end, last) not in self.common:
            one, other = self._end(end), self._end(last)
            order_N2, other_N2 = one.closing_order_N2(), other.closing_order_N2()
            n = common_detectors(one.model.plan, other.model.plan)
            self.common[end, last] = n if np.array_equal(order_N2[:n], other_N2[:n]) else 0
        return self.common[end, last]

    def _end(self, end: int) -> RevealedLabels:
        return _revealed_labels(replace(self.experiment, rounds=end))

    def _columns(self, end: int) -> NDArray[np.int64]:
        """int64 (J,): which error of the model that ends here each joint one is, NONE where it shows nothing."""
        if end not in self.columns:
            of = self._end(end)
            known = {(*sorted(detectors), observable): a for a, (_, detectors, observable) in enumerate(flips(of.dem))}
            events_JD = _detectors(self.errors.events_JRS, self.errors.last_JKS, end, of.placed)
            label_J = self.errors.label_JK[:, end - 1]
            shown: list[list[int]] = [[] for _ in label_J]
            for j, n in zip(*(index.tolist() for index in np.nonzero(events_JD)), strict=True):
                shown[j].append(n)
            keys = [(*some, int(label)) for some, label in zip(shown, label_J, strict=True)]
            self.columns[end] = np.array([NONE if key == (0,) else known[key] for key in keys], np.int64)
        return self.columns[end]


def _samples(
    dem: stim.DetectorErrorModel,
    n_shots: int,
    seed: int,
    kept_N: NDArray[np.int64] | None,
    chosen: Callable[[NDArray[np.bool_]], torch.Tensor] | None,
) -> Iterator[Sample]:
    """Blocks of the shots kept, of the first n_shots that are chosen."""
    sampler = dem.compile_sampler(seed=seed)

    def block(n: int) -> Sample:
        detectors_BD, observables_BO, errors_BA = sampler.sample(n, return_errors=True)
        assert errors_BA is not None  # asked for
        return detectors_BD, observables_BO, errors_BA

    found: Iterator[tuple[Sample, NDArray[np.int64]]]
    if chosen is None:
        sizes = [min(_AT_A_TIME, n_shots - first) for first in range(0, n_shots, _AT_A_TIME)]
        found = ((block(n), np.arange(n)) for n in sizes)
    else:
        found = until_chosen(n_shots, (block(_AT_A_TIME) for _ in count()), lambda sample: chosen(sample[0]))
    first = 0
    for sample, at in found:
        here = at if kept_N is None else at[kept_N[(kept_N >= first) & (kept_N < first + len(at))] - first]
        first += len(at)
        if len(here):
            detectors_BD, observables_BO, errors_BA = sample
            yield detectors_BD[here], observables_BO[here], errors_BA[here]


def _detectors(events_BRS: NDArray, last_BKS: NDArray, end: int, placed: Placement) -> NDArray:
    slices_BTS = np.concatenate([events_BRS[:, :end], last_BKS[:, [end - 1]]], axis=1)
    return slices_BTS[:, placed.slice_N, placed.stabiliser_N]


def revealed_shots(
    experiment: Memory,
    n_shots: int,
    seed: int,
    ends: tuple[int, ...] = (),
    kept_N: NDArray[np.int64] | None = None,
    chosen: Chosen | None = None,
) -> Shots:
    """Fresh shots with these ends (none: the last alone) and the oracle's posterior. Same arguments: same shots.

    chosen, kept_N: as of RevealedLabels.draw.
    """
    if ends in ((), (experiment.rounds,)):
        return _revealed_labels(experiment).draw(n_shots, seed, kept_N, chosen)
    return _revealed_ends(experiment).draw(n_shots, seed, ends, kept_N, chosen)


# 51 rates, two bases, several numbers of rounds; up to 1 s each to prepare
@lru_cache(maxsize=1024)
def _revealed_labels(experiment: Memory) -> RevealedLabels:
    return RevealedLabels(experiment)


@lru_cache(maxsize=512)
def _revealed_ends(experiment: Memory) -> RevealedEnds:
    return RevealedEnds(experiment)


def sweeps() -> ModuleType:
    """The module that needs numba."""
    try:
        import numba  # noqa: F401
    except ImportError:
        raise SyndistillError("revealed labels need numba: pip install 'syndistill[labels]'") from None
    from syndistill.sampling import sweep_kernel

    return sweep_kernel
