"""Students' recipes: a shipped one with its legs, controls, and the whole road."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from syndistill.distill.baseline import Baseline
from syndistill.distill.cache.source import StudentData, Unsure
from syndistill.distill.fuse import Fuse, probe_training
from syndistill.distill.legs import Legs
from syndistill.distill.road import RoadRun
from syndistill.distill.stage1 import Stage1
from syndistill.distill.stage2 import Stage2
from syndistill.distill.student import StudentRun
from syndistill.distill.terms import FinalTerm, FrameTerm, LabelTerm, ReadoutTerm, Terms
from syndistill.files.families import FlatGruDials, LocalGruDials
from syndistill.models.networks import preset
from syndistill.training.config import (
    Curriculum,
    OptimiserConfig,
    RoundsPhase,
    TrainingConfig,
    fixed_rounds,
)

ROUNDS = 9
LABELS_ALONE = Terms(labels=LabelTerm(where="every"), final=FinalTerm(weight=0.0))


def baseline_d3() -> StudentRun:
    """student-d3's first leg: a flat GRU below 20 k parameters, from the Teacher's final logits and labels.

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


def student_d3() -> Legs:
    """The shipped student-d3: baseline-d3, then up to 25 rounds: what it never saw there it does not keep."""
    run = baseline_d3()
    optimiser = run.training.optimiser.model_copy(
        update={"learning_rate": 1.5e-3, "matrix_rate": 0.01, "decay_steps": 11_400}
    )
    simulated = fixed_rounds(25, ("x", "z"), p_min=0.001, p_max=0.006)
    longer = run.model_copy(
        update={
            "start_from": "leg:rounds-9",
            "data": run.data.model_copy(update={"simulated": simulated, "cached_shots": 131_072}),
            "training": run.training.model_copy(
                update={"steps": 12_000, "batch_size": 256, "seed": 2, "optimiser": optimiser}
            ),
        }
    )
    further = longer.training.model_copy(
        update={"steps": 18_000, "seed": 3, "optimiser": optimiser.model_copy(update={"decay_steps": 17_400})}
    )
    again = longer.model_copy(update={"start_from": "leg:rounds-25", "training": further})
    return Legs(legs={"rounds-9": run, "rounds-25": longer, "rounds-25-again": again})


def student_d3_frame() -> Legs:
    """A flat GRU that keeps the logical frame, from exact labels alone: experiments of 50 rounds in two parts, the
    second with the frame told. An hour of one core, in two legs: for long at the first one's rate it goes astray."""
    run = _labels_alone(baseline_d3())
    curriculum = Curriculum(
        p_min=0.001,
        p_max=0.006,
        tilt=0.0,
        rounds=(RoundsPhase(from_shots=0, rounds=(50,)),),
        rates_per_chunk=2,
        n_rates=17,
    )
    parts = {"curriculum": curriculum, "labels": "exact", "part_rounds": 25, "tell_frame": True}
    fresh = run.model_copy(
        update={
            "network": FlatGruDials(
                distance=3, width=96, readout_width=32, readout_layers=1, turn_x=True, frame_memory=True
            ),
            "data": run.data.model_copy(update={"simulated": run.data.simulated.model_copy(update=parts)}),
            "training": _trained(run.training, {"steps": 8_000, "batch_size": 256, "seed": 1}, {}, 7_600),
        }
    )
    rates = {"learning_rate": 1.5e-3, "matrix_rate": 0.01}
    training = _trained(fresh.training, {"steps": 22_000, "seed": 2}, rates, 21_500)
    slower = fresh.model_copy(update={"start_from": "leg:first", "training": training})
    return Legs(legs={"first": fresh, "slower": slower})


def _trained(
    training: TrainingConfig, changes: Mapping[str, int], rates: Mapping[str, float], decay_steps: int
) -> TrainingConfig:
    optimiser = training.optimiser.model_copy(update={**rates, "decay_steps": decay_steps})
    return training.model_copy(update={**changes, "optimiser": optimiser})


