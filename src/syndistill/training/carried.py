"""The network's state behind the latest part of each long experiment: where its next part begins.

States are carried without their gradients, so that a step learns from its own rounds alone and costs no more wherever
they lie; what is true at a part's beginning is true of the weights a few steps ago. Saved with a run, so that it goes
on as if it had never stopped.
Axes: B shots, S stabilisers, X a state (any shape).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from syndistill.circuits.layout import BASES
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, Outputs, State
from syndistill.sampling.shots import Shots

_PREFIX = "carried"
_NAMES = ("about", "memory", "parity", "previous")


class CarriedStates:
    """By lane (`sampling.shots.Part`). Batches that are whole experiments leave it empty."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def outputs(self, model: DecoderNetwork, shots: Shots, want: Collection[str] = ()) -> Outputs:
        """What the network says of these rounds, from where it was; and where it is now is kept."""
        if shots.part is None:
            whole: Outputs = model(shots, want) if want else model(shots)
            return whole
        begin = self._states.get(shots.part.lane) if shots.first_round else None
        if shots.part.told and begin is not None:
            begin = model.with_known_frame(begin, shots.known_BLO)
        outputs: Outputs = model(shots, want, begin)
        if shots.part.told and shots.known_BLO is None:
            outputs = _in_its_own_frame(outputs, shots)
        state = outputs.state
        assert state is not None
        self._states[shots.part.lane] = State(
            state.basis, state.rounds_done, state.memory_BX.detach(), state.parity_BS, state.previous_BS
        )
        return outputs

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything, by names that begin alike."""
        found: dict[str, torch.Tensor] = {}
        for lane, state in self._states.items():
            about = torch.tensor([BASES.index(state.basis), state.rounds_done])
            parts = zip(_NAMES, (about, state.memory_BX, state.parity_BS, state.previous_BS), strict=True)
            found |= {f"{_PREFIX}.{lane}.{name}": tensor.contiguous() for name, tensor in parts}
        return found

    def load(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """From what `tensors` gave, among others."""
        lanes = {int(name.split(".")[1]) for name in tensors if name.startswith(f"{_PREFIX}.")}
        self._states = {}
        for lane in lanes:
            about, *parts = (tensors[f"{_PREFIX}.{lane}.{name}"] for name in _NAMES)
            basis, rounds_done = about.tolist()
            memory_BX, parity_BS, previous_BS = (part.to(device) for part in parts)
            self._states[lane] = State(BASES[basis], rounds_done, memory_BX, parity_BS, previous_BS)


def _in_its_own_frame(outputs: Outputs, shots: Shots) -> Outputs:
    """Each shot's logits with the sign that the told posterior agrees with best, over all its ends and lines."""
    if shots.posterior_BKLP is None:
        raise SyndistillError("a part whose frame is told needs the exact posterior")
    said_BKL = torch.tanh(outputs.logits_BKLC.detach()[..., 0] / 2)
    told_BKL = 2 * shots.posterior_BKLP[..., 1] - 1
    agrees_B = (said_BKL * told_BKL).sum((1, 2)) >= 0
    sign_B = torch.where(agrees_B, 1.0, -1.0)
    return replace(outputs, logits_BKLC=outputs.logits_BKLC * sign_B[:, None, None, None])
