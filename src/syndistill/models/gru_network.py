"""What the flat and the local GRU have in common: events and parities in, states by a GRU, answers at the ends.

Axes: B shots, R measured rounds, K ends, S stabilisers, I = 2 S input bits, X a state (any shape), N any number of
(shot, end) pairs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn

from syndistill.models.contract import (
    Outputs,
    State,
    TurnableNetwork,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.sampling.shots import Shots


class GruNetwork(TurnableNetwork):
    """Of a family whose state is moved on by a GRU that reads events and running parities of all stabilisers, 0 where
    undefined; a family says what the GRU, the readout and the prediction of events are."""

    start: nn.ParameterDict
    """The state before the first round, by basis."""

    @abstractmethod
    def _rounds(self, bits_BRI: torch.Tensor, memory_BX: torch.Tensor) -> torch.Tensor:
        """The states after each round, (B, R, X)."""

    @abstractmethod
    def _decide(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        """logits_NLC from the state, the last slice and the final parities."""

    @abstractmethod
    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        """next_BRS as the network sees stabilisers; None where it does not predict events."""

    def _temporal(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        return states_BRX

    def init_state(self, batch: int, basis: str) -> State:
        self.n_channels(basis)
        start_X = self.start[basis]
        empty_BS = torch.zeros(batch, self.layout.n_stabilisers, dtype=torch.uint8, device=start_X.device)
        memory_BX = start_X.to(working_dtype(start_X.device)).expand(batch, *start_X.shape)
        return State(basis, 0, memory_BX, empty_BS, empty_BS)

    def step(self, state: State, events_BS: torch.Tensor) -> State:
        if state.rounds_done == 0:
            events_BS = events_BS * self.defined_S(state.basis)
        events_BS = self.framed(events_BS, state.basis)
        parity_BS = state.parity_BS ^ events_BS
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=self._rounds(bits_of(events_BS, parity_BS)[:, None], state.memory_BX)[:, 0],
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
        start_BX = self.init_state(len(shots), shots.basis).memory_BX
        states_BRX = self._rounds(bits_of(shots.events_BRS, parity_BRS), start_BX)
        ended_NX = states_BRX[:, [end - 1 for end in shots.ends]].flatten(0, 1)
        last_NS, parity_NS = shots.last_BKS.flatten(0, 1), last_parity_BKS.flatten(0, 1)
        logits_NLC = self._decide(ended_NX, last_NS, parity_NS, shots.basis)
        predicted_BRS = self._predicted(states_BRX)
        next_BRS = None if predicted_BRS is None else self.unframed(predicted_BRS, shots.basis)
        signals = {"temporal": self._temporal(states_BRX, shots.basis)} if "temporal" in want_signals else {}
        return Outputs(logits_NLC.unflatten(0, (len(shots), len(shots.ends))), next_BRS, signals)


def bits_of(events: torch.Tensor, parity: torch.Tensor) -> torch.Tensor:
    """Events, then parities (*, 2 S)."""
    return torch.cat([events, parity], -1).to(working_dtype(events.device))