def student_d5() -> Legs:
    """The shipped student-d5, a local GRU of 29 k parameters: as `_earlier_d5` leaves it, then `_beside_d5`."""
    return _beside_d5("leg:boundary", 16, 16_000, 22)


def student_d5_82k() -> Legs:
    """The shipped student-d5-82k, with states twice as wide: `_earlier_d5`, then `_beside_d5`, then `_revealed_d5`."""
    legs = _beside_d5("leg:wider", 32, 15_000, 21).legs
    noise = {"p_min": 0.0025}
    short = (3, 5, 5, 5, 9)
    revealed = _revealed_d5(legs["beside"], "leg:beside", "student-d5", short, noise, 2_000, 0.010, 72)
    return Legs(legs=legs | {"revealed": revealed})


def _revealed_d5(
    run: StudentRun,
    start: str,
    chooser: str,
    rounds: tuple[int, ...],
    noise: Mapping[str, float],
    steps: int,
    rate: float,
    seed: int,
) -> StudentRun:
    """No Teacher: revealed labels of fresh shots that `chooser` is not sure of, none twice. What a Teacher was asked of
    comes again and again, and is learned by heart. Half an hour of one core."""
    simulated = run.data.simulated.model_copy(update={"labels": "revealed"})
    run = run.model_copy(
        update={
            "teacher": "teacher-d5",
            "terms": Terms(labels=LabelTerm(), final=FinalTerm(weight=0.0)),
            "data": run.data.model_copy(update={"simulated": simulated}),
        }
    )
    unsure = Unsure(network=chooser, below=2.0, others=0.03)
    fresh = {"cached_shots": 0, "cached_ends": "every", "unsure": unsure}
    training = {"steps": steps, "batch_size": 512, "seed": seed, "threads": 1, "compile": True}
    return _going_on(run, start, fresh, training, _falling(rate, steps), rounds, noise)


