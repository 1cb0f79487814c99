"""How far a decoder's probabilities can be believed: NLL, ECE, best temperature, reliability bins; and what its
confidence is worth: the error rate of the shots that are kept when the least certain are discarded.

Everything is float64.  A shot and observable count as one binary prediction: p is the probability of a flip, the label
is whether it flipped.  Arrays of any shape are taken flat.

Clipping: probabilities are moved into [1e-15, 1 - 1e-15] before a logarithm (log-odds within +-34.5), so a certain and
wrong prediction costs 34.5 nats, not infinity.  Logits are not clipped.

Legend: V distinct predictions, G bins, B shots, O observables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logit

from syndistill.errors import SyndistillError
from syndistill.statistics.rates import wilson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CLIP = 1e-15
BINS = 15
TEMPERATURE_RANGE = (0.05, 20.0)
"""Where the best temperature is looked for; an answer at an end means that the labels do not bound it."""


class ReliabilityBins(NamedTuple):
    """Per bin (G,): the number of predictions, their mean probability, and the frequency of flips (0 in empty bins)."""

    counts_G: NDArray[np.int64]
    predicted_G: Floats
    observed_G: Floats


def _flat(values: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    values_flat = np.asarray(values, np.float64).ravel()
    labels_flat = np.asarray(labels).astype(bool).ravel()
    if len(values_flat) != len(labels_flat) or len(values_flat) == 0:
        raise SyndistillError(
            f"{len(values_flat)} predictions for {len(labels_flat)} labels: give one each, at least one"
        )
    if not np.isfinite(values_flat).all():
        raise SyndistillError("a prediction is NaN or infinite: the decoder is broken")
    return values_flat, labels_flat


def _flat_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    p, flipped = _flat(probabilities, labels)
    if p.min() < 0 or p.max() > 1:
        raise SyndistillError(f"probabilities from {p.min()} to {p.max()}: they must lie in [0, 1] (logits given?)")
    return p, flipped


def log_odds(probabilities: ArrayLike) -> Floats:
    """log(p / (1 - p)) after the clipping of the module's text."""
    return logit(np.clip(np.asarray(probabilities, np.float64), CLIP, 1 - CLIP))


def _nll_terms(logits: Floats, flipped: Bools) -> Floats:
    return np.logaddexp(0.0, np.where(flipped, -logits, logits))


