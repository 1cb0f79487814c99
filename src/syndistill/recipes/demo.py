"""The whole road in minutes: distil a Student from the shipped d=3 Teacher, judge it against everything else.

    python -m syndistill.recipes.demo [--out runs/demo] [--quick]

Killed or interrupted, the same command goes on from where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from syndistill.distill.objective import FinalTerm
from syndistill.distill.run import STUDENT_FILE, StudentData, StudentRun
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import RowsFile, combine
from syndistill.evaluation.subject import Subject
from syndistill.evaluation.tables import rows_table
from syndistill.models.presets import preset
from syndistill.recipes.console import Bars, progress_bars
from syndistill.recipes.gated import distil_gated
from syndistill.recipes.picture import draw_comparison
from syndistill.recipes.students import fixed_rounds
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.run_folder import RUN_FILE, read_run, write_json

TEACHER = "teacher-d3"
ROUNDS, P = 3, 0.004
EXPERIMENT = f"d=3,rounds={ROUNDS},basis=z,noise=si1000,p={P}"
SEED = 2026  # of the judged shots
REFERENCES = ("pymatching", "pymatching-correlated", "tesseract", "optimal")
RIVAL = "pymatching-correlated"
LABELS = {
    "pymatching": "PyMatching",
    "pymatching-correlated": "PyMatching, correlated",
    "tesseract": "Tesseract",
    "optimal": "the optimum",
}
RESULT, PICTURE, ROWS = "comparison.json", "comparison.png", "rows.jsonl"


class Budget(NamedTuple):
    """Where the minutes go: the Teacher's gate and answers, two Students' training, and the judging."""

    gate_shots: int
    cached_shots: int
    steps: int
    batch_size: int
    judged_shots: int


FULL = Budget(gate_shots=20_000, cached_shots=300_000, steps=12_000, batch_size=512, judged_shots=200_000)
QUICK = Budget(gate_shots=5_000, cached_shots=8_192, steps=100, batch_size=256, judged_shots=2_000)


def student_run(teacher: str, budget: Budget, final_weight: float) -> StudentRun:
    """The demo's Student; with final_weight 0 the same one from labels alone."""
    run = StudentRun(
        network=preset("flat-gru-20k", 3),
        teacher=teacher,
        data=StudentData(
            simulated=fixed_rounds(ROUNDS, ("z",), p_min=0.003, p_max=0.006),
            cached_shots=budget.cached_shots,
            cut_rounds=(ROUNDS,),
        ),
        training=TrainingConfig(
            steps=budget.steps,
            batch_size=budget.batch_size,
            seed=1,
            optimiser=OptimiserConfig(
                learning_rate=3e-3, warmup_steps=100, decay_steps=budget.steps * 3 // 4, ema_decay=0.998
            ),
        ),
    )
    return run.model_copy(update={"terms": run.terms.model_copy(update={"final": FinalTerm(weight=final_weight)})})


def run_demo(out: Path, teacher: str, budget: Budget, accept_any_teacher: bool) -> Comparison:
    """Distil, judge, draw; goes on where it stopped, and only reads a finished folder."""
    wanted = {"teacher": teacher, "experiment": EXPERIMENT, "seed": SEED, **budget._asdict()}
    students = {"student": "Student", "labels": "Student, labels alone"}
    names = {teacher: "Teacher"} | {str(out / folder / STUDENT_FILE): label for folder, label in students.items()}
    if (out / RESULT).exists():
        _check_finished(out, wanted)
        counted = RowsFile(out / ROWS)
        found = Comparison(combine(list(counted.rows.values())), combine(list(counted.pairs.values())))
        return _renamed(found, names)
    with progress_bars() as bars:
        for folder, label in students.items():
            run = student_run(teacher, budget, final_weight=1.0 if folder == "student" else 0.0)
            _train(out, folder, run, budget, accept_any_teacher, label, bars)
        decoders = [*REFERENCES, *names]
        bars.say(f"judging {len(decoders)} decoders on the same {budget.judged_shots:,} shots of {EXPERIMENT}")
        subject = Subject.from_experiment(EXPERIMENT)
        found = subject.compare(
            decoders, budget.judged_shots, SEED, rows_file=out / ROWS, progress=bars.counting("judging: shots")
        )
    found = _renamed(found, names)
    draw_comparison(
        found,
        out / PICTURE,
        f"Surface code memory, distance 3, {ROUNDS} rounds, SI1000 noise, p = {P}",
        LABELS,
        highlight="Student",
    )
    write_json(out / RESULT, {"demo": wanted, **found.to_json()})
    return found


