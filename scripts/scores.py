"""The published scores of one distance: every decoder on the standard grid, from rows that add up.

    python scripts/scores.py --rows results/d3.jsonl --page docs/results.md
    python scripts/scores.py --distance 5 --rows results/d5.jsonl --page docs/results-d5.md
    python scripts/scores.py --joint --rows results/d3-joint.jsonl --page docs/results-joint.md

Batches that the rows file holds already are not decoded again, so a killed call goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Pair, Row
from syndistill.evaluation.subject import Subject
from syndistill.runs.console import terminal_reporter
from syndistill.safe_files import write_text
from syndistill.statistics.rates import fit_per_round, mcnemar

SEED = 31_415
RIVAL = "pymatching-correlated"
LONG_P = 0.004
TOLD = 0.05
"""The p-value of McNemar's test below which a difference is told from zero."""


class Suite(NamedTuple):
    """Who is judged at one distance, and on what: `short` rounds at each of `rates`, `long` ones at LONG_P.

    compiled: whose rows were measured in compiled code (rows made since 2026-11-29), in words for the page. others:
    what the networks are that do not ship, by the names that tables give them. slow: references of the short
    experiment alone, but for the optimum, which is judged everywhere.
    """

    distance: int
    teacher: str
    students: tuple[str, ...]
    short: int
    long: tuple[int, ...]
    rates: tuple[float, ...]
    slow: tuple[str, ...]
    compiled: str
    others: dict[str, str]
    bases: tuple[str, ...] = ("z", "x")

    @property
    def networks(self) -> tuple[str, ...]:
        return (self.teacher, *self.students)

    @property
    def optimum(self) -> tuple[str, ...]:
        return tuple(name for name in self.slow if name == "optimal")

    @property
    def joint(self) -> bool:
        """Whether both observables are decoded at once."""
        return self.bases == ("both",)

    @property
    def rounds(self) -> tuple[int, ...]:
        return tuple(sorted({self.short, *self.long}))


SUITES = {
    3: Suite(
        3, "teacher-d3",
        ("student-d3", "student-d3-frame",
         "results/networks/baseline-25k.safetensors", "results/networks/labels-25k.safetensors"),
        short=3, long=(5, 9, 15, 25), rates=(0.002, LONG_P), slow=("tesseract", "optimal"),
        compiled="All networks ran in PyTorch; compiled, `student-d3` takes a quarter of that or less",
        others={
            "baseline-25k": "`student-d3`'s network after 25,000 steps on 9 rounds, its first leg, with the Teacher's "
            "answers",
            "labels-25k": "the same network after 25,000 steps on 9 rounds from labels alone, no shot twice",
        },
    ),
    5: Suite(
        5, "teacher-d5",
        ("student-d5", "student-d5-82k", "student-d5-frame", "results/networks/local-d5-labels.safetensors"),
        short=5, long=(3, 9, 15, 25), rates=(LONG_P,), slow=(),
        compiled="`student-d5`, `student-d5-82k` and `student-d5-frame` ran compiled, in float32; `teacher-d5` and "
        "`local-d5-labels` in PyTorch",
        others={
            "local-d5-labels": "`student-d5`'s network after 16,600 steps from labels alone, its first two legs, "
            "no shot twice",
        },
    ),
}  # fmt: skip


JOINT = Suite(
    3, "teacher-d3-joint", ("student-d3-joint",), short=3, long=(5, 9), rates=(LONG_P,), slow=("optimal",),
    compiled="Both networks ran in PyTorch", others={}, bases=("both",),
)  # fmt: skip
"""Of shots that track both observables."""


class Block(NamedTuple):
    """One experiment of the grid: who is judged on how many shots. Students meet the rival and each other, on the
    same shots as the rest, so that a new Student does not have everything decoded again."""

    experiment: Experiment
    decoders: tuple[str, ...]
    shots: int
    students: tuple[str, ...]


def grid(suite: Suite, shots: int, long_shots: int) -> Iterator[Block]:
    """The short experiment with every reference at the suite's rates; the other rounds at LONG_P.

    Tesseract takes 10 ms a shot at d=5 and is left out there.
    """
    for rounds in (suite.short, *suite.long):
        for p in suite.rates if rounds == suite.short else (LONG_P,):
            for basis in suite.bases:
                references = ("pymatching", RIVAL, *(suite.slow if rounds == suite.short else suite.optimum))
                n_shots = shots if rounds == suite.short else long_shots
                experiment = Experiment(suite.distance, rounds, basis, "si1000", p)
                yield Block(experiment, (*references, suite.teacher), n_shots, (RIVAL, *suite.students))


