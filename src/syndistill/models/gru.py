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

import torch
from torch import nn

from syndistill.circuits.layout import BASES, Layout, answered
from syndistill.files.families import BITS, PLACES, FlatGruDials, LocalGruDials
from syndistill.models.blocks import ResidualDense, agreed, line_matrices, strip_matrix
from syndistill.models.contract import (
    Outputs,
    State,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.models.frames import (
    AGREES,
    KEEPS_FRAME,
    FramedNetwork,
    LineFrames,
    agreeing,
    exact,
    in_frame,
    quiet_rounds,
)
from syndistill.models.local_scan import LocalScan
from syndistill.sampling.shots import Shots


class GruNetwork(FramedNetwork):
    """Of a family whose state is moved on by a GRU that reads events and running parities of all stabilisers, 0 where
    undefined; a family says what the GRU, the readout and the prediction of events are."""

    config: FlatGruDials | LocalGruDials
    start: nn.ParameterDict
    """The state before the first round, by basis."""

    @abstractmethod
    def _rounds(self, bits_BRI: torch.Tensor, states_BX: torch.Tensor, basis: str) -> torch.Tensor:
        """The GRU's states after each round, (B, R, X)."""

    @abstractmethod
    def _decide_in_frame(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        """logits_NLC from the state, the last slice and the final parities, as of frames that are known to be 1."""

    def _by_line(
        self, memory_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        """What each line says by itself, logits_NLC, from the memory, the last slice and the final parities."""
        logits_NLC = self._decide_in_frame(memory_NX[:, : self.n_states], last_NS, parity_NS, basis)
        return in_frame(logits_NLC, self._frames(memory_NX, basis)) if self.keeps_frame else logits_NLC

    def _agreed(self, logits_NLC: torch.Tensor, parity_NS: torch.Tensor, basis: str) -> torch.Tensor:
        """One answer of all lines, in families where `lines_agree`."""
        return logits_NLC

    @abstractmethod
    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        """next_BRS as the network sees stabilisers; None where it does not predict events."""

    def _temporal(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        return states_BRX

    def _bits(self, events: torch.Tensor, parity: torch.Tensor) -> torch.Tensor:
        """Events, then parities (*, 2 S)."""
        return torch.cat([events, parity], -1).to(working_dtype(events.device))

    def init_state(self, batch: int, basis: str) -> State:
        self.n_channels(basis)
        start_X = self.start[basis].flatten()
        empty_BS = torch.zeros(batch, self.layout.n_stabilisers, dtype=torch.uint8, device=start_X.device)
        memory_BX = start_X.to(working_dtype(start_X.device)).expand(batch, -1)
        return self.state_of(basis, 0, memory_BX, empty_BS, empty_BS)

    def _moved(
        self, events_BRS: torch.Tensor, parity_BRS: torch.Tensor, memory_BX: torch.Tensor, basis: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The memory after each round, (B, R, X), and turns_BRFC where it has frames. These are float32 always: in
        bfloat16 a factor of .999 is 1."""
        bits_BRI = self._bits(events_BRS, parity_BRS)
        states_BRX = self._rounds(bits_BRI, memory_BX[:, : self.n_states].to(bits_BRI.dtype), basis)
        if not self.keeps_frame:
            return states_BRX, None
        states_BRX = states_BRX.float()
        with exact(states_BRX.device):
            turns_BRFC = self._turns(states_BRX, basis)
            kept_BRX = self._kept(memory_BX, turns_BRFC, events_BRS, parity_BRS, basis)
        return torch.cat([states_BRX, kept_BRX], -1), turns_BRFC

    def _kept(
        self, memory_BX: torch.Tensor, turns_BRFC: torch.Tensor, events_BRS: torch.Tensor, parity_BRS: torch.Tensor,
        basis: str,
    ) -> torch.Tensor:  # fmt: skip
        """What a memory holds behind the states after each round, (B, R, X): the frames, and what is counted."""
        return self._frames_after(memory_BX, turns_BRFC, basis)

    def step(self, state: State, events_BS: torch.Tensor) -> State:
        if state.rounds_done == 0:
            events_BS = events_BS * self.defined_S(state.basis)
        events_BS = self.turned(events_BS, state.basis)
        parity_BS = state.parity_BS ^ events_BS
        memory_BRX, _ = self._moved(events_BS[:, None], parity_BS[:, None], state.memory_BX, state.basis)
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=memory_BRX[:, 0],
            parity_BS=parity_BS,
            previous_BS=events_BS,
        )

    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        last_BS = self.turned(last_BS * self.defined_S(state.basis), state.basis)
        parity_BS = state.parity_BS ^ last_BS
        return self._agreed(self._by_line(state.memory_BX, last_BS, parity_BS, state.basis), parity_BS, state.basis)

    def forward(self, shots: Shots, want_signals: Collection[str] = (), begin: State | None = None) -> Outputs:
        self.check_signals(want_signals)
        first = self.first_state(shots, begin)
        shots = self.turned_shots(defined_only(shots))
        parity_BRS, _, last_parity_BKS, _ = event_history(shots, begin)
        memory_BRX, turns_BRFC = self._moved(shots.events_BRS, parity_BRS, first.memory_BX, shots.basis)
        states_BRX = memory_BRX[..., : self.n_states]
        ended_NX = memory_BRX[:, [end - 1 for end in shots.ends]].flatten(0, 1)
        last_NS, parity_NS = shots.last_BKS.flatten(0, 1), last_parity_BKS.flatten(0, 1)
        alone_NLC = self._by_line(ended_NX, last_NS, parity_NS, shots.basis)
        logits_NLC = self._agreed(alone_NLC, parity_NS, shots.basis)
        ended = (len(shots), len(shots.ends))
        predicted_BRS = self._predicted(states_BRX)
        done = first.rounds_done + shots.rounds
        return Outputs(
            logits_NLC.unflatten(0, ended),
            None if predicted_BRS is None else self.turned_back(predicted_BRS, shots.basis),
            {"temporal": self._temporal(states_BRX, shots.basis)} if "temporal" in want_signals else {},
            state=State(shots.basis, done, memory_BRX[:, -1], parity_BRS[:, -1], shots.events_BRS[:, -1]),
            turns_BRFC=turns_BRFC,
            alone_BKLC=alone_NLC.unflatten(0, ended) if self.lines_agree else None,
        )


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
        self.frames, self._n_frames = nn.ModuleDict(), 1
        if config.frame_memory:
            for basis in heads:
                self.frames[basis] = factor = nn.Linear(config.width, 1)
                nn.init.constant_(factor.bias, KEEPS_FRAME)
                nn.init.normal_(factor.weight, std=0.02)

    @property
    def n_states(self) -> int:
        return self.config.width

    def _rounds(self, bits_BRI: torch.Tensor, states_BX: torch.Tensor, basis: str) -> torch.Tensor:
        states_BRX: torch.Tensor = self.gru(bits_BRI, states_BX[None].contiguous())[0]
        return states_BRX

    def _turns(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        return torch.tanh(torch.cat([self.frames[b](states_BRX) for b in answered(basis)], -1))[:, :, None]

    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        return None if self.next_events is None else self.next_events(states_BRX)

    def multiply_adds(self, rounds: int) -> float:
        c, s, lines = self.config, self.layout.n_stabilisers, self.layout.n_lines
        core = 3 * c.width * (2 * s + c.width) + c.width * c.frame_memory
        channels = 4 if c.output == "joint4" else 1
        decide = c.readout_width * (c.width + 2 * s + 2 * c.readout_layers * c.readout_width)
        return core + (decide + c.readout_width * lines * channels) / rounds

    def _decide_in_frame(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        hidden_NW = self.decide(torch.cat([state_NX, self._bits(last_NS, parity_NS)], -1))
        if self.config.output == "joint4":
            joint: torch.Tensor = self.heads["both"](hidden_NW)
            return joint.unflatten(-1, (-1, 4))
        return torch.stack([self.heads[b](hidden_NW) for b in answered(basis)], -1)


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


class LocalGru(LineFrames, GruNetwork):
    """The last slice passes through a cell of its own inputs; then every data qubit is looked at from its four
    stabilisers, qubits are averaged along lines, and all lines give one answer.

    Frame memory as in `FlatGru`, but every line has a frame of its own (`LineFrames`).

    With `agree_after` lines do not each go their own way: two neighbours differ by the checks between them, and where
    those have been quiet for so many rounds their measured parity is right and all flips near them have been counted.
    All lines joined by such checks are then drawn to the mean of their log odds, each turned to the others.
    """

    config: LocalGruDials
    signals_offered: ClassVar[frozenset[str]] = frozenset({"temporal"})
    lines_agree = True

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
        self._n_frames = n_lines
        heads = ("both",) if self.joint else ("x", "z")
        self.line = nn.ParameterDict({b: nn.Parameter(torch.zeros(n_lines, out)) for b in heads})
        self.network = ResidualDense(out, config.readout_layers)
        self.heads = nn.ModuleDict({b: nn.Linear(out, n_lines * (4 if self.joint else 1)) for b in heads})
        self.next_events = nn.Linear(width, 1) if config.next_events else None
        self._make_line_frames(width, heads if config.frame_memory else ())
        self.frame_agrees = nn.ParameterDict(
            {basis: nn.Parameter(torch.tensor([AGREES])) for basis in heads if config.agree_after}
        )
        self.n_counted = (n_lines - 1) * (config.agree_after > 0)
        if config.events_alone:
            self.forget_parities()

    def compile_blocks(self) -> None:
        for cell in (self.cell, self.last_cell):
            cell.compile_rounds()

    @property
    def n_states(self) -> int:
        return self.layout.n_stabilisers * self.config.width

    def _states(self, states: torch.Tensor) -> torch.Tensor:
        """(*, S, D) of (*, X)."""
        return states.unflatten(-1, (self.layout.n_stabilisers, self.config.width))

    def _rounds(self, bits_BRI: torch.Tensor, states_BX: torch.Tensor, basis: str) -> torch.Tensor:
        states_BRSD: torch.Tensor = self.cell(bits_BRI, self._states(states_BX))
        return states_BRSD.flatten(2)

    def _kept(
        self, memory_BX: torch.Tensor, turns_BRFC: torch.Tensor, events_BRS: torch.Tensor, parity_BRS: torch.Tensor,
        basis: str,
    ) -> torch.Tensor:  # fmt: skip
        most = self.config.agree_after
        if not most:
            return super()._kept(memory_BX, turns_BRFC, events_BRS, parity_BRS, basis)
        frames_BLC, read = self._frames(memory_BX, basis), self._read(basis)
        kept = []
        for c, counted_BK in enumerate(self._counted(memory_BX, basis).chunk(len(read), -1)):
            own, read_as = read[c]
            busy_BRK = events_BRS.to(frames_BLC) @ strip_matrix(self.layout, read_as).to(frames_BLC) > 0
            quiet_BRK = quiet_rounds(busy_BRK, counted_BK, most)
            matrix_SL = line_matrices(self.layout, read_as)[..., 0].to(frames_BLC)
            sign_BRL = 1 - 2 * ((parity_BRS.to(frames_BLC) @ matrix_SL) % 2)
            share = torch.sigmoid(self.frame_agrees[own])
            frames_BRL = agreeing(frames_BLC[..., c], turns_BRFC[..., c], quiet_BRK >= most, sign_BRL, share)
            kept.append((frames_BRL, quiet_BRK))
        return torch.cat([part for parts in zip(*kept, strict=True) for part in parts], -1)

    def _bits(self, events: torch.Tensor, parity: torch.Tensor) -> torch.Tensor:
        return super()._bits(events, torch.zeros_like(parity) if self.config.events_alone else parity)

    def forget_parities(self) -> None:
        """Set the weights of parities to zero; they stay so, for no gradient reaches them."""
        with torch.no_grad():
            for name, shape in self.config.unread().items():
                self.get_parameter(name).view(shape)[..., -1] = 0

    def _predicted(self, states_BRX: torch.Tensor) -> torch.Tensor | None:
        return None if self.next_events is None else self.next_events(self._states(states_BRX)).squeeze(-1)

    def _temporal(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        return self.turned_back(self._states(states_BRX), basis, axis=2)

    def multiply_adds(self, rounds: int) -> float:
        """Of neighbours alone, as the compiled code does it; PyTorch multiplies the written out matrix."""
        d, out, size = self.layout.n_lines, self.config.readout_width, self.config.width
        pairs = int((self.cell.block_SS < 2 * PLACES).sum())
        corners = int((self.layout.corners_Q4 < self.layout.n_stabilisers).sum())
        cell = pairs * 3 * size * (size + BITS) + corners * size * self.config.frame_memory
        channels = 4 if self.joint else 1
        project = corners * (size + BITS) * out
        a_line = 2 * self.config.readout_layers * out**2 + out * channels + (2 * out**2 if self.joint else 0)
        return cell + (cell + project + d * a_line) / rounds

    def _agreed(self, logits_NLC: torch.Tensor, parity_NS: torch.Tensor, basis: str) -> torch.Tensor:
        return agreed(logits_NLC, parity_NS, self.layout, self.read_as(basis))

    def _decide_in_frame(
        self, state_NX: torch.Tensor, last_NS: torch.Tensor, parity_NS: torch.Tensor, basis: str
    ) -> torch.Tensor:
        bits_N1I = self._bits(last_NS, parity_NS)[:, None]
        state_NSD = self.last_cell(bits_N1I, self._states(state_NX).to(bits_N1I.dtype), self.cell.recurrent)[:, 0]
        data_NQW = self._qubits(state_NSD, bits_N1I[:, 0])

        def lines_NLW(b: str) -> torch.Tensor:
            return (self.x_LQ if b == "x" else self.z_LQ).to(data_NQW.dtype) @ data_NQW

        if self.merge is not None:
            merged_NLW = self.merge(torch.cat([lines_NLW("x"), lines_NLW("z")], -1))
            return self._answers(merged_NLW, "both")
        return torch.cat([self._answers(lines_NLW(f), b) for b, f in self._read(basis)], -1)

    def _qubits(self, state_NSD: torch.Tensor, bits_NI: torch.Tensor) -> torch.Tensor:
        """(N, Q, W): the data qubits whose row and column have an even sum, then the others."""
        seen_NSX = torch.cat([state_NSD, bits_NI.unflatten(-1, (BITS, -1)).mT.to(state_NSD)], -1)
        seen_NSX = nn.functional.pad(seen_NSX, (0, 0, 0, 1))  # a corner where no stabiliser is holds zeros
        kinds = zip(self.project, self.corner_Q4.split(self._n_of_kind), strict=True)
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
