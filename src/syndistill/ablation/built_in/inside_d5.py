"""inside-d5: what the Teacher's inside is worth at d=5, where a Teacher is needed, to a Student with a state at each
stabiliser: features whose weight falls to 0 over the first half of the steps.

Parts of a whole: at budget 1 all arms but the baseline and revealed labels are a screen of one or two seeds, and z_fuse
without labels has one seed at budget 3. More seeds are the next to run.
"""

from syndistill.ablation.plan import Arm, Judging, Plan, Probing, Question, Settings, Sweep
from syndistill.ablation.plans import ARMS, FINAL, LABELS, minus
from syndistill.distill.cache.source import StudentData
from syndistill.distill.terms import FeatureTerm, ReadoutTerm, SpatialTerm, Terms
from syndistill.training.config import OptimiserConfig, fixed_rounds

STUDENT, BOTH, EVERY = "local-gru-29k", "spatial+temporal", "spatial+temporal+readout"
PAIRS = ("spatial+readout", "temporal+readout")
STAGED, FUSED, CALIBRATED = "stage1-nll", "scratch-nll", "scratch-calibrated"
SHARED = (
    "baseline", "labels-cached", "spatial", "temporal", "readout", BOTH, EVERY, "scratch-final", FUSED, CALIBRATED,
    STAGED, "shuffled", *PAIRS, "fused-only",
)  # fmt: skip
"""Arms as every plan has them."""


def both(**settings: object) -> dict[str, object]:
    """The same change of both feature terms."""
    return {f"terms.{term}.{key}": value for term in ("spatial", "temporal") for key, value in settings.items()}


def plan() -> Plan:
    spatial, temporal = SpatialTerm(share=0.5, fade=0.5), FeatureTerm(share=0.5, fade=0.5)
    kept = tuple(arm for arm in ARMS if arm.name in SHARED)
    own = (
        Arm(name="revealed", block="controls", says="revealed labels, no Teacher", differs_from="labels-cached",
            change={"data.simulated.labels": "revealed"}),
        Arm(name="rounds1", block="controls", says="spatial + temporal of every round", differs_from=BOTH,
            change=both(every_rounds=1)),
        Arm(name="wide", block="controls", says="the same, 32 components", differs_from="rounds1",
            change=both(components=32)),
        Arm(name="share2", block="controls", says="spatial + temporal, share 2", differs_from=BOTH,
            change=both(share=2.0)),
        Arm(name="stays", block="controls", says="spatial + temporal that stay", differs_from=BOTH,
            change=both(fade=0.0)),
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
            terms=Terms(labels=LABELS, final=FINAL, spatial=spatial, temporal=temporal),
            data=StudentData(
                simulated=fixed_rounds(5, ("x", "z"), p_min=0.004, p_max=0.004, distance=5),
                cached_shots=40_960,
                cut_rounds=(3, 5),
            ),
            batch_size=256,
            optimiser=OptimiserConfig(name="muon", learning_rate=3e-3, matrix_rate=0.02, ema_decay=0.999),
        ),
        stage1=Terms(
            labels=LABELS,
            final=FINAL,
            readout=ReadoutTerm(weight=1.0),
            spatial=spatial.model_copy(update={"weight": 1.0}),
            temporal=temporal.model_copy(update={"weight": 1.0}),
        ),
        arms=kept + own,
        sweeps=(
            Sweep(student=STUDENT, budget=3, arms=("baseline", BOTH)),
            Sweep(student=STUDENT, budget=1, arms=("baseline",), seeds=(1, 2, 3, 4, 5)),
            Sweep(student=STUDENT, budget=1, arms=("revealed",)),
            Sweep(student=STUDENT, budget=1, arms=(BOTH, "rounds1", "wide", "share2"), seeds=(1, 2)),
            Sweep(student=STUDENT, budget=1, arms=("stays",), seeds=(1,)),
            Sweep(student=STUDENT, budget=3, arms=("shuffled", "readout")),
            Sweep(student=STUDENT, budget=3, arms=(EVERY, FUSED, CALIBRATED, STAGED, "spatial")),
            Sweep(student=STUDENT, budget=3, arms=("temporal", *PAIRS)),
            Sweep(student=STUDENT, budget=3, arms=("fused-only",), seeds=(1,)),
        ),
        questions=(
            Question(
                name="inside", text="Is the Teacher's inside worth anything after 3,600 steps?", budget=3,
                primary=minus(BOTH, "baseline"),
            ),
            Question(
                name="knowledge", text="Is it the Teacher's knowledge, or any target (3,600 steps)?", budget=3,
                primary=minus(BOTH, "shuffled"), others={"any target": minus("shuffled", "baseline")},
            ),
            Question(
                name="space", text="Is space alone worth anything (3,600 steps)?", budget=3,
                primary=minus("spatial", "baseline"), others={"time on top of it": minus(BOTH, "spatial"),
                                                              "space against shuffled": minus("spatial", "shuffled")},
            ),
            Question(
                name="time", text="Is time alone worth anything (3,600 steps)?", budget=3,
                primary=minus("temporal", "baseline"), others={"space on top of it": minus(BOTH, "temporal"),
                                                               "space against time": minus("spatial", "temporal"),
                                                               "time against shuffled": minus("temporal", "shuffled")},
            ),
            Question(
                name="space and readout", text="What are space and the readout worth (3,600 steps)?", budget=3,
                primary=minus(PAIRS[0], "baseline"), others={"readout on top of space": minus(PAIRS[0], "spatial"),
                                                             "time on top of both": minus(EVERY, PAIRS[0])},
            ),
            Question(
                name="time and readout", text="What are time and the readout worth (3,600 steps)?", budget=3,
                primary=minus(PAIRS[1], "baseline"), others={"readout on top of time": minus(PAIRS[1], "temporal"),
                                                             "space on top of both": minus(EVERY, PAIRS[1])},
            ),
            Question(
                name="readout", text="Is its readout at every round worth anything (3,600 steps)?", budget=3,
                primary=minus("readout", "baseline"), others={"on top of both": minus(EVERY, BOTH)},
            ),
            Question(
                name="everything", text="What are all three signals worth (3,600 steps)?", budget=3,
                primary=minus(EVERY, "baseline"), others={"against shuffled": minus(EVERY, "shuffled")},
            ),
            Question(
                name="fusion", text="Are fused logits worth anything by themselves (3,600 steps)?", budget=3,
                primary=minus(FUSED, CALIBRATED),
                others={"calibrated against the baseline": minus(CALIBRATED, "baseline")},
            ),
            Question(
                name="stages", text="Are two stages better than one (3,600 steps)?", budget=3,
                primary=minus(STAGED, EVERY), others={"against z_fuse alone": minus(STAGED, FUSED),
                                                      "against the baseline": minus(STAGED, "baseline")},
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
