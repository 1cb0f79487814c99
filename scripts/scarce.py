"""Where labels are scarce, as on a chip: Students of few recorded shots, alone, with a Teacher's answers, its inside.

    python scripts/scarce.py surface_code_bX_d3_r05_center_3_5 --out runs/scarce --teacher student-sycamore-d3

The first N shots of a recording are learned from, four fifths of them; a fifth says when to stop. All arms of one seed
have the same first weights and the same order of shots, and are judged on the recording's second half. Prints
Markdown; the same command goes on where it stood.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from syndistill.decoders.contract import decisions
from syndistill.distill.cache.source import Recorded, StudentData
from syndistill.distill.student import STUDENT_FILE, StudentRun, train_student
from syndistill.distill.terms import FeatureTerm, FinalTerm, LabelTerm, Terms
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import preset
from syndistill.runs.console import terminal_reporter
from syndistill.sampling.recorded import Recording
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.paired_seeds import mean_and_half
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig

ANSWERS = FinalTerm(weight=1.0)
ARMS: Mapping[str, Terms] = {
    "labels alone": Terms(labels=LabelTerm(weight=1.0), final=FinalTerm(weight=0.0)),
    "+ final logits": Terms(labels=LabelTerm(weight=0.3), final=ANSWERS),
    "+ final logits, time": Terms(
        labels=LabelTerm(weight=0.3), final=ANSWERS, temporal=FeatureTerm(weight=1.0, share=0.5, fade=0.5)
    ),
    "+ final logits, time shuffled": Terms(
        labels=LabelTerm(weight=0.3),
        final=ANSWERS,
        temporal=FeatureTerm(weight=1.0, share=0.5, fade=0.5, placebo="shuffled"),
    ),
}


def run_of(recording: Recording, terms: Terms, n_shots: int, seed: int, of: argparse.Namespace) -> StudentRun:
    placed, folder = recording.placement, of.recording
    simulated = DataConfig(
        distance=placed.layout.distance,
        noise="files",
        files=(str(folder),),
        model="circuit",
        bases=(placed.basis,),  # type: ignore[arg-type]
        curriculum=Curriculum(
            p_min=1.0, p_max=1.0, tilt=0.0, n_rates=2, rounds=(RoundsPhase(from_shots=0, rounds=(placed.rounds,)),)
        ),
    )
    recorded = Recorded(folder=str(folder), shots=n_shots * 4 // 5, dev_shots=n_shots // 5, dev_every=50, patience=0)
    optimiser = OptimiserConfig(
        name="muon",
        learning_rate=3e-3,
        matrix_rate=0.02,
        warmup_steps=50,
        decay_steps=of.steps * 9 // 10,
        ema_decay=0.99,
    )
    return StudentRun(
        network=preset(of.student, placed.layout.distance),
        teacher=of.teacher,
        data=StudentData(simulated=simulated, recorded=recorded, ends=0),
        terms=terms,
        training=TrainingConfig(
            steps=of.steps, batch_size=min(200, recorded.shots), seed=seed, threads=1, optimiser=optimiser
        ),
    )


def ler(subject: Subject, network: str | Path, shots: StoredShots) -> float:
    return float((decisions(subject.decoder(str(network)).decode(shots)) != shots.observables()).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", default="flat-gru-20k", help="a preset, from fresh weights")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 5_000, 12_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1_200)
    of = parser.parse_args(arguments)
    subject = Subject.from_recording(of.recording)
    recording = subject.recording
    assert recording is not None
    stored = recording.stored_shots()
    half = stored.n_shots // 2
    if max(of.counts) > half:
        parser.error(f"{max(of.counts)} shots of {stored.n_shots}, half of which are judged on; ask for {half} at most")
    judged = stored.take(half, stored.n_shots)
    print(f"LER in per cent, {judged.n_shots:,} shots; the Teacher {100 * ler(subject, of.teacher, judged):.2f}\n")
    print("| recorded shots | " + " | ".join(ARMS) + " |\n" + "|---" * (len(ARMS) + 1) + "|")
    for n_shots in of.counts:
        lers: dict[str, list[float]] = {}
        for arm, terms in ARMS.items():
            for seed in of.seeds:
                folder = of.out / f"{arm.strip('+ ').replace(', ', '-').replace(' ', '-')}-{n_shots}-{seed}"
                if not (folder / STUDENT_FILE).exists():
                    with terminal_reporter() as reporter:
                        train_student(run_of(recording, terms, n_shots, seed, of), folder, reporter=reporter)
                lers.setdefault(arm, []).append(ler(subject, folder / STUDENT_FILE, judged))
        print(f"| {n_shots:,} | " + " | ".join(_cell(lers, arm) for arm in ARMS) + " |", flush=True)
    return 0


def _cell(lers: Mapping[str, Sequence[float]], arm: str) -> str:
    """Mean LER, and the change against the Teacher's answers alone with its interval over seeds."""
    said = f"{100 * np.mean(lers[arm]):.2f}"
    base = "+ final logits"
    mean, half = mean_and_half(np.log(np.divide(lers[arm], lers[base])).tolist())
    if arm == base or half is None:
        return said
    return f"{said} ({100 * np.expm1(mean - half):+.1f} to {100 * np.expm1(mean + half):+.1f} %)"


if __name__ == "__main__":
    raise SystemExit(main())
