"""The page of the road's table, from rows alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from scipy.stats import t as student_t

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.recipes.road_scores import REFERENCE, RIVAL, TEACHER, Score

SAID = {
    "no_kd": "labels alone",
    "baseline": "baseline",
    "stage1": "stage 1",
    "stage1+2": "stage 1, then 2",
}


ABOUT = (
    "Arms: `labels alone` on fresh shots; the `baseline` from labels and the Teacher's final logits; `stage 1` from",
    "every signal; `stage 1, then 2` with half of its steps in each. Shots, batches and learning rates are those of",
    "`recipes/road_plan.py`, equal for all; one network serves both bases and all rounds. Every decoder sees the same",
    "judged shots. Values are means over seeds with 95 % t intervals over seeds (a seed fixes first weights and the",
    "order of shots; cached and judged shots are the same for all). `kept`: share of the Teacher's gain in LER over",
    "correlated matching. KL: of the Teacher's posterior to the Student's, nats per shot.",
)


class Mean(NamedTuple):
    """Over seeds, with the half width of its 95 % t interval (None for a single seed)."""

    value: float
    half: float | None


def mean_over_seeds(values: Sequence[float]) -> Mean:
    if len(values) < 2:
        return Mean(values[0], None)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Mean(statistics.fmean(values), float(student_t.ppf(0.975, len(values) - 1)) * error)


@dataclass(frozen=True)
class Block:
    """The scores of one experiment, or of several with equal rounds added up."""

    title: str
    scores: list[Score]

    def reference(self, name: str) -> Score:
        found = [score for score in self.scores if (score.student, score.arm) == (REFERENCE, name)]
        if not found:
            raise SyndistillError(f"{self.title}: there is no row of {name}; the references come before the Students")
        return found[0]

    def arms(self) -> dict[tuple[str, str, int], list[Score]]:
        """By (student, arm, steps), in the plan's order; a score for each seed."""
        found: dict[tuple[str, str, int], list[Score]] = {}
        own = [score for score in self.scores if score.student != REFERENCE]
        for score in sorted(own, key=lambda s: (s.parameters or 0, list(SAID).index(s.arm), s.steps, s.seed)):
            found.setdefault((score.student, score.arm, score.steps), []).append(score)
        return found

    def kept(self, score: Score) -> float | None:
        """Share of the Teacher's gain over its rival; None where the Teacher gains nothing."""
        rival = self.reference(RIVAL).ler
        gain = rival - self.reference(TEACHER).ler
        return (rival - score.ler) / gain if gain > 0 else None


def page(scores: Iterable[Score], command: str) -> str:
    """docs/road.md."""
    blocks = _blocks(list(scores))
    lines = [
        "# What each stage of the road is worth at equal steps, d=3",
        "",
        "Made from the rows of `results/` alone by",
        "",
        f"`{command}`",
        "",
        *ABOUT,
    ]
    pooled = [_pooled(rounds, blocks) for rounds in sorted({_rounds(block) for block in blocks})]
    for block in [*pooled, *blocks]:
        lines += ["", f"## {block.title}", "", *_references(block), "", *_table(block)]
    lines += ["", "## How many steps labels alone need for the same LER", "", *_saved(pooled)]
    return "\n".join(lines) + "\n"


def _blocks(scores: list[Score]) -> list[Block]:
    found = []
    for name in sorted({score.experiment for score in scores}, key=lambda e: (Experiment.parse(e).rounds, e)):
        own = [score for score in scores if score.experiment == name]
        if len({score.shots_sha256 for score in own}) != 1:
            raise SyndistillError(f"the rows of {name} are of different shots; keep those of one set")
        found.append(Block(name, own))
    return found


def _rounds(block: Block) -> int:
    return Experiment.parse(block.scores[0].experiment).rounds


def _pooled(rounds: int, blocks: list[Block]) -> Block:
    """Both bases added up: errors over shots, and means of the rest weighted by shots."""
    groups: dict[tuple[str, str, int, int], list[Score]] = {}
    members = [block for block in blocks if _rounds(block) == rounds]
    for score in (score for block in members for score in block.scores):
        groups.setdefault((score.student, score.arm, score.steps, score.seed), []).append(score)
    whole = [_sum(group) for group in groups.values() if len(group) == len(members)]
    bases = " and ".join(Experiment.parse(block.title).basis.upper() for block in members)
    return Block(f"{rounds} rounds, {bases} together", whole)


def _sum(group: list[Score]) -> Score:
    shots = sum(score.shots for score in group)

    def mean(values: list[float | None]) -> float | None:
        known = [v * score.shots for v, score in zip(values, group, strict=True) if v is not None]
        return sum(known) / shots if len(known) == len(group) else None

    return group[0].model_copy(
        update={
            "shots": shots,
            "errors": sum(score.errors for score in group),
            "nll": mean([score.nll for score in group]),
            "kl": mean([score.kl for score in group]),
        }
    )


def _references(block: Block) -> list[str]:
    teacher, rival = block.reference(TEACHER), block.reference(RIVAL)
    nll = "" if teacher.nll is None else f", NLL {teacher.nll:.5f}"
    return [
        f"{teacher.shots:,} shots. Correlated matching: LER {rival.ler:.5f}. Teacher ({teacher.parameters:,} "
        f"parameters): LER {teacher.ler:.5f}{nll}."
    ]


def _table(block: Block) -> list[str]:
    lines = ["| Student | parameters | arm | steps | seeds | LER | NLL | KL | kept |", "|" + "---|" * 9]
    for (student, arm, steps), scores in block.arms().items():
        kept = [share for score in scores if (share := block.kept(score)) is not None]
        cells = [
            student, f"{scores[0].parameters:,}", SAID[arm], f"{steps:,}", str(len(scores)),
            _said([score.ler for score in scores], "{:.5f}"),
            _said([score.nll for score in scores], "{:.5f}"),
            _said([score.kl for score in scores], "{:.5f}"),
            _said([100 * share for share in kept], "{:.0f}") + " %" if kept else "-",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _said(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = mean_over_seeds(known)
    return form.format(mean.value) + ("" if mean.half is None else f" ± {form.format(mean.half)}")


def _saved(pooled: list[Block]) -> list[str]:
    lines = [
        "Labels alone had several numbers of steps; between two, LER is interpolated over the logarithm of the steps.",
        "",
        "| rounds | Student | arm | steps | LER | steps of labels alone | times |",
        "|" + "---|" * 7,
    ]
    for block in pooled:
        lers = {key: statistics.fmean(s.ler for s in scores) for key, scores in block.arms().items()}
        for (student, arm, steps), ler in lers.items():
            if arm == "no_kd":
                continue
            curve = {n: value for (who, how, n), value in lers.items() if (who, how) == (student, "no_kd")}
            if not curve:
                continue
            sign, needed = steps_for(curve, ler)
            cells = [
                str(_rounds(block)), student, SAID[arm], f"{steps:,}", f"{ler:.5f}",
                f"{sign}{needed:,.0f}", f"{sign}{needed / steps:.1f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def steps_for(curve: dict[int, float], ler: float) -> tuple[str, float]:
    """Where a curve of LER over steps comes down to `ler`: ("", steps), or (">" or "<=", the last or first steps)."""
    points = sorted(curve.items())
    if points[0][1] <= ler:
        return "<= ", points[0][0]
    for (low, high_ler), (high, low_ler) in pairwise(points):
        if low_ler <= ler:
            share = (high_ler - ler) / (high_ler - low_ler)
            return "", low * (high / low) ** share
    return "> ", points[-1][0]
