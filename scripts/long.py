"""Long experiments: decoders on the same shots of 3 to 100 rounds, their LER beside correlated matching's, and their
error per round over short and over long experiments.

    python scripts/long.py student-d3 student-d3-frame --rows results/long-d3.jsonl

Prints Markdown, from rows that add up: batches that the rows file holds already are not decoded again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Pair
from syndistill.evaluation.subject import Subject
from syndistill.runs.console import terminal_reporter
from syndistill.safe_files import write_text
from syndistill.statistics.rates import fit_per_round, late_error_per_round

RIVAL = "pymatching-correlated"
SEED = 27_182
EARLY = 25
"""The most rounds that the ordinary fit is over."""
Found = dict[int, Comparison]


def judge(decoders: list[str], experiments: list[Experiment], shots: int, rows: Path) -> Found:
    found: Found = {}
    with terminal_reporter() as reporter:
        for experiment in experiments:
            subject = Subject.from_experiment(str(experiment))
            of_all = subject.compare(decoders, shots, SEED, rows_file=rows, leave_out=True, reporter=reporter)
            found[experiment.rounds] = of_all
    return found


def tables(found: Found, title: str) -> list[str]:
    """The LER of every decoder and its ratio to the rival's, then the two fits."""
    names = [row.decoder for row in next(iter(found.values())).rows]
    head = "| decoder | " + " | ".join(f"r={r}" for r in found) + " |"
    lines = ["", f"## {title}", "", head, "|---" * (len(found) + 1) + "|"]
    lines += [f"| {Path(name).stem} | " + " | ".join(_cell(found[r], name) for r in found) + " |" for name in names]
    head = f"| decoder | error per round %, r <= {EARLY} | late, r = 25 to 100 | late / early |"
    lines += ["", head, "|---|---|---|---|"]
    return lines + [f"| {Path(name).stem} | {_per_round(found, name)} |" for name in names]


def _cell(comparison: Comparison, name: str) -> str:
    """LER, and in brackets its ratio to the rival's with its paired interval."""
    row = next(row for row in comparison.rows if row.decoder == name)
    pairs: list[Pair] = [pair if pair.a == name else pair.flipped() for pair in comparison.pairs
                         if {pair.a, pair.b} == {name, RIVAL}]  # fmt: skip
    if name == RIVAL or not pairs or (ratio := pairs[0].ratio) is None:
        return f"{row.ler:.4f}"
    return f"{row.ler:.4f} ({ratio.ratio:.3f}, {ratio.low:.3f} to {ratio.high:.3f})"


def _per_round(found: Found, name: str) -> str:
    counts = [(r, row.errors, row.shots) for r, c in found.items() for row in c.rows if row.decoder == name]
    early = fit_per_round(*zip(*[count for count in counts if count[0] <= EARLY], strict=True))
    late = late_error_per_round(*zip(*counts, strict=True))
    cells = [f"{100 * fit.epsilon:.3f} ({100 * fit.low:.3f} to {100 * fit.high:.3f})" for fit in (early, late)]
    return " | ".join([*cells, f"{late.epsilon / early.epsilon:.2f}"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="+", help="beside " + RIVAL)
    parser.add_argument("--rows", type=Path, required=True, help="rows file, appended to")
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--p", type=float, default=0.004)
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 9, 25, 50, 100])
    parser.add_argument("--bases", nargs="+", default=["z", "x"])
    parser.add_argument("--shots", type=int, default=50_000)
    parser.add_argument("--page", type=Path, help="Markdown file to write; default: print it")
    args = parser.parse_args(arguments)
    lines: list[str] = []
    try:
        for basis in args.bases:
            experiments = [Experiment(args.distance, r, basis, "si1000", args.p) for r in sorted(args.rounds)]
            found = judge([RIVAL, *args.decoders], experiments, args.shots, args.rows)
            lines += tables(found, f"d={args.distance}, SI1000 p={args.p}, basis {basis}, {args.shots:,} shots each")
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
