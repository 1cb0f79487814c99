"""From a configuration of shots to their source, and to the signature of their noise."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import noise_of
from syndistill.circuits.training_noise import TrainingNoise
from syndistill.errors import SyndistillError
from syndistill.sampling.own_files import own_noise
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.parts import PartedSource
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import Labels, SimulatedSource
from syndistill.training.config import FILES, DataConfig, RoundsPhase

STATISTICS_SHOTS = 4096
STATISTICS_RATES = 16  # error rates among them, drawn as in training


def simulated_source(data: DataConfig, batch_size: int, seed: int, **options: Any) -> SimulatedSource:
    """Batches of these shots, or of long experiments in parts; options: of `SimulatedSource`, in place of what the
    configuration says."""
    said: dict[str, Any] = {"labels": data.labels, "ends": data.ends, "end_spacing": data.end_spacing}
    said["schedule"] = data.curriculum
    said |= options
    noise = own_files(data) or data.noise
    said |= {"distance": data.distance, "noise": noise, "bases": data.bases, "batch_size": batch_size, "seed": seed}
    if data.part_rounds is not None:
        said |= {"part_rounds": data.part_rounds, "longest": data.curriculum.longest, "tell_frame": data.tell_frame}
        return PartedSource(**said)
    return SimulatedSource(**said)


def statistics_shots(
    data: DataConfig, seed: int, shots: int = 0, role: str = "select", labels: Labels = "sampled"
) -> list[Shots]:
    """Batches of the longest experiments, of a role of their own: what statistics and gates are measured on.

    shots: 0 for the usual number.
    """
    shots = shots or STATISTICS_SHOTS
    phases = (RoundsPhase(from_shots=0, rounds=(data.curriculum.longest,)),)
    schedule = data.curriculum.model_copy(update={"rounds": phases, "rates_per_chunk": STATISTICS_RATES})
    n_batches = len(data.bases) * -(-shots // (512 * len(data.bases)))
    said = {"ends": 0, "end_spacing": 0, "role": role, "labels": labels}
    return simulated_source(data, 512, seed, schedule=schedule, batches_per_chunk=n_batches, **said).chunk(0)


def signature(data: DataConfig) -> TrainingNoise:
    """Of the noise of these shots, for the header of a network that learned from them."""
    c, rounds = data.curriculum, data.curriculum.longest
    own = own_files(data)
    if own is not None:
        return own.signature(rounds, (c.p_min, c.p_max))
    return noise_of(data.noise, data.distance, data.bases, (c.p_min, c.p_max), rounds)


def own_files(data: DataConfig) -> OwnNoise | None:
    """The memories of own files, None for named noise. SyndistillError where they are not what the configuration says,
    or do not say enough for its numbers of rounds."""
    if data.noise != FILES:
        return None
    own = _own(data.files, data.model)
    if own.distance != data.distance:
        raise SyndistillError(f"the files are of distance {own.distance}, the configuration of {data.distance}")
    for basis in data.bases:
        for rounds in sorted({r for phase in data.curriculum.rounds for r in phase.rounds}):
            for patch in range(len(own.patches)):
                own.memory(basis, rounds, patch=patch)
    return own


_own = lru_cache(maxsize=8)(own_noise)


def noise_texts(data: DataConfig) -> list[str]:
    """All that the shots depend on beside the configuration: circuits, or the hash of own files."""
    own = own_files(data)
    if own is not None:
        return [own.sha256]
    c = data.curriculum
    rounds = sorted({r for phase in c.rounds for r in phase.rounds})
    return [
        str(Experiment(data.distance, r, basis, data.noise, p).circuit())
        for r in rounds
        for basis in data.bases
        for p in (c.p_min, c.p_max)
    ]


def data_hashes(data: DataConfig) -> dict[str, str]:
    """Of everything outside run.json that the shots depend on: own files may change behind their names."""
    own = own_files(data)
    return {} if own is None else {"files": own.sha256}