def judge(blocks: list[Block], rows_file: Path) -> list[tuple[Block, Comparison]]:
    found = []
    with terminal_reporter() as reporter:
        for block in blocks:
            subject = Subject.from_experiment(str(block.experiment))
            reporter.say(str(block.experiment))
            rows: dict[str, Row] = {}
            pairs: dict[str, Pair] = {}
            for names in (block.decoders, block.students):
                part = subject.compare(list(names), block.shots, SEED, rows_file=rows_file, reporter=reporter)
                rows |= {row.decoder: row for row in part.rows}
                pairs |= {pair.key: pair for pair in part.pairs}
            found.append((block, Comparison(list(rows.values()), list(pairs.values()))))
    return found


def page(suite: Suite, found: list[tuple[Block, Comparison]], command: str) -> str:
    """The page of a distance, from the rows alone."""
    kind = " for both observables at once" if suite.joint else ""
    lines = [f"# Scores of the shipped d={suite.distance} networks{kind}", "", *_in_short(suite, found)]
    lines += ["", "## How to read the tables", ""]
    lines += [
        "SI1000 memory, all decoders on the same shots, 95 % Wilson intervals; made from the rows in `results/` by "
        f"`{command}`.",
        "",
        *_legend(suite),
    ]
    for block, comparison in found:
        lines += ["", f"## {block.experiment}", ""]
        lines += _table(comparison)
    if not suite.joint:  # the fit is of one observable: two are wrong on three shots in four in the end
        lines += ["", "## Logical error per round, p=.004, fit over r = " + ", ".join(map(str, suite.rounds)), ""]
        lines += _per_round(suite, found)
    if suite.students:
        lines += ["", f"## Share of the Teacher's gain over {RIVAL} that a Student keeps, p=.004", ""]
        lines += [
            f"`-`: the Teacher's own gain is not told from zero (McNemar p of {TOLD} or more), or there is none. "
            f"*none*: the Student errs as often as {RIVAL} or more often.",
            "",
            *_gains(suite, found),
        ]
    return "\n".join(lines) + "\n"


def _in_short(suite: Suite, found: list[tuple[Block, Comparison]]) -> list[str]:
    """How often each network errs beside the rival, over the rounds: both bases together."""
    what = "a shot is wrong where any observable is" if suite.joint else "both bases together"
    lines = [
        f"**In short.** LER over {RIVAL}'s, {what}, p=.004; below 1 is fewer errors. Bold: below it, and told from it "
        f"(McNemar p below {TOLD}).",
        "",
        "| decoder | " + " | ".join(f"r={rounds}" for rounds in suite.rounds) + " |",
        "|" + "---|" * (1 + len(suite.rounds)),
    ]
    for decoder in (*suite.optimum, *suite.networks):
        cells = [_over_rival(found, rounds, decoder) for rounds in suite.rounds]
        lines.append(f"| {_short(decoder)} | " + " | ".join(cells) + " |")
    return lines


def _over_rival(found: list[tuple[Block, Comparison]], rounds: int, decoder: str) -> str:
    of = [c for block, c in found if block.experiment.rounds == rounds and block.experiment.p == LONG_P]
    pairs = [_beside_rival(comparison, decoder) for comparison in of]
    only_it, only_rival = sum(p.only_a_wrong for p in pairs), sum(p.only_b_wrong for p in pairs)
    both = sum(p.both_wrong for p in pairs)
    ratio = f"{(only_it + both) / (only_rival + both):.3f}"
    return f"**{ratio}**" if only_it < only_rival and mcnemar(only_it, only_rival) < TOLD else ratio


def _beside_rival(comparison: Comparison, decoder: str) -> Pair:
    """The pair of a decoder and the rival, the decoder first."""
    pair = comparison.pair(decoder, RIVAL)
    assert pair is not None  # both are judged on every block
    return pair


def _legend(suite: Suite) -> list[str]:
    """What columns and names mean, a line each."""
    lines = [
        "- **NLL:** the negative logarithm of the probability that a decoder gave to what happened, in nats.",
        "- **ECE:** how far a decoder's probabilities are from frequencies. **T:** the temperature by which its logits "
        "would have to be divided to be right: 1 is none, above 1 it is too sure.",
        "- **us per shot:** microseconds in batches, when the rows were made, in part beside other work. "
        f"{suite.compiled}. On an idle machine: [how long it takes](streaming.md#how-long-it-takes).",
    ]
    return lines + [f"- **{name}:** {meaning}. It does not ship." for name, meaning in suite.others.items()]


