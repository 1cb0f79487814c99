"""inside-d5-short: what space and time are worth at d=5 where few shots were asked; minutes, the end of `make run`."""

from syndistill.ablation.built_in import inside_d5
from syndistill.ablation.built_in._inside import BOTH
from syndistill.ablation.plan import Judging, Plan, Question, Sweep
from syndistill.ablation.plans import minus

ARMS = ("baseline", BOTH)


def plan() -> Plan:
    whole = inside_d5.plan()
    few = whole.base.data.model_copy(update={"cached_shots": 10_240})
    return Plan(
        name="inside-d5-short",
        title="space and time at d=5, 10,240 asked shots, SI1000 noise, p = .004",
        teacher=whole.teacher,
        teacher_precision=whole.teacher_precision,
        students=whole.students,
        seeds=whole.seeds,
        steps=1_800,
        base=whole.base.model_copy(update={"data": few}),
        stage1=whole.stage1,
        arms=tuple(arm for arm in whole.arms if arm.name in {*ARMS, "spatial"}),  # BOTH is a change of spatial
        sweeps=(Sweep(student=inside_d5.STUDENT, budget=1, arms=ARMS),),
        questions=(
            Question(
                name="inside",
                text="Is the Teacher's inside worth anything where few shots were asked?",
                primary=minus(BOTH, "baseline"),
            ),
        ),
        probing=whole.probing,
        judging=Judging(cases=((5, 20_000),), primary_rounds=5, teacher_shots=2_000, optimum=False),
        gate_shots=whole.gate_shots,
    )
