"""Families of networks by their dials: what a dial may be, and which tensors a network of these dials has.

The one declaration, for files and configurations alike: without PyTorch and without allocating anything, so that one
that cannot be is refused at once. The networks themselves are in `models`.
Axes: D width, S stabilisers, W readout width, L lines; `d` distance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, Literal, get_args

import numpy as np

from syndistill.circuits.layout import BASES
from syndistill.errors import SyndistillError

Shapes = dict[str, tuple[int, ...]]
BITS, PLACES = 2, 9
"""Of a local GRU: input bits of a stabiliser, and places of a 3 x 3 neighbourhood."""
MOST_LOGIT = 30.0
"""In a frame: exp of it and of its negative are float32 numbers with room to spare."""
MOST_FRAME = 1 - 1e-6
"""The surest frame whose log odds count: 14.5."""
OutputForm = Literal["two_channel", "joint4"]
OUTPUTS: tuple[OutputForm, ...] = get_args(OutputForm)

MOST_DISTANCE = 31
"""960 stabilisers: a transformer's table of pairs has 44 M numbers; AlphaQubit was trained up to 11."""
MOST_PARAMETERS = 100_000_000
"""0.4 GB in float32, 1.6 GB in training; AlphaQubit's largest has 8.4 M."""
_SIZE, _DEPTH = (1, 4096), (0, 64)  # each ten times AlphaQubit's and more; the product is for MOST_PARAMETERS
LIMITS: Mapping[str, tuple[int, int]] = {
    "distance": (3, MOST_DISTANCE),
    **dict.fromkeys(("width", "readout_width", "bias_width", "key_size", "conv_channels"), _SIZE),
    **dict.fromkeys(("readout_layers", "embedder_layers", "bias_layers"), _DEPTH),
    "layers": (1, _DEPTH[1]),
    "heads": (1, 64),
    "widening": (1, 64),
    "max_rounds": (1, 100_000),
    "agree_after": (0, 100),
}
"""Least and most of each number among the dials, whatever the family."""


@dataclass(frozen=True, kw_only=True)
class Dials(ABC):
    """What all families have. SyndistillError, naming the dial, for what no network can be or is too large."""

    distance: int
    output: OutputForm = "two_channel"
    turn_x: bool = False
    """Whether X experiments are read turned by 90 degrees, like Z ones: one filter to learn, not two."""
    family: str

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            kind = field.type if field.type in ("int", "bool") else "str"
            if type(value).__name__ != kind:
                raise SyndistillError(f"{name}={value!r} must be of type {kind}")
            least, most = LIMITS.get(name, (0, 1))
            if isinstance(value, int) and not least <= value <= most:
                raise SyndistillError(f"{name}={value} must be from {least} to {most}")
        self._check_together()

    def _check_together(self) -> None:
        if self.distance % 2 == 0:
            raise SyndistillError(f"distance {self.distance} is not an odd number >= 3; pick 3, 5, 7, ...")
        if self.output not in OUTPUTS:
            raise SyndistillError(f"output={self.output!r} is unknown; pick one of {', '.join(OUTPUTS)}")
        if self.n_parameters > MOST_PARAMETERS:
            raise SyndistillError(
                f"a {self.family} network of these dials has {self.n_parameters:,} parameters, of which "
                f"{MOST_PARAMETERS:,} are the most; lower widths or layers"
            )

    @property
    def n_stabilisers(self) -> int:
        return self.distance**2 - 1

    @property
    def joint(self) -> bool:
        return self.output == "joint4"

    @property
    def n_parameters(self) -> int:
        return sum(map(prod, self.shapes().values()))

    def _check_frame(self, frame_memory: bool) -> None:
        if frame_memory and self.joint:
            raise SyndistillError("frame_memory: a frame of two observables at once does not exist; take two_channel")

    def _line_frames(self, width: int) -> Shapes:
        """Of a frame for every line, in a network with a state of that width at each stabiliser."""
        found: Shapes = {f"frame_weight.{b}": (2, 4, width) for b in ("x", "z")}
        return found | {f"frame_bias.{b}": (self.distance**2,) for b in ("x", "z")}

    @abstractmethod
    def shapes(self) -> Shapes:
        """Of the state dict; all of it is float32."""

    def unread(self) -> Shapes:
        """Weights of input bits that a network of these dials does not read: of each a shape in which the last place of
        the last axis is that of such a bit. They are zeros."""
        return {}

    def check_values(self, tensors: Mapping[str, np.ndarray]) -> None:
        """SyndistillError where tensors of these shapes are no weights of a network of these dials."""
        for name, shape in self.unread().items():
            if tensors[name].reshape(shape)[..., -1].any():
                raise SyndistillError(f"{name} has weights of bits that its config says it does not read")


