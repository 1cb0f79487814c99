"""The road on real input: train on a chip's error models, judge on its recorded shots.

    python scripts/sycamore.py --data sycamore_x_even --out runs/sycamore-d3

The shipped d=3 Teacher is tuned on samples of one centre's p_ij models and judged, round by round, next to
matching on both of the recording's models; recorded shots are never trained on. What a p_ij model was fitted
on is its makers' choice: `pij_from_even_for_odd` has seen the even shots of the original recording.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.subject import Subject
from syndistill.recipes.teachers import sycamore_d3
from syndistill.runs.console import terminal_reporter
from syndistill.safe_files import write_json
from syndistill.sampling.recorded import find_recordings
from syndistill.statistics.rates import fit_per_round
from syndistill.training.config import RecordedData
from syndistill.training.run import TEACHER_FILE, TeacherRun, train_teacher

REFERENCES = (
    "pymatching@circuit", "pymatching@pij", "pymatching-correlated@circuit", "pymatching-correlated@pij",
    "optimal@circuit", "optimal@pij",
)  # fmt: skip
UNTUNED = "teacher-d3"


def judge(data: Path, run: TeacherRun, network: str, shots: int | None) -> list[tuple[int, Comparison]]:
    """Every recording of the run's centre with more than one round: (rounds, comparison)."""
    assert isinstance(run.data, RecordedData)
    found = []
    for properties in find_recordings(data, run.data.distance, run.data.basis):
        if properties.center == run.data.center and properties.rounds > 1:
            subject = Subject.from_recording(properties.folder)
            found.append((properties.rounds, subject.compare([*REFERENCES, UNTUNED, network], shots, 0)))
    return found


def per_round_table(found: list[tuple[int, Comparison]]) -> tuple[Table, list[dict[str, object]]]:
    """Logical error per round of each decoder by the fit over rounds, and the same as rows."""
    table = Table(title="recorded shots: logical error per round", title_justify="left")
    for column in ("decoder", "error per round %", "95 % interval", "R^2", "shots", "LER by rounds"):
        table.add_column(column, justify="left" if column == "decoder" else "right")
    rows: list[dict[str, object]] = []
    for i in range(len(found[0][1].rows)):
        counted = [(rounds, comparison.rows[i]) for rounds, comparison in found]
        fit = fit_per_round([n for n, _ in counted], [r.errors for _, r in counted], [r.shots for _, r in counted])
        name, shots = Path(counted[0][1].decoder).name, sum(r.shots for _, r in counted)
        lers = {n: r.ler for n, r in counted}
        table.add_row(
            name, f"{100 * fit.epsilon:.3f}", f"{100 * fit.low:.3f} - {100 * fit.high:.3f}", f"{fit.r_squared:.4f}",
            f"{shots:,}", " ".join(f"{ler:.3f}" for ler in lers.values()),
        )  # fmt: skip
        rows.append(
            {
                "decoder": name, "error_per_round": fit.epsilon, "low": fit.low, "high": fit.high,
                "r_squared": fit.r_squared, "shots": shots, "ler_by_rounds": lers,
            }
        )  # fmt: skip
    return table, rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded experiments")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--shots", type=int, default=None, help="of each recording (default: all)")
    parser.add_argument("--steps", type=int, default=None, help="training steps (default: the recipe's)")
    args = parser.parse_args(arguments)
    run = sycamore_d3(str(args.data))
    if args.steps is not None:
        run = run.model_copy(update={"training": run.training.model_copy(update={"steps": args.steps})})
    try:
        trained = args.out / TEACHER_FILE
        if not trained.exists():
            with terminal_reporter() as reporter:
                trained = train_teacher(run, args.out, reporter)
        table, rows = per_round_table(judge(args.data, run, str(trained), args.shots))
        write_json(args.out / "per_round.json", rows)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
