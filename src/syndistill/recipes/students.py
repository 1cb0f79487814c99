"""Students' recipes: the baseline of final logits and labels, and the same Student from labels alone."""

from __future__ import annotations

from typing import Literal

from syndistill.distill.objective import FinalTerm, LabelTerm, Terms
from syndistill.distill.run import StudentData, StudentRun
from syndistill.distill.unsure import Unsure
from syndistill.models.flat_gru import FlatGruConfig
from syndistill.models.local_gru import LocalGruConfig
from syndistill.models.presets import preset
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig

ROUNDS = 9
LABELS_ALONE_D5 = "results/networks/local-d5-labels.safetensors"
"""A local GRU after 8.5 M drawn labels: recipe local-d5-30k and a second leg (docs/log/2026-11-26.md)."""
TAUGHT_D5 = "results/networks/local-d5-30k.safetensors"
"""After the recipe local-d5-taught-30k."""
TAUGHT_AGAIN_D5 = "results/networks/local-d5-again.safetensors"
"""After the recipe local-d5-taught-again-30k."""
TEACHER_D5 = "results/networks/teacher-d5-leg7.safetensors"
"""teacher-d5 as it was when these learned from it (docs/training.md); an earlier stage's Teacher must be the same."""
LABELS_ALONE = Terms(labels=LabelTerm(where="every"), final=FinalTerm(weight=0.0))


def baseline_d3() -> StudentRun:
    """The shipped d=3 Student: a flat GRU below 20 k parameters, from the shipped Teacher's final logits and labels.

    655,360 shots of 9 rounds are asked of the Teacher once; every end gives the final posterior of an experiment of so
    many rounds. p is uniform: a Student has no calibration goal at small p, and shots at large p say more.
    """
    return StudentRun(
        network=preset("flat-gru-20k", 3),
        teacher="teacher-d3",
        data=StudentData(
            simulated=fixed_rounds(ROUNDS, ("x", "z"), p_min=0.001, p_max=0.006),
            cached_shots=655_360,
            ends=0,
        ),
        terms=Terms(labels=LabelTerm(weight=0.1, where="last"), final=FinalTerm(where="every")),
        training=TrainingConfig(
            steps=25_000,
            batch_size=512,
            seed=1,
            threads=1,
            log_every=100,
            optimiser=OptimiserConfig(
                name="muon", learning_rate=3e-3, matrix_rate=0.02, warmup_steps=300, decay_steps=24_000, ema_decay=0.999
            ),
        ),
    )


def baseline_d3_longer() -> StudentRun:
    """Goes on from runs/baseline-d3 with experiments of up to 25 rounds: what it never saw there it does not keep."""
    run = baseline_d3()
    optimiser = run.training.optimiser.model_copy(
        update={"learning_rate": 1.5e-3, "matrix_rate": 0.01, "decay_steps": 11_400}
    )
    simulated = fixed_rounds(25, ("x", "z"), p_min=0.001, p_max=0.006)
    return run.model_copy(
        update={
            "start_from": "runs/baseline-d3/student.safetensors",
            "data": run.data.model_copy(update={"simulated": simulated, "cached_shots": 131_072}),
            "training": run.training.model_copy(
                update={"steps": 12_000, "batch_size": 256, "seed": 2, "optimiser": optimiser}
            ),
        }
    )


def baseline_d5() -> StudentRun:
    """A flat GRU of at most 20 k parameters from the d=5 Teacher's final logits and labels, for up to 9 rounds."""
    return _baseline_d5(width=50, readout_width=28, steps=12_000)


def baseline_d5_100k() -> StudentRun:
    """The same for at most 100 k parameters."""
    return _baseline_d5(width=132, readout_width=60, steps=12_000)


