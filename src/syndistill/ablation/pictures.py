"""The report's figures, as SVG text: made for looking, from a table alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from syndistill.ablation.jobs import OPTIMUM, RIVAL, TEACHER
from syndistill.ablation.table import Judged, Table
from syndistill.ablation.verdicts import Finding, percent
from syndistill.statistics.paired_seeds import mean_and_half

COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94", "#c98a00", "#4a4e69", "#2a9d8f", "#8d5524")
KINDS = {"effect": "#1b6ca8", "none": "#3a7d44", "unknown": "#9a9a9a"}
REFERENCES = {
    RIVAL: ("correlated matching", "#666666"), OPTIMUM: ("exact optimum", "#111111"), TEACHER: ("Teacher", "#d000a0"),
}  # fmt: skip
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "syndistill", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}  # fmt: skip


def _drawn(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs list the keys
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


NAMES = ("effects", "budget", "size", "reliability", "rounds")


def figures(table: Table, found: Sequence[Finding]) -> dict[str, tuple[str, str]]:
    """name -> (caption, SVG); those of `NAMES` that the rows have something for."""
    made = {
        "effects": (_EFFECTS.format(100 * table.plan.margin), effects(table, found)),
        "budget": ("LER over the shots that a Student was trained on; mean, 95 % interval over seeds.", budget(table)),
        "size": ("LER over parameters and over microseconds a shot (one core, compiled), largest budget.", size(table)),
        "reliability": ("Probability of a flip as predicted and as observed, bins of equal mass, all seeds.",
                        reliability(table)),
        "rounds": ("LER over rounds; beyond the dashed line there were no training shots.", rounds(table)),
    }  # fmt: skip
    return {name: (caption, svg) for name, (caption, svg) in made.items() if svg}


_EFFECTS = (
    "Change of LER in per cent: each dot a seed, the bar the 95 % interval over seeds. Blue: an effect; green: none "
    "within {:g} % (shaded); grey: not enough data. Bold: the primary contrast of a question."
)


def effects(table: Table, found: Sequence[Finding]) -> str:
    shown = [f for f in found if f.effect is not None]
    if not shown:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        margin = 100 * table.plan.margin
        axes.axvspan(-margin, margin, color="#3a7d44", alpha=0.08, lw=0)
        axes.axvline(0, color="#444444", lw=0.8)
        for y, finding in enumerate(shown):
            effect, colour = finding.effect, KINDS[finding.kind]
            assert effect is not None
            dots = [percent(v) for v in effect.values]
            axes.plot(dots, [y + 0.24] * effect.seeds, "o", ms=3.2, color=colour, alpha=0.6, mew=0)
            bar = [percent(effect.low), percent(effect.high)]
            axes.plot(bar, [y, y], color=colour, lw=2.8 if finding.primary else 1.4)
            axes.plot(percent(effect.mean), y, "D", ms=4.5, color=colour)
        axes.set_yticks(range(len(shown)), [_label(f) for f in shown])
        for tick, finding in zip(axes.get_yticklabels(), shown, strict=True):
            tick.set_fontweight("bold" if finding.primary else "normal")
        for y in range(1, len(shown)):
            if shown[y].question != shown[y - 1].question:
                axes.axhline(y - 0.5, color="#bbbbbb", lw=0.6)
        axes.invert_yaxis()
        axes.set_xlabel("change of LER, %   (left: better)")
        axes.grid(axis="y", visible=False)

    return _drawn(8.6, 0.9 + 0.235 * len(shown), draw)


def _label(finding: Finding) -> str:
    return finding.says if finding.primary else f"{finding.question}: {finding.says}"


def budget(table: Table) -> str:
    students = [s for s in _students(table) if len({at for who, _, at in table.judged if who == s}) > 1]
    if not students:
        return ""

    def draw(figure: Figure) -> None:
        for axes, student in zip(np.atleast_1d(figure.subplots(1, len(students), sharey=True)), students, strict=True):
            arms = [arm for arm in _arms(table) if len(_curve(table, student, arm)) > 1]
            for arm in arms:
                colour, points = _colour(table, arm), _curve(table, student, arm)
                x, lers = zip(*points, strict=True)
                means = [_interval(values) for values in lers]
                axes.plot(x, [m for m, _, _ in means], "o-", ms=3.5, lw=1.4, color=colour, label=arm)
                axes.fill_between(x, [a for _, a, _ in means], [b for _, _, b in means], color=colour, alpha=0.15, lw=0)
            _lines(axes, table, table.plan.judging.primary_rounds)
            axes.set(xscale="log", yscale="log", xlabel="training shots", title=student)
            axes.set_ylabel(f"LER, r = {table.plan.judging.primary_rounds}")
            _plain(axes.yaxis)
            _plain(axes.xaxis)
            axes.legend(fontsize=7, frameon=False)

    return _drawn(4.6 * len(students), 3.9, draw)


def _curve(table: Table, student: str, arm: str) -> list[tuple[int, list[float]]]:
    """(shots seen, LER of each seed), by budget."""
    rounds = table.plan.judging.primary_rounds
    found = []
    for (who, name, _), seeds in table.judged.items():
        if (who, name) == (student, arm):
            found.append((next(iter(seeds.values()))[rounds].first.shots_seen, [s[rounds].ler for s in seeds.values()]))
    return sorted(found)


def size(table: Table) -> str:
    rounds = table.plan.judging.primary_rounds
    groups = {
        (student, arm): max(at for who, name, at in table.judged if (who, name) == (student, arm))
        for student, arm, _ in table.judged
        if arm in table.plan.saving
    }
    if len({student for student, _ in groups}) < 2:
        return ""

    def draw(figure: Figure) -> None:
        for axes, what in zip(figure.subplots(1, 2, sharey=True), ("parameters", "us_per_shot"), strict=True):
            for arm in table.plan.saving:
                colour, points = _colour(table, arm), []
                for (student, name), at in groups.items():
                    if name == arm:
                        seeds = [of_rounds[rounds] for of_rounds in table.judged[student, arm, at].values()]
                        points.append((_x_of(seeds, what), _interval([s.ler for s in seeds])))
                points.sort()
                y = np.array([interval for _, interval in points])
                axes.errorbar([x for x, _ in points], y[:, 0], [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], fmt="o-", ms=4,
                              color=colour, label=arm, capsize=2)  # fmt: skip
            for name, judged in table.references.items():
                words, colour = REFERENCES[name]
                x = judged[rounds].first.parameters if what == "parameters" else judged[rounds].mean(what)
                if x:
                    axes.plot(x, judged[rounds].ler, "*", ms=9, color=colour, label=words)
                elif what == "parameters":
                    axes.axhline(judged[rounds].ler, color=colour, lw=0.9, ls=":", label=words)
            axes.set(xscale="log", xlabel={"parameters": "parameters", "us_per_shot": "microseconds a shot"}[what])
            _plain(axes.xaxis)
            axes.legend(fontsize=7, frameon=False)
        figure.axes[0].set_ylabel(f"LER, r = {rounds}")

    return _drawn(8.6, 3.5, draw)


def _x_of(seeds: Sequence[Judged], what: str) -> float:
    """The fastest measurement: others had the machine to share."""
    if what == "parameters":
        return float(seeds[0].first.parameters or 0)
    return min(seed.mean(what) or math.inf for seed in seeds)


def _main_arms(table: Table) -> list[str]:
    """Those of the first sweep that there are, not more than can be told apart."""
    arms = table.plan.sweeps[0].arms or _arms(table)
    return [arm for arm in arms if (table.main_student, arm, table.main_budget) in table.judged][:6]


def reliability(table: Table) -> str:
    rounds, student = table.plan.judging.primary_rounds, table.main_student
    arms = _main_arms(table)
    if not arms:
        return ""

    def draw(figure: Figure) -> None:
        whole, rest = figure.subplots(1, 2)
        for arm in arms:
            colour = _colour(table, arm)
            seeds = table.judged[student, arm, table.main_budget]
            scores = [s for seed in seeds.values() for s in seed[rounds].scores]
            bins = [score.reliability for score in scores if score.reliability is not None]
            counts = np.sum([b.counts for b in bins], 0)
            used = counts > 0
            predicted, observed = (
                np.sum([np.multiply(b.counts, getattr(b, name)) for b in bins], 0)[used] / counts[used]
                for name in ("predicted", "observed")
            )
            error = np.sqrt(observed * (1 - observed) / (counts[used] / len(seeds)))  # all seeds on the same shots
            whole.plot(predicted, observed, "o-", ms=3.5, lw=1.1, color=colour, label=arm)
            rest.errorbar(predicted, observed - predicted, 1.96 * error, fmt="o-", ms=3, lw=1, color=colour)
        whole.plot([0, 1], [0, 1], color="#444444", lw=0.8)
        rest.axhline(0, color="#444444", lw=0.8)
        whole.set(xlabel="predicted", ylabel="observed", title=f"{student}, r = {rounds}")
        rest.set(xlabel="predicted", title="observed - predicted")
        whole.legend(fontsize=7, frameon=False)

    return _drawn(8.6, 3.6, draw)


def rounds(table: Table) -> str:
    student = table.main_student
    cases = [r for r, _ in sorted(table.plan.judging.cases)]
    arms = _main_arms(table)
    if len(cases) < 2 or not arms:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for arm in arms:
            colour = _colour(table, arm)
            seeds = table.judged[student, arm, table.main_budget].values()
            y = np.array([_interval([seed[r].ler for seed in seeds]) for r in cases])
            axes.plot(cases, y[:, 0], "o-", ms=3.5, lw=1.3, color=colour, label=arm)
            axes.fill_between(cases, y[:, 1], y[:, 2], color=colour, alpha=0.15, lw=0)
        for name, judged in table.references.items():
            words, colour = REFERENCES[name]
            axes.plot(cases, [judged[r].ler for r in cases], ls=":", lw=1.2, color=colour, label=words)
        trained = max(r for phase in table.plan.base.data.simulated.curriculum.rounds for r in phase.rounds)
        if cases[-1] > trained:
            axes.axvline(trained, color="#999999", lw=0.8, ls="--")
        axes.set(xlabel="rounds", ylabel="LER", title=student, xticks=cases)
        axes.legend(fontsize=7, frameon=False)

    return _drawn(5.6, 3.8, draw)


def _students(table: Table) -> list[str]:
    return list(dict.fromkeys(sweep.student for sweep in table.plan.sweeps))


def _arms(table: Table) -> list[str]:
    return [arm.name for arm in table.plan.arms]


def _colour(table: Table, arm: str) -> str:
    """The same in every figure; those of the first sweep have one of their own."""
    first = table.plan.sweeps[0].arms or tuple(_arms(table))
    order = [*first, *(name for name in _arms(table) if name not in first)]
    return COLOURS[order.index(arm) % len(COLOURS)]


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    mean, half = mean_and_half(values)
    return mean, mean - (half or 0.0), mean + (half or 0.0)


def _lines(axes: Any, table: Table, at: int) -> None:
    for name, judged in table.references.items():
        words, colour = REFERENCES[name]
        axes.axhline(judged[at].ler, color=colour, lw=0.9, ls=":", label=words)


def _plain(axis: Any) -> None:
    """Decimal numbers on a log axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 150 * low else (1.0, 3.0) if high > 12 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _short(x: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if x >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"
