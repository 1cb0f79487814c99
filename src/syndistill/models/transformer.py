"""The recurrent syndrome transformer: the Teacher at full size, a Student family at small sizes.

After Bausch et al., Nature 2024 (arXiv 2310.05900), Methods. Axes: B shots, R measured rounds, K ends,
S stabilisers, D width, M layers, h heads, F features of a pair, L lines, C logit channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import BASES, Layout
from syndistill.files.families import TransformerDials
from syndistill.models.blocks import (
    LineReadout,
    PreparedConvolution,
    ResidualDense,
    StabiliserEmbedder,
    SyndromeTransformerLayer,
    agreed,
    look_up,
)
from syndistill.models.contract import (
    Outputs,
    State,
    defined_only,
    event_history,
    working_dtype,
)
from syndistill.models.frames import LineFrames, exact, in_frame
from syndistill.sampling.shots import Shots

N_GEOMETRY_FEATURES = 48


def geometry_features(layout: Layout) -> torch.Tensor:
    """float32 (S, S, 48): of a pair both coordinates, signed offset, Manhattan distance, same or other type.

    Coordinates are scaled to [-1, 1]; the seven numbers enter as they are and through sines and cosines of
    three frequencies (the paper says which features, not how they make 48): the type flag and 4 + 2 + 1 scalars in
    1 + 2 * 3 forms are 50, of which the last two waves are cut.
    """
    cells_S2 = layout.cells_S2 / layout.distance * 2 - 1
    first, second = (np.broadcast_to(a, (len(cells_S2),) * 2 + (2,)) for a in (cells_S2[:, None], cells_S2[None]))
    offset = second - first
    manhattan = np.abs(offset).sum(-1, keepdims=True)
    scalars = np.concatenate([first, second, offset, manhattan], -1)
    waves = [f(np.pi * 2.0**k * scalars / 2) for k in range(3) for f in (np.sin, np.cos)]
    same_type = (layout.is_x_S[:, None] == layout.is_x_S[None])[..., None]
    features = np.concatenate([same_type, scalars, *waves], -1)[..., :N_GEOMETRY_FEATURES]
    return torch.from_numpy(features.astype(np.float32))


class AttentionBias(nn.Module):
    """One scalar per head and layer for each pair of stabilisers.

    The geometric part passes through a residual network and does not depend on the shot; the seven event
    indicators are the products of the pair's events in this and the previous slice (4) and, on the diagonal,
    event now, event before, and both (3). Their linear map is written as a bilinear form of (now, before).
    """

    features_SSF: torch.Tensor

    def __init__(self, layout: Layout, heads: int, layers: int, width: int, residual_layers: int) -> None:
        super().__init__()
        self.heads, self.layers = heads, layers
        self.register_buffer("features_SSF", geometry_features(layout), persistent=False)
        self.embed = nn.Linear(N_GEOMETRY_FEATURES, width)
        self.network = ResidualDense(width, residual_layers)
        self.project = nn.Linear(width, layers * heads)
        self.pairs = nn.Parameter(torch.zeros(layers, heads, 2, 2))
        self.diagonal = nn.Parameter(torch.zeros(layers, heads, 3))

    def static(self) -> torch.Tensor:
        """The geometric part, (M, h, S, S)."""
        bias_SSx: torch.Tensor = self.project(self.network(self.embed(self.features_SSF)))
        s = bias_SSx.shape[0]
        # contiguous: every sum and softmax downstream takes its layout from here
        return bias_SSx.view(s, s, self.layers, self.heads).permute(2, 3, 0, 1).contiguous()

    def forward(self, static_MhSS: torch.Tensor, events_BS: torch.Tensor, previous_BS: torch.Tensor) -> torch.Tensor:
        """(M, B, h, S, S): the geometric part plus this slice's indicators."""
        dtype = static_MhSS.dtype
        now, before = events_BS.to(dtype), previous_BS.to(dtype)
        pair_BS2 = torch.stack([now, before], -1)
        left = torch.einsum("bsi,mhij->mbhsj", pair_BS2, self.pairs.to(dtype))
        indicators = torch.einsum("mbhsj,btj->mbhst", left, pair_BS2)
        diagonal_BS3 = torch.stack([now, before, now * before], -1)
        diagonal = torch.einsum("bsi,mhi->mbhs", diagonal_BS3, self.diagonal.to(dtype))
        return static_MhSS[:, None] + indicators + torch.diag_embed(diagonal)


