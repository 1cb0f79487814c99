"""What a decoder's confidence is worth: the error rate of the shots that are kept when the least certain are discarded.

Legend: B shots, O observables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.evaluation.calibration import log_odds
from syndistill.evaluation.intervals import wilson


class Kept(NamedTuple):
    """The most certain shots: how many of all, how many of them were decided wrongly."""

    shots: int
    errors: int
    of_shots: int

    @property
    def fraction(self) -> float:
        return self.shots / self.of_shots

    @property
    def ler(self) -> float:
        return self.errors / self.shots

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        found = wilson(self.errors, self.shots)
        return found.low, found.high


def kept_curve(
    probabilities_BO: NDArray[np.float64], flipped_BO: NDArray[np.bool_], fractions: Sequence[float]
) -> list[Kept]:
    """For each fraction in (0, 1]: the errors among so many of the most certain shots.

    A shot is as certain as its least certain observable (size of the log-odds), and wrong where any is. Shots of equal
    certainty are kept in the order in which they came. Raises SyndistillError for other fractions and for no shots.
    """
    n_shots = len(probabilities_BO)
    if n_shots == 0 or probabilities_BO.shape != flipped_BO.shape:
        raise SyndistillError(f"{probabilities_BO.shape} predictions for {flipped_BO.shape} labels; give one each")
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise SyndistillError(f"kept fractions {list(fractions)}; each must be above 0 and at most 1")
    certainty_B = np.abs(log_odds(probabilities_BO)).min(1)
    wrong_B = ((probabilities_BO > 0.5) != flipped_BO).any(1)
    errors_B = np.cumsum(wrong_B[np.argsort(-certainty_B, kind="stable")])
    counts = [max(1, round(fraction * n_shots)) for fraction in fractions]
    return [Kept(count, int(errors_B[count - 1]), n_shots) for count in counts]
