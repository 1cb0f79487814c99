"""Teachers' recipes."""

from __future__ import annotations

from syndistill.files.families import TransformerDials
from syndistill.models.networks import preset
from syndistill.training.config import (
    Curriculum,
    DataConfig,
    OptimiserConfig,
    RoundsPhase,
    TrainingConfig,
)
from syndistill.training.run import TeacherRun


def teacher_d3() -> TeacherRun:
    """The d=3 Teacher: one network for X and Z memory, SI1000, p .001 to .006, up to 25 rounds.

    The road of the shipped one (its card has the five legs it was trained in) as a single run, with exact labels from
    the start; this single run itself was never made. Best under torchrun with two processes of one thread.
    """
    return TeacherRun(
        network=preset("teacher-small", 3),
        data=DataConfig(distance=3, noise="si1000", bases=("x", "z"), labels="exact", curriculum=_d3_curriculum()),
        training=TrainingConfig(
            steps=16_000,
            batch_size=256,
            seed=1,
            precision="bf16",
            compile=True,
            threads=1,
            optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, decay_steps=12_000, ema_decay=0.998),
        ),
    )


def teacher_d3_joint() -> TeacherRun:
    """The joint d=3 Teacher, from teacher-d3: a softmax over I, X, Z, Y, on shots that track both observables.

    The road of the shipped one (its card has the two legs) as a single run, which itself was never made.
    """
    run = teacher_d3()
    rounds = (
        RoundsPhase(from_shots=0, rounds=(3,)),
        RoundsPhase(from_shots=60_000, rounds=(3, 3, 5)),
        RoundsPhase(from_shots=250_000, rounds=(3, 3, 5, 9)),
        RoundsPhase(from_shots=500_000, rounds=(3, 3, 5, 5, 9, 9, 15)),
    )
    curriculum = Curriculum(p_min=0.001, p_max=0.006, rounds=rounds)
    optimiser = OptimiserConfig(
        name="muon", learning_rate=1e-3, matrix_rate=0.01, warmup_steps=50, decay_steps=1_500, ema_decay=0.998
    )
    return run.model_copy(
        update={
            "network": TransformerDials(distance=3, output="joint4", agree_lines=True),
            "start_from": "teacher-d3",
            "data": run.data.model_copy(update={"bases": ("both",), "curriculum": curriculum}),
            "training": run.training.model_copy(update={"steps": 2_650, "optimiser": optimiser}),
        }
    )


def teacher_d5() -> TeacherRun:
    """The d=5 Teacher: from the d=3 one's weights, its lines agreeing, X experiments turned, on revealed labels.

    The road of the shipped one (its card has the legs) as a single run, which itself was never made. Best under
    torchrun with two processes of one thread.
    """
    return TeacherRun(
        network=TransformerDials(distance=5, agree_lines=True, turn_x=True),
        start_from="teacher-d3",
        data=DataConfig(
            distance=5,
            noise="si1000",
            bases=("x", "z"),
            labels="revealed",
            end_spacing=10,
            curriculum=Curriculum(
                p_min=0.001,
                p_max=0.006,
                tilt=0.0,
                n_rates=17,
                rounds=(
                    RoundsPhase(from_shots=0, rounds=(2, 3, 4, 5, 5)),
                    RoundsPhase(from_shots=500_000, rounds=(3, 5, 5, 5, 9)),
                    RoundsPhase(from_shots=1_000_000, rounds=(5, 5, 9, 15, 25)),
                ),
            ),
        ),
        training=TrainingConfig(
            steps=9_000,
            batch_size=256,
            seed=1,
            precision="bf16",
            compile=True,
            threads=1,
            optimiser=OptimiserConfig(
                name="muon", learning_rate=1e-3, matrix_rate=0.01, warmup_steps=50, decay_steps=6_000, ema_decay=0.998
            ),
        ),
    )


def teacher_tiny() -> TeacherRun:
    """Under a minute on one core: shows that the road is open, and is no Teacher to learn from."""
    phases = (RoundsPhase(from_shots=0, rounds=(3,)),)
    return TeacherRun(
        network=preset("teacher-tiny", 3),
        data=DataConfig(distance=3, noise="si1000", curriculum=Curriculum(p_min=0.002, p_max=0.006, rounds=phases)),
        training=TrainingConfig(
            steps=500,
            batch_size=128,
            log_every=25,
            optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=50, decay_steps=250, ema_decay=0.99),
        ),
    )


def sycamore_d3(folder: str = "sycamore_x_even") -> TeacherRun:
    """The shipped d=3 Teacher tuned to one centre of the Sycamore chip (samples of its p_ij models, X basis)."""
    rounds = (RoundsPhase(from_shots=0, rounds=(3, 5, 7, 9, 11, 13)),)
    return TeacherRun(
        network=preset("teacher-small", 3),
        start_from="teacher-d3",
        data=DataConfig(
            distance=3,
            noise="files",
            files=tuple(f"{folder}/surface_code_bX_d3_r{r:02d}_center_3_5" for r in rounds[0].rounds),
            bases=("x",),
            curriculum=Curriculum(p_min=1.0, p_max=1.0, rounds=rounds),
        ),
        training=TrainingConfig(
            steps=1_500,
            batch_size=256,
            seed=1,
            precision="bf16",
            optimiser=OptimiserConfig(learning_rate=5e-4, warmup_steps=100, decay_steps=1_000, ema_decay=0.99),
        ),
    )


def _d3_curriculum() -> Curriculum:
    return Curriculum(
        p_min=0.001,
        p_max=0.006,
        rounds=(
            RoundsPhase(from_shots=0, rounds=(3,)),
            RoundsPhase(from_shots=500_000, rounds=(3, 5)),
            RoundsPhase(from_shots=1_200_000, rounds=(3, 5, 9)),
            RoundsPhase(from_shots=2_200_000, rounds=(3, 3, 5, 9, 15, 25, 25)),
        ),
    )
