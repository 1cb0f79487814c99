"""What every decoding network is, whatever its inside.

Axes: B shots, R measured rounds, K ends, S stabilisers, L lines, C logit channels, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels
from syndistill.sampling.shots import Shots


@dataclass(frozen=True, eq=False)
class State:
    """What crosses a round boundary. memory_BX: the network's own (any shape after B)."""

    basis: str
    rounds_done: int
    memory_BX: torch.Tensor
    parity_BS: torch.Tensor
    """Running XOR of the events so far, in the network's own order: stands in for the measurement (uint8)."""
    previous_BS: torch.Tensor
    """Events of the previous slice (uint8)."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """logits_BKLC for every end and line; next_BRS: logits of the next round's events, or None; signals by name.

    on_the_way: the parts (B, S, D) that the wanted "spatial" and "temporal" are stacked of, a round each, in the
    network's own order of stabilisers: the logits depend on these very tensors, so that a gradient can be taken with
    respect to them. Of families that `shows_the_way`.
    """

    logits_BKLC: torch.Tensor
    next_BRS: torch.Tensor | None = None
    signals: dict[str, torch.Tensor] = field(default_factory=dict)
    on_the_way: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    state: State | None = None
    """After the last round."""
    turns_BRFC: torch.Tensor | None = None
    """What each round multiplied the logical frames by, F of one basis: of all lines, or of them together (F = 1)."""
    alone_BKLC: torch.Tensor | None = None
    """What each line says by itself, where `lines_agree`: logits_BKLC are the mean of these, turned to each line."""


class DecoderNetwork(nn.Module, ABC):
    """A recurrent decoder of one distance: one step a round, a readout that answers "if it ended here".

    C is 1 for `two_channel` on basis x or z, 2 on "both" (x, z), and 4 for `joint4` (I, X, Z, Y).
    `forward` gives for every end what `init_state`, `step` and `readout` give round by round.
    """

    config: Any  # Dials of the network's own family
    layout: Layout
    signals_offered: ClassVar[frozenset[str]]
    """The names that `forward` can be asked for (some families number their layers: "spatial.0").

    spatial: hidden states inside a round, after its mixing; temporal: the state that crosses the round boundary,
    another tensor; ends: what spatial is, in the pass over the last slice, (B, K, S, D). The first two are
    (B, R, S, D), or (B, R, D) where a family keeps no state per stabiliser.
    """
    shows_the_way: ClassVar[bool] = False
    """Whether `forward` gives `Outputs.on_the_way`."""
    lines_agree: bool = False
    """Whether all lines have one answer, the mean of what each says by itself."""

    @abstractmethod
    def init_state(self, batch: int, basis: str) -> State:
        """The state before the first round."""

    @abstractmethod
    def step(self, state: State, events_BS: torch.Tensor) -> State:
        """Take in one measured round's events (uint8, 0 where undefined)."""

    @abstractmethod
    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        """logits_BLC, given the slice computed from the data readout."""

    @abstractmethod
    def forward(self, shots: Shots, want_signals: Collection[str] = (), begin: State | None = None) -> Outputs:
        """Logits of every end and line; the named signals stacked over rounds. begin: the state after the rounds before
        these, where shots are a part of a longer experiment that is not its first."""

    @abstractmethod
    def multiply_adds(self, rounds: int) -> float:
        """Multiply-adds of one shot, per round, with its one readout after `rounds` rounds.

        What depends on the weights alone (tables, matrices, the bias from geometry) can be made once and is left out.
        """

    def state_of(
        self, basis: str, rounds_done: int, temporal: torch.Tensor, parity_BS: torch.Tensor, previous_BS: torch.Tensor
    ) -> State:
        """The state whose signal "temporal" is this, in the network's own order; a frame of its own is known."""
        return State(basis, rounds_done, temporal, parity_BS, previous_BS)

    @property
    def keeps_frame(self) -> bool:
        """Whether the logical frame is a number of its own in `State.memory_BX`, so that `with_known_frame` can set
        it."""
        return False

    def with_known_frame(self, state: State, flips_BLO: torch.Tensor | None = None) -> State:
        """The same state with a frame that is known: 1 for each line's observable that is flipped (uint8, as
        `Shots.frames_BKLO`); None: no flip so far is known of, the frame begins anew."""
        raise SyndistillError(f"a {self.config.family} network of these dials keeps no frame of its own")

    def compile_blocks(self) -> None:
        """Compile in place what pays; the state dict's keys stay. Families without such blocks do nothing."""

    def compile_if_possible(self) -> bool:
        """`compile_blocks`; where it can't be done here the network is slower, and that is all. Whether it was done."""
        try:
            self.compile_blocks()
        except SyndistillError:
            return False
        return True

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def defined_S(self, basis: str) -> torch.Tensor:
        """Which stabilisers the first and the last slice of `basis` define, bool (S,) on the network's device."""
        return torch.from_numpy(self.layout.on_basis_S(basis)).to(next(self.parameters()).device)

    def offers_signal(self, name: str) -> bool:
        return name in self.signals_offered

    def check_signals(self, wanted: Collection[str]) -> None:
        if unknown := sorted(name for name in set(wanted) if not self.offers_signal(name)):
            raise SyndistillError(
                f"a {self.config.family} network has no signal {', '.join(unknown)}; "
                f"it offers {', '.join(sorted(self.signals_offered))}"
            )

    def first_state(self, shots: Shots, begin: State | None) -> State:
        """The state that the first of these rounds finds. SyndistillError where `begin` is not of the rounds before."""
        if begin is None and not shots.first_round:
            return self.init_state(len(shots), shots.basis)
        known = None if begin is None else (begin.rounds_done, begin.basis, len(begin.memory_BX))
        if known != (shots.first_round, shots.basis, len(shots)):
            raise SyndistillError(
                f"{len(shots)} shots of basis {shots.basis} from round {shots.first_round} on need the state of these "
                f"shots after the rounds before, not {known}"
            )
        assert begin is not None
        return begin

    def n_channels(self, basis: str) -> int:
        """C for shots of this basis."""
        return n_channels(self.config.output, basis)


