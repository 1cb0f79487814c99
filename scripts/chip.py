"""Decoders on all recordings of a chip: error per round of each patch, LER after each number of rounds, and times.

    python scripts/chip.py DIR --distance 3 --rows results/sycamore-d3.jsonl --page docs/results-sycamore-d3.md \
        student-d3 student-d3-frame student-sycamore-d3

Every decoder sees all shots of every recording; matching has the model that was fitted to them, pij. Prints Markdown
or writes it; batches that the rows file holds already are not decoded again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Row
from syndistill.evaluation.subject import Subject, most_seen
from syndistill.evaluation.tables import fit_or_why
from syndistill.runs.console import terminal_reporter
from syndistill.safe_files import write_text
from syndistill.sampling.recorded import RecordingProperties, find_recordings
from syndistill.statistics.rates import PerRoundFit, percent

RIVAL = "pymatching-correlated@pij"
SEED = 0  # of nothing: recorded shots are not drawn
Patches = dict[str, dict[int, Comparison]]
"""By centre, then by rounds."""


def judge(recordings: list[RecordingProperties], decoders: list[str], rows: Path, skip: int = 0) -> Patches:
    found: Patches = {}
    with terminal_reporter() as reporter:
        for one in recordings:
            subject = Subject.from_recording(one.folder)
            assert subject.recording is not None
            for name in decoders:
                if (seen := most_seen(name, subject.recording)) > skip:
                    raise SyndistillError(f"{name} has seen the first {seen} shots of {one.label}; give --skip {seen}")
            compared = subject.compare(
                decoders, None, SEED, skip=skip, rows_file=rows, leave_out=True, reporter=reporter
            )
            found.setdefault(",".join(map(str, one.center)), {})[one.rounds] = compared
    return found


def page(patches: Patches, distance: int, command: str, skip: int = 0) -> list[str]:
    names = list(dict.fromkeys(row.decoder for p in patches.values() for c in p.values() for row in c.rows))
    shots = sum(c.rows[0].shots for p in patches.values() for c in p.values())
    which = (
        f"{shots:,} recorded shots, all but the first {skip:,} of each recording, from which a network may have learned"
        if skip
        else f"All {shots:,} recorded shots, the same for every decoder; no network learned from one"
    )
    lines = [
        f"# Recordings of distance {distance}",
        "",
        f"{which}. `@pij` is an error "
        f"model that was fitted to these very shots, which favours who has it. Made by `{command}`.",
        "",
        "## Error per round, %",
        "",
        "Fitted over all numbers of rounds but one, with 95 % intervals over shots; a mean counts patches alike.",
        "",
        "| decoder | " + " | ".join([*patches, *(["mean"] if len(patches) > 1 else [])]) + " |",
        "|---" * (len(patches) + 1 + (len(patches) > 1)) + "|",
    ]
    for name in names:
        fits = [_fit(of_rounds, name) for of_rounds in patches.values()]
        cells = [fit if isinstance(fit, str) else fit.percent for fit in fits]
        lines.append(f"| {_plain(name)} | " + " | ".join([*cells, *([_mean(fits)] if len(fits) > 1 else [])]) + " |")
    rounds = sorted({r for of_rounds in patches.values() for r in of_rounds})
    lines += ["", "## LER, %", "", "All patches together, after each number of rounds.", ""]
    lines += ["| decoder | " + " | ".join(f"r={r}" for r in rounds) + " |", "|---" * (len(rounds) + 1) + "|"]
    lines += [f"| {_plain(name)} | " + " | ".join(_ler(patches, name, r) for r in rounds) + " |" for name in names]
    longest = rounds[-1]
    lines += ["", f"## Microseconds a shot of {longest} rounds", "", "In batches, when the rows were made.", ""]
    lines += ["| decoder | us |", "|---|---|"]
    lines += [f"| {_plain(name)} | {_time(patches, name, longest)} |" for name in names]
    return lines


def _rows(of_rounds: dict[int, Comparison], name: str) -> dict[int, Row]:
    return {r: row for r, c in of_rounds.items() for row in c.rows if row.decoder == name}


def _fit(of_rounds: dict[int, Comparison], name: str) -> PerRoundFit | str:
    return fit_or_why({r: row for r, row in _rows(of_rounds, name).items() if r > 1})


def _mean(fits: list[PerRoundFit | str]) -> str:
    known = [fit for fit in fits if not isinstance(fit, str)]
    if len(known) < len(fits):
        return "-"
    mean = sum(fit.epsilon for fit in known) / len(known)
    half = sum(((fit.high - fit.low) / 2) ** 2 for fit in known) ** 0.5 / len(known)  # patches are independent
    return percent(mean, mean - half, mean + half)


def _ler(patches: Patches, name: str, rounds: int) -> str:
    rows = [found[rounds] for p in patches.values() if rounds in (found := _rows(p, name))]
    return f"{100 * sum(row.errors for row in rows) / sum(row.shots for row in rows):.2f}" if rows else "-"


def _time(patches: Patches, name: str, rounds: int) -> str:
    times = [found[rounds].us_per_shot for p in patches.values() if rounds in (found := _rows(p, name))]
    return f"{sum(times) / len(times):.1f}" if times else "-"


def _plain(name: str) -> str:
    """Of a file its name alone."""
    return ",".join(Path(part).stem if part.endswith(".safetensors") else part for part in name.split(","))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of recordings")
    parser.add_argument("decoders", nargs="+", help="beside " + RIVAL)
    parser.add_argument("--distance", type=int, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="rows file, appended to")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many first shots of each recording")
    parser.add_argument("--page", type=Path, help="Markdown file to write; default: print it")
    args = parser.parse_args(arguments)
    try:
        if args.skip < 0:
            raise SyndistillError(f"--skip {args.skip} must be 0 or more")
        patches = judge(find_recordings(args.folder, args.distance), [RIVAL, *args.decoders], args.rows, args.skip)
        skipped = f" --skip {args.skip}" if args.skip else ""
        options = f"--distance {args.distance}{skipped} --rows {args.rows}"
        shown = f"python scripts/chip.py DIR {options} {' '.join(args.decoders)}"
        text = "\n".join(page(patches, args.distance, shown, args.skip)) + "\n"
        if args.page is not None:
            write_text(args.page, text)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.page is None:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
