"""Sweeps over shots of one end, and over several ends of the same shots, whose sweeps begin alike.

The ends of a shot differ in their last slices alone: the longest one's sweep is made once, and every other leaves it
where their plans part. Legend: B shots, K ends, N detectors in closing order, F open detectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_kernel import advance, begin, finish, sweep
from syndistill.sampling.sweep_plan import SweepPlan, SweepProblem


def flipped_alone(problem: SweepProblem, most_open: int) -> NDArray[np.float64]:
    """P(observable flipped), float64 (B,)."""
    flipped_B = sweep(problem.plan, problem.seen_BN, problem.start_B, problem.fired_GM, most_open)
    return np.where(problem.turned_B, 1 - flipped_B, flipped_B)


def flipped_together(problems: list[SweepProblem], common_K: list[int], most_open: int) -> NDArray[np.float64]:
    """The same at the ends of the same shots, shortest first: float64 (K, B).

    common_K: how many detectors the last problem's plan closes as each of the others does.
    """
    *_, (n_shots, n_detectors) = (problem.seen_BN.shape for problem in problems)
    flipped_KB = np.empty((len(problems), n_shots))
    trunk, branch = _Sweep(most_open, n_detectors), _Sweep(most_open, n_detectors)
    for b in range(n_shots):
        of_ends = [_of_shot(problem, b) for problem in problems]
        trunk.begin(of_ends[-1].plan)
        for k, (problem, common) in enumerate(zip(of_ends, common_K, strict=True)):
            flipped_KB[k, b] = _at_end(problem, of_ends[-1], common, trunk, branch)
    turned_KB = np.stack([problem.turned_B for problem in problems])
    return np.where(turned_KB, 1 - flipped_KB, flipped_KB)


def _at_end(problem: SweepProblem, longest: SweepProblem, common: int, trunk: _Sweep, branch: _Sweep) -> float:
    """One shot's P(observable flipped) but for what is known; the trunk goes on to where the plans part."""
    if trunk.go_on(longest, common):
        branch.go_on_from(trunk)
        if branch.go_on(problem, problem.seen_BN.shape[1]):
            return branch.finished(problem)
    # too many open at once: more is to be revealed, which may be something of before
    return float(sweep(problem.plan, problem.seen_BN, problem.start_B, problem.fired_GM, trunk.most_open)[0])


def _of_shot(problem: SweepProblem, b: int) -> SweepProblem:
    first, last = problem.start_B[b : b + 2]
    start_B = np.array([0, last - first])
    one = slice(b, b + 1)
    return SweepProblem(
        problem.plan, problem.seen_BN[one], start_B, problem.fired_GM[first:last], problem.turned_B[one]
    )


class _Sweep:
    """One shot's sweep: `closed` detectors are closed and `used` classes applied, `f` are open."""

    def __init__(self, most_open: int, n_detectors: int) -> None:
        self.most_open = most_open
        self.state, self.spare = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
        self.open_F, self.opened_N = np.empty(most_open + 1, np.int64), np.empty(n_detectors, np.int64)
        self.closed = self.used = self.f = 0

    def begin(self, plan: SweepPlan) -> None:
        begin(plan, self.state, self.opened_N)
        self.closed = self.used = self.f = 0

    def go_on(self, problem: SweepProblem, until: int) -> bool:
        """Whether there was room."""
        if self.f > self.most_open:
            return False
        self.f, self.used, swapped = advance(
            problem.plan, problem.seen_BN[0], problem.fired_GM[:, 0], self.most_open, self.state, self.spare,
            self.open_F, self.opened_N, self.closed, until, self.f, self.used,
        )  # fmt: skip
        self.closed = max(self.closed, until)
        if swapped:
            self.state, self.spare = self.spare, self.state
        return self.f <= self.most_open

    def go_on_from(self, other: _Sweep) -> None:
        self.closed, self.used, self.f = other.closed, other.used, other.f
        self.state[:, : 1 << self.f] = other.state[:, : 1 << self.f]
        self.open_F[:], self.opened_N[:] = other.open_F, other.opened_N

    def finished(self, problem: SweepProblem) -> float:
        return float(finish(problem.plan, problem.fired_GM[self.used :, 0], self.state, self.open_F))
