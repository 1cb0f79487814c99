"""A Teacher's run: from a complete configuration to a saved network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from syndistill.circuits.training_noise import NOISE_KEY
from syndistill.errors import SyndistillError
from syndistill.models.device import usable_device
from syndistill.models.networks import fresh_network, load_network, save_network
from syndistill.models.transformer import SyndromeTransformer
from syndistill.reporter import SILENT, Reporter
from syndistill.training.config import (
    DataConfig,
    Name,
    Strict,
    TrainingConfig,
    Weight,
    check_network_fits,
    check_start,
)
from syndistill.training.distributed import join_world, leave_world
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.run_folder import open_run
from syndistill.training.source import data_hashes, signature, simulated_source
from syndistill.training.start import AnyDials, check_told_frame, start_weights

TEACHER_FILE = "teacher.safetensors"
ANCESTORS = "ancestors"
"""Of a network file's metadata."""


class TeacherRun(Strict):
    """Everything a Teacher's training depends on."""

    kind: Literal["teacher"] = "teacher"
    network: AnyDials
    data: DataConfig
    training: TrainingConfig
    next_event_weight: Weight = 0.02
    start_from: Name | None = None
    """A saved network to go on from, with a fresh optimiser: how a Teacher is trained in legs. One of another distance
    gives all that does not depend on the distance; one that is not turned may begin one that is."""
    gradient_rounds: int = Field(default=0, ge=0, le=10_000)
    """If not 0, backpropagation stops so many rounds before the last (truncated, Williams & Peng 1990): the rounds
    before only bring the state where it will be, by the forward pass alone. Transformers only."""

    @model_validator(mode="after")
    def _fits(self) -> TeacherRun:
        check_network_fits(self.network.distance, self.network.output, self.data)
        check_start(self.training, self.start_from)
        return self


def _ancestors(start: str | None, hashes: dict[str, str]) -> list[str]:
    """The hashes of all that a network was tuned from: a Student of one of them may go on with it."""
    return [] if start is None else [hashes["start_from"], *load_network(start)[1].get(ANCESTORS, [])]


def train_teacher(run: TeacherRun, folder: Path, reporter: Reporter = SILENT) -> Path:
    """Train (or go on) in `folder`; returns the saved Teacher's path (averaged weights).

    Under torchrun every process calls this; the first one writes.
    """
    world = join_world(usable_device(run.training.device))
    network = fresh_network(run.network, run.training.seed)
    hashes = {}
    if run.start_from is not None:
        hashes["start_from"] = start_weights(network, run.start_from, any_distance=True)
    if run.gradient_rounds:
        if not isinstance(network, SyndromeTransformer):
            family = network.config.family
            raise SyndistillError(f"gradient_rounds: a {family} network learns through all rounds; set 0")
        network.gradient_rounds = run.gradient_rounds
    check_told_frame(network, run.data)
    source = simulated_source(run.data, run.training.batch_size, run.training.seed, share=world)
    hashes |= data_hashes(run.data)
    truth = GroundTruth(run.next_event_weight)
    with open_run(folder, run, hashes, TEACHER_FILE, world):
        trainer = Trainer(
            network, truth, source, run.training, folder, shared=True, carried=truth.carried
        )
        trainer.run(reporter.bar("Teacher", run.training.steps, run.training.batch_size))
        path = folder / TEACHER_FILE
        if world.is_first:
            network.load_state_dict(trainer.ema_state())
            home = signature(run.data)
            said = {"run": run.model_dump(mode="json"), "shots_seen": trainer.shots_seen, NOISE_KEY: home.to_json()}
            said[ANCESTORS] = _ancestors(run.start_from, hashes)
            save_network(path, network, said)
    leave_world(world)
    return path
