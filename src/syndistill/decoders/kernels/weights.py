"""The weights of flat and local GRUs as numpy arrays, and the one way to load what has compiled code; without PyTorch.

Axes: D width (of a stabiliser's state, where it is local), S stabilisers, W readout width, L lines, C logit channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout, answered
from syndistill.errors import SyndistillError
from syndistill.files.families import BITS, PLACES, Dials, GruDials, LocalGruDials
from syndistill.files.network_file import Arrays, NetworkFile, read_network

COMPILED = ("flat_gru", "local_gru")
"""Families that run without PyTorch."""


class WrittenOut(NamedTuple):
    """A GRU cell over the whole syndrome as nn.GRU has it: inputs (3 D, 2 S), recurrent (3 D, D), two biases (3 D)."""

    inputs: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    bias: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkWeights(ABC):
    """One network: its dials, its tensors by the names of its state dict, the file's metadata, the weights' hash."""

    dials: GruDials
    tensors: Arrays
    metadata: Mapping[str, Any]
    sha256: str

    @property
    def distance(self) -> int:
        return self.dials.distance

    @property
    def output(self) -> str:
        return self.dials.output

    @property
    def width(self) -> int:
        return self.dials.width

    @property
    def readout_width(self) -> int:
        return self.dials.readout_width

    @property
    def readout_layers(self) -> int:
        return self.dials.readout_layers

    @property
    def turn_x(self) -> bool:
        return self.dials.turn_x

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.distance)

    @property
    def n_parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def keeps_frame(self) -> bool:
        return self.dials.frame_memory

    @abstractmethod
    def n_frames(self, basis: str) -> int:
        """Logical frames that shots of `basis` have, numbers behind the GRU's states."""

    @property
    def n_states(self) -> int:
        """Of the GRU."""
        return next(tensor.size for name, tensor in self.tensors.items() if name.startswith("start."))

    @abstractmethod
    def factors(self, basis: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights (N, all states) and biases (N,) of the factors of the frames of one basis."""

    def n_counted(self, basis: str) -> int:
        """Numbers of quiet rounds behind the frames."""
        return 0

    def start(self, basis: str) -> NDArray[np.float32]:
        """The whole state before the first round."""
        behind = [np.ones(self.n_frames(basis), np.float32), np.zeros(self.n_counted(basis), np.float32)]
        return np.concatenate([self.tensors[f"start.{basis}"].ravel(), *behind])


Weights = TypeVar("Weights", bound=NetworkWeights)


def weights_of(file: NetworkFile, kind: type[Weights]) -> Weights:
    assert isinstance(file.dials, GruDials)
    return kind(file.dials, file.tensors, file.metadata, file.sha256)


class FlatWeights(NetworkWeights):
    """One flat GRU."""

    def written_out(self, cell: str, basis: str) -> WrittenOut:
        """Of its one `cell`, for the layout's order of inputs."""
        tensors = self.reading(basis).tensors
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return WrittenOut(*(tensors[f"gru.{name}"] for name in names))

    def reading(self, basis: str) -> FlatWeights:
        """The same network for shots of one basis, its inputs in the layout's order whether or not it turns them."""
        if not (self.turn_x and basis == "x"):
            return self
        place_S = self.layout.turned_back_S
        place_I = np.concatenate([place_S, self.layout.n_stabilisers + place_S])
        first, width = self.tensors["decide.0.weight"], self.width
        turned = {
            "gru.weight_ih_l0": self.tensors["gru.weight_ih_l0"][:, place_I],
            "decide.0.weight": np.concatenate([first[:, :width], first[:, width:][:, place_I]], 1),
        }
        return replace(self, dials=replace(self.dials, turn_x=False), tensors={**self.tensors, **turned})

    def n_frames(self, basis: str) -> int:
        return len(answered(basis)) if self.keeps_frame else 0

    def factors(self, basis: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.tensors[f"frames.{basis}.weight"], self.tensors[f"frames.{basis}.bias"]

    def heads(self, basis: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights (O, W) and biases (O,) that answer for line 0; O is one for x or z, two for both, four for joint4."""
        if self.output == "joint4":
            return self.tensors["heads.both.weight"][:4], self.tensors["heads.both.bias"][:4]
        weights, biases = (
            np.concatenate([self.tensors[f"heads.{b}.{of}"][:1] for b in answered(basis)]) for of in ("weight", "bias")
        )
        return weights, biases


def runs_compiled(dials: Dials) -> bool:
    """Whether a network of these dials has compiled code (for x and z memories; a flat GRU for any shots)."""
    return dials.family in COMPILED and (dials.family == "flat_gru" or not dials.joint)


class QubitKinds(NamedTuple):
    """Data qubits of even and of odd row + column, by their corners (Q', 4), and where each qubit is among the two."""

    corners: tuple[NDArray[np.int64], NDArray[np.int64]]
    place_Q: NDArray[np.int64]


class LocalWeights(NetworkWeights):
    """One local GRU."""

    def read_as(self, basis: str) -> str:
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
        if self.read_as(basis) != basis:
            inputs = inputs[:, np.concatenate([layout.turned_back_S, n + layout.turned_back_S])]
        hidden_bias = np.concatenate([np.zeros(2 * n * d, np.float32), t[f"{cell}.hidden_bias_SD"].ravel()])
        return WrittenOut(inputs, recurrent, t[f"{cell}.bias_GSD"].ravel(), hidden_bias)

    def n_frames(self, basis: str) -> int:
        return self.layout.n_lines * len(answered(basis)) if self.keeps_frame else 0

    @property
    def agree_after(self) -> int:
        assert isinstance(self.dials, LocalGruDials)
        return self.dials.agree_after

    def n_counted(self, basis: str) -> int:
        return (self.layout.n_lines - 1) * len(answered(basis)) if self.agree_after else 0

    def share(self, basis: str) -> float:
        """How far frames that agree are drawn to each other."""
        return float(1 / (1 + np.exp(-self.tensors[f"frame_agrees.{basis}"].astype(np.float64)[0])))

    def factors(self, basis: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of data qubits by row and column: a line has the product of its own."""
        kinds, weight_24D = self.qubit_kinds(), self.tensors[f"frame_weight.{basis}"]
        written_QSD = np.zeros((len(kinds.place_Q), self.layout.n_stabilisers + 1, self.width), np.float32)
        for q, corners_4 in enumerate(self.layout.corners_Q4):
            written_QSD[q, corners_4] = weight_24D[int(kinds.place_Q[q] >= len(kinds.corners[0]))]
        known_QX = written_QSD[:, :-1].reshape(len(written_QSD), -1)  # the last is a corner where no stabiliser is
        return known_QX, self.tensors[f"frame_bias.{basis}"][kinds.place_Q]

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
            f"{name_or_path} is of family {file.dials.family}; only {' and '.join(COMPILED)} run without PyTorch: "
            "syndistill evaluate runs the others, and decoders.torch_engine.TorchEngine in Python"
        )
    return weights_of(file, LocalWeights) if file.dials.family == "local_gru" else weights_of(file, FlatWeights)
