"""Who answers (a frozen network of this project, or anything behind a small adapter), and a batch with the answer.

Axes: B shots, R measured rounds, K ends, S stabilisers, L lines, C logit channels, D width, P components.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.terms import UNTRAINED
from syndistill.errors import SyndistillError
from syndistill.files.families import OutputForm
from syndistill.models.contract import (
    DecoderNetwork,
    TurnableNetwork,
    defined_only,
    event_history,
)
from syndistill.models.networks import fresh_network, weights_hash
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import Labels
from syndistill.training.config import Precision
from syndistill.training.precision import warn_if_emulated

COMPILED_SHOTS = 64
"""A compiled network is asked so many shots at a time or a multiple, for every other number is another compilation."""
BF16 = "-bf16"
"""Behind the hash of weights that answer in bf16: another Teacher for a cache, the same for a Student's next stage."""
OUTPUTS = frozenset({"final", "readout"})
"""Names that are answered by logits, not by tensors of their own."""
GRADIENTS, ANSWER_FROM = "gradients", "answer_from"
"""What a Teacher offers that has the method of this name."""


@dataclass(frozen=True, eq=False)
class Answer:
    """logits_BKLC float32: every end and line from a Teacher that offers "readout"; else (B, 1, 1, C), the final ones.

    signals: the hidden states asked for, by name.
    """

    logits_BKLC: torch.Tensor
    signals: dict[str, torch.Tensor] = field(default_factory=dict)