def _falling(rate: float, steps: int) -> dict[str, float]:
    """Muon's rate and that of the rest, falling to 0."""
    rates = {"learning_rate": 0.15 * rate, "matrix_rate": rate, "warmup_steps": 100, "decay_steps": steps * 39 // 40}
    return rates | {"ema_decay": 0.998}


def _beside_d5(start: str, width: int, steps: int, seed: int) -> Legs:
    """The Teacher with both Students and correlated matching beside it, which err apart from it: a better one for
    3, 5 and above all 9 rounds. Of 3.5 M shots the 630,000 that the wider Student is not sure of.

    Whoever begins from the shipped Students, which are these legs' ends, goes on with weights that learned from an
    earlier teacher-d5."""
    earlier = _earlier_d5().legs
    run = earlier["wider"]
    simulated = run.data.simulated
    phases = (RoundsPhase(from_shots=0, rounds=(3, 5, 5, 5, 9)),)
    curriculum = simulated.curriculum.model_copy(update={"rounds": phases})
    asked = {
        "simulated": simulated.model_copy(update={"curriculum": curriculum}),
        "cached_shots": 3_500_000,
        "cache_seed": 1_000_007,
        "unsure": Unsure(network="leg:wider", below=2.0, others=0.05),
    }
    decay_steps = steps * 39 // 40
    optimiser = run.training.optimiser.model_copy(update={"learning_rate": 1.8e-3, "decay_steps": decay_steps})
    beside = run.model_copy(
        update={
            "start_from": start,
            "network": LocalGruDials(distance=5, width=width, readout_width=32, readout_layers=1, turn_x=True),
            "teacher": "teacher-d5,leg:wider,leg:boundary,pymatching-correlated",
            "teacher_precision": "bf16",
            "data": run.data.model_copy(update=asked),
            "training": run.training.model_copy(update={"steps": steps, "seed": seed, "optimiser": optimiser}),
        }
    )
    return Legs(legs=earlier | {"beside": beside})


def student_d5_frame() -> Legs:
    """The shipped student-d5-frame: a local GRU of 83 k parameters that reads events alone and keeps a frame for every
    line, first from labels and true frames, then from teacher-d5's answers at every end of 15 and 25 rounds, then from
    its own with matching beside it, each line asked by itself too, then from `_revealed_d5`; from the leg agree on its
    lines' frames agree where it is quiet.

    A shot of 15 rounds takes the Teacher 8 ms of one core in bf16, one of 25 rounds 20. The shipped one's first leg
    began from results/networks/local-d5-frame-32-beside, an earlier network with frames; its leg agree was two, which
    were stopped before their rates fell; in the leg ends-25 the first
    122,880 shots were those of the leg before, and the shots of 25 rounds had p from .002 to .004
    (docs/log/2026-11-30.md): this makes its like.
    """
    legs = _earlier_d5().legs
    run = legs["wider"]
    network = LocalGruDials(
        distance=5,
        width=32,
        readout_width=32,
        readout_layers=1,
        turn_x=True,
        frame_memory=True,
        events_alone=True,
    )
    labels, frame = LabelTerm(where="every"), FrameTerm(weight=0.3, delay=3, fade=0.75)
    fresh = {"cached_shots": 0, "cached_ends": "every", "unsure": None, "ends": 6}
    framed = _framed_d5(run, "leg:wider", fresh, (5, 9, 15), 0.001, 1_500, 0.012, 41).model_copy(
        update={"network": network, "terms": Terms(labels=labels, final=FinalTerm(weight=0.0), frame=frame)}
    )

    first = {"cached_shots": 122_880, "cache_seed": 1_000_021, "ends": 5}
    further = {"cached_shots": 286_720, "cache_seed": 1_000_023, "ends": 5}
    ends_15 = _framed_d5(framed, "leg:framed", first, (15,), 0.003, 5_000, 0.012, 44)
    ends_25 = _framed_d5(framed, "leg:ends-15", further, (15,) * 6 + (25,), 0.0025, 4_400, 0.010, 47)
    answered = {"framed": framed, "ends-15": _answered(ends_15, 0.1), "ends-25": _answered(ends_25, 0.05)}

    beside = _beside_itself(answered["ends-25"], "leg:ends-25", (5, 9, 15, 15, 15, 25), 5_500, 52)
    alone = _beside_itself(beside, "leg:beside", (5, 9, 15, 25), 1_900, 62)
    lines = beside.terms.model_copy(update={"readout": ReadoutTerm(weight=0.5, alone=True)})
    alone = alone.model_copy(update={"terms": lines})
    noise, longer = {"p_min": 0.0025, "p_max": 0.005}, {"p_min": 0.0022, "p_max": 0.0048}
    near = _revealed_d5(alone, "leg:alone", "leg:ends-25", (5, 9, 9, 15), noise, 1_400, 0.008, 81)
    near_25 = _revealed_d5(alone, "leg:near", "leg:ends-25", (5, 9, 15, 25), longer, 1_000, 0.007, 82)
    third = _revealed_d5(alone, "leg:near-25", "leg:near-25", (5, 9, 15, 25), longer, 1_250, 0.0065, 83)
    agreeing = third.model_copy(update={"network": replace(network, agree_after=3)})
    agree = _revealed_d5(agreeing, "leg:further", "leg:further:int8", (5, 9, 15, 25), longer, 600, 0.008, 85)
    agree_on = _revealed_d5(agreeing, "leg:agree", "leg:further:int8", (5, 9, 15, 25), longer, 850, 0.0075, 87)
    revealed = {"near": near, "near-25": near_25, "further": third, "agree": agree, "agree-on": agree_on}
    last = {"beside": beside, "alone": alone} | revealed
    return Legs(legs=legs | answered | last)


def _beside_itself(run: StudentRun, start: str, rounds: tuple[int, ...], steps: int, seed: int) -> StudentRun:
    """From `start`, with `start` and correlated matching beside it as the Teacher of fresh shots at five ends: the two
    err apart, and both are fast."""
    fresh = {"cached_shots": 0, "ends": 5}
    noise = {"p_min": 0.002, "p_max": 0.0045}
    run = _going_on(run, start, fresh, {"steps": steps, "seed": seed}, _falling(0.010, steps), rounds, noise)
    terms = Terms(labels=LabelTerm(weight=0.02, where="every"), final=FinalTerm(where="every"))
    teacher = {"teacher": f"{start},pymatching-correlated", "teacher_precision": "fp32"}
    return run.model_copy(update={**teacher, "terms": terms})


def _answered(run: StudentRun, labels: float) -> StudentRun:
    """The Teacher's posterior at every end, and a little of the labels."""
    terms = Terms(labels=LabelTerm(weight=labels, where="every"), final=FinalTerm(where="every"))
    return run.model_copy(update={"terms": terms, "teacher_precision": "bf16"})


def _framed_d5(
    run: StudentRun,
    start: str,
    data: Mapping[str, object],
    rounds: tuple[int, ...],
    p_min: float,
    steps: int,
    rate: float,
    seed: int,
) -> StudentRun:
    """`run` going on from `start`, p up to .005, batches of 256, Muon's rate falling to 0."""
    training = {"steps": steps, "batch_size": 256, "seed": seed}
    noise = {"p_min": p_min, "p_max": 0.005}
    return _going_on(run, start, data, training, _falling(rate, steps), rounds, noise)


def _earlier_d5() -> Legs:
    """A local GRU of 29 k parameters: from labels alone, then from the Teacher's posterior of the shots that it is not
    sure of, three times nearer to its boundary; then with states twice as wide, on the million shots of taught-again.

    Of 1.8 M shots of 3 and 5 rounds some 525,000 are asked, of 8 M a million, of 3.1 M 300,000, each for its last end:
    140 minutes of two cores in float32. Best under torchrun with two processes of one thread.
    """
    labels = _labels_alone_d5()
    rates = {"matrix_rate": 0.015, "warmup_steps": 100, "decay_steps": 7_000}
    longer = _going_on(labels, "leg:labels", {}, {"steps": 7_600, "seed": 2}, rates, (5, 5, 9))
    first = {"cached_shots": 1_802_240}
    again = {"cached_shots": 8_048_640, "cache_seed": 1_000_004}
    boundary = {"cached_shots": 3_112_960, "cache_seed": 1_000_005}
    run = _taught_d5("leg:taught", 2.0, 0.02, again, 6, 32_000, 31_000, 0.015)
    slower = run.training.optimiser.model_copy(update={"matrix_rate": 0.012, "warmup_steps": 100, "decay_steps": 4_900})
    wider = run.model_copy(
        update={
            "start_from": "leg:boundary",
            "network": LocalGruDials(distance=5, width=32, readout_width=32, readout_layers=1, turn_x=True),
            "training": run.training.model_copy(update={"steps": 5_000, "seed": 9, "optimiser": slower}),
        }
    )
    return Legs(
        legs={
            "labels": labels,
            "labels-9": longer,
            "taught": _taught_d5("leg:labels-9", 4.0, 0.05, first, 5, 29_500, 28_500, 0.015),
            "taught-again": run,
            "boundary": _taught_d5("leg:taught-again", 1.5, 0.02, boundary, 7, 8_000, 7_800, 0.008),
            "wider": wider,
        }
    )


def _labels_alone_d5() -> StudentRun:
    """A local GRU of at most 30 k parameters from labels alone, on fresh shots of up to 25 rounds."""
    run = labels_d3()
    phases = (
        RoundsPhase(from_shots=0, rounds=(5,)),
        RoundsPhase(from_shots=2_000_000, rounds=(5, 5, 9)),
        RoundsPhase(from_shots=3_800_000, rounds=(5, 9, 15, 25)),
    )
    simulated = fixed_rounds(ROUNDS, ("x", "z"), p_min=0.001, p_max=0.006, distance=5)
    curriculum = simulated.curriculum.model_copy(update={"rounds": phases, "n_rates": 17})
    optimiser = run.training.optimiser.model_copy(update={"decay_steps": 6_000})
    return run.model_copy(
        update={
            "teacher": "teacher-d5",
            "network": LocalGruDials(distance=5, width=16, readout_width=32, readout_layers=1, turn_x=True),
            "data": run.data.model_copy(
                update={"simulated": simulated.model_copy(update={"curriculum": curriculum}), "ends": 2}
            ),
            "training": run.training.model_copy(
                update={"steps": 9_000, "batch_size": 512, "log_every": 50, "optimiser": optimiser}
            ),
        }
    )


def _taught_d5(
    start: str,
    below: float,
    others: float,
    data: dict[str, int],
    seed: int,
    steps: int,
    decay_steps: int,
    matrix_rate: float,
) -> StudentRun:
    """From `start`'s weights, on shots that those are not sure of: labels and the Teacher's posterior."""
    run = _labels_alone_d5()
    asked = {**data, "cached_ends": "last", "unsure": Unsure(network=start, below=below, others=others)}
    training = {"seed": seed, "steps": steps, "log_every": 100}
    rates = {"matrix_rate": matrix_rate, "warmup_steps": 200, "decay_steps": decay_steps}
    taught = _going_on(run, start, asked, training, rates, (3, 5, 5, 5, 5))
    return taught.model_copy(
        update={
            "terms": Terms(labels=LabelTerm(weight=0.1), final=FinalTerm()),
            "training": taught.training.model_copy(update={"compile": True}),
        }
    )


def _going_on(
    run: StudentRun,
    start: str,
    data: Mapping[str, object],
    training: Mapping[str, int],
    rates: Mapping[str, float],
    rounds: tuple[int, ...],
    noise: Mapping[str, float] | None = None,
) -> StudentRun:
    """The run from `start`'s weights, with these settings changed; noise: the curriculum's range of p."""
    simulated = run.data.simulated
    phases = (RoundsPhase(from_shots=0, rounds=rounds),)
    curriculum = simulated.curriculum.model_copy(update={"rounds": phases, **(noise or {})})
    shots = {"simulated": simulated.model_copy(update={"curriculum": curriculum})}
    optimiser = run.training.optimiser.model_copy(update=rates)
    return run.model_copy(
        update={
            "start_from": start,
            "data": run.data.model_copy(update={**shots, **data}),
            "training": run.training.model_copy(update={**training, "optimiser": optimiser}),
        }
    )


def labels_d3() -> StudentRun:
    """The baseline's Student with the same steps from labels alone, on fresh shots (labels are free, so they repeat
    nothing: the strongest form of this control)."""
    return _labels_alone(baseline_d3())


def _labels_alone(run: StudentRun) -> StudentRun:
    data = run.data.model_copy(update={"cached_shots": 0})
    return run.model_copy(update={"terms": LABELS_ALONE, "data": data})


def student_d3_joint() -> StudentRun:
    """The shipped student-d3-joint: baseline-d3 with a softmax over I, X, Z, Y, from teacher-d3-joint, with a quarter
    of its asked shots and a sixth of its shots seen. A quarter of an hour of one core."""
    run = baseline_d3()
    simulated = run.data.simulated.model_copy(update={"bases": ("both",)})
    optimiser = run.training.optimiser.model_copy(update={"decay_steps": 7_600})
    return run.model_copy(
        update={
            "network": preset("flat-gru-20k", 3, "joint4"),
            "teacher": "teacher-d3-joint",
            "teacher_precision": "bf16",
            "data": run.data.model_copy(update={"simulated": simulated, "cached_shots": 163_840}),
            "training": run.training.model_copy(update={"steps": 8_000, "batch_size": 256, "optimiser": optimiser}),
        }
    )


def baseline_tiny() -> StudentRun:
    """Seconds on one core: shows that the road is open, and is no Student to use."""
    return StudentRun(
        network=preset("flat-gru-5k", 3),
        teacher="teacher-d3",
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
