"""How far a Student's posterior is from the Teacher's.

Axes: * any leading axes, B shots, K ends, L lines, P joint patterns of the observables, C logit channels (1 or 2:
independent observables; 4: I, X, Z, Y).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots

LEAST = 1e-15  # of a class probability, before its logarithm


def posterior_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T^2 KL(Teacher || Student) at temperature T, in nats, (*,); 0 where both agree.

    Soft cross-entropy minus the Teacher's entropy (Hinton et al. 2015): for one observable the binary one,
    for four channels the 4-class one. Independent observables are averaged. Shapes (*, C) both.
    """
    s, t = student.float() / temperature, teacher.float() / temperature
    if s.shape[-1] == 4:
        log_t = F.log_softmax(t, -1)
        divergence = (log_t.exp() * (log_t - F.log_softmax(s, -1))).sum(-1)
    else:
        p = torch.sigmoid(t)
        # log p - log q = logsigmoid(t) - logsigmoid(s), likewise for 1 - p: no cancellation at large logits.
        flipped = p * (F.logsigmoid(t) - F.logsigmoid(s))
        kept = torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))
        divergence = (flipped + kept).mean(-1)
    return temperature**2 * divergence


def posterior_logits(shots: Shots, output: str) -> torch.Tensor:
    """logits_BKLC float32 of the exact posterior that the shots carry."""
    if shots.posterior_BKLP is None:
        raise SyndistillError("these shots carry no exact posterior; take data.labels=exact (distance 3)")
    p_BKLP = shots.posterior_BKLP.double().clamp(min=LEAST)
    if output == "joint4":  # I, X, Z, Y as patterns: bit 0 is the x line, flipped by Z and Y
        return p_BKLP[..., [0, 2, 1, 3]].log().float()
    flipped = p_BKLP[..., 1::2].sum(-1), p_BKLP[..., 0::2].sum(-1)
    found = [flipped[0].log() - flipped[1].log()]
    if p_BKLP.shape[-1] == 4:
        found.append(p_BKLP[..., 2:].sum(-1).log() - p_BKLP[..., :2].sum(-1).log())
    return torch.stack(found, -1).float()
