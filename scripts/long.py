"""Long experiments: decoders on the same shots of 3 to 100 rounds, their LER beside correlated matching's, and their
error per round over short and over long experiments.

    python scripts/long.py student-d3 student-d3-frame --rows results/long-d3.jsonl --p 0.004 0.002 \
        --picture docs/pictures/long-d3.png

Prints Markdown, from rows that add up: batches that the rows file holds already are not decoded again. The picture is
of the first p: the error of one round, between each number of rounds and the one before, both bases together.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.subject import Subject
from syndistill.runs.console import terminal_reporter
from syndistill.runs.picture import new_figure, plain, save_png
from syndistill.safe_files import write_text
from syndistill.statistics.rates import (
    LEAST_LENGTHS,
    PerRoundFit,
    fit_per_round,
    late_error_per_round,
    ler_per_round,
)

RIVAL = "pymatching-correlated"
SEED = 27_182
SHORT = 25
"""The most rounds of an experiment that `--early-shots` are of."""
EARLY = (5, 15)
"""Rounds that a decoder's late error per round is held against: those before the last ones that it learned from."""
Found = dict[int, Comparison]


def judge(decoders: list[str], experiments: list[Experiment], shots: int, early_shots: int, rows: Path) -> Found:
    found: Found = {}
    with terminal_reporter() as reporter:
        for experiment in experiments:
            subject = Subject.from_experiment(str(experiment))
            n_shots = early_shots if experiment.rounds <= SHORT else shots
            of_all = subject.compare(decoders, n_shots, SEED, rows_file=rows, leave_out=True, reporter=reporter)
            found[experiment.rounds] = of_all
    return found


def draw(of_bases: list[Found], path: Path, title: str) -> None:
    """The error of one round against the number of rounds, a line a decoder; PNG, whole or not at all."""
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    rounds = sorted(of_bases[0])
    for row in of_bases[0][rounds[0]].rows:
        fidelity = [0.0] * len(rounds)  # 1 - 2 LER, which every round multiplies
        for i, r in enumerate(rounds):
            errors = sum(own.errors for found in of_bases for own in found[r].rows if own.decoder == row.decoder)
            shots = sum(own.shots for found in of_bases for own in found[r].rows if own.decoder == row.decoder)
            fidelity[i] = 1 - 2 * errors / shots
        middles = [(a + b) / 2 for a, b in pairwise([0, *rounds])]
        each = [  # none where chance has more shots right after more rounds, or less than half
            100 * ler_per_round((1 - new / old) / 2, b - a) if 0 < new <= old else float("nan")
            for (a, b), (old, new) in zip(pairwise([0, *rounds]), pairwise([1.0, *fidelity]), strict=True)
        ]
        axes.plot(middles, each, marker="o", markersize=4, label=Path(row.decoder).stem)
    axes.set_xscale("log")
    axes.set_xticks(middles, [f"{a} to {b}" for a, b in pairwise([0, *rounds])])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rounds")
    axes.set_ylabel("error of one of these rounds, %")
    plain(axes)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    save_png(figure, path)


def tables(found: Found, title: str) -> list[str]:
    """The LER of every decoder and its ratio to the rival's, then the two fits."""
    names = [row.decoder for row in next(iter(found.values())).rows]
    head = "| decoder | " + " | ".join(f"r={r}" for r in found) + " |"
    lines = ["", f"## {title}", "", head, "|---" * (len(found) + 1) + "|"]
    lines += [f"| {Path(name).stem} | " + " | ".join(_cell(found[r], name) for r in found) + " |" for name in names]
    head = f"| decoder | error per round %, r = {EARLY[0]} to {EARLY[1]} | late, r = 25 to 100 | late / early |"
    lines += ["", head, "|---|---|---|---|"]
    return lines + [f"| {Path(name).stem} | {_per_round(found, name)} |" for name in names]


def _cell(comparison: Comparison, name: str) -> str:
    """LER, and in brackets its ratio to the rival's with its paired interval."""
    row = next(row for row in comparison.rows if row.decoder == name)
    pair = comparison.pair(name, RIVAL)
    if name == RIVAL or pair is None or (ratio := pair.ratio) is None:
        return f"{row.ler:.4f}"
    return f"{row.ler:.4f} ({ratio.ratio:.3f}, {ratio.low:.3f} to {ratio.high:.3f})"


def _per_round(found: Found, name: str) -> str:
    counts = [(r, row.errors, row.shots) for r, c in found.items() for row in c.rows if row.decoder == name]
    early = fit_early(counts)
    if coin := [rounds for rounds, errors, shots in counts if 2 * errors >= shots]:
        return f"{early.percent} | a coin after {min(coin)} | -"
    late = fit_late(counts)
    return " | ".join([early.percent, late.percent, f"{late.epsilon / early.epsilon:.2f}"])


def fit_early(counts: list[tuple[int, int, int]]) -> PerRoundFit:
    """Of (rounds, errors, shots); SyndistillError where too few of them are early."""
    within = [count for count in counts if EARLY[0] <= count[0] <= EARLY[1]]
    if len(within) < LEAST_LENGTHS:
        said = f"{len(within)} numbers of rounds from {EARLY[0]} to {EARLY[1]}"
        raise SyndistillError(f"{said}: a fit needs {LEAST_LENGTHS}; add some")
    return fit_per_round(*zip(*within, strict=True))


def fit_late(counts: list[tuple[int, int, int]]) -> PerRoundFit:
    """Of (rounds, errors, shots); SyndistillError where too few of them are late."""
    return late_error_per_round(*zip(*counts, strict=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="+", help="beside " + RIVAL)
    parser.add_argument("--rows", type=Path, required=True, help="rows file, appended to")
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--p", type=float, nargs="+", default=[0.004])
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 5, 9, 15, 25, 50, 100])
    parser.add_argument("--bases", nargs="+", default=["z", "x"])
    parser.add_argument("--shots", type=int, default=50_000, help="of experiments of more than 25 rounds")
    parser.add_argument("--early-shots", type=int, default=100_000, help="of the others")
    parser.add_argument("--picture", type=Path, help="PNG to draw the first p into")
    parser.add_argument("--page", type=Path, help="Markdown file to write; default: print it")
    args = parser.parse_args(arguments)
    lines: list[str] = []
    try:
        for fit in (fit_early, fit_late):
            fit([(r, 0, 1) for r in args.rounds])  # before hours are spent
        for p in args.p:
            of_bases = []
            for basis in args.bases:
                experiments = [Experiment(args.distance, r, basis, "si1000", p) for r in sorted(args.rounds)]
                found = judge([RIVAL, *args.decoders], experiments, args.shots, args.early_shots, args.rows)
                lines += tables(found, f"d={args.distance}, SI1000 p={p}, basis {basis}")
                of_bases.append(found)
            if args.picture is not None and p == args.p[0]:
                draw(of_bases, args.picture, f"d={args.distance}, SI1000 noise, p={p}")
        text = "\n".join(lines).strip() + "\n"
        if args.page is not None:
            write_text(args.page, text)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text if args.page is None else args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
