"""Student family: one GRU over the whole syndrome, each weight used once a round (fewest operations per shot).

Axes: B shots, R measured rounds, K ends, S stabilisers, D width, I = 2S input bits, W readout width, L lines,
C logit channels; N any number of (shot, end) pairs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from syndistill.circuits.layout import BASES, Layout
from syndistill.models.blocks import ResidualDense
from syndistill.models.contract import (
    Outputs,
    State,
    TurnableConfig,
    TurnableNetwork,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.sampling.shots import Shots


class FlatGruConfig(TurnableConfig):
    """Dials of the flat GRU."""

    family: Literal["flat_gru"] = "flat_gru"
    width: int = Field(64, gt=0)
    readout_width: int = Field(32, gt=0)
    readout_layers: int = Field(1, ge=0)
    next_events: bool = False
    """Whether it also predicts the next round's events: an aid in training, of no use afterwards."""


class FlatGru(TurnableNetwork):
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

    def init_state(self, batch: int, basis: str) -> State:
        self.n_channels(basis)
        start_D = self.start[basis]
        empty_BS = torch.zeros(batch, self.layout.n_stabilisers, dtype=torch.uint8, device=start_D.device)
        return State(basis, 0, start_D.to(working_dtype(start_D.device)).expand(batch, -1), empty_BS, empty_BS)

    def step(self, state: State, events_BS: torch.Tensor) -> State:
        if state.rounds_done == 0:
            events_BS = events_BS * self.defined_S(state.basis)
        events_BS = self.framed(events_BS, state.basis)
        parity_BS = state.parity_BS ^ events_BS
        _, memory_1BD = self.gru(self._bits(events_BS, parity_BS)[:, None], state.memory_BX[None].contiguous())
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=memory_1BD[0],
            parity_BS=parity_BS,
            previous_BS=events_BS,
        )

    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        last_BS = self.framed(last_BS * self.defined_S(state.basis), state.basis)
        return self._decide(state.memory_BX, last_BS, state.parity_BS ^ last_BS, state.basis)

    def forward(self, shots: Shots, want_signals: Collection[str] = ()) -> Outputs:
        self.check_signals(want_signals)
        shots = self.framed_shots(defined_only(shots))
        parity_BRS, _, last_parity_BKS, _ = event_history(shots)
        start_BD = self.init_state(len(shots), shots.basis).memory_BX
        states_BRD, _ = self.gru(self._bits(shots.events_BRS, parity_BRS), start_BD[None].contiguous())
        ended_BKD = states_BRD[:, [end - 1 for end in shots.ends]]
        logits_NLC = self._decide(
            ended_BKD.flatten(0, 1), shots.last_BKS.flatten(0, 1), last_parity_BKS.flatten(0, 1), shots.basis
        )
        next_BRS = None if self.next_events is None else self.unframed(self.next_events(states_BRD), shots.basis)
        signals = {"temporal": states_BRD} if "temporal" in want_signals else {}
        return Outputs(logits_NLC.unflatten(0, (len(shots), len(shots.ends))), next_BRS, signals)

    def multiply_adds(self, rounds: int) -> float:
        c, s, lines = self.config, self.layout.n_stabilisers, self.layout.n_lines
        core = 3 * c.width * (2 * s + c.width)
        channels = 4 if c.output == "joint4" else 1
        decide = c.readout_width * (c.width + 2 * s + 2 * c.readout_layers * c.readout_width)
        return core + (decide + c.readout_width * lines * channels) / rounds

    def _bits(self, events: torch.Tensor, parity: torch.Tensor) -> torch.Tensor:
        return torch.cat([events, parity], -1).to(working_dtype(events.device))

    def _decide(
        self, state_ND: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        """logits_NLC from the state, the last slice and the final parities."""
        hidden_NW = self.decide(torch.cat([state_ND, self._bits(last_NS, parity_NS)], -1))
        if self.config.output == "joint4":
            logits_NLC: torch.Tensor = self.heads["both"](hidden_NW).unflatten(-1, (-1, 4))
            return logits_NLC
        bases = ("x", "z") if basis == "both" else (basis,)
        return torch.stack([self.heads[b](hidden_NW) for b in bases], -1)
