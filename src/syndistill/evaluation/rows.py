"""Rows: what was counted, in a form that adds up, and the file that any number of processes append them to.

A Row counts one decoder on one batch of shots, a Pair two decoders on the same batch.  Each has a key, the hash of who
decoded what; the same key is never counted twice, so a rerun continues where the last one stopped.  Rates and intervals
are derived from the counts and not stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from syndistill.errors import SyndistillError
from syndistill.safe_lines import SealedLines
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
    whole = all(type(count) is int for count in (shots, *counts))
    if not whole or shots <= 0 or min(counts) < 0 or max(counts) > shots:
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
        return row_key(self.decoder_id, self.circuit_sha256, self.batch)

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


FORMAT = 1
# A network's logits at a tie may fall to either side on another machine: a pair decoded there, not its rows.
_TIES = 1e-4


def to_content(one: Row | Pair) -> dict[str, Any]:
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    if isinstance(one, Row):
        fields["calibration"] = None if one.calibration is None else one.calibration.to_json()
    return {"format": FORMAT, "kind": "row" if isinstance(one, Row) else "pair", "key": one.key} | fields


def from_content(fields: dict[str, Any]) -> Row | Pair:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything that `to_content` did not make."""
    if fields.pop("format") != FORMAT:
        raise ValueError("another format")
    kind, key = fields.pop("kind"), fields.pop("key")
    found: Row | Pair
    if kind == "row":
        if fields["calibration"] is not None:
            fields["calibration"] = CalibrationSums.from_json(fields["calibration"])
        fields["errors_per_observable"] = tuple(fields["errors_per_observable"])
        found = Row(**fields)
    elif kind == "pair":
        found = Pair(**fields)
    else:
        raise ValueError("another kind")
    if found.key != key:
        raise ValueError("the key does not fit")
    return found


class RowsFile:
    """A file of rows and pairs, one JSON object a line.

    Raises SyndistillError for a line that is damaged, repeated, of another version, or at odds with another line (with
    its number), and for a path that cannot be written. Several processes may append to one file: what another one added
    is taken over, and no batch comes twice. `None` as path keeps the rows in memory only.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.rows: dict[str, Row] = {}
        self.pairs: dict[str, Pair] = {}
        self._lines: SealedLines | None = None
        if path is None:
            return
        remedy = "delete that line (its batch is then decoded again) or take another file"
        self._lines = SealedLines(Path(path), remedy)
        self._lines.require_writable()
        with self._lines.held():
            self._catch_up()

    def _catch_up(self) -> None:
        """Take over what the file holds and this object does not."""
        assert self._lines is not None
        path = self._lines.path
        pairs: list[tuple[int, Pair]] = []
        for number, content in self._lines.new():
            try:
                one = from_content(content)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._lines.damaged(number, f"{type(error).__name__}: {error}") from None
            if one.key in self.rows or one.key in self.pairs:
                raise SyndistillError(f"{path} line {number} repeats an earlier line: delete one of the two")
            self._remember(one)
            if isinstance(one, Pair):
                pairs.append((number, one))
        for number, pair in pairs:
            if fault := self._at_odds(pair):
                raise self._lines.damaged(number, fault)

    def _at_odds(self, pair: Pair) -> str | None:
        """What a pair says of its decoders, held against their own rows."""
        for who, only in ((pair.a_id, pair.only_a_wrong), (pair.b_id, pair.only_b_wrong)):
            row = self.rows.get(row_key(who, pair.circuit_sha256, pair.batch))
            if row is None:
                continue
            if (row.shots, row.shots_sha256) != (pair.shots, pair.shots_sha256):
                return f"the row of {row.decoder} is of other shots"
            errors = only + pair.both_wrong
            if abs(errors - row.errors) > _TIES * row.shots:
                return f"{errors} errors of {row.decoder}, its row says {row.errors}"
        return None

    def _remember(self, one: Row | Pair) -> None:
        if isinstance(one, Row):
            self.rows[one.key] = one
        else:
            self.pairs[one.key] = one

    def append(self, counted: Iterable[Row | Pair]) -> None:
        """Adds rows and pairs that are not in the file, in one write, flushed to the disk."""
        if self._lines is None:
            self._add(counted)
            return
        with self._lines.held():
            self._catch_up()
            self._add(counted)

    def _add(self, counted: Iterable[Row | Pair]) -> None:
        new = [one for one in counted if one.key not in self.rows and one.key not in self.pairs]
        if self._lines is not None:
            self._lines.append(to_content(one) for one in new)
        for one in new:
            self._remember(one)
