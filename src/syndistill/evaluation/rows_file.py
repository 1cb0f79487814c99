"""The file of rows and pairs: read and checked as a whole, appended to by any number of processes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from syndistill.errors import SyndistillError
from syndistill.evaluation.rows import Pair, Row, row_key
from syndistill.safe_lines import SealedLines
from syndistill.statistics.calibration import CalibrationSums

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
            if said := self._at_odds(pair):
                raise self._lines.damaged(number, said)

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
