"""The local GRU's weights as numpy arrays, read from a network file without PyTorch.

Axes: D width of a stabiliser's state, S stabilisers, W readout width, L lines, C logit channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.deploy.flat_weights import (
    FlatWeights,
    NetworkWeights,
    WrittenOut,
    load_flat_weights,
    load_weights,
    read_header,
    shipped_path,
)

BITS, PLACES = 2, 9  # as models.local_gru has them, which this room's readers must not import
FAMILY = "local_gru"


class QubitKinds(NamedTuple):
    """Data qubits of even and of odd row + column, by their corners (Q', 4), and where each qubit is among the two."""

    corners: tuple[NDArray[np.int64], NDArray[np.int64]]
    place_Q: NDArray[np.int64]


class LocalWeights(NetworkWeights):
    """One local GRU."""

    def frame(self, basis: str) -> str:
        """The basis whose experiments the shots look like inside."""
        return "z" if self.turn_x and basis == "x" else basis

    def written_out(self, cell: str, basis: str) -> WrittenOut:
        """"cell" or "last_cell" for the layout's order of inputs, its states in the order that it works in."""
        n, d, t, layout = self.layout.n_stabilisers, self.width, self.tensors, self.layout
        blocks_SS = neighbour_blocks(layout)

        def blocks(names: str, size: int) -> Any:
            placed = [t[f"{names}.{i}"].reshape(3, d, PLACES, size).transpose(2, 0, 1, 3) for i in range(2)]
            stacked = np.concatenate([*placed, np.zeros_like(placed[0][:1])])
            return stacked[blocks_SS]

        recurrent = blocks("cell.recurrent", d).transpose(2, 0, 3, 1, 4).reshape(3 * n * d, n * d)
        inputs = blocks(f"{cell}.inputs", BITS).transpose(2, 0, 3, 4, 1).reshape(3 * n * d, BITS * n)
        if self.frame(basis) != basis:
            inputs = inputs[:, np.concatenate([layout.turned_back_S, n + layout.turned_back_S])]
        hidden_bias = np.concatenate([np.zeros(2 * n * d, np.float32), t[f"{cell}.hidden_bias_SD"].ravel()])
        return WrittenOut(inputs, recurrent, t[f"{cell}.bias_GSD"].ravel(), hidden_bias)

    def qubit_kinds(self) -> QubitKinds:
        d, corners_Q4 = self.layout.distance, self.layout.corners_Q4
        odd_Q = np.indices((d, d)).sum(0).ravel() % 2 == 1
        order = np.concatenate([np.flatnonzero(~odd_Q), np.flatnonzero(odd_Q)])
        return QubitKinds((corners_Q4[~odd_Q], corners_Q4[odd_Q]), np.argsort(order))


Compilable = FlatWeights | LocalWeights


def neighbour_blocks(layout: Layout) -> NDArray[np.int64]:
    """(S target, S source): 9 * (1 where the target is of type X) + the source's place, 18 for no neighbour."""
    return np.where(layout.places_SS < PLACES, PLACES * layout.is_x_S[:, None] + layout.places_SS, 2 * PLACES)


def load_local_weights(name_or_path: str | Path) -> LocalWeights:
    """A local GRU by shipped name or by path. SyndistillError as of `load_flat_weights`."""
    return load_weights(shipped_path(name_or_path), FAMILY, LocalWeights, _shapes)


def load_compilable(name_or_path: str | Path) -> Compilable:
    """Of whichever family the file is; one that has no compiled code is refused as no flat GRU."""
    family = read_header(shipped_path(name_or_path))["config"].get("family")
    return load_local_weights(name_or_path) if family == FAMILY else load_flat_weights(name_or_path)


def _shapes(weights: LocalWeights, next_events: bool) -> dict[str, tuple[int, ...]]:
    width, out, n = weights.width, weights.readout_width, weights.layout.n_stabilisers
    joint, lines = weights.output == "joint4", weights.layout.n_lines
    shapes: dict[str, tuple[int, ...]] = {f"start.{b}": (n, width) for b in (["both"] if joint else ["x", "z", "both"])}
    for cell in ("cell", "last_cell"):
        for kind in range(2):
            if cell == "cell":  # the last cell is given them too
                shapes[f"{cell}.recurrent.{kind}"] = (3 * width, PLACES * width)
            shapes[f"{cell}.inputs.{kind}"] = (3 * width, PLACES * BITS)
        shapes |= {f"{cell}.bias_GSD": (3, n, width), f"{cell}.hidden_bias_SD": (n, width)}
    for kind in range(2):
        shapes |= {f"project.{kind}.weight": (out, 4 * (width + BITS)), f"project.{kind}.bias": (out,)}
    for layer in range(weights.readout_layers):
        shapes |= {f"network.{kind}.{layer}.weight": (out, out) for kind in ("ins", "outs")}
        shapes |= {f"network.{kind}.{layer}.bias": (out,) for kind in ("ins", "outs", "norms")}
        shapes[f"network.norms.{layer}.weight"] = (out,)
    if next_events:  # an aid in training, which nothing here reads
        shapes |= {"next_events.weight": (1, width), "next_events.bias": (1,)}
    if joint:
        shapes |= {"merge.weight": (out, 2 * out), "merge.bias": (out,)}
    for basis in ["both"] if joint else ["x", "z"]:
        channels = 4 if joint else 1
        shapes |= {f"heads.{basis}.weight": (lines * channels, out), f"heads.{basis}.bias": (lines * channels,)}
        shapes[f"line.{basis}"] = (lines, out)
    return shapes
