"""A comparison as one picture: logical error rates with intervals, beside size and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Row
from syndistill.safe_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"pymatching": "PyMatching", "pymatching-correlated": "PyMatching, correlated", "optimal": "the optimum"}
"""What to call the references."""
HIGHLIGHT, NETWORK, REFERENCE, OPTIMUM = "#c2410c", "#1d4ed8", "#475569", "#15803d"


def new_figure(width: float, height: float) -> Figure:
    """In inches, to be saved as a PNG without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, grid: Literal["x", "both"] = "both") -> None:
    """A pale grid below, and no frame on top and right."""
    axes.grid(axis=grid, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_png(figure: Figure, path: Path) -> None:
    """Whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png", metadata={"Software": None})


def draw_comparison(found: Comparison, path: Path, title: str, labels: Mapping[str, str], highlight: str) -> None:
    """Horizontal points, best at the bottom; the optimum as a line. Written whole or not at all.

    labels: what to call a decoder by its name. highlight: the name of a row.
    """
    rows = sorted(found.rows, key=lambda row: -row.ler)
    figure = new_figure(9.5, 1.7 + 0.52 * len(rows))
    axes, columns = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, 1))
    for y, row in enumerate(reversed(rows)):
        _point(axes, y, row, highlight)
        _numbers(columns, y, row, _colour(row, highlight))
    best = [row for row in rows if row.decoder == "optimal"]
    for row in best:
        axes.axvspan(100 * row.low, 100 * row.high, color=OPTIMUM, alpha=0.08, linewidth=0)
        axes.axvline(100 * row.ler, color=OPTIMUM, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.set_yticks(range(len(rows)), [labels.get(row.decoder, row.decoder) for row in reversed(rows)])
    for tick, row in zip(axes.get_yticklabels(), reversed(rows), strict=True):
        tick.set_color(_colour(row, highlight))
        tick.set_fontweight("bold" if row.decoder == highlight else "normal")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"logical error rate, %   (95 % intervals, the same {rows[0].shots:,} shots for every decoder)")
    plain(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=18)
    columns.axis("off")
    for x, text in _COLUMNS:
        columns.text(x, 1.01, text, transform=columns.transAxes, ha="right", fontsize=8.5, color="#64748b")
    save_png(figure, path)


_COLUMNS = ((0.22, "LER, %"), (0.62, "parameters"), (1.0, "µs per shot"))


def _point(axes, y: int, row: Row, highlight: str) -> None:  # type: ignore[no-untyped-def]
    colour = _colour(row, highlight)
    size = 8 if row.decoder == highlight else 6
    error = [[100 * (row.ler - row.low)], [100 * (row.high - row.ler)]]
    axes.errorbar(
        100 * row.ler, y, xerr=error, fmt="o", color=colour, markersize=size, capsize=3.5, elinewidth=1.6, zorder=3
    )


def _numbers(columns, y: int, row: Row, colour: str) -> None:  # type: ignore[no-untyped-def]
    parameters = "–" if row.parameters is None else f"{row.parameters:,}"
    texts = (f"{100 * row.ler:.2f}", parameters, f"{row.us_per_shot:,.1f}")
    for (x, _), text in zip(_COLUMNS, texts, strict=True):
        across = columns.get_yaxis_transform()
        columns.text(x, y, text, transform=across, ha="right", va="center", fontsize=9, color=colour)


def _colour(row: Row, highlight: str) -> str:
    if row.decoder == highlight:
        return HIGHLIGHT
    if row.decoder == "optimal":
        return OPTIMUM
    return REFERENCE if row.parameters is None else NETWORK
