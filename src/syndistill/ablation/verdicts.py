"""From a table to sentences: what each question is answered, or why it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from syndistill.ablation.plan import LEAST_SEEDS, Question
from syndistill.ablation.plans import ON
from syndistill.ablation.plans import effect as effect_in_cells
from syndistill.ablation.table import Judged, Table
from syndistill.statistics.paired_seeds import (
    LEVEL,
    Effect,
    Saving,
    differences,
    effect_of,
    holm,
    log_margin,
    saving_of,
)


@dataclass(frozen=True)
class Finding:
    """A contrast of log LER, as it came out. p_value: adjusted where `adjusted` (Holm over all but the primaries)."""

    question: str
    student: str
    says: str
    primary: bool
    effect: Effect | None
    p_value: float | None
    seeds: int
    planned: int
    margin: float
    contrast: Mapping[str, float]
    learned: bool
    """Whether these Students decide better than the one who says that nothing ever flips."""

    @property
    def kind(self) -> str:
        """effect, none, or unknown."""
        if self.effect is None or self.p_value is None or not self.learned:
            return "unknown"
        if self.p_value < LEVEL:
            return "effect"
        return "none" if self.effect.p_beyond < LEVEL else "unknown"

    @property
    def verdict(self) -> str:
        """In a few words, with the interval."""
        if not self.learned:
            return "not enough data (these Students have learned nothing yet: their LER is the rate of flips)"
        if self.effect is None:
            if self.seeds < LEAST_SEEDS:
                return f"not enough data ({self.seeds} of {self.planned} seeds)"
            return "not enough data (no spread between seeds: too few judged shots)"
        said = f"{_change(self.effect.mean)} ({_percent(self.effect.low)} to {_percent(self.effect.high)})"
        margin = f"{100 * self.margin:g} %"
        if self.kind == "effect":
            return f"LER {said}" + (f", less than {margin}" if self.effect.p_beyond < LEVEL else "")
        return f"no effect within {margin}: {said}" if self.kind == "none" else f"not enough data: {said}"


def percent(log_ratio: float) -> float:
    """Per cent by which an error rate changes."""
    return 100 * math.expm1(log_ratio)


def _percent(log_ratio: float) -> str:
    return f"{percent(log_ratio):+.1f} %"


def _change(log_ratio: float) -> str:
    return f"{abs(percent(log_ratio)):.1f} % {'lower' if log_ratio < 0 else 'higher'}"


def findings(table: Table) -> list[Finding]:
    """Of every contrast of every question, in the plan's order; the primary of each first."""
    found: list[Finding] = []
    for question in table.plan.questions:
        asked = table.plan.asked_student(question)
        values = table.values(asked, question.budget, lambda judged: judged.log_ler)
        found.append(_finding(table, question, contrast_words(question.primary), question.primary, values, True))
        for words, contrast in question.others.items():
            found.append(_finding(table, question, words, contrast, values, False))
    adjusted: dict[int, float] = {}
    for student in dict.fromkeys(f.student for f in found):
        others = [f for f in found if f.student == student and not f.primary and f.effect is not None]
        p_values = holm([f.effect.p_value for f in others if f.effect])
        adjusted |= dict(zip(map(id, others), p_values, strict=True))
    return [_with_p(f, adjusted.get(id(f))) for f in found]


def _finding(
    table: Table,
    question: Question,
    words: str,
    contrast: Mapping[str, float],
    values: Mapping[str, Mapping[int, float]],
    primary: bool,
) -> Finding:
    x = differences(values, contrast)
    effect = effect_of(list(x.values()), log_margin(table.plan.margin))
    p_value = effect.p_value if effect is not None else None
    asked, planned = table.plan.asked_student(question), len(table.plan.seeds)
    says = f"{words} ({question.student})" if question.student else words
    return Finding(
        question.name, asked, says, primary, effect, p_value, len(x), planned, table.plan.margin, contrast,
        _learned(table, values, contrast),
    )  # fmt: skip


NOTHING_LEARNED = 0.98  # of the rate of flips: a shot's luck below it is no knowledge


def _learned(table: Table, values: Mapping[str, Mapping[int, float]], contrast: Mapping[str, float]) -> bool:
    """Whether the best of the arms is below the rate of flips; True where that is not known."""
    flips = table.flip_rate()
    means = [math.exp(sum(seeds.values()) / len(seeds)) for arm in contrast if (seeds := values.get(arm))]
    return flips is None or not means or min(means) < NOTHING_LEARNED * flips


def _with_p(finding: Finding, adjusted: float | None) -> Finding:
    if finding.primary:
        return finding
    return Finding(**{**vars(finding), "p_value": adjusted})


