"""The whole road in minutes: distil a Student from the shipped d=3 Teacher stage by stage, judge it against all else.

    python -m syndistill.runs.demo [--out runs/demo] [--quick]

Killed or interrupted, the same command goes on from where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from syndistill.distill.baseline import Baseline
from syndistill.distill.cache.source import StudentData
from syndistill.distill.fuse import Fuse, probe_training
from syndistill.distill.road import ROAD_FILE, RoadRun, Stage, result_file
from syndistill.distill.stage1 import Stage1
from syndistill.distill.stage2 import Stage2
from syndistill.distill.terms import LabelTerm
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import RowsFile, combine
from syndistill.evaluation.subject import Subject
from syndistill.evaluation.tables import rows_table
from syndistill.models.networks import preset
from syndistill.reporter import Reporter
from syndistill.runs.console import terminal_reporter
from syndistill.runs.gated import distil_gated
from syndistill.runs.picture import LABELS, draw_comparison
from syndistill.safe_files import read_sealed, write_sealed
from syndistill.training.config import OptimiserConfig, TrainingConfig, fixed_rounds
from syndistill.training.run_folder import RUN_FILE, is_of_config, read_run

TEACHER = "teacher-d3"
ROUNDS, P = 9, 0.004
"""Nine rounds: after three, labels alone do as well as a Teacher."""
EXPERIMENT = f"d=3,rounds={ROUNDS},basis=z,noise=si1000,p={P}"
SEED = 2026  # of the judged shots
REFERENCES = ("pymatching", "pymatching-correlated", "optimal")
RIVAL = "pymatching-correlated"
ROAD, RESULT, PICTURE, ROWS = "road", "comparison.json", "comparison.png", "rows.jsonl"


class Budget(NamedTuple):
    """Where the minutes go: the Teacher's gate, answers and probes, the Students' steps, and the judging.

    steps: of each way to the end: labels alone, the baseline, and stage 1 with stage 2, half each.
    """

    gate_shots: int
    cached_shots: int
    probe_steps: int
    fused_shots: int
    steps: int
    batch_size: int
    judged_shots: int


# 8 min 22 s in all on two cores with bf16 in hardware, beside tests for most of it (docs/log/2026-11-29.md).
FULL = Budget(
    gate_shots=6_000,
    cached_shots=49_152,
    probe_steps=100,
    fused_shots=4_096,
    steps=4_500,
    batch_size=256,
    judged_shots=50_000,
)
QUICK = Budget(
    gate_shots=5_000,
    cached_shots=8_192,
    probe_steps=20,
    fused_shots=1_024,
    steps=100,
    batch_size=256,
    judged_shots=2_000,
)


def road_of(teacher: str, budget: Budget) -> RoadRun:
    """The demo's Student on one experiment, with every signal, and its control from labels alone."""
    labels = LabelTerm(weight=0.1)
    whole, half = budget.steps, budget.steps // 2
    return RoadRun(
        network=preset("flat-gru-20k", 3),
        teacher=teacher,
        data=StudentData(
            simulated=fixed_rounds(ROUNDS, ("z",), p_min=0.003, p_max=0.006),
            cached_shots=budget.cached_shots,
            cut_rounds=(ROUNDS,),
        ),
        no_kd=_training(budget, whole, decay=whole * 3 // 4),
        baseline=Baseline(labels=labels, training=_training(budget, whole, decay=whole * 3 // 4)),
        # The rate falls in stage 2 alone: as in the other arms once over all steps. Two falls ended higher, in NLL too.
        stage1=Stage1(labels=labels, training=_training(budget, half, decay=0)),
        fuse=Fuse(
            training=probe_training(budget.probe_steps),
            fit_shots=budget.fused_shots,
            report_shots=2 * budget.fused_shots,
        ),
        stage2=Stage2(labels=labels, training=_training(budget, whole - half, decay=whole - half, seed=2)),
    )


def _training(budget: Budget, steps: int, decay: int, seed: int = 1) -> TrainingConfig:
    warmup = min(100, steps // 4)
    optimiser = OptimiserConfig(
        name="muon", learning_rate=3e-3, matrix_rate=0.02, warmup_steps=warmup, decay_steps=decay, ema_decay=0.998
    )
    return TrainingConfig(steps=steps, batch_size=budget.batch_size, seed=seed, threads=1, optimiser=optimiser)


def student_names(budget: Budget) -> dict[Stage, str]:
    """What the table calls the Student after each stage: with all the steps that it then had."""
    half = budget.steps // 2
    steps: dict[Stage, int] = {"no_kd": budget.steps, "baseline": budget.steps, "stage1": half, "stage2": budget.steps}
    said = {"no_kd": "labels alone", "baseline": "baseline", "stage1": "stage 1", "stage2": "stage 2"}
    return {stage: f"Student: {said[stage]}, {n:,} steps" for stage, n in steps.items()}


def run_demo(out: Path, teacher: str, budget: Budget, accept_any_teacher: bool) -> Comparison:
    """Distil, judge, draw; goes on where it stopped, and only reads a finished folder."""
    wanted = {"teacher": teacher, "experiment": EXPERIMENT, "seed": SEED, **budget._asdict()}
    students = student_names(budget)
    networks = {str(result_file(stage, out / ROAD)): name for stage, name in students.items()}
    names = {teacher: "Teacher"} | networks
    if (out / RESULT).exists():
        _check_finished(out, wanted)
        counted = RowsFile(out / ROWS)
        found = Comparison(combine(list(counted.rows.values())), combine(list(counted.pairs.values())))
        # The rows say where the folder lay when it was judged.
        judged = dict.fromkeys(row.decoder for row in found.rows if row.decoder not in {*REFERENCES, teacher})
        return _renamed(found, {teacher: "Teacher"} | dict(zip(judged, students.values(), strict=True)))
    with terminal_reporter() as reporter:
        _walk(out / ROAD, road_of(teacher, budget), budget, accept_any_teacher, reporter)
        decoders = [*REFERENCES, *names]
        reporter.say(f"judging {len(decoders)} decoders on the same {budget.judged_shots:,} shots of {EXPERIMENT}")
        subject = Subject.from_experiment(EXPERIMENT)
        found = subject.compare(decoders, budget.judged_shots, SEED, rows_file=out / ROWS, reporter=reporter)
    found = _renamed(found, names)
    draw_comparison(
        found,
        out / PICTURE,
        f"Surface code memory, distance 3, {ROUNDS} rounds, SI1000 noise, p = {P}",
        LABELS,
        highlight=best_student(found, students),
    )
    write_sealed(out / RESULT, {"demo": wanted, **found.to_json()})
    return found


def _walk(folder: Path, road: RoadRun, budget: Budget, accept_any_teacher: bool, reporter: Reporter) -> None:
    """Walk the road, or go on, unless it is there finished."""
    if (folder / ROAD_FILE).exists():
        if not is_of_config(read_run(folder / RUN_FILE), road):
            raise SyndistillError(f"{folder.parent} holds a demo with other settings; choose another --out")
        return
    distil_gated(
        road,
        folder,
        accept_any_teacher=accept_any_teacher,
        gate_shots=budget.gate_shots,
        reporter=reporter,
    )


def _check_finished(out: Path, wanted: dict[str, Any]) -> None:
    found = read_sealed(out / RESULT, "delete it, the demo then judges again")
    if found.get("demo") != wanted:
        raise SyndistillError(f"{out} holds a finished demo with other settings; choose another --out")
    print(f"{out} holds this demo, finished; nothing is trained. Delete the folder to run it again.", file=sys.stderr)


def _renamed(found: Comparison, names: dict[str, str]) -> Comparison:
    """Labels in place of paths, the worst decoder first."""
    rows = [dataclasses.replace(row, decoder=names.get(row.decoder, row.decoder)) for row in found.rows]
    pairs = [
        dataclasses.replace(pair, a=names.get(pair.a, pair.a), b=names.get(pair.b, pair.b)) for pair in found.pairs
    ]
    return Comparison(sorted(rows, key=lambda row: -row.ler), pairs)


def best_student(found: Comparison, students: Mapping[Stage, str]) -> str:
    """Whichever stage's it is."""
    names = set(students.values())
    return min((row for row in found.rows if row.decoder in names), key=lambda row: row.ler).decoder


def verdict(found: Comparison, students: Mapping[Stage, str]) -> str:
    """What final logits are worth beside labels alone, the best Student against correlated matching, and what each
    keeps of the Teacher's gain. The best one is chosen on the same shots, so its p counts as often as there are."""
    ler, best = {row.decoder: row.ler for row in found.rows}, best_student(found, students)
    alone, taught = students["no_kd"], students["baseline"]
    first = (
        f"At equal steps the Teacher's final logits are worth {1 - ler[taught] / ler[alone]:.1%} of the error rate: "
        f"{ler[taught]:.4f} against {ler[alone]:.4f} from labels alone (exact McNemar p = "
        f"{_p(found, taught, alone):.2g})."
    )
    beats = "beats" if ler[best] < ler[RIVAL] else "does not beat"
    second = (
        f"The best Student ({_after(best)}) {beats} correlated PyMatching: {ler[best]:.4f} against {ler[RIVAL]:.4f} "
        f"(p = {min(1.0, len(students) * _p(found, best, RIVAL)):.2g} for the best of {len(students)})."
    )
    gain = ler[RIVAL] - ler["Teacher"]
    shares = {_after(name): (ler[RIVAL] - ler[name]) / gain for name in students.values() if gain > 0}
    if not shares:
        return f"{first} {second}"
    kept = [f"{name} {share:.0%}" if share > 0 else f"{name} nothing" for name, share in shares.items()]
    return f"{first} {second} Kept of the Teacher's gain over it: {'; '.join(kept)}."


def _after(student: str) -> str:
    return student.removeprefix("Student: ")


def _p(found: Comparison, a: str, b: str) -> float:
    return next(one for one in found.pairs if {one.a, one.b} == {a, b}).p_value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m syndistill.runs.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder (default: runs/demo)")
    parser.add_argument("--quick", action="store_true", help="a minute's toy of the same: shows the road, not its end")
    parser.add_argument("--teacher", default=TEACHER, help=f"shipped name or path (default: {TEACHER})")
    parser.add_argument("--accept-any-teacher", action="store_true", help="go on even if the gate refuses the Teacher")
    given = parser.parse_args(arguments)
    budget = QUICK if given.quick else FULL
    try:
        found = run_demo(given.out, given.teacher, budget, given.accept_any_teacher)
    except SyndistillError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from where it stopped", file=sys.stderr)
        return 130
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(rows_table(found, EXPERIMENT, against=RIVAL))
    console.print(verdict(found, student_names(budget)))
    console.print(f"picture: {given.out / PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
