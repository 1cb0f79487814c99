"""Long experiments in parts: each batch some rounds of the same shots, which go on where the batch before them stopped.

An experiment of hundreds of rounds is simulated and labelled once and then cut, so that a round costs one pass of a
network wherever it lies, if the network carries its state from part to part (`training.carried`). Several experiments
run side by side, a lane each, and their parts come in turn: steps that follow each other see other shots, another basis
and another age.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Part, Shots
from syndistill.sampling.stream import SimulatedSource

LANES_PER_BASIS = 2
SETTLED = 3
"""Rounds after which the frame of drawn shots is told: an error may be seen for so many before it counts as known. That
is the delay of the frame term (`distill.terms.FrameTerm`) that worked at d=5 (docs/log/2026-11-29.md)."""


class PartedSource(SimulatedSource):
    """Chunks in which every lane goes through `longest` rounds: one experiment of so many, or several shorter ones, one
    after the other. Each number of rounds that the schedule draws must be a whole number of parts and divide `longest`.

    ends, end_spacing: at which rounds of each part it is taught, as `SimulatedSource` says of an experiment's.
    tell_frame: whether each part but the first begins with a known logical frame (`sampling.shots.Part`): its ends then
    teach as much as those of the first, however late they are. With exact labels the posterior is that of a known
    frame; with drawn ones the frame of the true errors is told, as it was SETTLED rounds before the part begins.
    """

    def __init__(self, *, part_rounds: int, longest: int, tell_frame: bool = False, **source: Any) -> None:
        """source: of `SimulatedSource`, which says what they are."""
        if source.get("labels") == "revealed":
            raise SyndistillError("parts of a long experiment: revealed labels begin at round 0; take sampled or exact")
        if source.get("share", (0, 1))[1] > 1:
            raise SyndistillError("parts of a long experiment are learned by one process; start without torchrun")
        exact = source.get("labels") == "exact"
        if tell_frame and not exact and part_rounds <= SETTLED:
            raise SyndistillError(
                f"parts of a long experiment: drawn labels tell a frame to parts of more than {SETTLED} rounds"
            )
        self.part_rounds, self.longest, self.tell_frame = part_rounds, longest, tell_frame
        self.n_lanes = LANES_PER_BASIS * len(source["bases"])
        source["told_every"] = part_rounds if tell_frame and exact else 0
        super().__init__(batches_per_chunk=self.n_lanes * (longest // part_rounds), **source)

    def chunk(self, index: int) -> list[Shots]:
        lanes = [self._lane(index, lane) for lane in range(self.n_lanes)]
        return [parts[i] for i in range(self.longest // self.part_rounds) for parts in lanes]

    def _lane(self, index: int, lane: int) -> list[Shots]:
        rng = np.random.default_rng([self.seed, 4, index, lane])
        shots_seen = index * self.batches_per_chunk * self.batch_size
        rounds, _ = self.schedule.draw(shots_seen, rng)
        basis, parts = self.bases[lane % len(self.bases)], []
        for number in range(self.longest // rounds):
            rates = self.schedule.draw_rates(shots_seen, rounds, rng)
            shots = self._mixed((index, lane, number), self.batch_size, basis, rounds, rates, rng, ())
            parts += parts_of(shots, self.part_rounds, lane, self.tell_frame)
        taught = self._ends(self.part_rounds, rng)
        return [part.at_ends([end - 1 for end in taught]) for part in parts]


def parts_of(shots: Shots, part_rounds: int, lane: int, told: bool = False) -> list[Shots]:
    """Shots with all their ends, cut after every `part_rounds` rounds. told: whether the frame is told where a part but
    the first begins; shots without a posterior then carry it."""
    starts = range(0, shots.rounds, part_rounds)
    return [_part(shots, Part(lane, first, told and first > 0), part_rounds) for first in starts]


def _part(shots: Shots, part: Part, rounds: int) -> Shots:
    own = slice(part.first_round, part.first_round + rounds)
    labels, posterior, frames = shots.labels_BKLO, shots.posterior_BKLP, shots.frames_BKLO
    known = None
    if part.told and posterior is None:
        if frames is None:
            raise SyndistillError("parts of a long experiment: these shots have no frame to tell; leave tell_frame out")
        known = frames[:, part.first_round - 1 - SETTLED]
    return replace(
        shots,
        events_BRS=shots.events_BRS[:, own],
        last_BKS=shots.last_BKS[:, own],
        labels_BKLO=None if labels is None else labels[:, own],
        posterior_BKLP=None if posterior is None else posterior[:, own],
        frames_BKLO=None if frames is None else frames[:, own],
        known_BLO=known,
        ends=tuple(range(1, rounds + 1)),
        part=part,
    )