def _baseline_d5(width: int, readout_width: int, steps: int) -> StudentRun:
    run = baseline_d3()
    network = FlatGruConfig(distance=5, width=width, readout_width=readout_width, readout_layers=1, turn_x=True)
    optimiser = run.training.optimiser.model_copy(update={"decay_steps": steps * 97 // 100})
    simulated = fixed_rounds(ROUNDS, ("x", "z"), p_min=0.001, p_max=0.006, distance=5)
    return run.model_copy(
        update={
            "network": network,
            "teacher": "teacher-d5",
            "teacher_precision": "bf16",
            "data": run.data.model_copy(update={"simulated": simulated, "cached_shots": 131_072}),
            "training": run.training.model_copy(update={"steps": steps, "batch_size": 256, "optimiser": optimiser}),
        }
    )


def local_d5_30k() -> StudentRun:
    """A local GRU of at most 30 k parameters at d=5, from labels alone, on fresh shots of up to 25 rounds.

    Best under torchrun with two processes of one thread.
    """
    run = labels_d5()
    phases = (
        RoundsPhase(from_shots=0, rounds=(5,)),
        RoundsPhase(from_shots=2_000_000, rounds=(5, 5, 9)),
        RoundsPhase(from_shots=3_800_000, rounds=(5, 9, 15, 25)),
    )
    simulated = run.data.simulated
    curriculum = simulated.curriculum.model_copy(update={"rounds": phases, "n_rates": 17})
    optimiser = run.training.optimiser.model_copy(update={"decay_steps": 6_000})
    return run.model_copy(
        update={
            "teacher": TEACHER_D5,
            "teacher_precision": "fp32",  # it is not asked
            "network": LocalGruConfig(distance=5, width=16, readout_width=32, readout_layers=1, turn_x=True),
            "data": run.data.model_copy(
                update={"simulated": simulated.model_copy(update={"curriculum": curriculum}), "ends": 2}
            ),
            "training": run.training.model_copy(
                update={"steps": 9_000, "batch_size": 512, "log_every": 50, "optimiser": optimiser}
            ),
        }
    )


def local_d5_taught() -> StudentRun:
    """Goes on from local-d5-30k's weights with the Teacher's posterior, of the shots that those are not sure of.

    Of 1.8 M shots of 3 and 5 rounds some 525,000 are asked, each for its last end: 40 minutes of two cores in float32.
    """
    run = local_d5_30k()
    simulated = run.data.simulated
    phases = (RoundsPhase(from_shots=0, rounds=(3, 5, 5, 5, 5)),)
    curriculum = simulated.curriculum.model_copy(update={"rounds": phases})
    optimiser = run.training.optimiser.model_copy(
        update={"matrix_rate": 0.015, "warmup_steps": 200, "decay_steps": 28_500}
    )
    return run.model_copy(
        update={
            "start_from": LABELS_ALONE_D5,
            "data": run.data.model_copy(
                update={
                    "simulated": simulated.model_copy(update={"curriculum": curriculum}),
                    "cached_shots": 1_802_240,
                    "cached_ends": "last",
                    "unsure": Unsure(network=LABELS_ALONE_D5),
                }
            ),
            "terms": Terms(labels=LabelTerm(weight=0.1), final=FinalTerm()),
            "training": run.training.model_copy(
                update={"steps": 29_500, "seed": 5, "compile": True, "log_every": 100, "optimiser": optimiser}
            ),
        }
    )


def local_d5_taught_again() -> StudentRun:
    """Goes on from local-d5-taught-30k's weights with a million shots, out of 8 M fresh ones, that those call with a
    chance of more than 1 in 8 to be wrong.

    40 minutes of two cores for the Teacher's answers, 31 for the steps.
    """
    data = {"cached_shots": 8_048_640, "cache_seed": 1_000_004}
    return _asked_again(TAUGHT_D5, 2.0, data, {"steps": 32_000, "seed": 6}, {"decay_steps": 31_000})


def local_d5_boundary() -> StudentRun:
    """The last leg of the shipped student-d5, from local-d5-taught-again-30k's weights: 300,000 shots near its
    boundary, out of 3.1 M fresh ones. 19 minutes of two cores in all."""
    data = {"cached_shots": 3_112_960, "cache_seed": 1_000_005}
    rates = {"decay_steps": 7_800, "matrix_rate": 0.008}
    return _asked_again(TAUGHT_AGAIN_D5, 1.5, data, {"steps": 8_000, "seed": 7}, rates)


def local_d5_100k() -> StudentRun:
    """A local GRU of 82 k parameters: student-d5 with states twice as wide, on the million shots of
    local-d5-taught-again-30k (40 minutes of two cores for the Teacher's answers)."""
    run = local_d5_taught_again()
    rates = {"decay_steps": 4_900, "matrix_rate": 0.012, "warmup_steps": 100}
    optimiser = run.training.optimiser.model_copy(update=rates)
    return run.model_copy(
        update={
            "network": run.network.model_copy(update={"width": 32}),
            "start_from": "student-d5",
            "training": run.training.model_copy(update={"steps": 5_000, "seed": 9, "optimiser": optimiser}),
        }
    )


def _asked_again(
    start: str, below: float, data: dict[str, int], training: dict[str, int], optimiser: dict[str, float]
) -> StudentRun:
    """local_d5_taught from `start`'s weights, on shots that those are not sure of."""
    run = local_d5_taught()
    rates = run.training.optimiser.model_copy(update=optimiser)
    unsure = Unsure(network=start, below=below, others=0.02)
    return run.model_copy(
        update={
            "start_from": start,
            "data": run.data.model_copy(update={**data, "unsure": unsure}),
            "training": run.training.model_copy(update={**training, "optimiser": rates}),
        }
    )


def labels_d5() -> StudentRun:
    """The control of baseline_d5: the same steps from labels alone, on fresh shots."""
    return _labels_alone(baseline_d5())


def labels_d3() -> StudentRun:
    """The baseline's Student with the same steps from labels alone, on fresh shots (labels are free, so they repeat
    nothing: the strongest form of this control)."""
    return _labels_alone(baseline_d3())


def _labels_alone(run: StudentRun) -> StudentRun:
    data = run.data.model_copy(update={"cached_shots": 0})
    return run.model_copy(update={"terms": LABELS_ALONE, "data": data})


def baseline_d3_joint() -> StudentRun:
    """The baseline with a softmax over I, X, Z, Y; its Teacher comes from the recipe teacher-d3-joint."""
    run = baseline_d3()
    simulated = run.data.simulated.model_copy(update={"bases": ("both",)})
    return run.model_copy(
        update={
            "network": preset("flat-gru-20k", 3, "joint4"),
            "teacher": "runs/teacher-d3-joint/teacher.safetensors",
            "data": run.data.model_copy(update={"simulated": simulated}),
        }
    )


def baseline_tiny() -> StudentRun:
    """Seconds on one core, from the Teacher of the recipe teacher-tiny (which the gate refuses unless told)."""
    return StudentRun(
        network=preset("flat-gru-5k", 3),
        teacher="runs/teacher-tiny/teacher.safetensors",
        data=StudentData(
            simulated=fixed_rounds(3, ("x", "z"), p_min=0.002, p_max=0.006), cached_shots=8_192, cut_rounds=(1, 2, 3)
        ),
        training=TrainingConfig(
            steps=300,
            batch_size=128,
            log_every=25,
            optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=20, decay_steps=200, ema_decay=0.99),
        ),
    )


def fixed_rounds(
    rounds: int, bases: tuple[Literal["x", "z", "both"], ...], p_min: float, p_max: float, distance: int = 3
) -> DataConfig:
    """Simulated shots of one number of rounds, p uniform between the two."""
    phases = (RoundsPhase(from_shots=0, rounds=(rounds,)),)
    uniform = Curriculum(p_min=p_min, p_max=p_max, tilt=0.0, rounds=phases)
    return DataConfig(distance=distance, noise="si1000", bases=bases, curriculum=uniform)
