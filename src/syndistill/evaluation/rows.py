"""Rows: what was counted, in a form that adds up; `rows_file` has the file they are appended to.

A Row counts one decoder on one batch of shots, a Pair two decoders on the same batch.  Each has a key, the hash of who
decoded what; the same key is never counted twice, so a rerun continues where the last one stopped.  Rates and intervals
are derived from the counts and not stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

from syndistill.errors import SyndistillError
from syndistill.statistics.calibration import CalibrationSums
from syndistill.statistics.rates import Ratio, ler_ratio, mcnemar, wilson

_ROW_REPORT = (
    *("decoder", "shots", "errors", "ler", "low", "high", "us_per_shot", "parameters"),
    *("nll", "ece", "best_temperature", "errors_per_observable"),
    *("experiment", "decoder_id", "circuit_sha256", "shots_sha256"),
)
_PAIR_COUNTS = ("only_a_wrong", "only_b_wrong", "both_wrong")
_PAIR_REPORT = ("a", "b", "shots", *_PAIR_COUNTS, "p_value")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _require_counts(shots: int, *counts: int) -> None:
    if (
        any(type(count) is not int for count in (shots, *counts))
        or shots <= 0
        or min(counts) < 0
        or max(counts) > shots
    ):
        raise ValueError(f"counts {counts} of {shots} shots")


@dataclass(frozen=True)
class Row:
    """One decoder's errors on some shots.

    Attributes:
        decoder: its name, for tables; decoder_id: its `content_id`, for keys.
        experiment: what the shots are of, for tables; circuit_sha256: hash of the circuit's text, for keys.
        batch: which shots of that circuit (seed, index and size of the batch, or the hash of recorded shots).
        shots_sha256: `StoredShots.sha256`; of combined rows the hash over those of the batches.
        errors: shots with any observable decided wrongly; errors_per_observable: for each observable.
        seconds: time spent decoding.
        parameters: trained parameters, None for decoders without.
        calibration: sums for NLL, ECE and temperature, None for hard decoders.
    """

    decoder: str
    decoder_id: str
    experiment: str
    circuit_sha256: str
    batch: str
    shots_sha256: str
    shots: int
    errors: int
    errors_per_observable: tuple[int, ...]
    seconds: float
    parameters: int | None
    calibration: CalibrationSums | None

    def __post_init__(self) -> None:
        _require_counts(self.shots, self.errors, *self.errors_per_observable)
        if not max(self.errors_per_observable) <= self.errors <= sum(self.errors_per_observable):
            raise ValueError(f"{self.errors} errors, but {self.errors_per_observable} of the observables")
        if self.calibration is not None:
            self.calibration.require_counts(self.shots, self.errors_per_observable)
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds {self.seconds}")

    @property
    def key(self) -> str:
        """Hash of decoder, circuit and batch."""
        return _hash("row", self.decoder_id, self.circuit_sha256, self.batch)

    @property
    def ler(self) -> float:
        return self.errors / self.shots

    @property
    def low(self) -> float:
        """Lower end of Wilson's 95 % interval of the LER."""
        return wilson(self.errors, self.shots).low

    @property
    def high(self) -> float:
        """Upper end of Wilson's 95 % interval of the LER."""
        return wilson(self.errors, self.shots).high

    @property
    def us_per_shot(self) -> float:
        return 1e6 * self.seconds / self.shots

    @property
    def nll(self) -> float | None:
        """Nats per shot and observable."""
        return None if self.calibration is None else self.calibration.nll()

    @property
    def ece(self) -> float | None:
        return None if self.calibration is None else self.calibration.ece()

    @property
    def best_temperature(self) -> float | None:
        return None if self.calibration is None else self.calibration.best_temperature()

    def report(self) -> dict[str, Any]:
        """The row as `syndistill evaluate --json` shows it."""
        return {name: getattr(self, name) for name in _ROW_REPORT}


