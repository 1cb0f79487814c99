"""inside-d3: what the Teacher's inside is worth at d=3, where labels are cheap and its Teacher is near the optimum: to
a Student with a state at each stabiliser (local GRU) and to one with a single state (flat GRU)."""

from syndistill.ablation.built_in._inside import (
    BOTH,
    CALIBRATED,
    EVERY,
    FUSED,
    OPTIMISER,
    PAIRS,
    STAGED,
    fading_terms,
    questions,
    shared_arms,
)
from syndistill.ablation.plan import Arm, Judging, Plan, Probing, Question, Settings, Sweep
from syndistill.ablation.plans import minus
from syndistill.distill.cache.source import StudentData
from syndistill.training.config import fixed_rounds

STUDENTS = ("local-gru-20k", "flat-gru-20k")
HALVES = "baseline-nll"
FIRST = ("baseline", EVERY, BOTH, "shuffled", FUSED, CALIBRATED, STAGED)
THEN = ("labels-cached", "spatial", "temporal", "readout", *PAIRS, HALVES, "fused-only")
LOOKED_AT = (("baseline", "temporal", PAIRS[1]), ("baseline", EVERY, STAGED, HALVES))
"""Of each Student, those whose seeds 4 and 5 were added after a look at the first three, for narrower intervals."""


def plan() -> Plan:
    terms, stage1 = fading_terms()
    halves = Arm(name=HALVES, block="stages", says="half baseline, half labels and z_fuse of fitted weights",
                 differs_from=FUSED, change={"start": "baseline"})  # fmt: skip
    return Plan(
        name="inside-d3",
        title="the inside at d=3, SI1000 noise, p = .004",
        teacher="teacher-d3",
        seeds=(1, 2, 3),
        steps=2_400,
        base=Settings(
            terms=terms,
            data=StudentData(
                simulated=fixed_rounds(5, ("x", "z"), p_min=0.004, p_max=0.004), cached_shots=65_536, cut_rounds=(3, 5)
            ),
            batch_size=256,
            optimiser=OPTIMISER,
        ),
        stage1=stage1,
        arms=(*shared_arms(), halves),
        sweeps=(
            *(Sweep(student=student, budget=1, arms=arms) for arms in (FIRST, THEN) for student in STUDENTS),
            *(
                Sweep(student=student, budget=1, arms=arms, seeds=(4, 5))
                for student, arms in zip(STUDENTS, LOOKED_AT, strict=True)
            ),
        ),
        questions=(*_asked(), *(_of_one_state(question) for question in _asked())),
        saving=("baseline", "labels-cached"),
        probing=Probing(steps=300, fit_shots=8_192, report_shots=8_192),
        judging=Judging(cases=((5, 100_000),), primary_rounds=5, teacher_shots=20_000, optimum=True),
        gate_shots=10_000,
    )  # fmt: skip


def _asked() -> tuple[Question, ...]:
    return (
        Question(
            name="inside", text="Is the Teacher's inside worth anything (2,400 steps)?",
            primary=minus(BOTH, "baseline"),
        ),
        *questions(1, "2,400 steps"),
        Question(
            name="halves", text="Is the inside worth anything before z_fuse (2,400 steps)?",
            primary=minus(STAGED, HALVES), others={"half baseline, half z_fuse": minus(HALVES, "baseline")},
        ),
        Question(
            name="labels", text="Are fused logits enough without labels (2,400 steps)?",
            primary=minus("fused-only", FUSED), others={"against the baseline": minus("fused-only", "baseline")},
        ),
    )  # fmt: skip


def _of_one_state(question: Question) -> Question:
    """The same, asked of the Student with one state when its rows were there."""
    said = {"name": f"{question.name}, one state", "text": f"With one state, asked later: {question.text}"}
    return question.model_copy(update=said | {"student": STUDENTS[1]})
