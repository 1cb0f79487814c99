"""The plans that are built in: read `ARMS` and `QUESTIONS` to know what was compared with what, and why.

Every arm takes equal total steps (but where `steps_factor` says so), the same cached shots and, for one seed, the same
first weights and order of shots.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from syndistill.ablation.plan import (
    FINAL,
    LABELS,
    Arm,
    Judging,
    Plan,
    Probing,
    Question,
    Settings,
    Sweep,
    Target,
    plan_from,
)
from syndistill.distill.cache.source import StudentData
from syndistill.distill.terms import FeatureTerm, ReadoutTerm, SpatialTerm, Terms
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.runs.own_file import made_by
from syndistill.safe_files import read_json
from syndistill.training.changes import with_change
from syndistill.training.config import OptimiserConfig, fixed_rounds

ON = {signal: {f"terms.{signal}.weight": 1.0} for signal in ("spatial", "temporal", "readout")}
CELLS = ["+".join(subset) for n in range(4) for subset in combinations(ON, n)]
"""The eight of the 2^3; "" is the baseline."""
TARGETS: dict[Target, str] = {
    "final": "the Teacher's own logits",
    "calibrated": "the Teacher's logits, temperature fitted",
    "mean": "z_fuse of equal weights",
    "nll": "z_fuse of fitted weights",
}
ALL = "spatial+temporal+readout"
STAGED = "stage1-nll"


def _signals() -> list[Arm]:
    arms = [
        Arm(name="baseline", block="signals", says="labels and final logits"),
        Arm(name="labels-cached", block="signals", says="labels alone, on the cached shots", differs_from="baseline",
            change={"terms.final.weight": 0.0}),
        Arm(name="labels", block="signals", says="labels alone, no shot twice", differs_from="labels-cached",
            change={"data.cached_shots": 0}),
    ]  # fmt: skip
    for cell in CELLS[1:]:
        fewer, _, last = cell.rpartition("+")
        arms.append(
            Arm(name=cell, block="signals", says=f"baseline + {cell.replace('+', ' + ')}",
                differs_from=fewer or "baseline", change=ON[last])
        )  # fmt: skip
    return arms


def _stages() -> list[Arm]:
    arms: list[Arm] = []
    for target, words in TARGETS.items():
        fused = {"target": target, "terms.final.weight": 0.0, "terms.fused.weight": 1.0}
        first = not arms
        arms.append(
            Arm(name=f"scratch-{target}", block="stages", says=f"labels and {words}",
                differs_from="baseline" if first else "scratch-final", change=fused if first else {"target": target})
        )  # fmt: skip
    for target, words in TARGETS.items():
        arms.append(
            Arm(name=f"stage1-{target}", block="stages", says=f"half stage 1, half labels and {words}",
                differs_from=f"scratch-{target}", change={"start": "stage1"})
        )  # fmt: skip
    arms.append(
        Arm(name="fused-only", block="stages", says="z_fuse of fitted weights, no labels", differs_from="scratch-nll",
            change={"terms.labels.weight": 0.0})
    )  # fmt: skip
    return arms


def _controls() -> list[Arm]:
    both = [f"terms.{signal}.placebo" for signal in ("spatial", "temporal")]
    return [
        Arm(name="again", block="controls", says="the baseline, other seeds (A/A)", differs_from="baseline",
            change={"seed_shift": 10_000}),
        Arm(name="oracle", block="controls", says="baseline of a perfect Teacher", differs_from="baseline",
            change={"asks": "oracle"}),
        Arm(name="oracle+readout", block="controls", says="baseline + readout of a perfect Teacher",
            differs_from="readout", change={"asks": "oracle"}),
        Arm(name="shuffled", block="controls", says="spatial + temporal of other shots (placebo)",
            differs_from="spatial+temporal", change=dict.fromkeys(both, "shuffled")),
        Arm(name="untrained", block="controls", says="spatial + temporal of an untrained Teacher (placebo)",
            differs_from="spatial+temporal", change=dict.fromkeys(both, "random")),
        Arm(name="faded", block="controls", says="every signal, the features' weights falling to 0 over 600 steps",
            differs_from=ALL, change={f"terms.{signal}.fade_steps": 600 for signal in ("spatial", "temporal")}),
        Arm(name="smoothed", block="controls", says="labels alone, smoothed by 0.05", differs_from="labels",
            change={"terms.labels.smoothing": 0.05}),
        Arm(name="labels-every", block="controls", says="labels alone, of every end and line", differs_from="labels",
            change={"terms.labels.where": "every"}),
        Arm(name="adamw", block="controls", says="baseline, learned with AdamW", differs_from="baseline",
            change={"optimiser.name": "adamw"}),
        Arm(name="labels-adamw", block="controls", says="labels alone, learned with AdamW", differs_from="labels",
            change={"optimiser.name": "adamw"}),
        Arm(name="labels-longer", block="controls", says="labels alone, the wall-clock of every signal",
            differs_from="labels", change={"steps_factor": 1.35}),
    ]  # fmt: skip


ARMS: tuple[Arm, ...] = (*_signals(), *_stages(), *_controls())


def minus(a: str, b: str) -> dict[str, float]:
    return {a: 1.0, b: -1.0}


def effect(*signals: str) -> dict[str, float]:
    """The main effect of one signal, or the interaction of several, over all eight cells (Yates: the difference of
    means of the cells with sign + and with sign -)."""
    found: dict[str, float] = {}
    for cell in CELLS:
        sign = 1.0
        for signal in signals:
            sign *= 1.0 if signal in cell.split("+") else -1.0
        found[cell or "baseline"] = sign / 4
    return found


QUESTIONS: tuple[Question, ...] = (
    Question(name="distillation", text="Is distillation worth it at equal steps?", primary=minus("baseline", "labels"),
        others={"on the same shots": minus("baseline", "labels-cached"),
                "against smoothed labels": minus("baseline", "smoothed"),
                "against labels of every end": minus("baseline", "labels-every"),
                "against labels of the same wall-clock": minus(ALL, "labels-longer"),
                "a perfect Teacher": minus("oracle", "baseline"),
                "a perfect Teacher, with readout": minus("oracle+readout", "readout")}),
    Question(name="signals", text="Which signal matters most?", primary=minus(ALL, "baseline"),
        others={"main effect of spatial": effect("spatial"), "main effect of temporal": effect("temporal"),
                "main effect of readout": effect("readout"),
                "all three beyond pairs": effect("spatial", "temporal", "readout"),
                "features that fade (added after the first look)": minus("faded", "baseline")}),
    Question(name="space and time", text="Do space and time add up?", primary=effect("spatial", "temporal"),
        others={"spatial alone": minus("spatial", "baseline"), "temporal alone": minus("temporal", "baseline"),
                "both": minus("spatial+temporal", "baseline")}),
    Question(name="readout", text="Does the readout add anything on top?", primary=minus(ALL, "spatial+temporal"),
        others={"readout alone": minus("readout", "baseline"),
                "spatial x readout": effect("spatial", "readout"),
                "temporal x readout": effect("temporal", "readout")}),
    Question(name="knowledge", text="Is it the Teacher's knowledge, or any target?",
        primary=minus("spatial+temporal", "shuffled"),
        others={"against an untrained Teacher": minus("spatial+temporal", "untrained")}),
    Question(name="fusion", text="Is fusion worth it by itself?", primary=minus("scratch-nll", "scratch-calibrated"),
        others={"against the plain logits": minus("scratch-nll", "scratch-final"),
                "fitted against equal weights": minus("scratch-nll", "scratch-mean"),
                "from stage 1": minus(STAGED, "stage1-calibrated"),
                "without labels": minus("fused-only", "scratch-nll")}),
    Question(name="stages", text="Are two stages needed, or only useful?", primary=minus(STAGED, ALL),
        others={"stage 1 first, against z_fuse alone": minus(STAGED, "scratch-nll"),
                "against the baseline": minus(STAGED, "baseline")}),
    Question(name="optimiser", text="What is the optimiser worth beside the Teacher?",
        primary=minus("labels", "labels-adamw"),
        others={"with the Teacher": minus("baseline", "adamw"),
                "labels with Muon against the Teacher with AdamW": minus("labels", "adamw")}),
    Question(name="noise floor", text="How large is no difference (A/A)?", primary=minus("again", "baseline")),
)  # fmt: skip

PRIMARY = ("labels", "baseline", ALL, STAGED, "oracle")
SAVING = ("baseline", "labels")
CLOSER = (ALL, "baseline", "spatial+temporal", "shuffled", "labels", "labels-adamw")
"""Arms with more seeds: after 5 the smallest visible effect of three primary contrasts was above 3 % (up to 5.6 %)."""
OF_PRIMARIES = tuple(sorted({arm for question in QUESTIONS for arm in question.primary}))


def _stage1_terms() -> Terms:
    return Terms(
        labels=LABELS,
        final=FINAL,
        readout=ReadoutTerm(weight=1.0),
        spatial=SpatialTerm(weight=1.0),
        temporal=FeatureTerm(weight=1.0),
    )


def ablation_d3() -> Plan:
    """Every arm at one budget, the primary ones at three, the saving of shots for two sizes of Student; 5 seeds."""
    s20, s5 = "flat-gru-20k", "flat-gru-5k"
    return Plan(
        name="ablation-d3",
        title="d=3, SI1000 noise, p = .004",
        teacher="teacher-d3",
        seeds=(1, 2, 3, 4, 5),
        steps=1_200,
        base=Settings(
            terms=Terms(labels=LABELS, final=FINAL),
            data=StudentData(
                simulated=fixed_rounds(5, ("x", "z"), p_min=0.004, p_max=0.004), cached_shots=131_072, cut_rounds=(3, 5)
            ),
            batch_size=256,
            optimiser=OptimiserConfig(name="muon", learning_rate=3e-3, matrix_rate=0.02, ema_decay=0.999),
        ),
        stage1=_stage1_terms(),
        arms=ARMS,
        sweeps=(
            Sweep(student=s20, budget=1, arms=PRIMARY),
            Sweep(student=s20, budget=1, arms=OF_PRIMARIES),
            Sweep(student=s20, budget=0.25, arms=PRIMARY),
            Sweep(student=s20, budget=4, arms=PRIMARY),
            *(Sweep(student=s5, budget=budget, arms=SAVING) for budget in (1, 0.25, 4)),
            Sweep(student=s20, budget=1),
            Sweep(student=s20, budget=1, arms=CLOSER, seeds=tuple(range(6, 13))),
        ),
        questions=QUESTIONS,
        saving=SAVING,
        judging=Judging(
            cases=((3, 200_000), (5, 200_000), (7, 50_000)), primary_rounds=5, teacher_shots=20_000, optimum=True
        ),
    )


def ablation_tiny() -> Plan:
    """A minute or two: shows that a plan, a sweep and a report are made, and nothing else."""
    d3 = ablation_d3()
    data = StudentData(
        simulated=fixed_rounds(3, ("x", "z"), p_min=0.004, p_max=0.004), cached_shots=4_096, cut_rounds=(1, 2, 3)
    )
    arms = ("labels", "baseline", "spatial+temporal", STAGED, "oracle", "again")
    needed = [arm for arm in ARMS if arm.name in {*arms, "labels-cached", "spatial", "scratch-final", "scratch-nll"}]
    changes: dict[str, Any] = {
        "name": "ablation-tiny",
        "title": "a toy, d=3: what it says means nothing",
        "seeds": (1, 2, 3),
        "steps": 40,
        "base": d3.base.model_copy(update={"data": data, "batch_size": 64}),
        "arms": tuple(needed),
        "sweeps": (
            Sweep(student="flat-gru-5k", budget=1, arms=arms),
            Sweep(student="flat-gru-5k", budget=4, arms=SAVING),
        ),
        "questions": (
            Question(name="distillation", text="Is distillation worth it at equal steps?",
                primary=minus("baseline", "labels"), others={"a perfect Teacher": minus("oracle", "baseline")}),
            Question(name="stages", text="Are two stages needed?", primary=minus(STAGED, "baseline")),
            Question(name="noise floor", text="How large is no difference (A/A)?", primary=minus("again", "baseline")),
        ),
        "probing": Probing(steps=8, fit_shots=512, report_shots=512),
        "judging": Judging(cases=((2, 3_000), (3, 3_000)), primary_rounds=3, teacher_shots=500, optimum=True),
        "gate_shots": 10_000,
    }  # fmt: skip
    return plan_from({**dict(d3), **changes}, "plan ablation-tiny")


BUILT_IN = Path(__file__).parent / "built_in"
"""A file to each plan that is built in: they are found and read as a user's are."""


def built_in_plans() -> list[str]:
    return sorted(path.stem.replace("_", "-") for path in BUILT_IN.glob("[a-z]*.py"))


def chosen_plan(name: str, changes: list[str]) -> Plan:
    """The plan that `name` means, with "key.path=value" changes applied: a built-in one, or a file of one's own.

    A plan file is JSON (a plan's content), or Python with a function `plan()` that gives a Plan. SyndistillError for
    what is unknown, raises or does not fit.
    """
    path = Path(name)
    if path.suffix not in (".py", ".json"):
        if name not in (known := built_in_plans()):
            raise SyndistillError(
                f"plan {name!r} is unknown{did_you_mean(name, known)}; pick one of {', '.join(known)}, or name a .py "
                "or .json file"
            )
        path = BUILT_IN / f"{name.replace('-', '_')}.py"
    content = _content(path)
    for change in changes:
        content = with_change(content, change)
    return plan_from(content, f"plan {name}")


def _content(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return plan_from(read_json(path, "name a plan file"), str(path)).model_dump(mode="json")
    plan = made_by(path, "plan", Plan, f"a Plan (as {BUILT_IN / 'ablation_d3.py'} does)")
    return plan.model_dump(mode="json")
