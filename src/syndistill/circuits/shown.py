"""What was understood of a circuit, for a person to see: a few lines, and a picture.

Axes: N detectors, S stabilisers, O observables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import stim

from syndistill.circuits.memory_basis import memory_basis
from syndistill.circuits.placement import Placement, described, far_from
from syndistill.circuits.training_noise import TrainingNoise
from syndistill.safe_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TYPES = {"x": ("X check", "#e07b6a"), "z": ("Z check", "#6a8fe0")}
_LINE = "#1a9850"


def summary(source: stim.Circuit | stim.DetectorErrorModel, placement: Placement, home: TrainingNoise) -> list[str]:
    """Lines that say what the circuit is, how it is read, and how far it is from home."""
    layout = placement.layout
    memory = memory_basis(source) if isinstance(source, stim.Circuit) else None
    kind = "memory with both observables" if placement.basis == "both" else "memory"
    said = f"rotated surface code {kind}, distance {layout.distance}, {placement.rounds} rounds"
    lines = [f"{said}{'' if memory is None else f', basis {memory.upper()}'}", _read_as(placement)]
    lines += [f"L{o}: {observable(placement, o)}" for o in range(placement.n_observables)]
    lines.append(described(home, placement))
    if (far := far_from(home, placement)) is not None:
        lines.append(f"far from home: {far.partition(': ')[2]}")
    return lines


def observable(placement: Placement, o: int) -> str:
    """In words."""
    line = placement.lines[o] or 0
    held = [f"line {line} of basis {b}" for b, holds in zip("XZ", placement.holds_O2[o], strict=True) if holds]
    n_checks = 0 if placement.lines[o] is not None else int(placement.turn_OS[o].sum())
    checks = f"{n_checks} check{'s' if n_checks > 1 else ''}"
    if not held:
        return f"the product of {checks}, which the shot itself shows" if n_checks else "flipped by no error"
    return " times ".join([*held, *([checks] if n_checks else [])])


def _read_as(placement: Placement) -> str:
    if placement.fit is None:
        return f"read as a memory of basis {placement.basis.upper()}; without noise nothing says which way round"
    (basis, share), *others = placement.fit.ways
    rest = ", ".join(f"{b.upper()} {s:.1%}" for b, s in others)
    return (
        f"read as basis {basis.upper()}, the way round that shares {share:.1%} with the training noise"
        + (f" (others: {rest})" if rest else "")
    )


def draw(
    source: stim.Circuit | stim.DetectorErrorModel, placement: Placement, home: TrainingNoise, title: str, path: Path
) -> None:
    """The lattice as it is read, with the circuit's own coordinates, and the shares of every way round.

    path: .svg, .png or .pdf. SyndistillError where it can't be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "syndistill"  # the same picture, the same file
    from matplotlib import pyplot

    figure, (lattice, ways, slices) = pyplot.subplots(
        1, 3, figsize=(13, 5.4), width_ratios=(5, 2.4, 2.4), layout="constrained"
    )
    figure.suptitle("\n".join([title, *summary(source, placement, home)]), fontsize=8.5, ha="left", x=0.02)
    dem = source if isinstance(source, stim.DetectorErrorModel) else None
    _draw_lattice(lattice, placement, (dem or source).get_detector_coordinates())
    _draw_ways(ways, placement)
    _draw_slices(slices, placement)
    with replacing(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix(".") or "svg", metadata=_undated(path), dpi=150)
    pyplot.close(figure)


