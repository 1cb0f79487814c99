"""The report's tables, as text in cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from syndistill.ablation.table import Judged, Table
from syndistill.ablation.verdicts import Finding, contrast_words, percent, savings
from syndistill.statistics.paired_seeds import LEVEL, POWER, differences, effect_of, log_margin, mean_and_half


@dataclass(frozen=True)
class Grid:
    """A table: title, what it says, and cells as text."""

    title: str
    about: str
    head: list[str]
    rows: list[list[str]]


def grids_of(table: Table, found: Sequence[Finding]) -> list[Grid]:
    """Those that have rows."""
    made = [_contrasts(table, found), _power(table, found), _budgets(table), _measures(table), _savings(table)]
    return [grid for grid in [*made, *_arms(table), _other_rates(table), _references(table)] if grid.rows]


def _contrasts(table: Table, found: Sequence[Finding]) -> Grid:
    withdrawn = {question.name for question in table.plan.questions if question.withdrawn}
    rows = []
    for f in found:
        e = f.effect
        numbers = ["-"] * 5 if e is None else [
            f"{percent(e.mean):+.2f} %", f"{percent(e.low):+.2f} to {percent(e.high):+.2f}", f"{f.p_value:.2g}",
            f"{e.p_beyond:.2g}", f"{percent(e.detectable):.1f} %",
        ]  # fmt: skip
        none = f"no effect within {100 * f.margin:g} %"
        verdict = {"effect": "effect", "none": none, "unknown": "not enough data"}[f.kind]
        verdict += " (withdrawn)" if f.question in withdrawn else ""
        says = f"{f.says} (primary)" if f.primary else f.says
        rows.append([f.question, says, str(f.seeds), *numbers, verdict])
    about = (
        "Paired per-seed differences of log LER, both bases together at the primary number of rounds. p: two-sided "
        "paired t test, of all but primary contrasts after Holm; no-effect p: two one-sided tests; smallest visible: "
        f"the true change found with {100 * POWER:g} % power at level {LEVEL:g}."
    )
    head = ["question", "contrast", "seeds", "change", "95 %", "p", "no-effect p", "smallest visible", "verdict"]
    return Grid("Contrasts", about, head, rows)


def _power(table: Table, found: Sequence[Finding]) -> Grid:
    """What the whole plan could have seen."""
    sizes = {f.says: percent(f.effect.detectable) for f in found if f.primary and f.effect is not None}
    if not sizes:
        return Grid("Smallest visible effect", "", [], [])
    worst = max(sizes, key=lambda name: sizes[name])
    rows = [
        ["of the primary contrasts, the best", f"{min(sizes.values()):.1f} %"],
        [f"the worst ({worst})", f"{sizes[worst]:.1f} %"],
    ]
    return Grid("Smallest visible effect", "", ["", "change of LER"], rows)


def _savings(table: Table) -> Grid:
    taught, without = table.plan.saving
    rows = []
    for one in savings(table):
        said = ["-", "not enough data"] if one.saving is None else [
            one.saving.said(one.saving.factor),
            f"{one.saving.said(one.saving.low)} to {one.saving.said(one.saving.high)}",
        ]
        rows.append([one.student, f"{one.budget:g}", f"{one.shots:,}", f"{one.ler:.5f}", *said])
    about = (
        f"Shots that {without} needs for the LER that {taught} has after its own, interpolated over log shots and log "
        "LER; 95 % percentile bootstrap over seeds (with few seeds such an interval is somewhat short). Shots are "
        "counted as often as they are seen: a Student with a Teacher sees its cached shots several times."
    )
    head = ["Student", "budget", f"shots of {taught}", "LER", "needed without", "95 %"]
    return Grid("What distillation saves in shots", about, head, rows)


def _arms(table: Table) -> list[Grid]:
    grids = []
    for student in dict.fromkeys(sweep.student for sweep in table.plan.sweeps):
        for budget in sorted({sweep.budget for sweep in table.plan.sweeps if sweep.student == student}):
            rows = [row for arm in table.plan.arms if (row := _arm_row(table, student, arm.name, budget))]
            head = ["arm", "learns from", "seeds", *(f"LER r={r}" for r, _ in sorted(table.plan.judging.cases)), "NLL",
                    "KL to the Teacher", "gain kept", "steps", "s"]  # fmt: skip
            about = (
                "Means over seeds with 95 % t intervals; both bases together. NLL, KL and gain at the primary number "
                "of rounds; gain kept: of the way from correlated matching to the best decoder; s: of training."
            )
            grids.append(Grid(f"{student} at {budget:g}x", about, head, rows))
    return grids


def _other_rates(table: Table) -> Grid:
    """What was judged beside the primary error rate."""
    rows = []
    for student, arm, budget in [*table.judged, *(("reference", name, 0.0) for name in table.references)]:
        for p, rounds in table.elsewhere:
            found = table.elsewhere[p, rounds].get((student, arm, budget), {})
            if found:
                values: list[float | None] = [judged.ler for judged in found.values()]
                said = [f"{budget:g}", f"{p:g}", str(rounds), str(len(found)), _said(values, "{:.5f}")]
                rows.append([student, arm, *said])
    about = "Means over seeds with 95 % t intervals; both bases together."
    return Grid("At other error rates", about, ["Student", "arm", "budget", "p", "rounds", "seeds", "LER"], rows)


def _arm_row(table: Table, student: str, arm: str, budget: float) -> list[str] | None:
    planned = any(
        sweep.student == student and sweep.budget == budget and arm in (sweep.arms or [a.name for a in table.plan.arms])
        for sweep in table.plan.sweeps
    )
    if not planned:
        return None
    says, n_rounds = table.plan.arm(arm).says, len(table.plan.judging.cases)
    seeds = table.judged.get((student, arm, budget))
    if not seeds:
        return [arm, says, "0 (missing)", *["-"] * (n_rounds + 5)]
    primary = table.plan.judging.primary_rounds
    at = [of_rounds[primary] for of_rounds in seeds.values()]
    lers = [_said([s[r].ler for s in seeds.values()], "{:.5f}") for r, _ in sorted(table.plan.judging.cases)]
    kept = [k for judged in at if (k := table.kept(judged)) is not None]
    count = str(len(seeds)) if len(seeds) >= len(table.plan.seeds) else f"{len(seeds)} of {len(table.plan.seeds)}"
    return [
        arm, says, count, *lers, *(_said([s.mean(name) for s in at], "{:.5f}") for name in ("nll", "kl")),
        _said([100 * k for k in kept], "{:.0f}") + " %" if kept else "-", f"{at[0].first.steps:,}",
        f"{sum(s.first.train_seconds for s in at) / len(at):.0f}",
    ]  # fmt: skip


def _said(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = mean_and_half(known)
    return form.format(mean) + ("" if half is None else f" ± {form.format(half)}")


def _references(table: Table) -> Grid:
    rows = []
    for name, of_rounds in table.references.items():
        for rounds, judged in of_rounds.items():
            nll, us = judged.mean("nll"), judged.mean("us_per_shot")
            said = "-" if nll is None else f"{nll:.5f}"
            rows.append([name, str(rounds), f"{judged.shots:,}", f"{judged.ler:.5f}", said, f"{us:.1f}"])
    head = ["decoder", "rounds", "shots", "LER", "NLL", "us a shot"]
    return Grid("References", "On the same shots as the Students, or on the first of them.", head, rows)


def _budgets(table: Table) -> Grid:
    """The primary contrasts wherever all their arms were run, not only where the question is asked."""
    budgets = sorted({(sweep.student, sweep.budget) for sweep in table.plan.sweeps})
    rows = []
    for question in table.plan.questions:
        for student, budget in budgets:
            if (student, budget) == (table.main_student, question.budget):
                continue
            values = table.values(student, budget, lambda judged: judged.log_ler)
            x = list(differences(values, question.primary).values())
            effect = effect_of(x, log_margin(table.plan.margin))
            if effect is not None:
                change = f"{percent(effect.mean):+.2f} %"
                interval = f"{percent(effect.low):+.2f} to {percent(effect.high):+.2f}"
                rows.append([contrast_words(question.primary), student, f"{budget:g}", str(len(x)), change, interval])
    about = "The same differences of log LER as above; not tested, for they were no question of the plan."
    head = ["contrast", "Student", "budget", "seeds", "change", "95 %"]
    return Grid("Primary contrasts elsewhere", about, head, rows)


def _measures(table: Table) -> Grid:
    """The primary contrasts of NLL, KL and the gain kept."""
    measures: dict[str, Callable[[Judged], float | None]] = {
        "NLL, nats": lambda judged: judged.mean("nll"),
        "KL, nats": lambda judged: judged.mean("kl"),
        "gain kept, points": lambda judged: None if (kept := table.kept(judged)) is None else 100 * kept,
    }
    rows = []
    for question in table.plan.questions:
        cells = []
        for measure in measures.values():
            values = table.values(table.main_student, question.budget, measure)
            effect = effect_of(list(differences(values, question.primary).values()), (-1.0, 1.0))
            said = "-" if effect is None else f"{effect.mean:+.4g} ({effect.low:+.4g} to {effect.high:+.4g})"
            cells.append(said)
        rows.append([contrast_words(question.primary), *cells])
    about = "Paired per-seed differences with 95 % t intervals; lower NLL and KL are better, a larger gain kept is."
    return Grid("Primary contrasts of other measures", about, ["contrast", *measures], rows)
