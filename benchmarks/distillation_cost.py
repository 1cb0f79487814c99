"""What distillation costs: the cache against the live Teacher, and stage 1 with all signals against the baseline.

Each pair is measured in turns, one after the other in the same process, and the medians are compared, so that other
work on the machine hits both. Statistics, gradient shares and the cache's writing happen once and are not counted.

    python benchmarks/distillation_cost.py [--teacher teacher-small --student flat-gru-20k --rounds 9 --batch 512]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from syndistill.distill.baseline import Baseline
from syndistill.distill.cache.source import StudentData, cached_source, statistics_shots
from syndistill.distill.fuse import Fuse
from syndistill.distill.objective import Lessons
from syndistill.distill.road import RoadRun
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.stage import StageInputs, prepare_stage, stage_statistics
from syndistill.distill.stage1 import Stage1
from syndistill.distill.stage2 import Stage2
from syndistill.distill.student import StudentRun
from syndistill.models.networks import preset
from syndistill.reporter import SILENT
from syndistill.sampling.stream import ShotStream
from syndistill.training.config import Curriculum, DataConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.start import fresh_network

TURNS = 5
STEPS = 20


def road(args: argparse.Namespace) -> RoadRun:
    training = TrainingConfig(steps=10**6, batch_size=args.batch, threads=args.threads, log_every=10**6)
    phases = (RoundsPhase(from_shots=0, rounds=(args.rounds,)),)
    data = StudentData(
        simulated=DataConfig(distance=args.distance, curriculum=Curriculum(p_min=0.001, p_max=0.006, rounds=phases)),
        cached_shots=args.shots,
        cut_rounds=tuple(range(1, args.rounds + 1)),
    )
    return RoadRun(
        network=preset(args.student, args.distance),
        teacher=args.teacher,
        data=data,
        baseline=Baseline(training=training),
        stage1=Stage1(training=training),
        fuse=Fuse(training=training),
        stage2=Stage2(training=training),
    )


def ready(run: StudentRun, teacher: FrozenTeacher, folder: Path, cache: Path) -> tuple[Trainer, Lessons]:
    """A trainer at its first step, its cache written."""
    folder.mkdir()
    shots = statistics_shots(run.data.simulated, run.data.cache_seed) if run.terms.features else []
    measured = stage_statistics(run.terms, teacher, shots, folder)
    given = StageInputs(run.terms, teacher, measured, shots, run.training)
    source = cached_source(
        run.data, run.training, teacher, cache, given.targets, run.terms.needs_every_end, SILENT
    )
    network = fresh_network(run.network, 1)
    stage = prepare_stage(given, network, source, folder)
    trainer = Trainer(network, stage.objective, source, run.training, folder, stage.extra)
    return trainer, stage.objective.lessons


def steps_of(trainer: Trainer) -> Callable[[], float]:
    """Seconds per training step, the stream's thread included."""
    stream = iter(ShotStream(trainer.source))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            trainer.train_step(next(stream))
        return (time.perf_counter() - start) / STEPS

    return measure


def answers_of(trainer: Trainer, lessons: Lessons, live: bool) -> Callable[[], float]:
    """Seconds per batch until the targets are there, from the cache or from the live Teacher."""
    numbers = iter(range(10**9))

    def measure() -> float:
        start = time.perf_counter()
        batches = trainer.source.chunk(next(numbers))
        if live:  # of the same shots, which the cache drew; drawing them afresh would cost more
            start = time.perf_counter()
            batches = batches[:1]
        for taught in batches:
            lessons.of(TaughtShots(taught.shots, None) if live else taught)
        return (time.perf_counter() - start) / len(batches)

    return measure


def in_turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    first(), second()
    pairs = [(first(), second()) for _ in range(TURNS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="teacher-small", help="a preset; its weights do not matter here")
    parser.add_argument("--student", default="flat-gru-20k")
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--shots", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    run = road(args)
    teacher = FrozenTeacher(fresh_network(preset(args.teacher, args.distance), 7))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (baseline, _), (stage1, lessons) = (
            ready(run.student_run(stage, folder), teacher, folder / stage, folder / "cache")
            for stage in ("baseline", "stage1")
        )
        cached, live = in_turns(answers_of(stage1, lessons, live=False), answers_of(stage1, lessons, live=True))
        plain, full = in_turns(steps_of(baseline), steps_of(stage1))
    print(f"{args.teacher} -> {args.student}, d={args.distance}, r={args.rounds} cut to 1..{args.rounds}, batch "
          f"{args.batch}, {args.threads} thread(s), all signals")
    print(f"  targets from the cache {args.batch / cached:,.0f} shots/s, from the live Teacher "
          f"{args.batch / live:,.0f} shots/s: {live / cached:.1f} x (wanted: 3)")
    print(f"  baseline {plain * 1e3:.1f} ms a step, stage 1 {full * 1e3:.1f} ms: {full / plain:.2f} x (wanted: 1.5)")


if __name__ == "__main__":
    main()
