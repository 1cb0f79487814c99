"""The whole road for one Student: baseline -> stage 1 -> fuse -> stage 2."""

from __future__ import annotations

from syndistill.distill.road import Baseline, Fuse, RoadRun, Stage1, Stage2
from syndistill.distill.terms import FinalTerm, LabelTerm
from syndistill.recipes.students import baseline_d3, baseline_tiny
from syndistill.training.config import OptimiserConfig, TrainingConfig


def road_d3() -> RoadRun:
    """The shipped d=3 Student's shots and first stage, then every signal, then z_fuse; its control from labels alone.

    Baseline and stage 1 take equal steps from the same first weights, so they differ by the signals alone.
    """
    run = baseline_d3()
    training = run.training
    further = training.model_copy(update={"steps": training.steps // 2})
    labels, final = LabelTerm(weight=0.1), FinalTerm(where="every")
    return RoadRun(
        network=run.network,
        teacher=run.teacher,
        data=run.data,
        no_kd=training,
        baseline=Baseline(labels=labels, final=final, training=training),
        stage1=Stage1(labels=labels, final=final, training=training),
        fuse=Fuse(training=probe_training(steps=2_000), fit_shots=32_768, report_shots=65_536),
        stage2=Stage2(labels=labels, training=_cooled(further)),
    )


def road_tiny() -> RoadRun:
    """A minute on one core, from the Teacher of the recipe teacher-tiny: shows that the road is open."""
    run = baseline_tiny()
    return RoadRun(
        network=run.network,
        teacher=run.teacher,
        data=run.data,
        no_kd=run.training,
        baseline=Baseline(training=run.training),
        stage1=Stage1(training=run.training),
        fuse=Fuse(training=probe_training(steps=100), fit_shots=2_048, report_shots=4_096),
        stage2=Stage2(training=_cooled(run.training)),
    )


def probe_training(steps: int) -> TrainingConfig:
    """Small heads on a frozen Teacher learn fast; its forward is what takes time."""
    warmup = min(20, steps // 4)
    optimiser = OptimiserConfig(learning_rate=2e-3, warmup_steps=warmup, decay_steps=steps // 2, ema_decay=0.99)
    return TrainingConfig(steps=steps, batch_size=256, log_every=min(25, max(1, steps // 4)), optimiser=optimiser)


def _cooled(training: TrainingConfig) -> TrainingConfig:
    """A third of the learning rate, falling to 0 over all the steps: the Student has already learned. Another seed:
    another order of the shots."""
    rates = {name: getattr(training.optimiser, name) / 3 for name in ("learning_rate", "matrix_rate")}
    optimiser = training.optimiser.model_copy(update={**rates, "decay_steps": training.steps})
    return training.model_copy(update={"optimiser": optimiser, "seed": training.seed + 1})
