"""Objectives: (model, shots) -> loss and named values. Here the Teacher's; a Student's are in `distill`.

Axes: B shots, K ends, L lines, C logit channels, O observables, P their joint patterns, R rounds, S stabilisers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, Outputs
from syndistill.sampling.shots import Shots
from syndistill.training.carried import CarriedStates

Values = dict[str, torch.Tensor]


def joint_class(labels_BKLO: torch.Tensor) -> torch.Tensor:
    """int64 (B, K, L): 0 I, 1 X, 2 Z, 3 Y from (x line, z line) flips. An X error flips the Z observable."""
    return 2 * labels_BKLO[..., 0].long() + labels_BKLO[..., 1].long()


def label_loss(logits_BKLC: torch.Tensor, labels_BKLO: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the true labels in nats, (B, K, L): mean over channels, or the 4-class one."""
    logits = logits_BKLC.float()
    if logits.shape[-1] == 4:
        return F.cross_entropy(logits.movedim(-1, 1), joint_class(labels_BKLO), reduction="none")
    return F.binary_cross_entropy_with_logits(logits, labels_BKLO.float(), reduction="none").mean(-1)


def coin_loss(logits_BKLC: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with a fair coin in place of each label in nats, (B, K, L): least where all logits are equal."""
    logits = logits_BKLC.float()
    if logits.shape[-1] == 4:
        return -F.log_softmax(logits, -1).mean(-1)
    return -0.5 * (F.logsigmoid(logits) + F.logsigmoid(-logits)).mean(-1)


def posterior_loss(logits_BKLC: torch.Tensor, posterior_BKLP: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the exact posterior in nats, (B, K, L): the mean of `label_loss` over the draw of the label.

    Its least value is the posterior's entropy.
    """
    logits = logits_BKLC.float()
    if logits.shape[-1] == 4:
        # I, X, Z, Y as patterns: bit 0 is the x line, flipped by Z and Y, bit 1 the z line, flipped by X and Y.
        return F.cross_entropy(
            logits.movedim(-1, 1), posterior_BKLP[..., [0, 2, 1, 3]].movedim(-1, 1), reduction="none"
        )
    flipped = [posterior_BKLP[..., p] for p in range(posterior_BKLP.shape[-1])]
    marginals = [flipped[1]] if len(flipped) == 2 else [flipped[1] + flipped[3], flipped[2] + flipped[3]]
    target_BKLO = torch.stack(marginals, -1).clamp(0.0, 1.0)
    return F.binary_cross_entropy_with_logits(logits, target_BKLO, reduction="none").mean(-1)


def next_event_loss(outputs: Outputs, shots: Shots) -> torch.Tensor:
    """Cross-entropy of the prediction of the next round's events; zero for one-round shots."""
    if outputs.next_BRS is None:
        raise SyndistillError("this network has no next-stabiliser head; set next_event_weight to 0")
    if shots.rounds < 2:
        return outputs.next_BRS.sum() * 0.0
    logits = outputs.next_BRS[:, :-1].float()
    return F.binary_cross_entropy_with_logits(logits, shots.events_BRS[:, 1:].float())


def wrong_at_last_end(outputs: Outputs, shots: Shots) -> torch.Tensor:
    """Share of shots whose first line is decided wrongly at the last end."""
    assert shots.labels_BKLO is not None
    logits, labels = outputs.logits_BKLC[:, -1, 0], shots.labels_BKLO[:, -1, 0]
    if logits.shape[-1] == 4:
        return (logits.argmax(-1) != joint_class(labels)).float().mean()
    return ((logits > 0) != labels.bool()).any(-1).float().mean()


class GroundTruth:
    """Cross-entropy with the label of every line after every round, plus next-stabiliser prediction.

    Where shots carry the exact posterior of the label, it stands for the drawn one. carried: the states that parts of
    long experiments go on from.
    """

    def __init__(self, next_event_weight: float = 0.02) -> None:
        self.next_event_weight = next_event_weight
        self.carried = CarriedStates()

    def __call__(self, model: DecoderNetwork, shots: Shots) -> tuple[torch.Tensor, Values]:
        if shots.labels_BKLO is None:
            raise SyndistillError("these shots carry no labels; ground truth needs some")
        outputs = self.carried.outputs(model, shots)
        if shots.posterior_BKLP is None:
            nll_BKL = label_loss(outputs.logits_BKLC, shots.labels_BKLO)
        else:
            nll_BKL = posterior_loss(outputs.logits_BKLC, shots.posterior_BKLP)
        loss = nll_BKL.mean()
        values = {
            "nll": loss.detach(),
            "nll_last": nll_BKL[:, -1].mean().detach(),
            "ler_last": wrong_at_last_end(outputs, shots),
        }
        if self.next_event_weight:
            following = next_event_loss(outputs, shots)
            loss = loss + self.next_event_weight * following
            values["next_event"] = following.detach()
        return loss, values
