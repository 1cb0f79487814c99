"""Of simulated shots, those worth a Teacher's time: that an earlier Student does not already answer for sure.

What a shot teaches depends on its events alone, so choosing by them changes no target, only which shots come often.
Axes: B shots, K ends, L lines, C logit channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from pydantic import Field

from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.networks import load_network, weights_hash
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import SimulatedSource
from syndistill.training.config import Name, Strict


class Unsure(Strict):
    """Which shots are kept."""

    network: Name
    """Whose answers say it: a shipped network's name or a path."""
    below: float = Field(default=4.0, gt=0, le=100)
    """Every shot whose logit of the last end is below this in size; at 4 one of 55 calls is wrong."""
    others: float = Field(default=0.05, ge=0, le=1)
    """This share of all others, drawn by lot, so that what is sure stays so."""

    def key(self) -> dict[str, object]:
        """What a cache was chosen by: weights in place of a name."""
        return self.model_dump(mode="json") | {"network": weights_hash(load_network(self.network)[0])}


class UnsureSource:
    """The unsure shots of each batch of a source; batches without any are left out."""

    def __init__(self, source: SimulatedSource, unsure: Unsure) -> None:
        self.source, self.unsure = source, unsure
        self.batches_per_chunk = source.batches_per_chunk
        self.network: DecoderNetwork = load_network(unsure.network)[0].eval().requires_grad_(False)
        with suppress(SyndistillError):  # where there is no compiler it is slower, and that is all
            self.network.compile_blocks()
        if self.network.layout.distance != source.distance:
            raise SyndistillError(
                f"data.unsure.network {unsure.network} is of distance {self.network.layout.distance}, the shots of "
                f"{source.distance}; name one of theirs"
            )

    def chunk(self, index: int) -> Sequence[Shots]:
        rng = np.random.default_rng([self.source.seed, 3, index])
        kept = []
        for shots in self.source.chunk(index):
            chosen_B = torch.from_numpy(rng.random(len(shots)) < self.unsure.others) | self._is_unsure(shots)
            if chosen_B.any():
                kept.append(shots.take(chosen_B))
        return kept

    def share(self, n_chunks: int) -> float:
        """Of the simulated shots of a few chunks, how many are kept."""
        kept = sum(len(shots) for index in range(n_chunks) for shots in self.chunk(index))
        return kept / (n_chunks * self.batches_per_chunk * self.source.batch_size)

    @torch.no_grad()
    def _is_unsure(self, shots: Shots) -> torch.Tensor:
        logits_BC = self.network(shots.only_last_end()).logits_BKLC[:, -1, 0].float()
        return logits_BC.abs().amin(-1) < self.unsure.below
