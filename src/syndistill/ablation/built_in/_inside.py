"""What the plans `inside-d3` and `inside-d5` share: arms, terms and questions about features whose weight falls to 0
over the first half of the steps."""

from __future__ import annotations

from syndistill.ablation.plan import Arm, Question
from syndistill.ablation.plans import ARMS, FINAL, LABELS, minus
from syndistill.distill.terms import FeatureTerm, ReadoutTerm, SpatialTerm, Terms
from syndistill.training.config import OptimiserConfig

BOTH, EVERY = "spatial+temporal", "spatial+temporal+readout"
PAIRS = ("spatial+readout", "temporal+readout")
STAGED, FUSED, CALIBRATED = "stage1-nll", "scratch-nll", "scratch-calibrated"
_SHARED = (
    "baseline", "labels-cached", "spatial", "temporal", "readout", BOTH, EVERY, "scratch-final", FUSED, CALIBRATED,
    STAGED, "shuffled", *PAIRS, "fused-only",
)  # fmt: skip
"""Arms as every plan has them."""
REVEALED = Arm(
    name="revealed",
    block="controls",
    says="revealed labels, no Teacher",
    differs_from="labels-cached",
    change={"data.simulated.labels": "revealed"},
)
OPTIMISER = OptimiserConfig(name="muon", learning_rate=3e-3, matrix_rate=0.02, ema_decay=0.999)


def shared_arms() -> tuple[Arm, ...]:
    return tuple(arm for arm in ARMS if arm.name in _SHARED)


def fading_terms() -> tuple[Terms, Terms]:
    """Those of the plan's base, features off, and those of stage 1, every signal on."""
    spatial, temporal = SpatialTerm(share=0.5, fade=0.5), FeatureTerm(share=0.5, fade=0.5)
    stage1 = Terms(
        labels=LABELS,
        final=FINAL,
        readout=ReadoutTerm(weight=1.0),
        spatial=spatial.model_copy(update={"weight": 1.0}),
        temporal=temporal.model_copy(update={"weight": 1.0}),
    )
    return Terms(labels=LABELS, final=FINAL, spatial=spatial, temporal=temporal), stage1


def questions(budget: float, after: str) -> tuple[Question, ...]:
    """The plan's contrasts at one budget; `after` says in words which."""

    def ask(name: str, text: str, primary: dict[str, float], others: dict[str, dict[str, float]]) -> Question:
        return Question(name=name, text=f"{text} ({after})?", budget=budget, primary=primary, others=others)

    return (
        ask("knowledge", "Is it the Teacher's knowledge, or any target", minus(BOTH, "shuffled"),
            {"any target": minus("shuffled", "baseline")}),
        ask("space", "Is space alone worth anything", minus("spatial", "baseline"),
            {"time on top of it": minus(BOTH, "spatial"), "space against shuffled": minus("spatial", "shuffled")}),
        ask("time", "Is time alone worth anything", minus("temporal", "baseline"),
            {"space on top of it": minus(BOTH, "temporal"), "space against time": minus("spatial", "temporal"),
             "time against shuffled": minus("temporal", "shuffled")}),
        ask("space and readout", "What are space and the readout worth", minus(PAIRS[0], "baseline"),
            {"readout on top of space": minus(PAIRS[0], "spatial"), "time on top of both": minus(EVERY, PAIRS[0])}),
        ask("time and readout", "What are time and the readout worth", minus(PAIRS[1], "baseline"),
            {"readout on top of time": minus(PAIRS[1], "temporal"), "space on top of both": minus(EVERY, PAIRS[1])}),
        ask("readout", "Is its readout at every round worth anything", minus("readout", "baseline"),
            {"on top of both": minus(EVERY, BOTH)}),
        ask("everything", "What are all three signals worth", minus(EVERY, "baseline"),
            {"against shuffled": minus(EVERY, "shuffled")}),
        ask("fusion", "Are fused logits worth anything by themselves", minus(FUSED, CALIBRATED),
            {"calibrated against the baseline": minus(CALIBRATED, "baseline")}),
        ask("stages", "Are two stages better than one", minus(STAGED, EVERY),
            {"against z_fuse alone": minus(STAGED, FUSED), "against the baseline": minus(STAGED, "baseline")}),
    )  # fmt: skip
