"""Where labels are scarce, as on a chip: Students of few recorded shots, alone, with a Teacher's answers, its inside.

    python scripts/scarce.py surface_code_bX_d3_r05_center_3_5 --out runs/scarce --teacher student-sycamore-d3

The first N shots of a recording are learned from, four fifths of them; a fifth says when to stop. All arms of one seed
have the same first weights and the same order of shots, and are judged on the recording's second half. Prints
Markdown; the same command goes on where it stood.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from syndistill.ablation.jobs import SECOND_HALF
from syndistill.decoders.contract import decisions
from syndistill.distill.cache.source import Recorded, StudentData
from syndistill.distill.fuse import FuseRun, probe_training, train_fusion
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.fusion import FUSION_FILE, FusionConfig
from syndistill.distill.signals.teacher import Answer, Teacher
from syndistill.distill.student import STUDENT_FILE, StudentRun, train_student
from syndistill.distill.terms import FeatureTerm, FinalTerm, FusedTerm, LabelTerm, SpatialTerm, Terms
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import preset
from syndistill.reporter import Reporter
from syndistill.runs.console import terminal_reporter
from syndistill.sampling.recorded import Recording
from syndistill.sampling.shots import Shots
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.paired_seeds import mean_and_half
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig

BASE = "labels and final logits"
ANSWERS = Terms(labels=LabelTerm(weight=0.3), final=FinalTerm(weight=1.0))
ANSWERED = Terms(labels=LabelTerm(weight=0.3), final=FinalTerm(weight=0.0), fused=FusedTerm(weight=1.0))
SPACE = SpatialTerm(weight=1.0, share=0.5, fade=0.5)
TIME = FeatureTerm(weight=1.0, share=0.5, fade=0.5)
IN_TIME = ANSWERS.model_copy(update={"temporal": TIME})
BOTH = IN_TIME.model_copy(update={"spatial": SPACE})


def _shuffled(terms: Terms) -> Terms:
    both = {name: getattr(terms, name).model_copy(update={"placebo": "shuffled"}) for name in ("spatial", "temporal")}
    return terms.model_copy(update=both)


class Arm(NamedTuple):
    """fusion: the ways into z_fuse, which the fused term follows; the readout alone is the calibrated final logit.
    first: what the first half of the steps learns from, where there are two stages."""

    terms: Terms
    fusion: tuple[str, ...] = ()
    first: Terms | None = None


def arms_of(offered: Collection[str]) -> dict[str, Arm]:
    """By name; a Teacher without states inside a round has no space to follow."""
    every = ("transformer", "state", "readout")
    inside, said = (BOTH, "space and time") if "spatial" in offered else (IN_TIME, "time")
    no_labels = ANSWERED.model_copy(update={"labels": LabelTerm(weight=0.0)})
    space = {"+ space": Arm(ANSWERS.model_copy(update={"spatial": SPACE})), "+ space and time": Arm(BOTH)}
    found = {
        "labels alone": Arm(Terms(labels=LabelTerm(weight=1.0), final=FinalTerm(weight=0.0))),
        BASE: Arm(ANSWERS),
        "+ time": Arm(IN_TIME),
        **(space if "spatial" in offered else {}),
        f"+ {said}, shuffled": Arm(_shuffled(inside)),
        "labels and calibrated final logits": Arm(ANSWERED, ("readout",)),
    }
    if "spatial" not in offered:  # nor a state for each stabiliser, which probes look at
        return found
    return found | {
        "labels and fused logits": Arm(ANSWERED, every),
        "fused logits without labels": Arm(no_labels, every),
        "two stages: space and time, then labels and fused logits": Arm(ANSWERED, every, inside),
        "two stages: the baseline, then labels and fused logits": Arm(ANSWERED, every, ANSWERS),
    }


def shots_like(recording: Recording, folder: Path) -> DataConfig:
    """Simulated shots of the recording's own error model."""
    placed = recording.placement
    return DataConfig(
        distance=placed.layout.distance,
        noise="files",
        files=(str(folder),),
        model="circuit",
        bases=(placed.basis,),  # type: ignore[arg-type]
        curriculum=Curriculum(
            p_min=1.0, p_max=1.0, tilt=0.0, n_rates=2, rounds=(RoundsPhase(from_shots=0, rounds=(placed.rounds,)),)
        ),
    )


def run_of(
    simulated: DataConfig, terms: Terms, n_shots: int, seed: int, of: argparse.Namespace, fusion: Path | None = None
) -> StudentRun:
    recorded = Recorded(
        folders=(str(of.recording),), shots=n_shots * 4 // 5, dev_shots=n_shots // 5, dev_every=50, patience=0
    )
    optimiser = OptimiserConfig(
        name="muon",
        learning_rate=3e-3,
        matrix_rate=0.02,
        warmup_steps=50,
        decay_steps=of.steps * 9 // 10,
        ema_decay=0.99,
    )
    return StudentRun(
        network=preset(of.student, simulated.distance),
        teacher=of.teacher,
        teacher_precision=of.precision,
        data=StudentData(simulated=simulated, recorded=recorded, ends=0),
        terms=terms,
        fusion=None if fusion is None else str(fusion),
        training=TrainingConfig(
            steps=of.steps, batch_size=min(200, recorded.shots), seed=seed, threads=1, optimiser=optimiser
        ),
    )


