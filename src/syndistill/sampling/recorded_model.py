"""Fresh shots from the error models of recorded experiments, for training on what a device is like.

Recordings are few; their models (p_ij or circuit) give endless shots. Only the last end has labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import stim

from syndistill.circuits.placement import Placement
from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording
from syndistill.sampling.recording_files import find_recordings
from syndistill.sampling.seeds import derived_seed
from syndistill.sampling.shots import Shots, shots_from_detectors
from syndistill.sampling.stream import Schedule


class RecordedModelSource:
    """Chunks of batches sampled from the models of one patch of a chip, one number of rounds a chunk."""

    batches_per_chunk = 16

    def __init__(
        self,
        folder: Path,
        distance: int,
        basis: str,
        center: tuple[int, int],
        model: str,
        schedule: Schedule,
        batch_size: int,
        seed: int,
    ) -> None:
        self.schedule, self.batch_size, self.seed = schedule, batch_size, seed
        self.models: dict[int, tuple[stim.DetectorErrorModel, Placement]] = {}
        for properties in find_recordings(folder, distance, basis):
            if properties.center == center:
                recording = Recording.load(properties.folder)
                self.models[properties.rounds] = (recording.dem(model), recording.placement)
        if not self.models:
            raise SyndistillError(f"{folder} holds no recording of distance {distance}, basis {basis} at {center}")

    def chunk(self, index: int) -> list[Shots]:
        rng = np.random.default_rng([self.seed, index])
        n_shots = self.batches_per_chunk * self.batch_size
        rounds, _ = self.schedule.draw(index * n_shots, rng)
        if rounds not in self.models:
            raise SyndistillError(f"no recording has {rounds} rounds; there are {sorted(self.models)}")
        dem, placement = self.models[rounds]
        sampler = dem.compile_sampler(seed=derived_seed("train", self.seed, index))
        detectors_BN, observables_BO, _ = sampler.sample(n_shots)
        shots = shots_from_detectors(detectors_BN, placement, observables_BO)
        return [
            shots.take(slice(i * self.batch_size, (i + 1) * self.batch_size)) for i in range(self.batches_per_chunk)
        ]