def _table(comparison: Comparison) -> list[str]:
    optimal = next((r for r in comparison.rows if r.decoder == "optimal"), None)
    head = "| decoder | parameters | shots | LER | 95 % | LER / optimum | NLL | NLL / optimum | ECE | T | us per shot |"
    lines = [head, "|" + "---|" * 11]
    for row in comparison.rows:
        cells = [
            _short(row.decoder), _number(row.parameters, ","), f"{row.shots:,}", f"{row.ler:.5f}",
            f"{row.low:.5f} - {row.high:.5f}",
            "-" if optimal is None else f"{row.ler / optimal.ler:.3f}",
            _number(row.nll, ".5f"),
            "-" if optimal is None or row.nll is None or optimal.nll is None else f"{row.nll / optimal.nll:.3f}",
            _number(row.ece, ".4f"), _number(row.best_temperature, ".3f"), f"{row.us_per_shot:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| a against " + RIVAL + " | only a wrong | only it wrong | McNemar p |", "|---|---|---|---|"]
    for pair in comparison.pairs:
        if RIVAL in (pair.a, pair.b) and pair.a != pair.b:
            one = pair if pair.b == RIVAL else pair.flipped()
            lines.append(f"| {_short(one.a)} | {one.only_a_wrong} | {one.only_b_wrong} | {one.p_value:.1e} |")
    return lines


def _short(decoder: str) -> str:
    return Path(decoder).stem


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rows(found: list[tuple[Block, Comparison]], basis: str, decoder: str) -> list[tuple[int, Row]]:
    rows = [
        (block.experiment.rounds, row)
        for block, comparison in found
        if block.experiment.basis == basis and block.experiment.p == LONG_P
        for row in comparison.rows
        if row.decoder == decoder
    ]
    return sorted(rows, key=lambda item: item[0])


def _per_round(suite: Suite, found: list[tuple[Block, Comparison]]) -> list[str]:
    lines = ["| basis | decoder | error per round % | 95 % | R^2 |", "|---|---|---|---|---|"]
    for basis in suite.bases:
        for decoder in ("pymatching", RIVAL, *suite.optimum, *suite.networks):
            rows = _rows(found, basis, decoder)
            fit = fit_per_round([n for n, _ in rows], [r.errors for _, r in rows], [r.shots for _, r in rows])
            cells = f"{100 * fit.epsilon:.3f} | {100 * fit.low:.3f} - {100 * fit.high:.3f} | {fit.r_squared:.4f}"
            lines.append(f"| {basis} | {_short(decoder)} | {cells} |")
    return lines


def _gains(suite: Suite, found: list[tuple[Block, Comparison]]) -> list[str]:
    head = " | ".join(f"{_short(name)} keeps" for name in suite.students)
    lines = [f"| basis | rounds | Teacher's gain | {head} |", "|" + "---|" * (3 + len(suite.students))]
    for basis in suite.bases:
        lers = {d: {n: r.ler for n, r in _rows(found, basis, d)} for d in (RIVAL, *suite.networks)}
        for rounds in lers[RIVAL]:
            gain = lers[RIVAL][rounds] - lers[suite.teacher][rounds]
            told = gain > 0 and _teacher_p(suite, found, basis, rounds) < TOLD
            left = [lers[RIVAL][rounds] - lers[name][rounds] for name in suite.students]
            kept = ["-" if not told else f"{own / gain:.0%}" if own > 0 else "none" for own in left]
            lines.append(f"| {basis} | {rounds} | {gain:.5f} | " + " | ".join(kept) + " |")
    return lines


def _teacher_p(suite: Suite, found: list[tuple[Block, Comparison]], basis: str, rounds: int) -> float:
    (comparison,) = (
        comparison
        for block, comparison in found
        if (block.experiment.basis, block.experiment.rounds, block.experiment.p) == (basis, rounds, LONG_P)
    )
    return _beside_rival(comparison, suite.teacher).p_value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--distance", type=int, choices=SUITES, default=3)
    which.add_argument("--joint", action="store_true", help="of distance 3, both observables at once")
    parser.add_argument("--rows", type=Path, required=True, help="rows file, appended to")
    parser.add_argument("--page", type=Path, required=True, help="Markdown page to write")
    parser.add_argument("--shots", type=int, default=200_000, help="for the short experiment")
    parser.add_argument("--long-shots", type=int, default=50_000, help="for the others")
    args = parser.parse_args(arguments)
    suite, option = (JOINT, "--joint") if args.joint else (SUITES[args.distance], f"--distance {args.distance}")
    command = (
        f"python scripts/scores.py {option} --rows {args.rows} --page {args.page} "
        f"--shots {args.shots} --long-shots {args.long_shots}"
    )
    try:
        found = judge(list(grid(suite, args.shots, args.long_shots)), args.rows)
        write_text(args.page, page(suite, found, command))
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
