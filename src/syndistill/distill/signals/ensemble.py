"""Several who answer as one Teacher: the mean of their logits.

The paper's Teacher is an ensemble of networks; here any mix of networks and the exact posterior is one.
Axes: B shots, K ends, S stabilisers, L lines, C logit channels, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import pairwise

import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.losses import posterior_logits
from syndistill.distill.signals.teacher import BF16, OUTPUTS, Answer, FrozenTeacher, Teacher
from syndistill.errors import SyndistillError
from syndistill.files.families import OutputForm
from syndistill.files.network_file import EXACT, members_in
from syndistill.models.networks import load_network
from syndistill.sampling.shots import Shots
from syndistill.training.config import DataConfig, Precision


class CarriedPosterior(Teacher):
    """The exact posterior that shots with labels=exact carry, whatever their error rate: every line and end."""

    offers = OUTPUTS
    labels = EXACT

    def __init__(self, layout: Layout, output: OutputForm) -> None:
        self.layout, self.output = layout, output

    def key(self) -> str:
        return hashlib.sha256(b"the exact posterior that the shots carry").hexdigest()

    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        self.require(want, "this question")
        return Answer(posterior_logits(shots, self.output))


class EnsembleTeacher(Teacher):
    """The mean of the members' logits (of log odds, or of joint4's four logits).

    Hidden states, and what is asked with their help, are the first member's. "readout" is offered where every member
    does; else all answer for the last end alone. SyndistillError for members of another distance or output.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members = tuple(members)
        self.first = first = self.members[0]
        for one, other in pairwise(self.members):
            if (one.layout, one.output) != (other.layout, other.output):
                raise SyndistillError(
                    f"an ensemble of a decoder of distance {one.layout.distance} and output {one.output} and one of "
                    f"{other.layout.distance} and {other.output}; name members that are alike"
                )
        self.layout, self.output = first.layout, first.output
        self.labels = EXACT if any(member.labels == EXACT for member in self.members) else first.labels
        self.every_end = all("readout" in member.offers for member in self.members)
        self.offers = first.offers if self.every_end else first.offers - {"readout"}

    def key(self) -> str:
        keys = [member.key() for member in self.members]
        digest = hashlib.sha256("\n".join(["mean of logits", *(key.removesuffix(BF16) for key in keys)]).encode())
        return digest.hexdigest() + (BF16 if any(key.endswith(BF16) for key in keys) else "")

    def offers_signal(self, name: str) -> bool:
        return name in self.offers or (name not in OUTPUTS and self.first.offers_signal(name))

    def prepare_for_many(self) -> None:
        for member in self.members:
            member.prepare_for_many()

    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        answer = self.first.answer(shots, want)
        logits = [answer.logits_BKLC, *(member.logits(shots) for member in self.members[1:])]
        if not self.every_end:
            logits = [one[:, -1:, :1] for one in logits]
        return Answer(torch.stack(logits).mean(0), answer.signals)

    def gradients(self, shots: Shots, want: Collection[str], towards_BKC: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.first.gradients(shots, want, towards_BKC)

    def answer_from(self, shots: Shots, states_BKSD: torch.Tensor) -> torch.Tensor:
        return self.first.answer_from(shots, states_BKSD)


def teacher_named(name: str, precision: Precision = "fp32") -> Teacher:
    """A network by shipped name or path, or an ensemble "teacher-d3,other.safetensors,exact", whose first member is a
    network. SyndistillError for a name that means none."""
    first, *others = members_in(name)
    if first == EXACT:
        raise SyndistillError(f"the Teacher {name!r} begins with {EXACT}; name a network first: its features are taken")
    network = FrozenTeacher(load_network(first)[0], precision)
    exact = CarriedPosterior(network.layout, network.output)
    beside = [exact if other == EXACT else FrozenTeacher(load_network(other)[0], precision) for other in others]
    return EnsembleTeacher([network, *beside]) if beside else network


def check_labels_for(teacher: str, data: DataConfig) -> None:
    """ValueError where a Teacher of that name reads exact labels, which these shots have not."""
    if data.labels != EXACT and EXACT in members_in(teacher):
        raise ValueError(
            f"the Teacher {teacher} reads the exact posterior of its shots; set their labels=exact (distance 3)"
        )
