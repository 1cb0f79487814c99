"""Sweeps over shots of one end, and over several ends of the same shots, whose sweeps begin alike.

The ends of a shot differ in their last slices alone: the longest one's sweep is made once, and every other leaves it
where their plans part. All shots go in one call: a thread that comes back to Python for each waits for the lock there.
Legend: B shots, K ends, N detectors in closing order, F open detectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from syndistill.sampling.sweep_close import Ints, Table, compiled
from syndistill.sampling.sweep_kernel import advance, begin, go_to_end, sweep
from syndistill.sampling.sweep_plan import SweepPlan, SweepProblem


def flipped_alone(problem: SweepProblem, most_open: int) -> NDArray[np.float64]:
    """P(observable flipped), float64 (B,)."""
    flipped_B = sweep(problem.plan, problem.seen_BN, problem.start_B, problem.fired_GM, most_open)
    return np.where(problem.turned_B, 1 - flipped_B, flipped_B)


def flipped_together(problems: list[SweepProblem], common_K: list[int], most_open: int) -> NDArray[np.float64]:
    """The same at the ends of the same shots, shortest first: float64 (K, B).

    common_K: how many detectors the last problem's plan closes as each of the others does.
    """
    plans, seen, starts, fired, turned = zip(*problems, strict=True)
    flipped_KB = _together(plans, seen, starts, fired, np.array(common_K, np.int64), most_open)
    return np.where(np.stack(turned), 1 - flipped_KB, flipped_KB)


@compiled
def _together(
    plans: tuple[SweepPlan, ...],
    seen: tuple[NDArray[np.uint8], ...],
    starts: tuple[Ints, ...],
    fired: tuple[Ints, ...],
    common_K: Ints,
    most_open: int,
) -> Table:
    """Before what is known turns them: float64 (K, B)."""
    last, shots, n_detectors = len(common_K) - 1, len(seen[0]), seen[-1].shape[1]
    out_KB = np.empty((last + 1, shots))
    trunk, spare = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
    branch, branch_spare = np.empty((2, 1 << most_open)), np.empty((2, 1 << most_open))
    open_F, opened_N = np.empty(most_open + 1, np.int64), np.empty(n_detectors, np.int64)
    for b in range(shots):
        begin(plans[last], trunk, opened_N)
        fired_of_last = fired[last][starts[last][b] : starts[last][b + 1]]
        done, f, g = 0, 0, 0
        for k in range(last + 1):
            plan, seen_N, until = plans[k], seen[k][b], common_K[k]
            fired_GM = fired[k][starts[k][b] : starts[k][b + 1]]
            p = np.nan
            if f <= most_open:
                f, g, swapped = advance(
                    plans[last], seen[last][b], fired_of_last[:, 0], most_open, trunk, spare, open_F, opened_N,
                    done, until, f, g,
                )  # fmt: skip
                if swapped:
                    trunk, spare = spare, trunk
                done = until
            if f <= most_open:
                branch[:, : 1 << f] = trunk[:, : 1 << f]
                p = go_to_end(
                    plan, seen_N, fired_GM[:, 0], most_open, branch, branch_spare, open_F.copy(), opened_N.copy(),
                    until, f, g,
                )  # fmt: skip
            if np.isnan(p):  # too many open at once: more is to be revealed, which may be something of before
                whole = np.array([0, len(fired_GM)])
                p = sweep(plan, seen[k][b : b + 1], whole, fired_GM, most_open)[0]
            out_KB[k, b] = p
    return out_KB