class _Constants(NamedTuple):
    """What does not depend on the shot, made once per call."""

    static_bias: torch.Tensor | None
    convolutions: list[list[PreparedConvolution]]


class SyndromeTransformer(LineFrames):
    """Recurrent core with state X: X <- (X + S_n) / sqrt(2), then the syndrome transformer layers.

    gradient_rounds: if not 0, `forward` has gradients of its last so many rounds alone. frame_memory, which the paper
    has not: every line keeps its frame beside the state (`LineFrames`), and what the readout says is in that frame.
    """

    config: TransformerDials
    signals_offered: ClassVar[frozenset[str]] = frozenset({"spatial", "temporal", "ends"})
    compiled = False
    shows_the_way: ClassVar[bool] = True

    def __init__(self, config: TransformerDials) -> None:
        super().__init__()
        self.config = config
        self.lines_agree = config.agree_lines
        self.gradient_rounds = 0
        self.layout = layout = Layout(config.distance)
        self.embedder = StabiliserEmbedder(layout.n_stabilisers, config.width, config.embedder_layers)
        self.last_embedder = StabiliserEmbedder(layout.n_stabilisers, config.width, config.embedder_layers)
        self.layers = nn.ModuleList(
            SyndromeTransformerLayer(
                layout, config.width, config.heads, config.key_size, config.widening, config.conv_channels
            )
            for _ in range(config.layers)
        )
        self.bias = (
            AttentionBias(layout, config.heads, config.layers, config.bias_width, config.bias_layers)
            if config.attention_bias
            else None
        )
        # What tells a turned shot from one of Z; not in the paper, which turns nothing.
        self.turned_D = nn.Parameter(torch.zeros(config.width)) if config.turn_x else None
        self.next_events = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        self.line_readout = LineReadout(
            layout, config.width, config.readout_width, config.readout_layers, config.max_rounds, config.output
        )
        self._n_frames = layout.n_lines
        self._make_line_frames(config.width, BASES[:2] if config.frame_memory else ())

    @property
    def n_states(self) -> int:
        return self.layout.n_stabilisers * self.config.width

    def _states(self, memory: torch.Tensor) -> torch.Tensor:
        """(*, S, D) of memories (*, X)."""
        return memory[..., : self.n_states].unflatten(-1, (self.layout.n_stabilisers, self.config.width))

    def init_state(self, batch: int, basis: str) -> State:
        self.n_channels(basis)
        device = self.embedder.index_SD.device
        memory = torch.zeros(batch, self.n_states, device=device, dtype=self._dtype())
        empty = torch.zeros(batch, self.layout.n_stabilisers, dtype=torch.uint8, device=device)
        return self.state_of(basis, 0, memory, empty, empty)

    def step(self, state: State, events_BS: torch.Tensor) -> State:
        events_BS = self.turned(events_BS, state.basis)
        defined_S = self.defined_S(self.read_as(state.basis) if state.rounds_done == 0 else "both")
        events_BS = events_BS * defined_S
        parity_BS = state.parity_BS ^ events_BS
        slice_BSD = look_up(self._table(self.embedder, state.basis), events_BS, parity_BS, defined_S)
        constants = self._constants()
        biases = self._biases(events_BS, state.previous_BS, constants)
        states_BSD, _ = self._mix(self._states(state.memory_BX).to(slice_BSD.dtype), slice_BSD, biases, constants)
        memory_BRX, _ = self._remembered(states_BSD[:, None], state.memory_BX, state.basis)
        return replace(
            state,
            rounds_done=state.rounds_done + 1,
            memory_BX=memory_BRX[:, 0],
            parity_BS=parity_BS,
            previous_BS=events_BS,
        )

    def readout(self, state: State, last_BS: torch.Tensor) -> torch.Tensor:
        defined_S = self.defined_S(self.read_as(state.basis))
        last_BS = self.turned(last_BS, state.basis) * defined_S
        parity_BS = state.parity_BS ^ last_BS
        last_BSD = look_up(self._table(self.last_embedder, state.basis), last_BS, parity_BS, defined_S)
        constants = self._constants()
        biases = self._biases(last_BS, state.previous_BS, constants)
        mixed, _ = self._mix(self._states(state.memory_BX).to(last_BSD.dtype), last_BSD, biases, constants)
        frames_BLC = self._frames_at(state.memory_BX[:, None], state.basis)
        rounds_B = torch.full((len(last_BS),), state.rounds_done, device=last_BS.device)
        return self._agreed(self._by_line(mixed, frames_BLC, rounds_B, state.basis), parity_BS, state.basis)

    def forward(self, shots: Shots, want_signals: Collection[str] = (), begin: State | None = None) -> Outputs:
        b, rounds, _ = shots.events_BRS.shape
        self.check_signals(want_signals)
        wanted = {kind: self._layers_of(kind, want_signals) for kind in ("spatial", "ends")}
        first = self.first_state(shots, begin)
        shots = self.turned_shots(defined_only(shots))
        parity_BRS, previous_BRS, last_parity_BKS, last_previous_BKS = event_history(shots, begin)
        slices_BRSD = self._embed_rounds(shots, parity_BRS)
        constants = self._constants()
        biases_RMBhSS = self._round_biases(shots.events_BRS, previous_BRS, constants)
        x_BSD = self._states(first.memory_BX).to(slices_BRSD.dtype)
        states, inside = [], []
        learned_from = rounds - self.gradient_rounds if self.gradient_rounds else 0
        for t in range(rounds):
            biases = None if biases_RMBhSS is None else biases_RMBhSS[t]
            with torch.set_grad_enabled(torch.is_grad_enabled() and t >= learned_from):
                x_BSD, inner = self._mix(x_BSD, slices_BRSD[:, t], biases, constants, wanted["spatial"].values())
            states.append(x_BSD)
            inside.append(inner)
        states_BRSD = torch.stack(states, 1)
        memory_BRX, turns_BRFC = self._remembered(states_BRSD, first.memory_BX, shots.basis)
        # All ends at once, as a batch of B * K.
        at_end = [end - 1 for end in shots.ends]
        ended = states_BRSD[:, at_end].flatten(0, 1)
        table, defined_S = self._table(self.last_embedder, shots.basis), self.defined_S(self.read_as(shots.basis))
        last = look_up(table, shots.last_BKS, last_parity_BKS, defined_S).flatten(0, 1)
        biases = self._biases(shots.last_BKS.flatten(0, 1), last_previous_BKS.flatten(0, 1), constants)
        mixed, inner = self._mix(ended, last, biases, constants, wanted["ends"].values())
        rounds_N = torch.tensor(shots.ends, device=mixed.device).repeat(b) + first.rounds_done
        alone = self._by_line(mixed, self._frames_at(memory_BRX[:, at_end], shots.basis), rounds_N, shots.basis)
        logits = self._agreed(alone, last_parity_BKS.flatten(0, 1), shots.basis)
        logits_BKLC, alone_BKLC = (x.unflatten(0, (b, len(shots.ends))) for x in (logits, alone))
        signals = {name: torch.stack([i[m] for i in inside], 1) for name, m in wanted["spatial"].items()}
        signals |= {name: inner[m].unflatten(0, (b, len(shots.ends))) for name, m in wanted["ends"].items()}
        if "temporal" in want_signals:
            signals["temporal"] = states_BRSD
        next_BRS = self.turned_back(self.next_events(states_BRSD).squeeze(-1), shots.basis)
        signals = {name: self.turned_back(signal, shots.basis, axis=-2) for name, signal in signals.items()}
        on_the_way = {"temporal": states} | {name: [i[m] for i in inside] for name, m in wanted["spatial"].items()}
        on_the_way = {n: x for n, x in on_the_way.items() if n in want_signals}
        done = first.rounds_done + rounds
        return Outputs(
            logits_BKLC,
            next_BRS,
            signals,
            on_the_way,
            state=State(shots.basis, done, memory_BRX[:, -1], parity_BRS[:, -1], shots.events_BRS[:, -1]),
            turns_BRFC=turns_BRFC,
            alone_BKLC=alone_BKLC if self.lines_agree else None,
        )

    def _remembered(
        self, states_BRSD: torch.Tensor, before_BX: torch.Tensor, basis: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The memory after each round, (B, R, X), and turns_BRFC where it has frames, in float32 then."""
        states_BRX = states_BRSD.flatten(2)
        if not self.keeps_frame:
            return states_BRX, None
        states_BRX = states_BRX.float()
        with exact(states_BRX.device):
            turns_BRFC = self._turns(states_BRX, basis)
            frames_BRX = self._frames_after(before_BX, turns_BRFC, basis)
        return torch.cat([states_BRX, frames_BRX], -1), turns_BRFC

    def _frames_at(self, memory_BKX: torch.Tensor, basis: str) -> torch.Tensor | None:
        """(N, L, C), where it keeps them."""
        return self._frames(memory_BKX, basis).flatten(0, 1) if self.keeps_frame else None

    def _by_line(
        self, mixed_NSD: torch.Tensor, frames_NLC: torch.Tensor | None, rounds_N: torch.Tensor, basis: str
    ) -> torch.Tensor:
        """What each line says by itself, logits_NLC."""
        logits_NLC: torch.Tensor = self.line_readout(mixed_NSD, rounds_N, basis, self.read_as(basis))
        return logits_NLC if frames_NLC is None else in_frame(logits_NLC, frames_NLC)

    def _agreed(self, logits_NLC: torch.Tensor, parity_NS: torch.Tensor, basis: str) -> torch.Tensor:
        return agreed(logits_NLC, parity_NS, self.layout, self.read_as(basis)) if self.lines_agree else logits_NLC

    def _table(self, embedder: StabiliserEmbedder, basis: str) -> torch.Tensor:
        table_SVD = embedder.table_SVD()
        if self.turned_D is not None:  # also 0 times: data parallel training wants a gradient of every weight
            table_SVD = table_SVD + self.turned_D * float(self.read_as(basis) != basis)
        return table_SVD.to(self._dtype())

    def _embed_rounds(self, shots: Shots, parity_BRS: torch.Tensor) -> torch.Tensor:
        table = self._table(self.embedder, shots.basis)
        begins_as = "both" if shots.first_round else self.read_as(shots.basis)
        first, rest = (
            look_up(table, shots.events_BRS[:, part], parity_BRS[:, part], self.defined_S(basis))
            for part, basis in ((slice(0, 1), begins_as), (slice(1, None), "both"))
        )
        return torch.cat([first, rest], 1)

    def _constants(self) -> _Constants:
        static = None if self.bias is None else self.bias.static().to(self._dtype())
        return _Constants(static, [layer.convolutions.prepared() for layer in self._typed_layers()])

    def _mix(
        self,
        x_BSD: torch.Tensor,
        slice_BSD: torch.Tensor,
        biases_MBhSS: torch.Tensor | None,
        constants: _Constants,
        keep: Collection[int] = (),
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """The new state, and the hidden states after the layers of `keep`.

        Of the last layer it is the state before its convolutions: after them it would be the new state itself.
        """
        x_BSD = (x_BSD + slice_BSD) * math.sqrt(0.5)
        # A compiled layer meets the shapes of rounds and of ends, of each number of rounds: more than Dynamo's 8.
        with torch._dynamo.config.patch(recompile_limit=64) if self.compiled else nullcontext():
            return self._mixed(x_BSD, biases_MBhSS, constants, keep)

    def _mixed(
        self, x_BSD: torch.Tensor, biases_MBhSS: torch.Tensor | None, constants: _Constants, keep: Collection[int]
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        kept = {}
        # unbind and not [m]: its gradient is one stack, not a sum of M tensors that are mostly zeros
        biases = [None] * len(self.layers) if biases_MBhSS is None else biases_MBhSS.unbind(0)
        for m, (layer, bias) in enumerate(zip(self._typed_layers(), biases, strict=True)):
            if m in keep and m == len(self.layers) - 1:
                kept[m] = layer.attended(x_BSD, bias)
                x_BSD = layer.convolutions(kept[m], constants.convolutions[m])
                continue
            x_BSD = layer(x_BSD, bias, constants.convolutions[m])
            if m in keep:
                kept[m] = x_BSD
        return x_BSD, kept

    def _layers_of(self, kind: str, wanted: Collection[str]) -> dict[str, int]:
        """Wanted names of this kind with their layers; without a number the middle one."""
        named = {name: name.partition(".")[2] for name in wanted if name.partition(".")[0] == kind}
        return {name: int(m) if m else (len(self.layers) - 1) // 2 for name, m in named.items()}

    def offers_signal(self, name: str) -> bool:
        """Also "spatial.0", "ends.1", ...: after that layer's mixing."""
        kind, dot, layer = name.partition(".")
        if not dot:
            return kind in self.signals_offered
        return kind in ("spatial", "ends") and layer.isdecimal() and int(layer) < len(self.layers)

    def _biases(
        self, events_BS: torch.Tensor, previous_BS: torch.Tensor, constants: _Constants
    ) -> torch.Tensor | None:
        if self.bias is None:
            return None
        biases: torch.Tensor = self.bias(constants.static_bias, events_BS, previous_BS)
        return biases

    def _round_biases(
        self, events_BRS: torch.Tensor, previous_BRS: torch.Tensor, constants: _Constants
    ) -> tuple[torch.Tensor, ...] | None:
        """Per round (M, B, h, S, S), made in one go."""
        events_RBS, previous_RBS = events_BRS.transpose(0, 1), previous_BRS.transpose(0, 1)
        biases = self._biases(events_RBS.flatten(0, 1), previous_RBS.flatten(0, 1), constants)
        return None if biases is None else biases.chunk(events_BRS.shape[1], 1)

    def _typed_layers(self) -> list[SyndromeTransformerLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _dtype(self) -> torch.dtype:
        return working_dtype(self.embedder.index_SD.device)

    def compile_blocks(self) -> None:
        """One graph per layer and batch shape."""
        self.compiled = True
        for layer in self.layers:
            layer.compile(dynamic=False)

    def multiply_adds(self, rounds: int) -> float:
        c, s = self.config, self.layout.n_stabilisers
        inner = c.heads * c.key_size
        attention = s * (4 * c.width * inner + 2 * s * inner)
        dense = s * (c.widening + c.widening / 2) * c.width**2
        core = c.layers * (attention + dense)
        core += sum(layer.convolutions.multiply_adds() for layer in self._typed_layers())
        core += int((self.layout.corners_Q4 < s).sum()) * c.width * c.frame_memory
        if c.attention_bias:  # the event indicators' bilinear form
            core += c.layers * c.heads * (4 * s + 2 * s * s + 3 * s)
        return core + (core + self.line_readout.multiply_adds()) / rounds