@dataclass(frozen=True)
class Pair:
    """Two decoders on the same shots: how often only one of them was wrong (any observable), and both."""

    a: str
    b: str
    a_id: str
    b_id: str
    experiment: str
    circuit_sha256: str
    batch: str
    shots_sha256: str
    shots: int
    only_a_wrong: int
    only_b_wrong: int
    both_wrong: int

    def __post_init__(self) -> None:
        _require_counts(self.shots, self.only_a_wrong, self.only_b_wrong, self.both_wrong)
        _require_counts(self.shots, self.only_a_wrong + self.only_b_wrong + self.both_wrong)

    @property
    def key(self) -> str:
        """Hash of both decoders (in either order), circuit and batch."""
        return pair_key(self.a_id, self.b_id, self.circuit_sha256, self.batch)

    @property
    def p_value(self) -> float:
        """Exact McNemar."""
        return mcnemar(self.only_a_wrong, self.only_b_wrong)

    @property
    def ratio(self) -> Ratio | None:
        """LER(a) / LER(b) with its paired 95 % interval; None when one of them made no error."""
        if min(self.only_a_wrong, self.only_b_wrong) + self.both_wrong == 0:
            return None
        return ler_ratio(self.only_a_wrong, self.only_b_wrong, self.both_wrong)

    def flipped(self) -> Pair:
        """The same with a and b exchanged."""
        return dataclasses.replace(
            self,
            a=self.b,
            b=self.a,
            a_id=self.b_id,
            b_id=self.a_id,
            only_a_wrong=self.only_b_wrong,
            only_b_wrong=self.only_a_wrong,
        )

    def report(self) -> dict[str, Any]:
        """The pair as `syndistill evaluate --json` shows it."""
        ratio = None if self.ratio is None else self.ratio._asdict()
        return {name: getattr(self, name) for name in _PAIR_REPORT} | {"ler_ratio": ratio}


def row_key(decoder_id: str, circuit_sha256: str, batch: str) -> str:
    """`Row.key` before the row exists."""
    return _hash("row", decoder_id, circuit_sha256, batch)


def pair_key(a_id: str, b_id: str, circuit_sha256: str, batch: str) -> str:
    """`Pair.key` before the pair exists."""
    return _hash("pair", *sorted((a_id, b_id)), circuit_sha256, batch)


Counted = TypeVar("Counted", Row, Pair)


def combine(counted: Sequence[Counted]) -> list[Counted]:
    """Adds up the batches of each decoder (or pair of decoders) on each circuit, in order of first appearance.

    A pair's decoders stand in the order of its first batch.  Raises SyndistillError when one batch comes twice.
    """
    groups: dict[tuple[str, ...], dict[str, Counted]] = {}
    for one in counted:
        who: list[str] = [one.decoder_id] if isinstance(one, Row) else sorted((one.a_id, one.b_id))
        group = groups.setdefault((*who, one.circuit_sha256), {})
        if one.batch in group:
            raise SyndistillError(f"batch '{one.batch}' of {one.experiment} comes twice: give every row once")
        group[one.batch] = _oriented(one, next(iter(group.values()), one))
    return [_sum(list(group.values())) for group in groups.values()]


def _oriented(one: Counted, like: Counted) -> Counted:
    if isinstance(one, Pair) and isinstance(like, Pair) and one.a_id != like.a_id:
        return one.flipped()  # type: ignore[return-value]
    return one


def _sum(group: list[Counted]) -> Counted:
    if len(group) == 1:
        return group[0]
    first = group[0]
    ordered = sorted(group, key=lambda one: one.batch)
    changes: dict[str, Any] = {
        "batch": f"{len(group)} batches {_hash(*(one.batch for one in ordered))}",
        "shots_sha256": _hash(*(one.shots_sha256 for one in ordered)),
    }
    counts = ("shots", "errors", "seconds") if isinstance(first, Row) else ("shots", *_PAIR_COUNTS)
    changes |= {name: sum(getattr(one, name) for one in group) for name in counts}
    rows = [one for one in group if isinstance(one, Row)]
    if rows:
        changes["errors_per_observable"] = tuple(
            sum(column) for column in zip(*(row.errors_per_observable for row in rows), strict=True)
        )
        sums = [row.calibration for row in rows if row.calibration is not None]
        changes["calibration"] = reduce(CalibrationSums.add, sums) if len(sums) == len(rows) else None
    return dataclasses.replace(first, **changes)
