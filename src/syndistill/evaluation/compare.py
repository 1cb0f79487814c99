"""Decoders judged on the same shots.

Legend: B shots, O observables.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import Decoder, decisions
from syndistill.errors import SyndistillError
from syndistill.evaluation.rows import Pair, Row, RowsFile, combine, pair_key, row_key
from syndistill.reporter import Bar, Reporter
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed
from syndistill.statistics.calibration import CalibrationSums

DEFAULT_BATCH = 25_000
_WARM_UP_SHOTS = 256


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: a row for each decoder and a pair for any two, in the order the decoders were given.

    left_out: why, by the names of decoders that could not serve; they have no row and no pair.
    """

    rows: list[Row]
    pairs: list[Pair]
    left_out: dict[str, str] = field(default_factory=dict)

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of these two, a first; None where one of them was left out."""
        of_two = next((pair for pair in self.pairs if {pair.a, pair.b} == {a, b}), None)
        return of_two if of_two is None or of_two.a == a else of_two.flipped()

    def to_json(self) -> dict[str, Any]:
        """{"rows": [...], "pairs": [...]}, ready for json.dump; the entries are `Row.report` and `Pair.report`.

        Where decoders were left out also "left_out": {name: why}.
        """
        report: dict[str, Any] = {"rows": [row.report() for row in self.rows]}
        report["pairs"] = [pair.report() for pair in self.pairs]
        return report | ({"left_out": self.left_out} if self.left_out else {})


class LeftOut(dict[str, str]):
    """Why, by the names of decoders that could not serve. The reporter is told at once; without one it raises."""

    def __init__(self, reporter: Reporter | None) -> None:
        super().__init__()
        self._reporter = reporter

    def add(self, name: str, error: SyndistillError, others: int) -> None:
        """Raises the error where there is nobody to tell, or none of `others` decoders is left."""
        if self._reporter is None or (others == 0 and not self):
            raise error
        self[name] = " ".join(str(error).split())
        if others == 0:
            raise SyndistillError("no decoder can serve: " + "; ".join(f"{n}: {why}" for n, why in self.items()))
        self._reporter.say(f"warning: {name} is left out: {self[name]}")


@dataclass(frozen=True)
class _Batch:
    """Some shots, loaded only when a decoder has not seen them."""

    label: str
    n_shots: int
    load: Callable[[], StoredShots]


def _itself(shots: StoredShots) -> StoredShots:
    return shots


def circuit_sha256(circuit: stim.Circuit | stim.DetectorErrorModel) -> str:
    """The hash by which rows know a circuit, or an error model alone."""
    return hashlib.sha256(str(circuit).encode()).hexdigest()


def compare(
    decoders: Sequence[Decoder],
    circuit: stim.Circuit | stim.DetectorErrorModel,
    shots: int,
    seed: int,
    *,
    batch: int = DEFAULT_BATCH,
    rows_file: str | Path | None = None,
    bar: Bar | None = None,
    experiment: str | None = None,
    left_out: LeftOut | None = None,
) -> Comparison:
    """Samples shots of a circuit, or of an error model alone, in batches, and has every decoder decode the same ones.

    Batches that `rows_file` holds already are not decoded again.  Seeds of batches follow from `seed` by
    `evaluation_seed`, apart from those of training.  `experiment` labels the rows (default: the circuit's hash).
    A decoder that fails on the way is added to `left_out` and the others go on.  The bar counts shots times decoders.

    Raises SyndistillError for no shots or decoders, decoders of one name, a damaged rows file, or a rows file whose
    shots cannot be drawn again (another version of Stim).
    """
    if shots <= 0 or batch <= 0:
        raise SyndistillError(f"{shots} shots in batches of {batch}: both must be positive")
    source = circuit_sha256(circuit)
    dem = circuit if isinstance(circuit, stim.DetectorErrorModel) else dem_of_circuit(circuit)

    def batches() -> Iterator[_Batch]:
        for index, start in enumerate(range(0, shots, batch)):
            size = min(batch, shots - start)
            stim_seed = evaluation_seed(seed, index, size)
            label = f"seed={seed},index={index},shots={size}"
            yield _Batch(label, size, partial(StoredShots.sample, circuit, size, stim_seed, dem))

    label = experiment or f"circuit {source[:12]}"
    return _Judge(decoders, label, source, rows_file, bar, left_out).run(batches())


def compare_recorded(
    decoders: Sequence[Decoder],
    stored: Sequence[StoredShots],
    *,
    rows_file: str | Path | None = None,
    bar: Bar | None = None,
    experiment: str | None = None,
    left_out: LeftOut | None = None,
) -> Comparison:
    """As `compare`, on shots that exist already, all of one circuit (or, without circuits, one error model)."""
    sources = {circuit_sha256(s.dem if s.circuit is None else s.circuit) for s in stored}
    if len(sources) != 1:
        raise SyndistillError(f"shots of {len(sources)} circuits: compare on the shots of exactly one at a time")
    (source,) = sources
    batches = [_Batch(f"stored {s.sha256}", s.n_shots, partial(_itself, s)) for s in stored if s.n_shots]
    if not batches:
        raise SyndistillError("no shots: give recorded shots that are not empty")
    label = experiment or f"recorded {source[:12]}"
    return _Judge(decoders, label, source, rows_file, bar, left_out).run(batches)


class _Judge:
    """Has decoders decode batches, and keeps the rows."""

    def __init__(
        self,
        decoders: Sequence[Decoder],
        experiment: str,
        source: str,
        rows_file: str | Path | None,
        bar: Bar | None,
        left_out: LeftOut | None,
    ) -> None:
        for what, values in (("name", [d.name for d in decoders]), ("content", [d.content_id for d in decoders])):
            if len(set(values)) != len(values):
                raise SyndistillError(f"two decoders have the same {what} ({', '.join(values)}): give each once")
        if not decoders:
            raise SyndistillError("no decoders: name at least one")
        self._decoders = list(decoders)
        self._experiment, self._source = experiment, source
        self._file = RowsFile(rows_file)
        self._bar = bar or Bar()
        self._warm: set[str] = set()
        self._left_out = LeftOut(None) if left_out is None else left_out

    def run(self, batches: Iterable[_Batch]) -> Comparison:
        rows: list[Row] = []
        pairs: list[Pair] = []
        for batch in batches:
            self._decode_missing(batch)
            for decoder in self._decoders:
                row = self._file.rows[self._row_key(decoder, batch)]
                rows.append(dataclasses.replace(row, decoder=decoder.name, experiment=self._experiment))
            for a, b in combinations(self._decoders, 2):
                pair = self._file.pairs[self._pair_key(a, b, batch)]
                pair = pair if pair.a_id == a.content_id else pair.flipped()
                pairs.append(dataclasses.replace(pair, a=a.name, b=b.name, experiment=self._experiment))
            hashes = {row.shots_sha256 for row in rows[-len(self._decoders) :]}
            if len(hashes) != 1:
                raise SyndistillError(f"the rows of '{batch.label}' are of different shots: take a new rows file")
        names = {decoder.name for decoder in self._decoders}
        rows = [row for row in rows if row.decoder in names]
        pairs = [pair for pair in pairs if {pair.a, pair.b} <= names]
        return Comparison(combine(rows), combine(pairs), dict(self._left_out))

    def _row_key(self, decoder: Decoder, batch: _Batch) -> str:
        return row_key(decoder.content_id, self._source, batch.label)

    def _pair_key(self, a: Decoder, b: Decoder, batch: _Batch) -> str:
        return pair_key(a.content_id, b.content_id, self._source, batch.label)

    def _decode_missing(self, batch: _Batch) -> None:
        """Decodes with every decoder whose row, or one of whose pairs, is not in the file."""
        pairs = [p for p in combinations(self._decoders, 2) if self._pair_key(*p, batch) not in self._file.pairs]
        wanted = {d.content_id for pair in pairs for d in pair}
        wanted |= {d.content_id for d in self._decoders if self._row_key(d, batch) not in self._file.rows}
        new: list[Row | Pair] = []
        wrong: dict[str, NDArray[np.bool_]] = {}
        shots = batch.load() if wanted else None
        for decoder in list(self._decoders):
            if shots is not None and decoder.content_id in wanted:
                self._require_same_shots(decoder, batch, shots)
                try:
                    row, wrong[decoder.content_id] = self._judge(decoder, batch, shots)
                except SyndistillError as error:
                    self._left_out.add(decoder.name, error, len(self._decoders) - 1)
                    self._decoders.remove(decoder)
                    pairs = [pair for pair in pairs if decoder not in pair]
                    continue
                new.append(row)
            self._bar.advance(batch.n_shots)
        if shots is not None:
            new += [self._pair(a, b, batch, shots, wrong[a.content_id], wrong[b.content_id]) for a, b in pairs]
        self._file.append(new)

    def _require_same_shots(self, decoder: Decoder, batch: _Batch, shots: StoredShots) -> None:
        known = self._file.rows.get(self._row_key(decoder, batch))
        if known is not None and known.shots_sha256 != shots.sha256:
            raise SyndistillError(
                f"the rows file has other shots for '{batch.label}' (Stim draws others in another version or on "
                "another processor): take a new rows file"
            )

    def _judge(self, decoder: Decoder, batch: _Batch, shots: StoredShots) -> tuple[Row, NDArray[np.bool_]]:
        if decoder.content_id not in self._warm:
            decoder.decode(shots.take(0, min(_WARM_UP_SHOTS, shots.n_shots)))
            self._warm.add(decoder.content_id)
        start = time.perf_counter()
        probabilities_BO = decoder.decode(shots)
        seconds = time.perf_counter() - start
        labels_BO = shots.observables()
        if probabilities_BO.shape != labels_BO.shape or not ((probabilities_BO >= 0) & (probabilities_BO <= 1)).all():
            raise SyndistillError(
                f"{decoder.name} gave {probabilities_BO.shape} values, {labels_BO.shape} wanted, or not in [0, 1]: "
                "its weights are broken, take another checkpoint"
            )
        wrong_BO = decisions(probabilities_BO) != labels_BO
        wrong_B = wrong_BO.any(axis=1)
        row = Row(
            decoder=decoder.name,
            decoder_id=decoder.content_id,
            experiment=self._experiment,
            circuit_sha256=self._source,
            batch=batch.label,
            shots_sha256=shots.sha256,
            shots=shots.n_shots,
            errors=int(wrong_B.sum()),
            errors_per_observable=tuple(int(n) for n in wrong_BO.sum(axis=0)),
            seconds=seconds,
            parameters=decoder.n_parameters,
            calibration=CalibrationSums.of(probabilities_BO, labels_BO) if decoder.gives_probabilities else None,
        )
        return row, wrong_B

    def _pair(
        self,
        a: Decoder,
        b: Decoder,
        batch: _Batch,
        shots: StoredShots,
        wrong_a: NDArray[np.bool_],
        wrong_b: NDArray[np.bool_],
    ) -> Pair:
        return Pair(
            a=a.name,
            b=b.name,
            a_id=a.content_id,
            b_id=b.content_id,
            experiment=self._experiment,
            circuit_sha256=self._source,
            batch=batch.label,
            shots_sha256=shots.sha256,
            shots=shots.n_shots,
            only_a_wrong=int((wrong_a & ~wrong_b).sum()),
            only_b_wrong=int((wrong_b & ~wrong_a).sum()),
            both_wrong=int((wrong_a & wrong_b).sum()),
        )