@dataclass(frozen=True, kw_only=True)
class TransformerDials(Dials):
    """Of the recurrent syndrome transformer."""

    family: Literal["transformer"] = "transformer"
    width: int = 64
    layers: int = 2
    heads: int = 4
    key_size: int = 32
    widening: int = 5
    conv_channels: int = 32
    embedder_layers: int = 2
    attention_bias: bool = True
    bias_width: int = 48
    bias_layers: int = 8
    readout_width: int = 48
    readout_layers: int = 4
    max_rounds: int = 25
    """Rounds with an embedding of their own; a longer experiment uses the last one."""
    agree_lines: bool = False
    """Whether the lines answer as one: their labels differ by final stabiliser values, which the shot shows, so that
    the mean of their logits, turned by those, is an answer to each. Not in the paper, whose lines answer alone."""
    frame_memory: bool = False
    """Whether every line keeps its logical frame beside the state (`models.frames`). Not in the paper."""

    def _check_together(self) -> None:
        self._check_frame(self.frame_memory)
        if self.widening * self.width % 2:
            raise SyndistillError(
                f"widening={self.widening} times width={self.width} is odd, but is halved; change one"
            )
        super()._check_together()

    def shapes(self) -> Shapes:
        d = self.width
        found: Shapes = {"turned_D": (d,)} if self.turn_x else {}
        found |= self._line_frames(d) if self.frame_memory else {}
        for name in ("embedder", "last_embedder"):
            found |= _embedder(name, self.n_stabilisers, d, self.embedder_layers)
        for layer in range(self.layers):
            found |= self._layer(f"layers.{layer}")
        if self.attention_bias:
            found |= {"bias.pairs": (self.layers, self.heads, 2, 2), "bias.diagonal": (self.layers, self.heads, 3)}
            found |= _dense("bias.embed", self.bias_width, 48)
            found |= _residual("bias.network", self.bias_width, self.bias_layers)
            found |= _dense("bias.project", self.layers * self.heads, self.bias_width)
        found |= _norm("next_events.0", d) | _dense("next_events.1", 1, d)
        return found | _line_readout(d, self.readout_width, self.readout_layers, self.max_rounds, self.joint)

    def _layer(self, name: str) -> Shapes:
        d, inner, wide = self.width, self.heads * self.key_size, self.widening * self.width
        found = _norm(f"{name}.attention.norm", d) | _norm(f"{name}.dense.norm", d)
        found |= _dense(f"{name}.attention.qkv", 3 * inner, d) | _dense(f"{name}.attention.out", d, inner)
        found |= _dense(f"{name}.dense.widen", wide, d) | _dense(f"{name}.dense.out", d, wide // 2)
        for i in range(3):
            found |= _norm(f"{name}.convolutions.norms.{i}", d)
            found |= _convolution(f"{name}.convolutions.convs.{i}", d, self.conv_channels)
            found |= _dense(f"{name}.convolutions.outs.{i}", d, self.conv_channels)
        return found


@dataclass(frozen=True, kw_only=True)
class GruDials(Dials):
    """Of the two families that run as compiled code."""

    width: int
    """Of the state: of all stabilisers together, or of each in a local GRU."""
    readout_width: int = 32
    readout_layers: int = 1
    next_events: bool = False
    """Whether it also predicts the next round's events: an aid in training, of no use afterwards."""
    frame_memory: bool = False
    """Whether it keeps the logical frame beside the GRU's state (see `FlatGru`, `LocalGru`)."""

    def _check_together(self) -> None:
        super()._check_together()
        self._check_frame(self.frame_memory)

    def _heads(self, out: int) -> Shapes:
        lines, found = self.distance, Shapes()
        for basis in ("both",) if self.joint else ("x", "z"):
            found |= _dense(f"heads.{basis}", lines * (4 if self.joint else 1), out)
        return found

    def _starts(self, *shape: int) -> Shapes:
        return {f"start.{basis}": shape for basis in (("both",) if self.joint else ("x", "z", "both"))}


@dataclass(frozen=True, kw_only=True)
class FlatGruDials(GruDials):
    family: Literal["flat_gru"] = "flat_gru"
    width: int = 64

    def shapes(self) -> Shapes:
        d, out, bits = self.width, self.readout_width, 2 * self.n_stabilisers
        found = self._starts(d) | self._heads(out) | _dense("decide.0", out, d + bits)
        found |= {"gru.weight_ih_l0": (3 * d, bits), "gru.weight_hh_l0": (3 * d, d)}
        found |= {"gru.bias_ih_l0": (3 * d,), "gru.bias_hh_l0": (3 * d,)}
        found |= _residual("decide.2", out, self.readout_layers)
        for basis in ("x", "z") if self.frame_memory else ():
            found |= _dense(f"frames.{basis}", 1, d)
        return found | (_dense("next_events", self.n_stabilisers, d) if self.next_events else {})


@dataclass(frozen=True, kw_only=True)
class LocalGruDials(GruDials):
    family: Literal["local_gru"] = "local_gru"
    width: int = 8
    events_alone: bool = False
    """Whether it reads detection events alone, not the running parities of the stabilisers beside them. Its weights of
    parities are zeros, so that whatever runs it needs to know nothing of this. With a frame memory every round of a
    long experiment then looks like every other: parities are 0 at first, and fair coins in the end."""
    agree_after: int = 0
    """With a frame memory: neighbouring lines' frames are drawn to each other wherever the checks between them have
    been quiet for so many rounds, which then say how the lines stand to each other; 0: never."""

    def _check_together(self) -> None:
        super()._check_together()
        if self.agree_after and not self.frame_memory:
            raise SyndistillError("agree_after is of frames; set frame_memory too, or leave it out")

    def shapes(self) -> Shapes:
        d, out, n = self.width, self.readout_width, self.n_stabilisers
        found = self._starts(n, d) | self._heads(out) | _residual("network", out, self.readout_layers)
        for kind in range(2):
            found[f"cell.recurrent.{kind}"] = (3 * d, PLACES * d)  # the last cell is given them too
            found |= {f"{cell}.inputs.{kind}": (3 * d, PLACES * BITS) for cell in ("cell", "last_cell")}
            found |= _dense(f"project.{kind}", out, 4 * (d + BITS))
        for cell in ("cell", "last_cell"):
            found |= {f"{cell}.bias_GSD": (3, n, d), f"{cell}.hidden_bias_SD": (n, d)}
        if self.joint:
            found |= _dense("merge", out, 2 * out)
        if self.next_events:
            found |= _dense("next_events", 1, d)
        found |= self._line_frames(d) if self.frame_memory else {}
        found |= {f"frame_agrees.{b}": (1,) for b in ("x", "z")} if self.agree_after else {}
        return found | {f"line.{b}": (self.distance, out) for b in (("both",) if self.joint else ("x", "z"))}

    def unread(self) -> Shapes:
        if not self.events_alone:
            return {}
        found: Shapes = {f"project.{kind}.weight": (-1, 4, self.width + BITS) for kind in range(2)}
        return found | {f"{cell}.inputs.{kind}": (-1, BITS) for cell in ("cell", "last_cell") for kind in range(2)}


FAMILIES: Mapping[str, type[Dials]] = {
    "transformer": TransformerDials,
    "flat_gru": FlatGruDials,
    "local_gru": LocalGruDials,
}


def dials_of(config: Mapping[str, Any]) -> Dials:
    """Of config["family"]. SyndistillError, naming the key, for an unknown one and as of `Dials`."""
    family = config.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise SyndistillError(f"network family {family!r} is unknown; pick one of {', '.join(FAMILIES)}")
    known = [field.name for field in fields(FAMILIES[family])]
    if unknown := sorted(config.keys() - set(known)):
        raise SyndistillError(f"key {unknown[0]!r} is unknown; those of {family} are {', '.join(known)}")
    if "distance" not in config:
        raise SyndistillError(f"the distance is missing; keys of {family} are {', '.join(known)}")
    return FAMILIES[family](**config)


def n_channels(output: str, basis: str) -> int:
    """C of a network of this output form on shots of a basis; SyndistillError where it has no answer for them."""
    if basis not in BASES:
        raise SyndistillError(f"basis {basis!r} is unknown; pick one of {', '.join(BASES)}")
    if output == "joint4" and basis != "both":
        raise SyndistillError(
            f"a joint4 network decodes two-observable shots, these are of basis {basis}; "
            "take a two_channel one for memory experiments"
        )
    return 4 if output == "joint4" else 2 if basis == "both" else 1


def _dense(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _residual(name: str, width: int, layers: int) -> Shapes:
    found = Shapes()
    for layer in range(layers):
        found |= _norm(f"{name}.norms.{layer}", width)
        for part in ("ins", "outs"):
            found |= _dense(f"{name}.{part}.{layer}", width, width)
    return found


def _convolution(name: str, width: int, channels: int) -> Shapes:
    """3 x 3 on the grid of stabilisers."""
    shapes: Shapes = {f"{name}.grid.padding_D": (width,), f"{name}.convolution.bias": (channels,)}
    return shapes | {f"{name}.convolution.weight": (channels, width, 3, 3)}


def _embedder(name: str, n_stabilisers: int, width: int, layers: int) -> Shapes:
    found: Shapes = {f"{name}.{what}_D": (width,) for what in ("event", "measurement", "undefined")}
    return found | {f"{name}.index_SD": (n_stabilisers, width)} | _residual(f"{name}.network", width, layers)


def _line_readout(width: int, out: int, layers: int, max_rounds: int, joint: bool) -> Shapes:
    name = "line_readout"
    found: Shapes = {f"{name}.grid.padding_D": (width,), f"{name}.convolution.weight": (width, width, 2, 2)}
    found |= {f"{name}.convolution.bias": (width,), f"{name}.rounds.weight": (max_rounds, out)}
    found |= {f"{name}.basis.weight": (2, out)} | _norm(f"{name}.norm", width) | _dense(f"{name}.project", out, width)
    if joint:
        found |= _dense(f"{name}.merge", out, 2 * out)
    return found | _residual(f"{name}.network", out, layers) | _dense(f"{name}.logit", 4 if joint else 1, out)