def _train(
    out: Path, folder: str, run: StudentRun, budget: Budget, accept_any_teacher: bool, label: str, bars: Bars
) -> None:
    """Train a Student in out/folder, or go on, unless it is there finished."""
    if (out / folder / STUDENT_FILE).exists():
        if read_run(out / folder / RUN_FILE)["config"] != run.model_dump(mode="json"):
            raise SyndistillError(f"{out} holds a demo with other settings; choose another --out")
        return
    distil_gated(
        run,
        out / folder,
        cache=out / "cache",
        accept_any_teacher=accept_any_teacher,
        gate_shots=budget.gate_shots,
        gate_progress=bars.counting("gate: shots"),
        cache_progress=bars.counting("Teacher's answers"),
        progress=bars.training(label, budget.batch_size),
        say=bars.say,
    )


def _check_finished(out: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((out / RESULT).read_text(encoding="utf-8"))["demo"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SyndistillError(f"{out / RESULT} is damaged; delete it, the demo then judges again") from None
    if found != wanted:
        raise SyndistillError(f"{out} holds a finished demo with other settings; choose another --out")
    print(f"{out} holds this demo, finished; nothing is trained. Delete the folder to run it again.", file=sys.stderr)


def _renamed(found: Comparison, names: dict[str, str]) -> Comparison:
    """Labels in place of paths, the worst decoder first."""
    rows = [dataclasses.replace(row, decoder=names.get(row.decoder, row.decoder)) for row in found.rows]
    pairs = [
        dataclasses.replace(pair, a=names.get(pair.a, pair.a), b=names.get(pair.b, pair.b)) for pair in found.pairs
    ]
    return Comparison(sorted(rows, key=lambda row: -row.ler), pairs)


def verdict(found: Comparison) -> str:
    """One sentence: the Student against correlated matching, and what it keeps of the Teacher's gain."""
    ler = {row.decoder: row.ler for row in found.rows}
    pair = next(one for one in found.pairs if {one.a, one.b} == {"Student", RIVAL})
    said = "beats" if ler["Student"] < ler[RIVAL] else "does not beat"
    gain, kept_gain = ler[RIVAL] - ler["Teacher"], ler[RIVAL] - ler["Student"]
    kept = f", keeping {kept_gain / gain:.0%} of the Teacher's gain over it" if min(gain, kept_gain) > 0 else ""
    return (
        f"The Student {said} correlated PyMatching: LER {ler['Student']:.4f} against {ler[RIVAL]:.4f} "
        f"(exact McNemar p = {pair.p_value:.2g}){kept}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m syndistill.recipes.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder (default: runs/demo)")
    parser.add_argument("--quick", action="store_true", help="a minute's toy of the same: shows the road, not its end")
    parser.add_argument("--teacher", default=TEACHER, help=f"shipped name or path (default: {TEACHER})")
    parser.add_argument("--accept-any-teacher", action="store_true", help="go on even if the gate refuses the Teacher")
    given = parser.parse_args(arguments)
    try:
        found = run_demo(given.out, given.teacher, QUICK if given.quick else FULL, given.accept_any_teacher)
    except SyndistillError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from where it stopped", file=sys.stderr)
        return 130
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(rows_table(found, EXPERIMENT, against=RIVAL))
    console.print(verdict(found))
    console.print(f"picture: {given.out / PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