def _undated(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix == ".svg" else {}


def _draw_lattice(axes: Axes, placement: Placement, coords: dict[int, list[float]]) -> None:
    from matplotlib.patches import Polygon

    layout = placement.layout
    d = layout.distance
    places = _coordinate_labels(placement, coords)
    for s, (row, col) in enumerate(layout.cells_S2.tolist()):
        basis = "x" if layout.is_x_S[s] else "z"
        corners = [(j, i) for i, j in ((row - 1, col - 1), (row - 1, col), (row, col), (row, col - 1))]
        inside = [(x, y) for x, y in corners if 0 <= x < d and 0 <= y < d]
        if len(inside) == 2:  # a check at the boundary: a triangle that points outwards
            inside.append((np.clip(col - 0.5, -0.7, d - 0.3), np.clip(row - 0.5, -0.7, d - 0.3)))
        axes.add_patch(Polygon(inside, closed=True, facecolor=_TYPES[basis][1], edgecolor="white", alpha=0.55))
        (x, y), side = np.mean(inside, axis=0), "center"
        if col in (0, d):  # beside the data qubits, not over the next check's coordinates
            x, side = (-0.1, "right") if col == 0 else (d - 0.9, "left")
        axes.text(x, y, places.get(s, ""), ha=side, va="center", fontsize=7 if d <= 5 else 5)
    rows, columns = np.divmod(np.arange(d * d), d)
    axes.scatter(columns, rows, s=18, c="#333333", zorder=3)
    for b, basis in enumerate(("x", "z")):
        axes.scatter([], [], s=60, marker="s", c=_TYPES[basis][1], alpha=0.55, label=_TYPES[basis][0])
        holders: dict[int, list[int]] = {}
        for o in np.flatnonzero(placement.holds_O2[:, b]).tolist():
            holders.setdefault(placement.lines[o] or 0, []).append(o)
        for line, members in sorted(holders.items()):
            ends = ((-0.3, line), (d - 0.7, line)) if basis == "x" else ((line, -0.3), (line, d - 0.7))
            label = f"{', '.join(f'L{o}' for o in members)}: {observable(placement, members[0])}"
            style: dict[str, Any] = {"color": _LINE, "lw": 3, "alpha": 0.7, "ls": "-" if basis == "x" else "--"}
            axes.plot(*zip(*ends, strict=True), label=label, **style)
    axes.set(xlim=(-1, d), ylim=(d, -1), aspect="equal", xticks=range(d), yticks=range(d))
    axes.set_xlabel("column", fontsize=8)
    axes.set_ylabel("row", fontsize=8)
    axes.set_title("as it is read (small: the circuit's own detector coordinates)", fontsize=8)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)


def _coordinate_labels(placement: Placement, coords: dict[int, list[float]]) -> dict[int, str]:
    """By stabiliser what a detector there says of its place: the coordinates that all its detectors share."""
    found: dict[int, list[list[float]]] = {}
    for n, s in enumerate(placement.stabiliser_N.tolist()):
        found.setdefault(s, []).append(coords.get(n, []))
    labels = {}
    for s, members in found.items():
        width = min(len(c) for c in members)
        fixed = [members[0][k] for k in range(width) if len({c[k] for c in members}) == 1][:2]
        labels[s] = f"{', '.join(f'{v:g}' for v in fixed)}" if fixed else f"D{placement.stabiliser_N.tolist().index(s)}"
    return labels


def _draw_ways(axes: Axes, placement: Placement) -> None:
    axes.set_title("share of error probability\nin shapes of the training noise", fontsize=8)
    if placement.fit is None:
        axes.text(0.5, 0.5, "no noise", ha="center")
        axes.set_axis_off()
        return
    names = [f"{basis.upper()}{' (taken)' if k == 0 else ''}" for k, (basis, _) in enumerate(placement.fit.ways)]
    shares = [share for _, share in placement.fit.ways]
    bars = axes.barh(range(len(shares)), shares, color=["#1a9850", *["#bbbbbb"] * (len(shares) - 1)])
    axes.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=8, padding=2)
    axes.set(yticks=range(len(names)), xlim=(0, 1.25), xticks=(0, 0.5, 1))
    axes.set_yticklabels(names, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("way round", fontsize=8)


def _draw_slices(axes: Axes, placement: Placement) -> None:
    """How many detectors of each type a slice has."""
    from matplotlib.ticker import MaxNLocator

    layout = placement.layout
    slices = np.arange(placement.rounds + 1)
    below = np.zeros(len(slices))
    for basis, is_type_S in (("x", layout.is_x_S), ("z", ~layout.is_x_S)):
        count_T = np.bincount(placement.slice_N[is_type_S[placement.stabiliser_N]], minlength=len(slices))
        axes.barh(slices, count_T, left=below, color=_TYPES[basis][1], alpha=0.55, label=_TYPES[basis][0])
        below += count_T
    axes.set_title("detectors of each slice\n(the last: from the data readout)", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("slice", fontsize=8)
    axes.set_xlabel("detectors", fontsize=8)
