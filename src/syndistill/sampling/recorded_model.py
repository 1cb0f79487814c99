"""Fresh shots from the error models of recorded experiments, for training on what a device is like.

Recordings are few; their models (p_ij or circuit) give endless shots. Only the last end has labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import stim

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import Placed, TrainingNoise, training_noise
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

    def signature(self) -> TrainingNoise:
        """Of the models, by the basis that they are read in; p is 1: as they are."""
        placed: dict[str, list[Placed]] = {}
        for _, (dem, placement) in sorted(self.models.items(), reverse=True):  # the longest have every part
            placed.setdefault(placement.basis, []).append((dem, placement.slice_N, placement.stabiliser_N))
        distance = next(iter(self.models.values()))[1].layout.distance
        return training_noise(placed, "recorded models", distance, 1.0, (1.0, 1.0), max(self.models))

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