def contrast_words(contrast: Mapping[str, float]) -> str:
    """"a against b", or what part of the 2^3 it is."""
    for signals in (["spatial"], ["temporal"], ["readout"], *_pairs(), list(ON)):
        if dict(contrast) == effect_in_cells(*signals):
            return f"main effect of {signals[0]}" if len(signals) == 1 else f"interaction of {' and '.join(signals)}"
    plus = [arm for arm, weight in contrast.items() if weight > 0]
    less = [arm for arm, weight in contrast.items() if weight < 0]
    return f"{' and '.join(plus)} against {' and '.join(less)}"


def _pairs() -> list[list[str]]:
    names = list(ON)
    return [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]


def answers(table: Table, found: list[Finding]) -> list[tuple[str, str]]:
    """(question, sentence) for a reader with one minute."""
    said = []
    for question in table.plan.questions:
        if question.withdrawn:
            said.append((question.text, f"Withdrawn: {question.withdrawn}"))
            continue
        first = next(f for f in found if f.question == question.name and f.primary)
        sentence = f"{_capital(first.says)}: {first.verdict}"
        if first.effect is not None:
            sentence += f", {first.seeds} seeds, p = {_p(first.p_value)}"
        others = [f for f in found if f.question == question.name and not f.primary and f.kind == "effect"]
        others.sort(key=lambda f: -abs(f.effect.mean) if f.effect else 0.0)
        if others:
            sentence += ". Beside it: " + "; ".join(f"{f.says}: {f.verdict}" for f in others[:3])
        said.append((question.text, sentence + "." + _of_fusion(table, question)))
    return [*said, *((f"What does distillation save in shots ({student})?", s) for student, s in _savings(table))]


def _of_fusion(table: Table, question: Question) -> str:
    """What a reader must know of z_fuse before believing a contrast of arms that learn it."""
    found = table.own_answers(question.primary)
    if not found:
        return ""
    arm, fused = next(iter(found.items()))
    probes = "; its probes were stopped while they still learned" if fused.still_improving else ""
    agreement = f"they agree on {100 * fused.agreement:.2f} % of shots{probes}"
    return f" But z_fuse of {arm} is the Teacher's own answer ({agreement}): of fusing this says nothing."


def _p(p_value: float | None) -> str:
    return "-" if p_value is None else f"{p_value:.2g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class SavedShots:
    """What the arm with the Teacher saves at one budget: shots it took, and how many times that the other needs."""

    student: str
    budget: float
    shots: int
    ler: float
    saving: Saving | None


def savings(table: Table) -> list[SavedShots]:
    """For every Student and budget at which the plan's `saving` arms were run; nothing where it has none."""
    if not table.plan.saving:
        return []
    taught_arm, other = table.plan.saving
    found = []
    for student in dict.fromkeys(sweep.student for sweep in table.plan.sweeps):
        budgets = sorted(at for who, arm, at in table.judged if (who, arm) == (student, other))
        without: dict[int, Mapping[int, float]] = {}
        for budget in budgets:
            without[_shots_seen(table, student, other, budget)] = _log_lers(table, student, other, budget)
        for budget in sorted(at for who, arm, at in table.judged if (who, arm) == (student, taught_arm)):
            shots = _shots_seen(table, student, taught_arm, budget)
            taught = _log_lers(table, student, taught_arm, budget)
            ler = math.exp(sum(taught.values()) / len(taught))
            found.append(SavedShots(student, budget, shots, ler, saving_of(taught, without, shots)))
    return found


def _log_lers(table: Table, student: str, arm: str, budget: float) -> dict[int, float]:
    return table.values(student, budget, lambda judged: judged.log_ler).get(arm, {})


def _shots_seen(table: Table, student: str, arm: str, budget: float) -> int:
    of_seed = next(iter(table.judged[student, arm, budget].values()))
    judged: Judged = next(iter(of_seed.values()))
    return judged.first.shots_seen


def _savings(table: Table) -> list[tuple[str, str]]:
    taught, without = table.plan.saving or ("", "")
    said = []
    for one in savings(table):
        if one.budget != 1:
            continue
        if one.saving is None:
            said.append((one.student, "Not enough data: it needs both arms at two budgets or more, with 3 seeds."))
            continue
        said.append(
            (
                one.student,
                f"For the LER of {taught} after {one.shots:,} shots ({one.ler:.4f}) {without} needs "
                f"{one.saving.said(one.saving.factor)} as many ({one.saving.said(one.saving.low)} to "
                f"{one.saving.said(one.saving.high)}; 95 %).",
            )
        )
    return said

