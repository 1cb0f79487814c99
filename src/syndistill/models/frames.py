"""The logical frame as numbers of a network's own: what turns them, what they make of an answer, where lines agree.

Axes: B shots, R measured rounds, S stabilisers, D width of a stabiliser's state, X all of them, Q data qubits, L lines,
F frames, K pairs of neighbouring lines, O observables, C logit channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import answered
from syndistill.files.families import MOST_FRAME, MOST_LOGIT
from syndistill.models.contract import State, TurnableNetwork

KEEPS_FRAME = 2.5
"""The first bias of a frame's factor: tanh(2.5) = .987 a round, near that of a trained network at p=.004."""
QUBIT_KEEPS_FRAME = 3.4
"""The same of a data qubit's factor, of which a line's frame has the product: of five .989."""
AGREES = 1.1
"""How far frames that may agree do, before training: sigmoid(1.1) = .75 of the way."""


def exact(device: torch.device) -> torch.autocast:
    """A region in which float32 stays so: in bfloat16 a factor of .999 is 1."""
    return torch.autocast(device.type, enabled=False)


class FramedNetwork(TurnableNetwork):
    """Of a family that can keep the logical frame, or one for each line, behind its states in `State.memory_BX`."""

    _n_frames: int
    """F: 1 where all lines have one frame, else L."""
    n_counted = 0
    """Rounds that are counted behind the frames in `State.memory_BX`, for each basis that is answered for."""

    @property
    @abstractmethod
    def n_states(self) -> int:
        """X, without frames."""

    @abstractmethod
    def _turns(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        """What each round multiplies the frames by, (B, R, F, C)."""

    def state_of(
        self, basis: str, rounds_done: int, temporal: torch.Tensor, parity_BS: torch.Tensor, previous_BS: torch.Tensor
    ) -> State:
        state = State(basis, rounds_done, temporal.flatten(1), parity_BS, previous_BS)
        return self.with_known_frame(state) if self.keeps_frame else state

    @property
    def keeps_frame(self) -> bool:
        return self.config.frame_memory

    def with_known_frame(self, state: State, flips_BLO: torch.Tensor | None = None) -> State:
        states_BX = state.memory_BX[:, : self.n_states]
        channels = len(answered(state.basis))
        frames_BX = states_BX.new_ones(len(states_BX), self._n_frames * channels)
        if flips_BLO is not None:
            frames_BX = frames_BX - 2 * flips_BLO[:, : self._n_frames].transpose(1, 2).flatten(1)
        counted_BX = self._counted(state.memory_BX, state.basis)
        if not counted_BX.shape[1]:  # before the first round a memory has none
            counted_BX = states_BX.new_zeros(len(states_BX), self.n_counted * channels)
        return replace(state, memory_BX=torch.cat([states_BX, frames_BX, counted_BX], 1))

    def _frames(self, memory: torch.Tensor, basis: str) -> torch.Tensor:
        """Of memories (*, X) with frames, these: (*, F, C)."""
        channels = len(answered(basis))
        frames = memory[..., self.n_states : self.n_states + channels * self._n_frames]
        return frames.unflatten(-1, (channels, -1)).transpose(-1, -2)

    def _frames_after(self, before_BX: torch.Tensor, turns_BRFC: torch.Tensor, basis: str) -> torch.Tensor:
        """The frames after each round as a memory holds them, (B, R, F C)."""
        frames_BRFC = self._frames(before_BX, basis)[:, None] * turns_BRFC.cumprod(1)
        return frames_BRFC.transpose(-1, -2).flatten(2)

    def _counted(self, memory: torch.Tensor, basis: str) -> torch.Tensor:
        """Of memories (*, X) with frames, what is counted behind these."""
        return memory[..., self.n_states + len(answered(basis)) * self._n_frames :]


class LineFrames(FramedNetwork):
    """Of a network with a state at every stabiliser: a frame for each line.

    A round multiplies a line's frame by the product of its data qubits' factors, each tanh(W h + b) of the qubit's four
    stabilisers: an error is seen where it happens, and whether a line flipped is the parity of its qubits, which no sum
    of local numbers says. Qubits stand in the order of the parity of row + column; each parity has its own W, each
    qubit its own b.
    """

    corner_Q4: torch.Tensor
    kinds_2: torch.Tensor
    x_LQ: torch.Tensor
    z_LQ: torch.Tensor

    def _make_line_frames(self, width: int, bases: Collection[str]) -> None:
        """bases: those with a frame."""
        n_lines = self.layout.n_lines
        self.frame_weight, self.frame_bias = nn.ParameterDict(), nn.ParameterDict()
        for basis in bases:
            self.frame_weight[basis] = nn.Parameter(torch.randn(2, 4, width) * 0.02)
            self.frame_bias[basis] = nn.Parameter(torch.full((n_lines**2,), QUBIT_KEEPS_FRAME))
        is_odd_Q = np.indices((n_lines, n_lines)).sum(0).ravel() % 2 == 1
        order_Q = np.argsort(is_odd_Q, kind="stable")
        self._n_of_kind = np.bincount(is_odd_Q).tolist()
        line_Q, of_line = order_Q // n_lines, np.arange(n_lines)[:, None]
        self.register_buffer("corner_Q4", torch.from_numpy(self.layout.corners_Q4[order_Q]), persistent=False)
        self.register_buffer("kinds_2", torch.tensor(self._n_of_kind), persistent=False)
        for name, member_LQ in (("x_LQ", line_Q == of_line), ("z_LQ", order_Q % n_lines == of_line)):
            self.register_buffer(name, torch.from_numpy(member_LQ).float() / n_lines, persistent=False)

    def _read(self, basis: str) -> tuple[tuple[str, str], ...]:
        """The bases answered for, each with the one whose lines it has inside."""
        return (("x", "x"), ("z", "z")) if basis == "both" else ((basis, self.read_as(basis)),)

    def _turns(self, states_BRX: torch.Tensor, basis: str) -> torch.Tensor:
        """What each round multiplies the frames by, (B, R, L, C)."""
        return torch.stack([self._turned_lines(states_BRX, b, f) for b, f in self._read(basis)], -1)

    def _turned_lines(self, states_BRX: torch.Tensor, basis: str, read_as: str) -> torch.Tensor:
        n_qubits, weight_24D = len(self.corner_Q4), self.frame_weight[basis]
        weight_Q4D = weight_24D.repeat_interleave(self.kinds_2, dim=0)
        written_QSD = weight_Q4D.new_zeros(n_qubits, self.layout.n_stabilisers + 1, weight_24D.shape[-1])
        qubit_Q4 = torch.arange(n_qubits, device=weight_Q4D.device)[:, None].expand(-1, 4)
        written_QSD = written_QSD.index_put((qubit_Q4, self.corner_Q4), weight_Q4D)[:, :-1]  # the last: no stabiliser
        factor_BRQ = torch.tanh(nn.functional.linear(states_BRX, written_QSD.flatten(1), self.frame_bias[basis]))
        member_LQ = (self.x_LQ if read_as == "x" else self.z_LQ) > 0
        return torch.stack([factor_BRQ[..., member_Q].prod(-1) for member_Q in member_LQ], -1)


def in_frame(logits: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    """Log odds of a flip, from those in a logical frame that is +1 or -1 with mean `frame`.

    Of two independent signs the mean of the product is the product of the means, m = frame * tanh(logits / 2). This is
    log((1 + m) / (1 - m)), multiplied by 1 + exp(-logits) above and below, which costs no digits near m = +-1.
    """
    frame, against = frame.float(), torch.exp(-logits.float().clamp(-MOST_LOGIT, MOST_LOGIT))
    return torch.log(1 + frame + (1 - frame) * against) - torch.log(1 - frame + (1 + frame) * against)


def quiet_rounds(busy_BRK: torch.Tensor, before_BK: torch.Tensor, most: int) -> torch.Tensor:
    """For how many rounds nothing has happened, after each round, counted up to `most`: float32 (B, R, K)."""
    counted, quiet_BK = [], before_BK.float()
    for busy_BK in busy_BRK.unbind(1):
        quiet_BK = torch.where(busy_BK, 0.0, (quiet_BK + 1).clamp(max=most))
        counted.append(quiet_BK)
    return torch.stack(counted, 1)


def agreeing(
    frames_BL: torch.Tensor,
    turns_BRL: torch.Tensor,
    joined_BRK: torch.Tensor,
    sign_BRL: torch.Tensor,
    share: torch.Tensor,
) -> torch.Tensor:
    """The lines' frames after each round, (B, R, L), each drawn by `share` to the mean log odds of those it is joined
    to. joined_BRK: of the lines k and k + 1. sign_BRL: of each line's label to the first one's, by measured parities.
    """
    group_BRL = nn.functional.pad((~joined_BRK).float().cumsum(-1), (1, 0))
    together_BRLL = (group_BRL[..., :, None] == group_BRL[..., None, :]).to(frames_BL)
    alone_BRL1 = together_BRLL.sum(-1, keepdim=True) == 1
    mean_BRLL = together_BRLL / together_BRLL.sum(-1, keepdim=True)
    draws_BRLL = share * (mean_BRLL - torch.eye(group_BRL.shape[-1]).to(share))
    kept = []
    for r in range(turns_BRL.shape[1]):
        turned_BL = frames_BL * turns_BRL[:, r]
        bounded_BL = turned_BL.clamp(-MOST_FRAME, MOST_FRAME)
        odds_BL1 = ((torch.log1p(bounded_BL) - torch.log1p(-bounded_BL)) * sign_BRL[:, r])[..., None]
        odds_BL1 = odds_BL1 + draws_BRLL[:, r] @ odds_BL1
        drawn_BL = torch.tanh(odds_BL1[..., 0] * sign_BRL[:, r] / 2)
        frames_BL = torch.where(alone_BRL1[:, r, :, 0], turned_BL, drawn_BL)
        kept.append(frames_BL)
    return torch.stack(kept, 1)
