"""Labels that are not free: the shots of recordings, over and over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from syndistill.errors import SyndistillError
from syndistill.safe_files import json_sha256
from syndistill.sampling.recorded import Recording
from syndistill.sampling.shots import Shots, shots_from_detectors


class RecordedShots:
    """Chunks of batches of the first shots of recordings, each batch of one of them: every epoch a new order, fixed by
    (seed, epoch).

    Only the last end has labels. dev: by recording, so many shots after them, to look at. sha256: of all of these
    shots. SyndistillError where a recording has fewer.
    """

    batches_per_chunk = 16

    def __init__(
        self, folders: Sequence[str], n_shots: int, batch_size: int, seed: int, dev_shots: int = 0
    ) -> None:
        self.placements, self.shots, self.dev, hashes = [], [], [], []
        for folder in folders:
            recording = Recording.load(folder)
            if not batch_size <= n_shots <= n_shots + dev_shots <= len(recording):
                dev = f" and {dev_shots} of development" if dev_shots else ""
                raise SyndistillError(
                    f"{n_shots} shots{dev} of {folder}, which has {len(recording)}, in batches of {batch_size}; ask "
                    "for one batch or more, and no more than there are"
                )
            stored = recording.stored_shots().take(0, n_shots + dev_shots)
            shots = shots_from_detectors(stored.detectors(), recording.placement, stored.observables())
            hashes.append(stored.sha256)
            self.placements.append(recording.placement)
            self.shots.append(shots.take(slice(0, n_shots)))
            self.dev.append(shots.take(slice(n_shots, None)))
        self.sha256 = hashes[0] if len(hashes) == 1 else json_sha256(hashes)
        self.n_shots, self.batch_size, self.seed = n_shots, batch_size, seed
        self.batches_per_epoch = n_shots // batch_size * len(self.shots)

    def chunk(self, index: int) -> list[Shots]:
        first = index * self.batches_per_chunk
        return [self._batch(number) for number in range(first, first + self.batches_per_chunk)]

    def _batch(self, number: int) -> Shots:
        epoch, turn = divmod(number, self.batches_per_epoch)
        if len(self.shots) > 1:  # one needs no order of turns: which shots a batch holds is drawn below
            turns = np.random.default_rng([self.seed, len(self.shots), epoch]).permutation(self.batches_per_epoch)
            turn = int(turns[turn])
        position, which = divmod(turn, len(self.shots))
        order_B = np.random.default_rng([self.seed, which, epoch]).permutation(self.n_shots)
        rows = order_B[position * self.batch_size : (position + 1) * self.batch_size]
        return self.shots[which].take(torch.from_numpy(rows))