class Remembering(Teacher):
    """Asks a Teacher about each recorded shot once; simulated ones, of many ends, do not come twice."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.offers, self.labels = teacher.offers, teacher.labels
        self.layout, self.output = teacher.layout, teacher.output
        self._known: dict[tuple[frozenset[str], bytes], tuple[torch.Tensor, dict[str, torch.Tensor]]] = {}

    def key(self) -> str:
        return self.teacher.key()

    def offers_signal(self, name: str) -> bool:
        return self.teacher.offers_signal(name)

    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        if len(shots.ends) > 1:
            return self.teacher.answer(shots, want)
        bits = torch.cat([shots.events_BRS.flatten(1), shots.last_BKS.flatten(1)], 1).numpy()
        keys = [(frozenset(want), row.tobytes()) for row in bits]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            said = self.teacher.answer(shots.take(torch.tensor(new)), want)
            for at, i in enumerate(new):
                self._known[keys[i]] = said.logits_BKLC[at], {name: value[at] for name, value in said.signals.items()}
        logits, signals = zip(*(self._known[key] for key in keys), strict=True)
        return Answer(torch.stack(logits), {name: torch.stack([one[name] for one in signals]) for name in signals[0]})


def trained(
    arm: Arm,
    simulated: DataConfig,
    n_shots: int,
    seed: int,
    folder: Path,
    of: argparse.Namespace,
    teacher: Teacher,
    reporter: Reporter,
) -> Path:
    """The Student's file, made where it is not there."""
    made = folder / STUDENT_FILE
    if made.exists():
        return made
    run = run_of(simulated, arm.terms, n_shots, seed, of, fused(arm.fusion, simulated, of, teacher, reporter))
    if arm.first is not None:
        half = of.steps // 2
        constant, falling = (run.training.optimiser.model_copy(update={"decay_steps": steps}) for steps in (0, half))
        first = run_of(simulated, arm.first, n_shots, seed, of)
        training = first.training.model_copy(update={"steps": half, "optimiser": constant})
        first, before = first.model_copy(update={"training": training}), folder.with_name(f"{folder.name}-first")
        start = train_student(first, before, reporter=reporter, teacher=teacher)
        again = {"steps": half, "optimiser": falling, "seed": seed + SECOND_HALF}
        training = run.training.model_copy(update=again)
        run = run.model_copy(update={"training": training, "start_from": str(start)})
    return train_student(run, folder, reporter=reporter, teacher=teacher)


def fused(
    paths: tuple[str, ...], simulated: DataConfig, of: argparse.Namespace, teacher: Teacher, reporter: Reporter
) -> Path | None:
    """z_fuse, fitted on simulated shots of the recording's error model."""
    if not paths:
        return None
    made: Path = of.out / "-".join(("fuse", *paths)) / FUSION_FILE
    if not made.exists():
        training = probe_training(of.probe_steps).model_copy(update={"threads": 1})
        run = FuseRun(
            teacher=of.teacher, data=simulated, fusion=FusionConfig(paths=paths, mode="nll"), training=training
        )
        train_fusion(run, made.parent, reporter, teacher)
    return made


def ler(subject: Subject, network: str | Path, shots: StoredShots) -> float:
    return float((decisions(subject.decoder(str(network)).decode(shots)) != shots.observables()).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the Teacher")
    parser.add_argument("--student", default="flat-gru-20k", help="a preset, from fresh weights")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 5_000, 12_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1_200)
    parser.add_argument("--probe-steps", type=int, default=300, help="of the small networks of fused logits")
    of = parser.parse_args(arguments)
    subject = Subject.from_recording(of.recording)
    recording = subject.recording
    assert recording is not None
    stored = recording.stored_shots()
    half = stored.n_shots // 2
    if max(of.counts) > half:
        parser.error(f"{max(of.counts)} shots of {stored.n_shots}, half of which are judged on; ask for {half} at most")
    judged = stored.take(half, stored.n_shots)
    simulated = shots_like(recording, of.recording)
    teacher = Remembering(teacher_named(of.teacher, of.precision, simulated))
    arms = arms_of([name for name in ("spatial", "temporal") if teacher.offers_signal(name)])
    print(f"LER in per cent, {judged.n_shots:,} shots; the Teacher {100 * ler(subject, of.teacher, judged):.2f}\n")
    print("| the Student learns from | " + " | ".join(f"{n:,} shots" for n in of.counts) + " |")
    print("|---" * (len(of.counts) + 1) + "|")
    lers: dict[tuple[str, int], list[float]] = {}
    with terminal_reporter() as reporter:
        for n_shots in of.counts:
            for seed in of.seeds:
                for name, arm in arms.items():
                    folder = of.out / f"{n_shots}-{seed}" / re.sub(r"[^a-z]+", "-", name).strip("-")
                    student = trained(arm, simulated, n_shots, seed, folder, of, teacher, reporter)
                    lers.setdefault((name, n_shots), []).append(ler(subject, student, judged))
    for name in arms:
        cells = (_cell(lers[name, n], None if name == BASE else lers[BASE, n]) for n in of.counts)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return 0


def _cell(lers: Sequence[float], base: Sequence[float] | None) -> str:
    """Mean LER, and the change against the Teacher's answers alone with its interval over seeds."""
    said = f"{100 * np.mean(lers):.2f}"
    if base is None:
        return said
    mean, half = mean_and_half(np.log(np.divide(lers, base)).tolist())
    if half is None:
        return f"{said} ({100 * np.expm1(mean):+.1f} %)"
    return f"{said} ({100 * np.expm1(mean - half):+.1f} to {100 * np.expm1(mean + half):+.1f} %)"


if __name__ == "__main__":
    raise SystemExit(main())
