"""Microseconds per shot of every decoder beside each other, over the rounds of an experiment, on one thread.

    python benchmarks/decoding_speed.py [--distance 3] [--rounds 3 5 9 15 25] [--json results/speed.json] [DECODER...]

The decoders take turns, so that other work on the machine hits all of them; medians over the turns. Run it on an idle
machine: the load is written with the figures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from syndistill.circuits.experiment import Experiment
from syndistill.deploy.bench import Speed, bench_subject, machine
from syndistill.errors import SyndistillError
from syndistill.evaluation.rows import Row
from syndistill.evaluation.subject import Subject
from syndistill.safe_files import write_json

RIVALS = ("pymatching", "pymatching-correlated", "belief-matching", "tesseract")
ENGINES = ("", ":int8", ":onnx", ":pytorch")


def table(found: dict[int, list[tuple[Row, Speed]]]) -> list[str]:
    """Markdown: microseconds per shot, then latencies; LER beside each time."""
    names = [row.decoder for row, _ in next(iter(found.values()))]
    lines = ["| us per shot (LER) | " + " | ".join(f"r={rounds}" for rounds in found) + " |"]
    lines.append("|---" * (len(found) + 1) + "|")
    for k, name in enumerate(names):
        cells = [f"{rows[k][1].us_per_shot:.2f} ({rows[k][0].ler:.4f})" for rows in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", f"| us, r={max(found)} | one shot p50 | p99 | push p50 | p99 | round in a loop |", "|---" * 6 + "|"]
    for row, speed in found[max(found)]:
        times = (speed.single_p50, speed.single_p99, speed.push_p50, speed.push_p99, speed.round)
        lines.append(f"| {row.decoder} | " + " | ".join("-" if t is None else f"{t:.2f}" for t in times) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="*", help="as `syndistill bench` names them; default: all there are")
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 5, 9, 15, 25])
    parser.add_argument("--basis", default="z")
    parser.add_argument("--p", type=float, default=0.004)
    parser.add_argument("--shots", type=int, default=2000, help="for the error rates")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args()
    decoders = args.decoders or [*RIVALS, *(f"student-d{args.distance}{engine}" for engine in ENGINES)]
    torch.set_num_threads(1)
    found: dict[int, list[tuple[Row, Speed]]] = {}
    try:
        for rounds in args.rounds:
            experiment = Experiment(args.distance, rounds, args.basis, "si1000", args.p)
            comparison, speeds = bench_subject(
                Subject.from_experiment(str(experiment)), decoders, args.shots, 0, args.seconds
            )
            found[rounds] = list(zip(comparison.rows, speeds, strict=True))
            print(f"r={rounds} done, load {machine()['load']}", file=sys.stderr)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join([f"d={args.distance}, SI1000 p={args.p}, memory {args.basis}, {machine()}", "", *table(found)]))
    if args.json is not None:
        rows = [row.report() | asdict(speed) for pairs in found.values() for row, speed in pairs]
        write_json(args.json, {"machine": machine(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
