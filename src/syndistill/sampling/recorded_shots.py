"""Labels that are not free: the shots of one recording, over and over."""

from __future__ import annotations

import numpy as np
import torch

from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording
from syndistill.sampling.shots import Shots, shots_from_detectors


class RecordedShots:
    """Chunks of batches of a recording's first shots: every epoch a new order, fixed by (seed, epoch).

    Only the last end has labels. dev: so many shots after them, to look at. sha256: of all of these shots.
    SyndistillError where the recording has fewer.
    """

    batches_per_chunk = 16

    def __init__(self, folder: str, n_shots: int, batch_size: int, seed: int, dev_shots: int = 0) -> None:
        recording = Recording.load(folder)
        if not batch_size <= n_shots <= n_shots + dev_shots <= len(recording):
            dev = f" and {dev_shots} of development" if dev_shots else ""
            raise SyndistillError(
                f"{n_shots} shots{dev} of {folder}, which has {len(recording)}, in batches of {batch_size}; ask for "
                "one batch or more, and no more than there are"
            )
        stored = recording.stored_shots().take(0, n_shots + dev_shots)
        self.sha256, self.placement = stored.sha256, recording.placement
        shots = shots_from_detectors(stored.detectors(), self.placement, stored.observables())
        self.shots, self.dev = shots.take(slice(0, n_shots)), shots.take(slice(n_shots, None))
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = n_shots // batch_size

    def chunk(self, index: int) -> list[Shots]:
        first = index * self.batches_per_chunk
        return [self._batch(number) for number in range(first, first + self.batches_per_chunk)]

    def _batch(self, number: int) -> Shots:
        epoch, position = divmod(number, self.batches_per_epoch)
        order_B = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.shots))
        rows = order_B[position * self.batch_size : (position + 1) * self.batch_size]
        return self.shots.take(torch.from_numpy(rows))
