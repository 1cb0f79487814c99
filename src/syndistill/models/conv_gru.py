"""Student family: a convolutional GRU on the grid of stabilisers, its weights shared by all of them.

Axes: B shots, R measured rounds, K ends, S stabilisers, D width, L lines, C logit channels; N any number of
(shot, end) pairs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.models.contract import (
    DecoderNetwork,
    NetworkConfig,
    Outputs,
    State,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.models.embedder import StabiliserEmbedder, look_up
from syndistill.models.grid import PreparedConvolution, StabiliserConvolution
from syndistill.models.readout import LineReadout
from syndistill.sampling.shots import Shots


class ConvGruConfig(NetworkConfig):
    """Dials of the convolutional GRU."""

    family: Literal["conv_gru"] = "conv_gru"
    width: int = 20
    embedder_layers: int = 1
    readout_width: int = 24
    readout_layers: int = 1
    max_rounds: int = 25
    """Rounds with an embedding of their own; a longer experiment uses the last one."""
    next_events: bool = False
    """Whether it also predicts the next round's events: an aid in training, of no use afterwards."""


class ConvGru(DecoderNetwork):
    """With h the state and e the embedded slice: gates from conv(h + e), candidate from conv(reset * h + e).

    It knows boundaries by the learned vectors of empty cells, zeros beyond the grid, and an embedding of each
    stabiliser. The last slice passes through the same core, then the line readout.
    """

    config: ConvGruConfig
    signals_offered: ClassVar[frozenset[str]] = frozenset({"spatial", "temporal"})
    shows_the_way: ClassVar[bool] = True

    def __init__(self, config: ConvGruConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = layout = Layout(config.distance)
        self.embedder = StabiliserEmbedder(layout.n_stabilisers, config.width, config.embedder_layers)
        self.last_embedder = StabiliserEmbedder(layout.n_stabilisers, config.width, config.embedder_layers)
        self.gates = StabiliserConvolution(layout, config.width, 2 * config.width, dilation=1)
        self.candidate = StabiliserConvolution(layout, config.width, config.width, dilation=1)
        self.line_readout = LineReadout(
            layout, config.width, config.readout_width, config.readout_layers, config.max_rounds, config.output
        )
        self.next_events = nn.Linear(config.width, 1) if config.next_events else None

    def init_state(self, batch: int, basis: str) -> State:
        self.n_channels(basis)
        device = self.embedder.index_SD.device
        memory_BSD = torch.zeros(
            batch, self.layout.n_stabilisers, self.config.width, device=device, dtype=working_dtype(device)
        )
        empty_BS = torch.zeros(batch, self.layout.n_stabilisers, dtype=torch.uint8, device=device)
        return State(basis, 0, memory_BSD, empty_BS, empty_BS)

    def step(self, state: State, events_BS: torch.Tensor) -> State:
        defined_S = self.defined_S(state.basis if state.rounds_done == 0 else "both")
        events_BS = events_BS * defined_S
        parity_BS = state.parity_BS ^ events_BS
        slice_BSD = look_up(self._table(self.embedder), events_BS, parity_BS, defined_S)
        memory_BSD, _ = self._update(state.memory_BX, slice_BSD, self._prepared())
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=memory_BSD,
            parity_BS=parity_BS,
            previous_BS=events_BS,
        )

    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        last_BS = last_BS * self.defined_S(state.basis)
        rounds_B = torch.full((len(last_BS),), state.rounds_done, device=last_BS.device)
        return self._decide(
            state.memory_BX, last_BS, state.parity_BS ^ last_BS, rounds_B, state.basis, self._prepared()
        )

    def forward(self, shots: Shots, want_signals: Collection[str] = ()) -> Outputs:
        self.check_signals(want_signals)
        shots = defined_only(shots)
        parity_BRS, _, last_parity_BKS, _ = event_history(shots)
        slices_BRSD = self._embed_rounds(shots, parity_BRS)
        prepared = self._prepared()
        memory_BSD = self.init_state(len(shots), shots.basis).memory_BX
        states, spatial = [], []
        for slice_BSD in slices_BRSD.unbind(1):
            memory_BSD, candidate_BSD = self._update(memory_BSD, slice_BSD, prepared)
            states.append(memory_BSD)
            spatial.append(candidate_BSD)
        states_BRSD = torch.stack(states, 1)
        logits_NLC = self._decide(
            states_BRSD[:, [end - 1 for end in shots.ends]].flatten(0, 1),
            shots.last_BKS.flatten(0, 1),
            last_parity_BKS.flatten(0, 1),
            torch.tensor(shots.ends, device=memory_BSD.device).repeat(len(shots)),
            shots.basis,
            prepared,
        )
        next_BRS = None if self.next_events is None else self.next_events(states_BRSD).squeeze(-1)
        signals = {}
        if "spatial" in want_signals:
            signals["spatial"] = torch.stack(spatial, 1)
        if "temporal" in want_signals:
            signals["temporal"] = states_BRSD
        logits_BKLC = logits_NLC.unflatten(0, (len(shots), len(shots.ends)))
        on_the_way = {"spatial": spatial, "temporal": states}
        return Outputs(logits_BKLC, next_BRS, signals, {n: x for n, x in on_the_way.items() if n in want_signals})

    def multiply_adds(self, rounds: int) -> float:
        core = self.gates.multiply_adds() + self.candidate.multiply_adds()
        return core + (core + self.line_readout.multiply_adds()) / rounds

    def _embed_rounds(self, shots: Shots, parity_BRS: torch.Tensor) -> torch.Tensor:
        table = self._table(self.embedder)
        first, rest = (
            look_up(table, shots.events_BRS[:, part], parity_BRS[:, part], self.defined_S(basis))
            for part, basis in ((slice(0, 1), shots.basis), (slice(1, None), "both"))
        )
        return torch.cat([first, rest], 1)

    def _update(
        self, memory_BSD: torch.Tensor, slice_BSD: torch.Tensor, prepared: list[PreparedConvolution]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The new state and the candidate's features before its tanh."""
        of_gates, of_candidate = prepared
        gates_BSx = torch.sigmoid(self.gates(memory_BSD + slice_BSD, of_gates))
        update_BSD, reset_BSD = gates_BSx.to(memory_BSD.dtype).chunk(2, -1)
        candidate_BSD = self.candidate(reset_BSD * memory_BSD + slice_BSD, of_candidate).to(memory_BSD.dtype)
        return torch.lerp(memory_BSD, torch.tanh(candidate_BSD), update_BSD), candidate_BSD

    def _decide(
        self,
        memory_NSD: torch.Tensor,
        last_NS: torch.Tensor,
        parity_NS: torch.Tensor,
        rounds_N: torch.Tensor,
        basis: str,
        prepared: list[PreparedConvolution],
    ) -> torch.Tensor:
        """logits_NLC: one more pass of the core, over the last slice, then the line readout."""
        last_NSD = look_up(self._table(self.last_embedder), last_NS, parity_NS, self.defined_S(basis))
        memory_NSD, _ = self._update(memory_NSD, last_NSD, prepared)
        logits_NLC: torch.Tensor = self.line_readout(memory_NSD, rounds_N, basis)
        return logits_NLC

    def _table(self, embedder: StabiliserEmbedder) -> torch.Tensor:
        return embedder.table_SVD().to(working_dtype(embedder.index_SD.device))

    def _prepared(self) -> list[PreparedConvolution]:
        return [self.gates.prepared(), self.candidate.prepared()]
