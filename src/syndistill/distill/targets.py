"""A training batch with what the Teacher says of it.

Axes: B shots, R rounds, K ends, S stabilisers, L lines, C logit channels, P components.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from syndistill.distill.teacher import FrozenTeacher, Teacher
from syndistill.sampling.shots import Shots

__all__ = ["FrozenTeacher", "TaughtShots", "Teacher", "cut", "draw_ends"]


@dataclass(frozen=True, eq=False)
class TaughtShots:
    """Shots, and the Teacher's logits for every end and line, teacher_BKLC float (None: ask it live).

    signals: what a cache holds beyond, by name: int8 codes (B, rounds kept, S, P) of features and float logits
    (B, K, L, C) of "fused". number: which batch of its run it is.
    """

    shots: Shots
    teacher_BKLC: torch.Tensor | None
    signals: dict[str, torch.Tensor] = field(default_factory=dict)
    number: int = 0

    def __len__(self) -> int:
        return len(self.shots)

    def take(self, index: slice) -> TaughtShots:
        teacher = None if self.teacher_BKLC is None else self.teacher_BKLC[index]
        signals = {name: x[index] for name, x in self.signals.items()}
        return replace(self, shots=self.shots.take(index), teacher_BKLC=teacher, signals=signals)

    def to(self, device: torch.device | str) -> TaughtShots:
        teacher = None if self.teacher_BKLC is None else self.teacher_BKLC.to(device)
        signals = {name: x.to(device) for name, x in self.signals.items()}
        return replace(self, shots=self.shots.to(device), teacher_BKLC=teacher, signals=signals)


def cut(taught: TaughtShots, rounds: int, every_end: bool = False) -> TaughtShots:
    """The experiment of the first `rounds` rounds: its history, its last slice, its labels.

    every_end keeps the alternative ends before. For batches without cached features: a cache cuts those itself.
    """
    shots = taught.shots
    k = shots.ends.index(rounds)
    kept = slice(0 if every_end else k, k + 1)
    labels = None if shots.labels_BKLO is None else shots.labels_BKLO[:, kept]
    posterior = None if shots.posterior_BKLP is None else shots.posterior_BKLP[:, kept]
    shorter = Shots(
        shots.layout, shots.basis, shots.events_BRS[:, :rounds], shots.last_BKS[:, kept], labels, shots.ends[kept],
        posterior,
    )  # fmt: skip
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
    of_ends = {"fused": taught.signals["fused"][:, kept]} if "fused" in taught.signals else {}
    teacher_BKLC = None if taught.teacher_BKLC is None else taught.teacher_BKLC[:, kept]
    return replace(taught, shots=fewer, teacher_BKLC=teacher_BKLC, signals=taught.signals | of_ends)