class TurnableNetwork(DecoderNetwork):
    """Turns slices where they come in, and what it says of stabilisers where it goes out."""

    def read_as(self, basis: str) -> str:
        """The basis whose experiments these shots look like inside."""
        return "z" if self.config.turn_x and basis == "x" else basis

    def turned(self, events: torch.Tensor, basis: str) -> torch.Tensor:
        """Slices (*, S) as the network sees them."""
        if self.read_as(basis) == basis:
            return events
        return events[..., torch.from_numpy(self.layout.turned_S).to(events.device)]

    def turned_shots(self, shots: Shots) -> Shots:
        """The same for whole shots; their basis stays."""
        if self.read_as(shots.basis) == shots.basis:
            return shots
        events_BRS, last_BKS = (self.turned(x, shots.basis) for x in (shots.events_BRS, shots.last_BKS))
        return replace(shots, events_BRS=events_BRS, last_BKS=last_BKS)

    def turned_back(self, values: torch.Tensor, basis: str, axis: int = -1) -> torch.Tensor:
        """What it says of the stabilisers along `axis`, in the layout's order."""
        if self.read_as(basis) == basis:
            return values
        return values.index_select(axis, torch.from_numpy(self.layout.turned_back_S).to(values.device))


def working_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 inside such an autocast region, so that the residual stream needs no casts; else float32."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.get_default_dtype()


def defined_only(shots: Shots) -> Shots:
    """The same shots with 0 in every undefined entry, whatever stood there: hardware reads random bits."""
    if shots.basis == "both":
        return shots
    defined_S = torch.from_numpy(shots.layout.on_basis_S(shots.basis)).to(shots.events_BRS.device)
    events_BRS = shots.events_BRS
    if not shots.first_round:
        events_BRS = torch.cat([events_BRS[:, :1] * defined_S, events_BRS[:, 1:]], 1)
    return replace(shots, events_BRS=events_BRS, last_BKS=shots.last_BKS * defined_S)


def event_history(
    shots: Shots, begin: State | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(parity_BRS, previous_BRS, last_parity_BKS, last_previous_BKS), all uint8.

    parity is the running XOR up to and including a slice; previous the events of the slice before it. begin: the state
    before the first slice, where it is not the experiment's first; slices as the network sees them.
    """
    events_BRS = shots.events_BRS
    parity_BRS = (events_BRS.cumsum(1) % 2).to(torch.uint8)
    before_BS = torch.zeros_like(events_BRS[:, 0])
    if begin is not None:
        parity_BRS, before_BS = parity_BRS ^ begin.parity_BS[:, None], begin.previous_BS
    previous_BRS = torch.cat([before_BS[:, None], events_BRS[:, :-1]], 1)
    before_last = torch.tensor([end - 1 for end in shots.ends], device=events_BRS.device)
    last_parity_BKS = parity_BRS[:, before_last] ^ shots.last_BKS
    return parity_BRS, previous_BRS, last_parity_BKS, events_BRS[:, before_last]
