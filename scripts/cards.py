"""The cards of shipped networks, from the network files and the rows of `scripts/scores.py`, `scripts/long.py` and
`scripts/chip.py`.

    python scripts/cards.py --rows results/d3.jsonl results/d5.jsonl results/long-d5.jsonl results/sycamore-d5.jsonl \
        --speed results/speed.json results/speed-d5.json --confidence results/confidence.json
    python scripts/cards.py student-sycamore-d5 --rows results/sycamore-d5.jsonl --speed results/speed-sycamore-d5.json

--speed is what benchmarks/decoding_speed.py wrote, a file for each distance, --confidence what `scripts/confidence.py`
did; without them a card says nothing of times, or of kept fractions and reliability.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.training_noise import NOISE_KEY, noise_in
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.evaluation.rows import Row, RowsFile, combine
from syndistill.files.network_file import network_path, shipped_names
from syndistill.models.networks import load_network, weights_hash
from syndistill.safe_files import file_sha256, read_json, write_json
from syndistill.statistics.rates import late_error_per_round

_SCORES = ("experiment", "shots", "errors", "ler", "low", "high", "nll", "ece", "best_temperature", "us_per_shot")


_TIMES = ("us_per_shot", "single_p50", "single_p99", "push_p50", "push_p99", "round")


_CONFIDENCE = ("experiment", "shots", "ece", "best_temperature", "kept", "reliability")


def card_of(
    name: str, rows: list[Row], speed: dict[str, Any] | None = None, confidence: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Recipe, seeds and shots seen as the file says them; size, hashes; what was measured of exactly these weights."""
    network, metadata = load_network(name)
    path = network_path(name)
    assert path is not None
    key = weights_hash(network)
    scored = sorted((r for r in rows if r.decoder_id == key), key=lambda r: r.experiment)
    return {
        "name": name,
        "weights_sha256": key,
        "file_sha256": file_sha256(path),
        "config": asdict(network.config),
        "parameters": network.n_parameters(),
        "multiply_adds_per_round": {f"r={r}": round(network.multiply_adds(r)) for r in (3, 9, 25)},
        "made_by": {key: value for key, value in metadata.items() if key != NOISE_KEY},  # arrays, not for reading
        "scores": [{what: getattr(row, what) for what in _SCORES} for row in scored],
    } | _late(scored) | _measured(key, speed, confidence) | {"training_noise": str(noise_in(metadata))}


def _late(rows: list[Row]) -> dict[str, Any]:
    """The late error per round of each kind of experiment that there are rows of enough numbers of rounds of."""
    kinds: dict[str, dict[int, Row]] = {}
    for row in rows:
        try:
            experiment = Experiment.parse(row.experiment)
        except SyndistillError:  # a recording
            continue
        kinds.setdefault(str(replace(experiment, rounds=1)).replace("rounds=1,", ""), {})[experiment.rounds] = row
    found = []
    for kind, by_rounds in sorted(kinds.items()):
        counts = [(n, row.errors, row.shots) for n, row in by_rounds.items()]
        with suppress(SyndistillError):  # too few late ones
            fit = late_error_per_round(*zip(*counts, strict=True))
            interval = {"error": fit.epsilon, "low": fit.low, "high": fit.high}
            found.append({"experiments": kind, "rounds": list(fit.rounds), **interval})
    return {"late_error_per_round": found} if found else {}


def _measured(
    weights_sha256: str, speed: dict[str, Any] | None, confidence: dict[str, Any] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {} if speed is None else {"microseconds": _times(weights_sha256, speed)}
    if confidence is not None:
        rows = [row for row in confidence["rows"] if row["decoder_id"] == weights_sha256]
        found["confidence"] = [{what: row[what] for what in _CONFIDENCE} for row in rows]
    return found


def _times(weights_sha256: str, speed: dict[str, Any]) -> dict[str, Any]:
    """On one thread: a shot of a batch, one shot a call, a streamed round from Python, and one without Python."""
    rows = [row for row in speed["rows"] if row["decoder_id"].startswith(f"{weights_sha256}-")]
    return {
        "machine": speed["machine"],
        "measured": [
            {"experiment": row["experiment"], "run_by": row["decoder_id"].rpartition("-")[2]}
            | {what: None if row[what] is None else round(row[what], 3) for what in _TIMES}
            for row in rows
        ],
    }


def _read(paths: list[Path], maker: str) -> list[dict[str, Any]]:
    return [read_json(path, f"{maker} makes it") for path in paths]


def _about(weights_sha256: str, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first of these files that measured this network; else the first, which then says that it did not."""
    about = [f for f in found if any(row["decoder_id"].startswith(weights_sha256) for row in f["rows"])]
    return next(iter([*about, *found]), None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of these networks alone; default: of all that ship")
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="rows files of scripts/scores.py")
    parser.add_argument("--speed", type=Path, nargs="+", default=[], help="figures of benchmarks/decoding_speed.py")
    parser.add_argument("--confidence", type=Path, nargs="+", default=[], help="figures of scripts/confidence.py")
    args = parser.parse_args(arguments)
    try:
        if missing := [path for path in args.rows if not path.is_file()]:
            raise SyndistillError(f"no rows file {missing[0]}; python scripts/scores.py makes it")
        rows = combine([row for path in args.rows for row in RowsFile(path).rows.values()])
        speed = _read(args.speed, "benchmarks/decoding_speed.py")
        confidence = _read(args.confidence, "python scripts/confidence.py")
        known = shipped_names()
        if unknown := [name for name in args.names if name not in known]:
            hint = did_you_mean(unknown[0], known)
            raise SyndistillError(f"{unknown[0]!r} is no shipped network{hint}; shipped: {', '.join(known)}")
        for name in args.names or known:
            path = network_path(name)
            assert path is not None
            key = weights_hash(load_network(name)[0])
            write_json(path.with_suffix(".json"), card_of(name, rows, _about(key, speed), _about(key, confidence)))
            print(path.with_suffix(".json"))
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
