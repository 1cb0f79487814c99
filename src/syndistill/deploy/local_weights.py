"""The local GRU's weights as numpy arrays, and the one way to load what has compiled code, without PyTorch.

Axes: D width of a stabiliser's state, S stabilisers, W readout width, L lines, C logit channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from syndistill.deploy.flat_weights import COMPILED, FlatWeights, NetworkWeights, WrittenOut, weights_of
from syndistill.errors import SyndistillError
from syndistill.files.families import BITS, PLACES
from syndistill.files.network_file import read_network


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

        def blocks(names: str, size: int) -> Any:
            placed = [t[f"{names}.{i}"].reshape(3, d, PLACES, size).transpose(2, 0, 1, 3) for i in range(2)]
            stacked = np.concatenate([*placed, np.zeros_like(placed[0][:1])])
            return stacked[layout.blocks_SS]

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


def load_compilable(name_or_path: str | Path) -> Compilable:
    """A flat or local GRU by shipped name or by path. SyndistillError as of `files.network_file.read_network`,
    and for a family without compiled code."""
    file = read_network(name_or_path)
    if file.dials.family not in COMPILED:
        raise SyndistillError(
            f"{name_or_path} is of family {file.dials.family}; only {' and '.join(COMPILED)} run without PyTorch"
        )
    return weights_of(file, LocalWeights) if file.dials.family == "local_gru" else weights_of(file, FlatWeights)