def nll(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood, nats per shot and observable."""
    p, flipped = _flat_probabilities(probabilities, labels)
    return float(_nll_terms(log_odds(p), flipped).mean())


def _totals(index: NDArray[np.int64], weights: Floats | Bools, at_least: int = 0) -> Floats:
    return np.bincount(index, weights=weights, minlength=at_least).astype(np.float64)


def _distinct(p: Floats, flipped: Bools) -> tuple[Floats, Floats, Floats]:
    """Distinct predictions in rising order, how often each occurs, and how many of its shots flipped, (V,) each."""
    values_V, inverse = np.unique(p, return_inverse=True)
    return values_V, _totals(inverse, np.ones_like(p)), _totals(inverse, flipped)


def _bin_of(values_V: Floats, counts_V: Floats, equal_mass: bool) -> NDArray[np.int64]:
    if equal_mass:
        # by the rank of its middle shot; equal predictions stay together, so the order of the shots does not matter
        position_V = (np.cumsum(counts_V) - counts_V / 2) / counts_V.sum()
    else:
        position_V = values_V
    return np.minimum((position_V * BINS).astype(np.int64), BINS - 1)


def _reliability(values_V: Floats, counts_V: Floats, flips_V: Floats, equal_mass: bool) -> ReliabilityBins:
    index_V = _bin_of(values_V, counts_V, equal_mass)
    counts_G = _totals(index_V, counts_V, BINS)
    safe_G = np.maximum(counts_G, 1)
    predicted_G = _totals(index_V, values_V * counts_V, BINS) / safe_G
    observed_G = _totals(index_V, flips_V, BINS) / safe_G
    return ReliabilityBins(counts_G.round().astype(np.int64), predicted_G, observed_G)


def _ece_of(found: ReliabilityBins) -> float:
    return float((found.counts_G * np.abs(found.predicted_G - found.observed_G)).sum() / found.counts_G.sum())


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, equal_mass: bool = True) -> ReliabilityBins:
    """Predicted against observed flips.

    BINS bins over the probability of a flip (not over the confidence of the decision, whose two sides could cancel):
    of equal mass (default; equal predictions are never split), or of equal width in [0, 1].
    """
    return _reliability(*_distinct(*_flat_probabilities(probabilities, labels)), equal_mass)


def ece(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error: mean over shots of |predicted - observed| of the shot's bin, by equal mass."""
    return _ece_of(reliability(probabilities, labels))


def fitted_temperature(nll_at: Callable[[float], float]) -> float:
    """The T that minimises nll_at(T): convex in 1/T, so one bounded search over log T finds it."""
    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(lambda log_t: nll_at(float(np.exp(log_t))), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T for which logits / T have the least NLL; 1 for a calibrated decoder, above 1 for an overconfident one."""
    z, flipped = _flat(logits, labels)
    return fitted_temperature(lambda t: float(_nll_terms(z / t, flipped).mean()))


_HALF_WIDTH, _STEP = 35.0, 0.25  # log-odds; the clipping keeps them within +-34.5
_CELLS = round(2 * _HALF_WIDTH / _STEP)


class CalibrationSums(NamedTuple):
    """What is kept of a batch's probabilities so that calibration adds up over batches: a histogram of log-odds.

    NLL is exact.  ECE and best temperature come from cells of width 1/4 in log-odds, each represented by its means:
    measured on d=3 posteriors the ECE (equal mass) moves by 1e-4, the temperature by 1e-3.  In JSON they take 3-9 kB.
    """

    nll_sum: float
    cells: tuple[int, ...]  # indices of the cells in use, rising
    counts: tuple[float, ...]
    flips: tuple[float, ...]
    probability_sums: tuple[float, ...]
    logit_sums: tuple[float, ...]

    @classmethod
    def of(cls, probabilities: ArrayLike, labels: ArrayLike) -> CalibrationSums:
        p, flipped = _flat_probabilities(probabilities, labels)
        z = log_odds(p)
        index = ((z + _HALF_WIDTH) / _STEP).astype(np.int64)
        cells, inverse = np.unique(index, return_inverse=True)
        sums = [tuple(_totals(inverse, weights).tolist()) for weights in (np.ones_like(p), flipped, p, z)]
        return cls(float(_nll_terms(z, flipped).sum()), tuple(cells.tolist()), *sums)

    def add(self, other: CalibrationSums) -> CalibrationSums:
        """The sums of both batches."""
        cells, inverse = np.unique(self.cells + other.cells, return_inverse=True)
        pairs = zip(self[2:], other[2:], strict=True)
        sums = [tuple(_totals(inverse, np.array(mine + theirs)).tolist()) for mine, theirs in pairs]
        return CalibrationSums(self.nll_sum + other.nll_sum, tuple(cells.tolist()), *sums)

    def require_counts(self, shots: int, errors_per_observable: tuple[int, ...]) -> None:
        """ValueError where so many shots with so many wrong decisions can't have given these sums."""
        counts, flips, cells = (np.array(values) for values in (self.counts, self.flips, self.cells))
        wrong = np.where(cells < _CELLS // 2, flips, counts - flips)
        tied = counts[cells == _CELLS // 2].sum()  # log-odds of exactly 0 lie in this cell and decide "not flipped"
        impossible = ((flips < 0) | (flips > counts)).any() or counts.sum() != shots * len(errors_per_observable)
        if impossible or abs(wrong.sum() - sum(errors_per_observable)) > tied:
            raise ValueError(f"calibration sums are not of {shots} shots with {errors_per_observable} errors")

    def nll(self) -> float:
        """As the function `nll`."""
        return self.nll_sum / sum(self.counts)

    def ece(self) -> float:
        """As the function `ece`, from cells."""
        counts, flips, sums = (np.array(values) for values in (self.counts, self.flips, self.probability_sums))
        return _ece_of(_reliability(sums / counts, counts, flips, equal_mass=True))

    def best_temperature(self) -> float:
        """As the function `best_temperature`, from cells."""
        counts, flips, sums = (np.array(values) for values in (self.counts, self.flips, self.logit_sums))
        z = sums / counts

        def nll_at(t: float) -> float:
            return float((counts * np.logaddexp(0.0, z / t) - flips * z / t).sum() / counts.sum())

        return fitted_temperature(nll_at)

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> CalibrationSums:
        """Raises ValueError, KeyError or TypeError for what `to_json` did not write."""
        cells = tuple(int(cell) for cell in found["cells"])
        sums = [tuple(float(value) for value in found[name]) for name in cls._fields[2:]]
        nll_sum = float(found["nll_sum"])
        if any(len(values) != len(cells) or not np.isfinite(values).all() for values in sums):
            raise ValueError("calibration sums of different lengths or not finite")
        if not cells or min(sums[0]) <= 0 or min(cells) < 0 or max(cells) >= _CELLS or not np.isfinite(nll_sum):
            raise ValueError("calibration sums out of range")
        return cls(nll_sum, cells, *sums)


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
