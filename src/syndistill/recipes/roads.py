"""The whole road for one Student: baseline -> stage 1 -> fuse -> stage 2."""

from __future__ import annotations

from syndistill.distill.fuse import probe_training
from syndistill.distill.road import Baseline, Fuse, RoadRun, Stage1, Stage2
from syndistill.distill.terms import FinalTerm, LabelTerm
from syndistill.recipes.students import baseline_d3, baseline_tiny
from syndistill.training.config import TrainingConfig


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
    """A minute on one core: shows that the road is open."""
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


def _cooled(training: TrainingConfig) -> TrainingConfig:
    """A third of the learning rate, falling to 0 over all the steps: the Student has already learned. Another seed:
    another order of the shots."""
    rates = {name: getattr(training.optimiser, name) / 3 for name in ("learning_rate", "matrix_rate")}
    optimiser = training.optimiser.model_copy(update={**rates, "decay_steps": training.steps})
    return training.model_copy(update={"optimiser": optimiser, "seed": training.seed + 1})
