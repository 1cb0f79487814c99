"""When the Teacher's inside is worth its price: the change of LER that space and time bring, by shots asked, by steps
and by Student, from the rows of ablations of the plans inside-d5 and inside-d3.

    python scripts/inside_worth.py results/inside-d5 results/inside-d5-10k results/inside-d3 --picture worth.png

Prints Markdown: a line for each Student, number of asked shots and number of steps that has both arms, the mean over
seeds with its 95 % t interval. The picture has a panel for the shots, one for the steps, one for the Student's size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from syndistill.ablation.table import read_table
from syndistill.errors import SyndistillError
from syndistill.runs.picture import HIGHLIGHT, new_figure, plain, save_png
from syndistill.statistics.paired_seeds import differences, mean_and_half

WITH, WITHOUT = "spatial+temporal", "baseline"


class Point(NamedTuple):
    """size: the Student's parameters. low, high: None for one seed."""

    distance: int
    size: int
    student: str
    shots: int
    steps: int
    seeds: int
    baseline: float
    change: float
    low: float | None
    high: float | None


def points_of(source: Path) -> list[Point]:
    """Of one rows file or its folder."""
    table = read_table(source)
    plan = table.plan
    found = []
    for student, budget in dict.fromkeys((student, budget) for student, _, budget in table.judged):
        values = table.values(student, budget, lambda judged: judged.log_ler)
        if WITH not in values or WITHOUT not in values:
            continue
        each = differences(values, {WITH: 1.0, WITHOUT: -1.0})
        mean, half = mean_and_half(list(each.values()))
        lers = table.values(student, budget, lambda judged: judged.ler)[WITHOUT]
        low, high = (None, None) if half is None else (100 * np.expm1(mean - half), 100 * np.expm1(mean + half))
        where = (plan.base.data.simulated.distance, plan.network(student).n_parameters, student)
        spent = (plan.base.data.cached_shots, round(plan.steps * budget), len(each))
        without = float(np.mean([lers[seed] for seed in each]))
        found.append(Point(*where, *spent, without, 100 * float(np.expm1(mean)), low, high))
    return found


def markdown(points: Sequence[Point]) -> list[str]:
    head = ["distance", "Student", "shots asked", "steps", "seeds", "LER without it, %", "change, %"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for p in points:
        between = "" if p.low is None else f" ({p.low:+.1f} to {p.high:+.1f})"
        lines.append(
            f"| {p.distance} | {p.student} | {p.shots:,} | {p.steps:,} | {p.seeds} | {100 * p.baseline:.2f} "
            f"| {p.change:+.1f}{between} |"
        )
    return lines


def draw(points: Sequence[Point], path: Path) -> None:
    """Shots and steps of one Student, the one with most points; every Student by its size."""
    names = [point.student for point in points]
    main = max(dict.fromkeys(names), key=names.count)
    own = [point for point in points if point.student == main]
    most = lambda which: max({*which}, key=[*which].count)  # noqa: E731
    steps, shots = most([p.steps for p in own]), most([p.shots for p in own])
    panels = [
        ("shots asked of the Teacher", f"{steps:,} steps", "shots", [p for p in own if p.steps == steps]),
        ("steps of training", f"{shots:,} shots asked", "steps", [p for p in own if p.shots == shots]),
        (
            "parameters of the Student",
            f"{shots:,} shots, {steps:,} steps",
            "size",
            [p for p in points if (p.shots, p.steps) == (shots, steps)],
        ),
    ]
    figure = new_figure(10.5, 3.6)
    for axes, (label, title, field, shown) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        here = sorted(shown, key=lambda p: getattr(p, field))
        axes.plot([getattr(p, field) for p in here], [p.change for p in here], "o-", color=HIGHLIGHT, markersize=5)
        for p in here:
            if p.low is not None:
                axes.plot([getattr(p, field)] * 2, [p.low, p.high], color=HIGHLIGHT, linewidth=1.2)
        axes.axhline(0, color="#475569", linewidth=1)
        axes.set_xscale("log")
        axes.margins(x=0.2)
        ticks = sorted({getattr(p, field) for p in shown})
        axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_title(title, loc="left", fontsize=10)
        plain(axes)
    figure.axes[0].set_ylabel("change of LER by space and time, %")
    save_png(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=Path, help="rows files, or their folders")
    parser.add_argument("--picture", type=Path, help="PNG to draw into")
    of = parser.parse_args(arguments)
    try:
        points = sorted((p for source in of.rows for p in points_of(source)), key=lambda p: p[:5])
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(markdown(points)))
    if of.picture is not None:
        draw([point for point in points if point.distance == 5], of.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
