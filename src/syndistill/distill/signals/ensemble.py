"""Several who answer as one Teacher: the mean of their logits, or a weighted sum where one of them says flips alone.

The paper's Teacher is an ensemble of networks; here any mix of networks, the exact posterior and reference decoders, as
correlated matching, is one. Axes: M members, B shots, K ends, S stabilisers, L lines, C logit channels, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import pairwise

import torch

from syndistill.circuits.layout import Layout
from syndistill.decoders.ensemble import fitted_weights
from syndistill.decoders.registry import decoder_names
from syndistill.distill.losses import posterior_logits
from syndistill.distill.signals.reference import ReferenceTeacher
from syndistill.distill.signals.teacher import BF16, OUTPUTS, Answer, FrozenTeacher, Teacher
from syndistill.errors import SyndistillError
from syndistill.files.families import OutputForm
from syndistill.files.network_file import EXACT, members_in
from syndistill.models.networks import load_network
from syndistill.sampling.shots import Shots
from syndistill.training.config import DataConfig, Precision

FIT_BATCH = 512
"""Shots that are asked at a time for the weights."""


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
    does; else all answer for the last end alone. Beside a reference that says flips, members have weights: of the least
    NLL on that one's `fit_shots`, for each basis and end, when such shots are first asked. SyndistillError for members
    of another distance or output.
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
        references = [member for member in self.members if isinstance(member, ReferenceTeacher) and member.votes]
        self._fitted_by = references[0] if references else None
        self._weights: dict[tuple[str, int], torch.Tensor] = {}

    def key(self) -> str:
        keys = [member.key() for member in self.members]
        how = "mean of logits" if self._fitted_by is None else "fitted weights of logits"
        digest = hashlib.sha256("\n".join([how, *(key.removesuffix(BF16) for key in keys)]).encode())
        return digest.hexdigest() + (BF16 if any(key.endswith(BF16) for key in keys) else "")

    def offers_signal(self, name: str) -> bool:
        return name in self.offers or (name not in OUTPUTS and self.first.offers_signal(name))

    def prepare_for_many(self) -> None:
        for member in self.members:
            member.prepare_for_many()

    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        answer = self.first.answer(shots, want)
        logits_MBKLC = self._with_others(answer.logits_BKLC, shots)
        if self._fitted_by is None:
            return Answer(logits_MBKLC.mean(0), answer.signals)
        ends = shots.ends if self.every_end else (shots.rounds,)
        weights_MK = torch.stack([self.weights(shots.basis, end) for end in ends], 1).to(logits_MBKLC)
        return Answer(torch.einsum("mk,mbklc->bklc", weights_MK, logits_MBKLC), answer.signals)

    def _with_others(self, first_BKLC: torch.Tensor, shots: Shots) -> torch.Tensor:
        logits = [first_BKLC, *(member.logits(shots) for member in self.members[1:])]
        return torch.stack(logits if self.every_end else [one[:, -1:, :1] for one in logits])

    def weights(self, basis: str, rounds: int) -> torch.Tensor:
        """Of each member for an experiment of so many rounds, beside a reference that says flips, float32 (M,)."""
        if self._fitted_by is None:
            raise SyndistillError("the members of this ensemble have equal weights; there is nothing to fit")
        if (basis, rounds) not in self._weights:
            longest = max(rounds, self._fitted_by.data.curriculum.longest)
            shots = self._fitted_by.fit_shots(basis, longest if self.every_end else rounds)
            # Every end of the longest shots is an experiment of its own: all of them are fitted at once.
            self._fit(shots if self.every_end else shots.only_last_end())
        return self._weights[basis, rounds]

    def _fit(self, shots: Shots) -> None:
        assert shots.labels_BKLO is not None
        parts = [shots.take(slice(at, at + FIT_BATCH)) for at in range(0, len(shots), FIT_BATCH)]
        logits_MBK = torch.cat([self._with_others(self.first.logits(one), one)[..., 0, 0].cpu() for one in parts], 1)
        flipped_BK = shots.labels_BKLO[..., 0, 0].cpu().numpy().astype(bool)
        for k, end in enumerate(shots.ends):
            of_end_MB1 = logits_MBK[:, :, [k]].double().numpy()
            fitted_M = fitted_weights(of_end_MB1, flipped_BK[:, [k]])
            self._weights[shots.basis, end] = torch.from_numpy(fitted_M).float()

    def gradients(self, shots: Shots, want: Collection[str], towards_BKC: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.first.gradients(shots, want, towards_BKC)

    def answer_from(self, shots: Shots, states_BKSD: torch.Tensor) -> torch.Tensor:
        return self.first.answer_from(shots, states_BKSD)

    @property
    def kin(self) -> frozenset[str]:
        """Keys of the members: a Student that is one of them goes on with the ensemble as its Teacher."""
        return frozenset(member.key().removesuffix(BF16) for member in self.members)


def teacher_named(name: str, precision: Precision = "fp32", data: DataConfig | None = None) -> Teacher:
    """A network by shipped name or path, or an ensemble "teacher-d3,other.safetensors,exact", whose first member is a
    network. data: the shots that it will be asked about; reference decoders, as `pymatching-correlated`, are made for
    their noise. SyndistillError for a name that means none."""
    first, *others = members_in(name)
    if first == EXACT or first in decoder_names():
        raise SyndistillError(f"the Teacher {name!r} begins with {first}; name a network first: its features are taken")
    network = FrozenTeacher(load_network(first)[0], precision)
    beside = [_member(other, network, precision, data) for other in others]
    return EnsembleTeacher([network, *beside]) if beside else network


def _member(name: str, first: FrozenTeacher, precision: Precision, data: DataConfig | None) -> Teacher:
    if name == EXACT:
        return CarriedPosterior(first.layout, first.output)
    if name not in decoder_names():
        return FrozenTeacher(load_network(name)[0], precision)
    if data is None:
        raise SyndistillError(f"{name} as a Teacher is made for its shots' noise, which nobody says here; leave it out")
    return ReferenceTeacher(name, data)


def check_labels_for(teacher: str, data: DataConfig) -> None:
    """ValueError where a Teacher of that name reads exact labels, which these shots have not."""
    if data.labels != EXACT and EXACT in members_in(teacher):
        raise ValueError(
            f"the Teacher {teacher} reads the exact posterior of its shots; set their labels=exact (distance 3)"
        )
