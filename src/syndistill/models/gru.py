"""Student families that a GRU moves on: events and parities in, states by a GRU, answers at the ends.

flat_gru: one GRU over the whole syndrome, each weight used once a round (fewest operations per shot). local_gru: a GRU
whose state sits at the stabilisers and hears its neighbours alone; all share their weights. With these written out per
stabiliser it is the flat GRU with a sparse matrix, so that it is as cheap to run; what it shares, and that its lines
must agree, is why it learns a distance of 5 from far fewer shots (docs/log/2026-11-26.md).

Axes: B shots, R measured rounds, K ends, S stabilisers, D width (of a stabiliser's state, where it is local), G the
gates (reset, update, candidate), I input bits (2 S, or a stabiliser's 2: event, parity), X a state (any shape), T = 9
places of a neighbourhood, Q data qubits, W readout width, L lines, C logit channels; N any number of (shot, end) pairs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import BASES, Layout, answered
from syndistill.files.families import BITS, MOST_LOGIT, PLACES, FlatGruDials, LocalGruDials
from syndistill.models.blocks import ResidualDense, agreed
from syndistill.models.contract import (
    Outputs,
    State,
    TurnableNetwork,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.models.local_scan import LocalScan
from syndistill.sampling.shots import Shots

KEEPS_FRAME = 2.5
"""The first bias of a frame's factor: tanh(2.5) = .987 a round, near that of a trained network at p=.004."""


class GruNetwork(TurnableNetwork):
    """Of a family whose state is moved on by a GRU that reads events and running parities of all stabilisers, 0 where
    undefined; a family says what the GRU, the readout and the prediction of events are."""

    start: nn.ParameterDict
    """The state before the first round, by basis."""
    carries: ClassVar[bool] = True

    @abstractmethod
    def _rounds(self, bits_BRI: torch.Tensor, memory_BX: torch.Tensor, basis: str) -> torch.Tensor:
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
        events_BS = self.turned(events_BS, state.basis)
        parity_BS = state.parity_BS ^ events_BS
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=self._rounds(bits_of(events_BS, parity_BS)[:, None], state.memory_BX, state.basis)[:, 0],
            parity_BS=parity_BS,
            previous_BS=events_BS,
        )

    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        last_BS = self.turned(last_BS * self.defined_S(state.basis), state.basis)
        return self._decide(state.memory_BX, last_BS, state.parity_BS ^ last_BS, state.basis)

    def forward(self, shots: Shots, want_signals: Collection[str] = (), begin: State | None = None) -> Outputs:
        self.check_signals(want_signals)
        first = self.first_state(shots, begin)
        shots = self.turned_shots(defined_only(shots))
        parity_BRS, _, last_parity_BKS, _ = event_history(shots, begin)
        states_BRX = self._rounds(bits_of(shots.events_BRS, parity_BRS), first.memory_BX, shots.basis)
        ended_NX = states_BRX[:, [end - 1 for end in shots.ends]].flatten(0, 1)
        last_NS, parity_NS = shots.last_BKS.flatten(0, 1), last_parity_BKS.flatten(0, 1)
        logits_NLC = self._decide(ended_NX, last_NS, parity_NS, shots.basis)
        predicted_BRS = self._predicted(states_BRX)
        next_BRS = None if predicted_BRS is None else self.turned_back(predicted_BRS, shots.basis)
        signals = {"temporal": self._temporal(states_BRX, shots.basis)} if "temporal" in want_signals else {}
        done = first.rounds_done + shots.rounds
        state = State(shots.basis, done, states_BRX[:, -1], parity_BRS[:, -1], shots.events_BRS[:, -1])
        return Outputs(logits_NLC.unflatten(0, (len(shots), len(shots.ends))), next_BRS, signals, state=state)


def bits_of(events: torch.Tensor, parity: torch.Tensor) -> torch.Tensor:
    """Events, then parities (*, 2 S)."""
    return torch.cat([events, parity], -1).to(working_dtype(events.device))


