"""Probe heads: what the Teacher's hidden states say of the lines before its own readout speaks.

Trained on the frozen Teacher, on shots that no Student learns from; they never leave training.
Axes: B shots, R rounds, K ends, S stabilisers, L lines, C logit channels, D width; N = B * K.
"""

from __future__ import annotations

import torch
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.teacher import Answer, Teacher
from syndistill.errors import SyndistillError
from syndistill.models.blocks import LineReadout
from syndistill.models.contract import defined_only, event_history
from syndistill.sampling.shots import Shots
from syndistill.training.objective import Values, label_loss, posterior_loss

MAX_ROUNDS = 25  # rounds with an embedding of their own, as in the networks


class EndsProbe(nn.Module):
    """From the hidden states inside the pass over the last slice, with the readout's own line pooling."""

    def __init__(self, layout: Layout, width: int, readout_width: int, layers: int, output: str) -> None:
        super().__init__()
        self.readout = LineReadout(layout, width, readout_width, layers, MAX_ROUNDS, output)

    def forward(self, shots: Shots, signal_BKSD: torch.Tensor) -> torch.Tensor:
        """logits_BKLC."""
        return _all_ends(self.readout, shots, signal_BKSD)


class StateProbe(nn.Module):
    """From the recurrent state of each end's round, and the last slice: without it no state knows a label.

    The slice enters as its events, the final parities, and whether it is defined. before: the states of so many rounds
    before are read too, the first round's again where there are fewer.
    """

    def __init__(
        self, layout: Layout, width: int, readout_width: int, layers: int, output: str, before: int = 0
    ) -> None:
        super().__init__()
        self.before = before
        self.merge = nn.Sequential(nn.Linear((before + 1) * width + 3, width), nn.GELU(), nn.Linear(width, width))
        self.readout = LineReadout(layout, width, readout_width, layers, MAX_ROUNDS, output)

    def forward(self, shots: Shots, signal_BRSD: torch.Tensor) -> torch.Tensor:
        """logits_BKLC."""
        shots = defined_only(shots)
        _, _, last_parity_BKS, _ = event_history(shots)
        back = range(self.before + 1)
        state_BKSD = torch.cat([signal_BRSD[:, [max(0, end - 1 - n) for end in shots.ends]] for n in back], -1)
        defined_S = torch.from_numpy(shots.layout.on_basis_S(shots.basis)).to(state_BKSD.device)
        bits = [shots.last_BKS, last_parity_BKS, defined_S.expand(last_parity_BKS.shape)]
        slice_BKS3 = torch.stack([x.to(state_BKSD.dtype) for x in bits], -1)
        return _all_ends(self.readout, shots, self.merge(torch.cat([state_BKSD, slice_BKS3], -1)))


def _all_ends(readout: LineReadout, shots: Shots, x_BKSD: torch.Tensor) -> torch.Tensor:
    rounds_N = torch.tensor(shots.ends, device=x_BKSD.device).repeat(len(shots))
    return readout(x_BKSD.flatten(0, 1), rounds_N, shots.basis).unflatten(0, (len(shots), len(shots.ends)))


def has_probe(path: str) -> bool:
    return path.partition(".")[0] in ("transformer", "state")


def probe_of(path: str, layout: Layout, width: int, readout_width: int, layers: int, output: str) -> nn.Module:
    kind, _, number = path.partition(".")
    if kind == "transformer":
        return EndsProbe(layout, width, readout_width, layers, output)
    return StateProbe(layout, width, readout_width, layers, output, int(number or 0))


def probe_width(teacher: Teacher, shots: Shots, signal: str) -> int:
    """D of a per-stabiliser signal. SyndistillError for a flat one: lines cannot be pooled from it."""
    found = teacher.answer(shots.take(slice(0, 1)), [signal]).signals[signal]
    if found.ndim != 4:
        raise SyndistillError(
            f"the Teacher's {signal} is flat, shape {tuple(found.shape)}; a probe needs one state per stabiliser, "
            "leave this path out of the fusion"
        )
    return int(found.shape[-1])


class ProbeObjective:
    """Each probe's divergence from the Teacher's posterior plus the label's cross-entropy (drawn, revealed or exact, as
    the shots carry it), at every end and line."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, fusion: nn.Module, shots: Shots) -> tuple[torch.Tensor, Values]:
        if shots.labels_BKLO is None:
            raise SyndistillError("these shots carry no labels; probes need some")
        answer: Answer = self.teacher.answer(shots, fusion.wants)  # type: ignore[arg-type]  # a Fusion
        values: Values = {}
        loss = torch.zeros((), device=answer.logits_BKLC.device)
        for name, logits_BKLC in fusion.probe_logits(shots, answer).items():  # type: ignore[operator]
            divergence = posterior_divergence(logits_BKLC, answer.logits_BKLC).mean()
            if shots.posterior_BKLP is None:
                nll = label_loss(logits_BKLC, shots.labels_BKLO).mean()
            else:
                nll = posterior_loss(logits_BKLC, shots.posterior_BKLP).mean()
            loss = loss + divergence + nll
            values |= {f"{name}.kl": divergence.detach(), f"{name}.nll": nll.detach()}
        return loss, values
