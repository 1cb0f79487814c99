"""Shots of a user's own memories: circuits, error models, recordings, with the label of every line after every round.

Whatever the file is, its error model is all that is taken from it (`circuits.memory_model`): one path for a circuit of
Stim's generator, a chip's fitted model, and the named noise models where labels are more than drawn.

Axes: B shots, R rounds, S stabilisers, K ends, L lines, J joint errors, X bits that they show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.memory_model import JointErrors, MemoryModel
from syndistill.circuits.placement import Placement, place_experiment
from syndistill.circuits.training_noise import TrainingNoise, training_noise
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots


@dataclass(frozen=True, eq=False)
class OwnNoise:
    """The memories of some files, of one patch of qubits or of several.

    patches: the models of each by basis, then by rounds; all have the same bases. dems: by patch, basis and rounds, the
    error models as other decoders take them, decomposed, with their placements. sha256: of all that the models say.
    """

    distance: int
    patches: tuple[dict[str, dict[int, MemoryModel]], ...]
    dems: dict[tuple[int, str, int], tuple[stim.DetectorErrorModel, Placement]]
    names: tuple[str, ...]
    sha256: str
    _scaled: dict[tuple[int, str, int, float], MemoryModel] = field(default_factory=dict, repr=False)

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(sorted(self.patches[0]))

    @property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of rounds that a file is of."""
        return tuple(sorted({rounds for models in self.patches for lengths in models.values() for rounds in lengths}))

    def memory(self, basis: str, rounds: int, factor: float = 1.0, patch: int = 0) -> OwnMemory:
        """Every error `factor` times as often as in the file of so many rounds, else in the next longer one, which is
        cut, else in the longest, which is repeated.

        SyndistillError for a basis that no file has, and where the longest one does not say how it would go on.
        """
        models = self.patches[patch]
        if basis not in models:
            raise SyndistillError(f"no file is a memory of basis {basis}; there are {', '.join(self.bases)}")
        lengths = models[basis]
        nearest = min((r for r in lengths if r >= rounds), default=max(lengths))
        if (patch, basis, nearest, factor) not in self._scaled:
            model = lengths[nearest]
            self._scaled[patch, basis, nearest, factor] = model if factor == 1.0 else model.scaled(factor)
        memory = OwnMemory(self._scaled[patch, basis, nearest, factor], rounds)
        memory.model()
        return memory

    def signature(self, rounds: int, factors: tuple[float, float]) -> TrainingNoise:
        """Of what a network learns from these shots; p counts in these models' own rates."""
        placed = {}
        for basis in self.bases:
            shown = []
            for lengths in (models[basis] for models in self.patches):
                longest = [lengths[r] for r in sorted(lengths, reverse=True)]  # these have every part
                shown += [*longest, *([] if 1 in lengths else [longest[0].of_rounds(1)])]
            placed[basis] = [model.placed() for model in shown]
        return training_noise(placed, ", ".join(self.names), self.distance, 1.0, factors, rounds)


@dataclass(frozen=True)
class OwnMemory:
    """One experiment of own noise, as `Experiment` is of named noise: a model, cut or repeated to so many rounds."""

    base: MemoryModel
    rounds: int

    @property
    def distance(self) -> int:
        return self.base.layout.distance

    @property
    def basis(self) -> str:
        return self.base.basis

    def model(self) -> MemoryModel:
        return self.base.of_rounds(self.rounds)


Memory = Experiment | OwnMemory


def placed_model(memory: Memory) -> tuple[stim.DetectorErrorModel, Placement]:
    """Its error model, and where that one's detectors sit."""
    if isinstance(memory, OwnMemory):
        model = memory.model()
        return model.dem(), model.placement()
    return memory.circuit().detector_error_model(), place_experiment(memory)


def joint_errors(memory: Memory) -> JointErrors:
    """Its errors with what they show of every end, for bases x and z."""
    model = memory.model() if isinstance(memory, OwnMemory) else MemoryModel.of(*placed_model(memory))
    return model.joint_errors()


def joint_dem(errors: JointErrors) -> stim.DetectorErrorModel:
    """Errors whose detectors are all bits that they show: events, last slices, labels, frames, one after the other."""
    shown_JX = np.concatenate([part.reshape(len(part), -1) for part in errors[1:]], axis=1)
    lines = [
        f"error({q!r}) {' '.join(f'D{n}' for n in np.flatnonzero(shown_X))}"
        for q, shown_X in zip(errors.chance_J.tolist(), shown_JX, strict=True)
    ]
    return stim.DetectorErrorModel("\n".join([*lines, f"detector D{shown_JX.shape[1] - 1}"]))


def split_bits(shown_BX: NDArray[np.bool_], errors: JointErrors) -> list[NDArray[np.bool_]]:
    """Events (B, R, S), last slices (B, K, S), labels (B, K), frames (B, K, L) of the bits of `joint_dem`."""
    sizes = [part[0].size for part in errors[1:]]
    parts = np.split(shown_BX, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(-1, *of.shape[1:]) for part, of in zip(parts, errors[1:], strict=True)]


def simulate_own(memory: OwnMemory, n_shots: int, seed: int) -> Shots:
    """Fresh shots whose ends are 1..rounds, as `sampling.shots.simulate`."""
    sampler, errors = _sampler(memory)
    shown_BX, _, _ = sampler.compile_sampler(seed=seed).sample(n_shots)
    events_BRS, last_BKS, label_BK, frame_BKL = split_bits(shown_BX, errors)
    layout = memory.base.layout
    final_BKS = (np.bitwise_xor.accumulate(events_BRS, axis=1) ^ last_BKS).astype(np.float32)
    told_SL = layout.line_matrix(memory.basis)
    lines_BKL = final_BKS @ (told_SL ^ told_SL[:, [memory.base.line]]).astype(np.float32)
    labels_BKL = lines_BKL.astype(np.uint8) % 2 ^ label_BK[:, :, None]
    return Shots(
        layout,
        memory.basis,
        torch.from_numpy(events_BRS.astype(np.uint8)),
        torch.from_numpy(last_BKS.astype(np.uint8)),
        torch.from_numpy(labels_BKL[..., None]),
        tuple(range(1, memory.rounds + 1)),
        frames_BKLO=torch.from_numpy(frame_BKL.astype(np.uint8)[..., None]),
    )


@lru_cache(maxsize=256)
def _sampler(memory: OwnMemory) -> tuple[stim.DetectorErrorModel, JointErrors]:
    errors = joint_errors(memory)
    return joint_dem(errors), errors