class FlatGru(GruNetwork):
    """Input of a round: events and running parity of all stabilisers, 0 where undefined.

    The basis is told through a learned initial state and an output head for each.

    Frame memory: with `frame_memory` the state is that of the GRU, h, and for each basis of the experiment the logical
    frame f, a number between -1 and 1 that begins at 1 and that each round multiplies by tanh(W h + b). A logical flip
    turns the sign of every later label: f says which sign, and by its size how surely. With m = tanh(head / 2), what
    the state says of flips in the frame, the answer is the log odds of (1 + f m) / 2. So h needs to remember the last
    few rounds alone, and a late round is like an early one (docs/long.md).
    """

    config: FlatGruDials
    signals_offered: ClassVar[frozenset[str]] = frozenset({"temporal"})

    def __init__(self, config: FlatGruDials) -> None:
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
        self.frames = nn.ModuleDict()
        if config.frame_memory:
            for basis in heads:
                self.frames[basis] = factor = nn.Linear(config.width, 1)
                nn.init.constant_(factor.bias, KEEPS_FRAME)
                nn.init.normal_(factor.weight, std=0.02)

    def init_state(self, batch: int, basis: str) -> State:
        state = super().init_state(batch, basis)
        return self.with_known_frame(state) if self.keeps_frame else state

    @property
    def keeps_frame(self) -> bool:
        return self.config.frame_memory

    def with_known_frame(self, state: State) -> State:
        memory_BD = state.memory_BX[..., : self.config.width]
        unturned_BF = memory_BD.new_ones(len(memory_BD), len(answered(state.basis)))
        return replace(state, memory_BX=torch.cat([memory_BD, unturned_BF], -1))

    def _rounds(self, bits_BRI: torch.Tensor, memory_BX: torch.Tensor, basis: str) -> torch.Tensor:
        memory_BD = memory_BX[..., : self.config.width]
        states_BRD: torch.Tensor = self.gru(bits_BRI, memory_BD[None].contiguous())[0]
        if not self.keeps_frame:
            return states_BRD
        sums_BRF = torch.cat([self.frames[b](states_BRD) for b in answered(basis)], -1)
        frames_BRF = memory_BX[:, None, self.config.width :] * torch.tanh(sums_BRF).cumprod(1)
        return torch.cat([states_BRD, frames_BRF.to(states_BRD.dtype)], -1)

    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        return None if self.next_events is None else self.next_events(states_BRX[..., : self.config.width])

    def multiply_adds(self, rounds: int) -> float:
        c, s, lines = self.config, self.layout.n_stabilisers, self.layout.n_lines
        core = 3 * c.width * (2 * s + c.width) + c.width * c.frame_memory
        channels = 4 if c.output == "joint4" else 1
        decide = c.readout_width * (c.width + 2 * s + 2 * c.readout_layers * c.readout_width)
        return core + (decide + c.readout_width * lines * channels) / rounds

    def _decide(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        state_ND, frames_NF = state_NX[..., : self.config.width], state_NX[..., self.config.width :]
        hidden_NW = self.decide(torch.cat([state_ND, bits_of(last_NS, parity_NS)], -1))
        if self.config.output == "joint4":
            joint: torch.Tensor = self.heads["both"](hidden_NW)
            return joint.unflatten(-1, (-1, 4))
        logits_NLC = torch.stack([self.heads[b](hidden_NW) for b in answered(basis)], -1)
        return in_frame(logits_NLC, frames_NF[:, None]) if self.keeps_frame else logits_NLC


def in_frame(logits: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    """Log odds of a flip, from those in a logical frame that is +1 or -1 with mean `frame`.

    Of two independent signs the mean of the product is the product of the means, m = frame * tanh(logits / 2). This is
    log((1 + m) / (1 - m)), multiplied by 1 + exp(-logits) above and below, which costs no digits near m = +-1.
    """
    frame, against = frame.float(), torch.exp(-logits.float().clamp(-MOST_LOGIT, MOST_LOGIT))
    return torch.log(1 + frame + (1 - frame) * against) - torch.log(1 - frame + (1 + frame) * against)


class LocalCell(nn.Module):
    """A GRU cell of all stabilisers: each takes the states and bits of itself and its up to eight neighbours.

    Weights are shared by the stabilisers of one type, Z first, then X; biases are each stabiliser's own.
    recurrent: False for a cell that is given another's recurrent weights.
    """

    block_SS: torch.Tensor

    def __init__(self, layout: Layout, width: int, recurrent: bool = True) -> None:
        super().__init__()
        self.width, self.n_stabilisers = width, layout.n_stabilisers
        bound = (6 * width) ** -0.5  # 1 / sqrt of the states that a stabiliser of distance 5 hears
        self.recurrent = _shared(3 * width, PLACES * width, bound) if recurrent else nn.ParameterList()
        self.inputs = _shared(3 * width, PLACES * BITS, bound)
        self.bias_GSD = nn.Parameter(torch.zeros(3, layout.n_stabilisers, width))
        self.hidden_bias_SD = nn.Parameter(torch.zeros(layout.n_stabilisers, width))
        self.register_buffer("block_SS", torch.from_numpy(layout.blocks_SS), persistent=False)
        self.scan: LocalScan | None = None

    def compile_rounds(self) -> None:
        """Run float32 on a CPU by models.local_scan from now on."""
        self.scan = LocalScan(self.block_SS.cpu().numpy(), self.width)

    def written_out(self, shared: nn.ParameterList | None = None) -> list[torch.Tensor]:
        """The weights of nn.GRU over all stabilisers: input (3 S D, 2 S), recurrent (3 S D, S D) and two biases.

        shared: recurrent weights of another cell.
        """
        n, d = self.n_stabilisers, self.width
        recurrent = self._blocks(shared or self.recurrent, d).permute(2, 0, 3, 1, 4).reshape(3 * n * d, n * d)
        inputs = self._blocks(self.inputs, BITS).permute(2, 0, 3, 4, 1).reshape(3 * n * d, BITS * n)
        gates_have_one = torch.zeros(2 * n * d, device=recurrent.device)
        return [inputs, recurrent, self.bias_GSD.flatten(), torch.cat([gates_have_one, self.hidden_bias_SD.flatten()])]

    def forward(
        self, bits_BRI: torch.Tensor, state_BSD: torch.Tensor, shared: nn.ParameterList | None = None
    ) -> torch.Tensor:
        """The states after each round, (B, R, S, D)."""
        if self.scan is not None and bits_BRI.device.type == "cpu" and bits_BRI.dtype == torch.float32:
            recurrent, inputs = (torch.stack(list(weights)) for weights in (shared or self.recurrent, self.inputs))
            return self.scan(bits_BRI, state_BSD, recurrent, inputs, self.bias_GSD, self.hidden_bias_SD)
        weights = [w.to(bits_BRI.dtype) for w in self.written_out(shared)]
        start_1BX = state_BSD.flatten(1)[None].contiguous()
        states_BRX, _ = torch.gru(bits_BRI, start_1BX, weights, True, 1, 0.0, self.training, False, True)
        return states_BRX.unflatten(-1, (self.n_stabilisers, self.width))

    def _blocks(self, shared: nn.ParameterList, size: int) -> torch.Tensor:
        """(S target, S source, G, D, size), zeros where they are no neighbours."""
        placed = [w.view(3, self.width, PLACES, size).permute(2, 0, 1, 3) for w in shared]
        none = torch.zeros_like(placed[0][:1])
        return torch.cat([*placed, none])[self.block_SS]


class LocalGru(GruNetwork):
    """The last slice passes through a cell of its own inputs; then every data qubit is looked at from its four
    stabilisers, qubits are averaged along lines, and all lines give one answer."""

    config: LocalGruDials
    signals_offered: ClassVar[frozenset[str]] = frozenset({"temporal"})
    even_Q4: torch.Tensor
    odd_Q4: torch.Tensor
    x_LQ: torch.Tensor
    z_LQ: torch.Tensor

    def __init__(self, config: LocalGruDials) -> None:
        super().__init__()
        self.config = config
        self.layout = layout = Layout(config.distance)
        width, out, n_lines = config.width, config.readout_width, layout.n_lines
        self.joint = config.output == "joint4"
        n = layout.n_stabilisers
        self.start = nn.ParameterDict(
            {b: nn.Parameter(torch.randn(n, width) * 0.1) for b in (("both",) if self.joint else BASES)}
        )
        self.cell = LocalCell(layout, width)
        self.last_cell = LocalCell(layout, width, recurrent=False)
        self.project = nn.ModuleList(nn.Linear(4 * (width + BITS), out) for _ in range(2))
        self.merge = nn.Linear(2 * out, out) if self.joint else None
        heads = ("both",) if self.joint else ("x", "z")
        self.line = nn.ParameterDict({b: nn.Parameter(torch.zeros(n_lines, out)) for b in heads})
        self.network = ResidualDense(out, config.readout_layers)
        self.heads = nn.ModuleDict({b: nn.Linear(out, n_lines * (4 if self.joint else 1)) for b in heads})
        self.next_events = nn.Linear(width, 1) if config.next_events else None
        is_odd_Q = np.indices((n_lines, n_lines)).sum(0).ravel() % 2 == 1
        order_Q = np.argsort(is_odd_Q, kind="stable")
        line_Q, of_line = order_Q // n_lines, np.arange(n_lines)[:, None]
        for name, kept in (("even_Q4", ~is_odd_Q), ("odd_Q4", is_odd_Q)):
            self.register_buffer(name, torch.from_numpy(layout.corners_Q4[kept]), persistent=False)
        for name, member_LQ in (("x_LQ", line_Q == of_line), ("z_LQ", order_Q % n_lines == of_line)):
            self.register_buffer(name, torch.from_numpy(member_LQ).float() / n_lines, persistent=False)

    def compile_blocks(self) -> None:
        for cell in (self.cell, self.last_cell):
            cell.compile_rounds()

    def _rounds(self, bits_BRI: torch.Tensor, memory_BX: torch.Tensor, basis: str) -> torch.Tensor:
        states_BRSD: torch.Tensor = self.cell(bits_BRI, memory_BX)
        return states_BRSD

    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        return None if self.next_events is None else self.next_events(states_BRX).squeeze(-1)

    def _temporal(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        return self.turned_back(states_BRX, basis, axis=2)

    def multiply_adds(self, rounds: int) -> float:
        """Of neighbours alone, as the compiled code does it; PyTorch multiplies the written out matrix."""
        d, out, size = self.layout.n_lines, self.config.readout_width, self.config.width
        pairs = int((self.cell.block_SS < 2 * PLACES).sum())
        cell = pairs * 3 * size * (size + BITS)
        channels = 4 if self.joint else 1
        project = int((self.layout.corners_Q4 < self.layout.n_stabilisers).sum()) * (size + BITS) * out
        a_line = 2 * self.config.readout_layers * out**2 + out * channels + (2 * out**2 if self.joint else 0)
        return cell + (cell + project + d * a_line) / rounds

    def _decide(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        state_NSD = self.last_cell(bits_of(last_NS, parity_NS)[:, None], state_NX, self.cell.recurrent)[:, 0]
        data_NQW = self._qubits(state_NSD, last_NS, parity_NS)
        read_as = self.read_as(basis)

        def lines_NLW(b: str) -> torch.Tensor:
            return (self.x_LQ if b == "x" else self.z_LQ).to(data_NQW.dtype) @ data_NQW

        if self.merge is not None:
            merged_NLW = self.merge(torch.cat([lines_NLW("x"), lines_NLW("z")], -1))
            logits_NLC = self._answers(merged_NLW, "both")
        else:
            pairs = (("x", "x"), ("z", "z")) if basis == "both" else ((basis, read_as),)
            logits_NLC = torch.cat([self._answers(lines_NLW(f), b) for b, f in pairs], -1)
        return agreed(logits_NLC, parity_NS, self.layout, read_as)

    def _qubits(self, state_NSD: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor) -> torch.Tensor:
        """(N, Q, W): the data qubits whose row and column have an even sum, then the others."""
        seen_NSX = torch.cat([state_NSD, last_NS[..., None].to(state_NSD), parity_NS[..., None].to(state_NSD)], -1)
        seen_NSX = nn.functional.pad(seen_NSX, (0, 0, 0, 1))  # a corner where no stabiliser is holds zeros
        kinds = ((self.project[0], self.even_Q4), (self.project[1], self.odd_Q4))
        return torch.relu(torch.cat([project(seen_NSX[:, q4].flatten(2)) for project, q4 in kinds], 1))

    def _answers(self, lines_NLW: torch.Tensor, basis: str) -> torch.Tensor:
        """logits_NLC of each line, by its own weights: C is 4 for joint4, else 1."""
        hidden_NLW = self.network(lines_NLW + self.line[basis])
        head = cast(nn.Linear, self.heads[basis])
        weight_LCW, bias_LC = (x.unflatten(0, (self.layout.n_lines, -1)) for x in (head.weight, head.bias))
        products_NLC = torch.einsum("nlw,lcw->nlc", hidden_NLW, weight_LCW.to(hidden_NLW.dtype))
        return products_NLC + bias_LC


def _shared(rows: int, columns: int, bound: float) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter((torch.rand(rows, columns) * 2 - 1) * bound) for _ in range(2))
