"""Student family: one GRU over the whole syndrome, each weight used once a round (fewest operations per shot).

Axes: B shots, R measured rounds, K ends, S stabilisers, D width, I = 2S input bits, W readout width, L lines,
C logit channels; N any number of (shot, end) pairs.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from syndistill.circuits.layout import BASES, Layout
from syndistill.models.blocks import ResidualDense
from syndistill.models.contract import TurnableConfig
from syndistill.models.gru_network import GruNetwork, bits_of


class FlatGruConfig(TurnableConfig):
    """Dials of the flat GRU."""

    family: Literal["flat_gru"] = "flat_gru"
    width: int = 64
    readout_width: int = 32
    readout_layers: int = 1
    next_events: bool = False
    """Whether it also predicts the next round's events: an aid in training, of no use afterwards."""


class FlatGru(GruNetwork):
    """Input of a round: events and running parity of all stabilisers, 0 where undefined.

    The basis is told through a learned initial state and an output head for each.
    """

    config: FlatGruConfig
    signals_offered: ClassVar[frozenset[str]] = frozenset({"temporal"})

    def __init__(self, config: FlatGruConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = layout = Layout(config.distance)
        n_bits = 2 * layout.n_stabilisers
        joint = config.output == "joint4"
        bases = ("both",) if joint else BASES
        self.start = nn.ParameterDict({basis: nn.Parameter(torch.randn(config.width) * 0.1) for basis in bases})
        self.gru = nn.GRU(n_bits, config.width, batch_first=True)
        self.decide = nn.Sequential(
            nn.Linear(config.width + n_bits, config.readout_width),
            nn.GELU(),
            ResidualDense(config.readout_width, config.readout_layers),
        )
        heads = {"both": 4 * layout.n_lines} if joint else {"x": layout.n_lines, "z": layout.n_lines}
        self.heads = nn.ModuleDict({basis: nn.Linear(config.readout_width, n) for basis, n in heads.items()})
        self.next_events = nn.Linear(config.width, layout.n_stabilisers) if config.next_events else None

    def _rounds(self, bits_BRI: torch.Tensor, memory_BX: torch.Tensor) -> torch.Tensor:
        states_BRD: torch.Tensor = self.gru(bits_BRI, memory_BX[None].contiguous())[0]
        return states_BRD

    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        return None if self.next_events is None else self.next_events(states_BRX)

    def multiply_adds(self, rounds: int) -> float:
        c, s, lines = self.config, self.layout.n_stabilisers, self.layout.n_lines
        core = 3 * c.width * (2 * s + c.width)
        channels = 4 if c.output == "joint4" else 1
        decide = c.readout_width * (c.width + 2 * s + 2 * c.readout_layers * c.readout_width)
        return core + (decide + c.readout_width * lines * channels) / rounds

    def _decide(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        hidden_NW = self.decide(torch.cat([state_NX, bits_of(last_NS, parity_NS)], -1))
        if self.config.output == "joint4":
            logits_NLC: torch.Tensor = self.heads["both"](hidden_NW).unflatten(-1, (-1, 4))
            return logits_NLC
        bases = ("x", "z") if basis == "both" else (basis,)
        return torch.stack([self.heads[b](hidden_NW) for b in bases], -1)
