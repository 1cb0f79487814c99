"""inside-d5: what the Teacher's inside is worth at d=5, where a Teacher is needed, to a Student with a state at each
stabiliser: features whose weight falls to 0 over the first half of the steps.

At budget 1 all arms but the baseline and revealed labels are a screen of one or two seeds.
"""

from syndistill.ablation.built_in._inside import (
    BOTH,
    CALIBRATED,
    EVERY,
    FUSED,
    OPTIMISER,
    PAIRS,
    REVEALED,
    STAGED,
    fading_terms,
    questions,
    shared_arms,
)
from syndistill.ablation.plan import Arm, Judging, Plan, Probing, Question, Settings, Sweep
from syndistill.ablation.plans import minus
from syndistill.distill.cache.source import StudentData
from syndistill.training.config import fixed_rounds

STUDENT = "local-gru-29k"
LOOKED_AT = ("baseline", BOTH, "shuffled", "spatial", "temporal", EVERY)
"""Those whose seeds 4 and 5 were added after a look at the first three, for narrower intervals."""
AGAIN = (BOTH, "shuffled")
"""Those whose seeds 6, 7 and 8 were added after a look at the first five."""


def both(**settings: object) -> dict[str, object]:
    """The same change of both feature terms."""
    return {f"terms.{term}.{key}": value for term in ("spatial", "temporal") for key, value in settings.items()}


def forms() -> tuple[Arm, ...]:
    """Other ways to follow space and time, each against the way that all other arms go."""
    changes = {
        "answer": ("the directions that move the answer", both(directions="answer", components=4)),
        "cosine": ("features that give way to the main terms", both(gate="cosine")),
        "fade25": ("faded after a quarter of the steps", both(fade=0.25)),
        "held": ("a share that is held", both(held=True)),
        "gram": ("shots compared with shots", both(loss="gram_shots")),
        "orthogonal": ("a map that only turns", both(projector="orthogonal")),
        "eyes": ("through the Teacher's own readout", both(weight=0.0) | {"terms.eyes.weight": 1.0}),
    }
    return tuple(
        Arm(name=name, block="controls", says=says, differs_from=BOTH, change=change)
        for name, (says, change) in changes.items()
    )


def plan() -> Plan:
    terms, stage1 = fading_terms()
    own = (
        REVEALED,
        Arm(name="rounds1", block="controls", says="spatial + temporal of every round", differs_from=BOTH,
            change=both(every_rounds=1)),
        Arm(name="wide", block="controls", says="the same, 32 components", differs_from="rounds1",
            change=both(components=32)),
        Arm(name="share2", block="controls", says="spatial + temporal, share 2", differs_from=BOTH,
            change=both(share=2.0)),
        Arm(name="stays", block="controls", says="spatial + temporal that stay", differs_from=BOTH,
            change=both(fade=0.0)),
        *forms(),
    )  # fmt: skip
    return Plan(
        name="inside-d5",
        title="the inside at d=5, SI1000 noise, p = .004",
        teacher="teacher-d5",
        teacher_precision="bf16",
        students={
            STUDENT: {"family": "local_gru", "width": 16, "readout_width": 32, "readout_layers": 1, "turn_x": True}
        },
        seeds=(1, 2, 3),
        steps=1_200,
        base=Settings(
            terms=terms,
            data=StudentData(
                simulated=fixed_rounds(5, ("x", "z"), p_min=0.004, p_max=0.004, distance=5),
                cached_shots=40_960,
                cut_rounds=(3, 5),
            ),
            batch_size=256,
            optimiser=OPTIMISER,
        ),
        stage1=stage1,
        arms=shared_arms() + own,
        sweeps=(
            Sweep(student=STUDENT, budget=3, arms=("baseline", BOTH)),
            Sweep(student=STUDENT, budget=1, arms=("baseline",), seeds=(1, 2, 3, 4, 5)),
            Sweep(student=STUDENT, budget=1, arms=("revealed",)),
            Sweep(student=STUDENT, budget=1, arms=(BOTH, "rounds1", "wide", "share2"), seeds=(1, 2)),
            Sweep(student=STUDENT, budget=1, arms=("stays",), seeds=(1,)),
            Sweep(student=STUDENT, budget=3, arms=("shuffled", "readout")),
            Sweep(student=STUDENT, budget=3, arms=(EVERY, FUSED, CALIBRATED, STAGED, "spatial")),
            Sweep(student=STUDENT, budget=3, arms=("temporal", *PAIRS, "fused-only")),
            Sweep(student=STUDENT, budget=3, arms=LOOKED_AT, seeds=(4, 5)),
            Sweep(student=STUDENT, budget=3, arms=AGAIN, seeds=(6, 7, 8)),
            Sweep(student=STUDENT, budget=3, arms=tuple(arm.name for arm in forms() if arm.name != "eyes")),
            Sweep(student=STUDENT, budget=3, arms=("eyes",), seeds=(1, 2)),  # 20 minutes each
        ),
        questions=(
            Question(
                name="inside", text="Is the Teacher's inside worth anything after 3,600 steps?", budget=3,
                primary=minus(BOTH, "baseline"),
            ),
            *questions(3, "3,600 steps"),
            Question(
                name="form", text="Is another way to follow space and time better (3,600 steps)?", budget=3,
                primary=minus("answer", BOTH),
                others={arm.says: minus(arm.name, BOTH) for arm in forms() if arm.name != "answer"},
            ),
            Question(
                name="teacher", text="Do revealed labels without a Teacher do as well (1,200 steps)?",
                primary=minus("revealed", "baseline"),
            ),
        ),
        saving=("baseline", "revealed"),
        probing=Probing(steps=100, fit_shots=4_096, report_shots=4_096),
        judging=Judging(cases=((5, 100_000),), primary_rounds=5, teacher_shots=10_000, optimum=False),
        gate_shots=5_000,
    )  # fmt: skip