class Teacher(ABC):
    """To bring a Teacher of one's own: say what it offers, what it is, and answer.

    offers: out of "final" (the logit of the last end and the experiment's line), "readout" (of every end and line),
    "spatial" (B, R, S, D), "temporal" (B, R, S, D) and "ends" (B, K, S, D), as `DecoderNetwork.signals_offered` says;
    and "gradients" and "answer_from" where it has the methods of these names. Stabilisers stand in the order of
    `layout`, which Teacher and Student share. labels: that its shots must carry, so that it can answer.
    """

    offers: frozenset[str]
    labels: Labels = "sampled"
    layout: Layout
    output: OutputForm

    @abstractmethod
    def key(self) -> str:
        """A hash of everything that its answers depend on: by it, caches know their Teacher."""

    @abstractmethod
    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        """Logits, and the wanted hidden states; without gradients. `want` names only what is offered."""

    def gradients(self, shots: Shots, want: Collection[str], towards_BKC: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of sum(towards * logits of the experiment's line) with respect to each wanted signal, in the signal's shape:
        how far the answers move where the signal does, in its round and through all later ones."""
        raise NotImplementedError(f"{type(self).__name__} offers no {GRADIENTS}")

    def answer_from(self, shots: Shots, states_BKSD: torch.Tensor) -> torch.Tensor:
        """logits_BKLC, had "temporal" been this after the round of each end; gradients flow into the states alone."""
        raise NotImplementedError(f"{type(self).__name__} offers no {ANSWER_FROM}")

    def logits(self, shots: Shots) -> torch.Tensor:
        """The logits alone, float32 (B, K, L, C)."""
        return self.answer(shots).logits_BKLC

    def prepare_for_many(self) -> None:  # noqa: B027  # there is a default: nothing
        """Called before many thousand shots are asked: what takes half a minute and then pays."""

    def offers_signal(self, name: str) -> bool:
        """Whether it offers a name, or a layer of it such as "spatial.1"."""
        return name in self.offers

    def require(self, wanted: Collection[str], what_for: str) -> None:
        """SyndistillError that names what is missing."""
        if missing := sorted(name for name in set(wanted) if not self.offers_signal(name)):
            raise SyndistillError(
                f"{what_for} needs the signal {', '.join(missing)}, which this Teacher does not offer (it offers "
                f"{', '.join(sorted(self.offers))}); set that term's weight to 0 or take a Teacher that does"
            )


class FrozenTeacher(Teacher):
    """A trained network that answers and never learns.

    A signal's name behind `UNTRAINED` asks the same architecture with the fresh weights of seed 0: it sees the shots,
    and knows nothing of decoding. precision: bf16 is autocast and compiled, twice as fast on a CPU; its answers differ
    in the third digit, so that it counts as another Teacher (`key`).
    """

    def __init__(self, network: DecoderNetwork, precision: Precision = "fp32") -> None:
        self.network = network.eval().requires_grad_(False)
        self.precision = precision
        if precision == "bf16":
            warn_if_emulated(precision, next(network.parameters()).device)
            self.network.compile_blocks()
        can = {ANSWER_FROM, GRADIENTS} if network.shows_the_way else {ANSWER_FROM}
        self.offers = OUTPUTS | network.signals_offered | can
        self.layout = network.layout
        self.output = network.config.output
        self._compiled = precision == "bf16"
        self._key = weights_hash(network) + ("" if precision == "fp32" else BF16)
        self._untrained: DecoderNetwork | None = None

    def key(self) -> str:
        return self._key

    def offers_signal(self, name: str) -> bool:
        return name in self.offers or self.network.offers_signal(name.removeprefix(UNTRAINED))

    def prepare_for_many(self) -> None:
        """Compile where there is a compiler; at d=5 1.4 times the shots per second of one core."""
        if self._compiled or not shutil.which(os.environ.get("CXX", "g++")):
            return
        self._compiled = self.network.compile_if_possible()

    @torch.no_grad()
    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        n_shots = len(shots)
        if self._compiled and n_shots % COMPILED_SHOTS:
            full = -(-n_shots // COMPILED_SHOTS) * COMPILED_SHOTS
            shots = shots.take(torch.arange(full).clamp(max=n_shots - 1))
        answer = self._answer(shots, want)
        return Answer(answer.logits_BKLC[:n_shots], {name: x[:n_shots] for name, x in answer.signals.items()})

    def _answer(self, shots: Shots, want: Collection[str]) -> Answer:
        self.network.to(shots.events_BRS.device)
        untrained = [name.removeprefix(UNTRAINED) for name in want if name.startswith(UNTRAINED)]
        wanted = [n for n in want if n not in OUTPUTS and not n.startswith(UNTRAINED)]
        with self._autocast(shots):
            outputs = self.network(shots, wanted)
        signals = {name: x.float() for name, x in outputs.signals.items()}
        if untrained:
            fresh = self._untrained_on(shots)
            found = fresh(shots.only_last_end(), untrained).signals  # those of the rounds do not know the ends
            signals |= {UNTRAINED + name: x.float() for name, x in found.items()}
        return Answer(outputs.logits_BKLC.float(), signals)

    def gradients(self, shots: Shots, want: Collection[str], towards_BKC: torch.Tensor) -> dict[str, torch.Tensor]:
        device = shots.events_BRS.device
        untrained = [name for name in want if name.startswith(UNTRAINED)]
        found: dict[str, torch.Tensor] = {}
        for names in (sorted(set(want) - {*untrained}), untrained):
            if names:
                network = self._untrained_on(shots) if names is untrained else self.network.to(device)
                with self._autocast(shots):
                    own = _gradients(network, shots, [n.removeprefix(UNTRAINED) for n in names], towards_BKC.to(device))
                found |= {name: own[name.removeprefix(UNTRAINED)] for name in names}
        return found

    def answer_from(self, shots: Shots, states_BKSD: torch.Tensor) -> torch.Tensor:
        network = self.network.to(shots.events_BRS.device)
        seen = defined_only(shots)
        if isinstance(network, TurnableNetwork):
            seen = network.turned_shots(seen)
            if states_BKSD.ndim == 4:  # a flat state has no order of stabilisers
                states_BKSD = network.turned(states_BKSD.transpose(-1, -2), shots.basis).transpose(-1, -2)
        parity_BRS, _, _, _ = event_history(seen)
        logits = []
        with self._autocast(shots):
            for k, end in enumerate(shots.ends):
                parity_BS, events_BS = parity_BRS[:, end - 1], seen.events_BRS[:, end - 1]
                state = network.state_of(shots.basis, end, states_BKSD[:, k], parity_BS, events_BS)
                logits.append(network.readout(state, shots.last_BKS[:, k]))
        return torch.stack(logits, 1).float()

    def _autocast(self, shots: Shots) -> torch.autocast:
        return torch.autocast(shots.events_BRS.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _untrained_on(self, shots: Shots) -> DecoderNetwork:
        if self._untrained is None:
            self._untrained = fresh_network(self.network.config, 0).eval().requires_grad_(False)
        return self._untrained.to(shots.events_BRS.device)


@torch.enable_grad()
def _gradients(
    network: DecoderNetwork, shots: Shots, want: list[str], towards_BKC: torch.Tensor
) -> dict[str, torch.Tensor]:
    """As `Teacher.gradients`, of a network that shows the way; its weights get none."""
    network.requires_grad_(True)  # so that there is a graph
    try:
        outputs = network(shots, want)
        aim = (outputs.logits_BKLC[:, :, 0] * towards_BKC).sum()
        parts = [x for name in want for x in outputs.on_the_way[name]]
        found = iter(torch.autograd.grad(aim, parts, allow_unused=True, materialize_grads=True))
    finally:
        network.requires_grad_(False)
    gradients = {name: torch.stack([next(found) for _ in outputs.on_the_way[name]], 1).float() for name in want}
    if isinstance(network, TurnableNetwork):
        return {name: network.turned_back(x, shots.basis, axis=-2) for name, x in gradients.items()}
    return gradients


class PosteriorTeacher(Teacher):
    """A black box that gives the final posterior and nothing else: an exact one, a matching decoder, a foreign network.

    posterior: float logits (B, C) of the experiment's line at the last end, from shots.
    """

    offers = frozenset({"final"})

    def __init__(
        self, posterior: Callable[[Shots], torch.Tensor], key: str, layout: Layout, output: OutputForm = "two_channel"
    ) -> None:
        self._posterior, self._key = posterior, key
        self.layout, self.output = layout, output

    def key(self) -> str:
        return self._key

    @torch.no_grad()
    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        self.require(want, "this question")
        logits_BC = self._posterior(shots).float()
        if logits_BC.ndim != 2 or len(logits_BC) != len(shots):
            raise SyndistillError(
                f"a posterior of shape {tuple(logits_BC.shape)} for {len(shots)} shots; give logits (B, C)"
            )
        return Answer(logits_BC[:, None, None])


class Target(ABC):
    """What a Student learns of a Teacher beside its logits: one thing from the question to the loss.

    name: of its term. wants: what the Teacher is asked for. every_rounds: which rounds it is of; None for one entry per
    end. A cache keeps it encoded.
    """

    name: str
    wants: frozenset[str]
    every_rounds: int | None

    @property
    @abstractmethod
    def content(self) -> str:
        """A hash of everything that it is made with."""

    @abstractmethod
    def of(self, shots: Shots, answer: Answer) -> torch.Tensor:
        """What the loss compares with, on the answer's device; without gradients."""

    @abstractmethod
    def encode(self, target: torch.Tensor) -> torch.Tensor:
        """As it is kept."""

    @abstractmethod
    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        """What was encoded, to the precision of what is kept, on its device."""

    @abstractmethod
    def bytes_per_shot(self, rounds: int, layout: Layout, channels: int) -> int:
        """Of what is kept."""

    @property
    def key(self) -> str:
        """Several of one name can be told apart by it."""
        return f"{self.name}-{self.content[:12]}"

    def kept(self, rounds: int) -> int:
        """How many entries along the second axis an experiment of so many rounds has."""
        return rounds if self.every_rounds is None else -(-rounds // self.every_rounds)


@dataclass(frozen=True, eq=False)
class TaughtShots:
    """Shots, and the Teacher's logits for every end and line, teacher_BKLC float (None: ask it live).

    kept: what a cache holds beyond, encoded, by the names of `Target`s. number: which batch of its run it is.
    """

    shots: Shots
    teacher_BKLC: torch.Tensor | None
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    number: int = 0

    def __len__(self) -> int:
        return len(self.shots)

    def take(self, index: slice) -> TaughtShots:
        teacher = None if self.teacher_BKLC is None else self.teacher_BKLC[index]
        kept = {name: x[index] for name, x in self.kept.items()}
        return replace(self, shots=self.shots.take(index), teacher_BKLC=teacher, kept=kept)

    def to(self, device: torch.device | str) -> TaughtShots:
        teacher = None if self.teacher_BKLC is None else self.teacher_BKLC.to(device)
        kept = {name: x.to(device) for name, x in self.kept.items()}
        return replace(self, shots=self.shots.to(device), teacher_BKLC=teacher, kept=kept)


def cut(taught: TaughtShots, rounds: int, every_end: bool = False) -> TaughtShots:
    """The experiment of the first `rounds` rounds: its history, its last slice, its labels.

    every_end keeps the alternative ends before. For batches without cached features: a cache cuts those itself.
    """
    shots = taught.shots
    k = shots.ends.index(rounds)
    kept = slice(0 if every_end else k, k + 1)
    shorter = shots.cut_at([*range(len(shots.ends))[kept]])
    teacher_BKLC = None if taught.teacher_BKLC is None else taught.teacher_BKLC[:, kept]
    return replace(taught, shots=shorter, teacher_BKLC=teacher_BKLC)


def draw_ends(taught: TaughtShots, count: int, seed: int) -> TaughtShots:
    """`count` of the ends: the last one, and others drawn by (seed, number of the batch). All where there are no more.

    Every end costs the Student a readout; over the batches every end has its turn.
    """
    shots, n = taught.shots, len(taught.shots.ends)
    if n <= count:
        return taught
    rng = np.random.default_rng([seed, 2, taught.number])
    kept = [*sorted(rng.choice(n - 1, count - 1, replace=False).tolist()), n - 1]
    fewer = shots.at_ends(kept)
    of_ends = {"fused": taught.kept["fused"][:, kept]} if "fused" in taught.kept else {}
    teacher_BKLC = None if taught.teacher_BKLC is None else taught.teacher_BKLC[:, kept]
    return replace(taught, shots=fewer, teacher_BKLC=teacher_BKLC, kept=taught.kept | of_ends)
