"""A Teacher's run: from a complete configuration to a saved network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Discriminator, Field, SerializeAsAny, Tag, ValidationError, model_validator

from syndistill.circuits.training_noise import NOISE_KEY
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, NetworkConfig
from syndistill.models.device import usable_device
from syndistill.models.networks import build, config_from, load_network, save_network, weights_hash
from syndistill.models.transformer import SyndromeTransformer
from syndistill.models.warm_start import (
    can_begin,
    can_gain_signs,
    can_widen,
    carried_over,
    widened,
    with_signs,
)
from syndistill.sampling.parts import PartedSource
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import BatchSource, RecordedModelSource, SimulatedSource
from syndistill.training.config import (
    DataConfig,
    Name,
    RecordedData,
    Strict,
    TrainingConfig,
    Weight,
    check_network_fits,
    signature,
)
from syndistill.training.distributed import ALONE, World, join_world, leave_world
from syndistill.training.loop import Progress, Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.run_folder import open_run

TEACHER_FILE = "teacher.safetensors"



def _network_config(value: Any) -> Any:
    try:
        return config_from(value) if isinstance(value, dict) else value
    except SyndistillError as error:  # of pydantic's kind, so that it is told with the key that holds the config
        raise ValueError(str(error)) from None


AnyNetworkConfig = Annotated[SerializeAsAny[NetworkConfig], BeforeValidator(_network_config)]


def _kind_of_shots(data: Any) -> str:
    is_recorded = isinstance(data, RecordedData) or (isinstance(data, dict) and "folder" in data)
    return "recorded" if is_recorded else "simulated"


ShotsOfAKind = Annotated[
    Annotated[DataConfig, Tag("simulated")] | Annotated[RecordedData, Tag("recorded")], Discriminator(_kind_of_shots)
]
"""So that a fault is told of the kind that was meant."""


class TeacherRun(Strict):
    """Everything a Teacher's training depends on."""

    kind: Literal["teacher"] = "teacher"
    network: AnyNetworkConfig
    data: ShotsOfAKind
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
        return self


def validated(model: type[Strict], content: Any, where: str) -> Any:
    """A config from untrusted content; SyndistillError names the key that does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(content, first["loc"], missing=first["type"] == "missing") or "config"
        raise SyndistillError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}") from None


def _key(content: Any, parts: tuple[Any, ...], missing: bool) -> str:
    """The dotted key in `content` of a fault's place, which names the kinds of a union too."""
    found = []
    for part in parts:
        in_dict = isinstance(content, dict) and part in content
        if in_dict or (isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)):
            content = content[part]
        elif not (missing and part == parts[-1]):
            continue
        found.append(str(part))
    return ".".join(found)


def fresh_network(config: NetworkConfig, seed: int) -> DecoderNetwork:
    """Initial weights as a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)


def simulated_source(data: DataConfig, training: TrainingConfig, world: World = ALONE) -> SimulatedSource:
    """The run's batches; in a world of several processes this one's share of each."""
    if data.part_rounds is not None:
        return parted_source(data, training.batch_size, training.seed, world)
    return SimulatedSource(
        data.distance,
        data.noise,
        data.bases,
        data.curriculum,
        training.batch_size,
        training.seed,
        labels=data.labels,
        ends=data.ends,
        end_spacing=data.end_spacing,
        share=world,
    )


def parted_source(data: DataConfig, batch_size: int, seed: int, world: World = ALONE) -> PartedSource:
    """The batches of long experiments in parts."""
    assert data.part_rounds is not None
    return PartedSource(
        data.distance,
        data.noise,
        data.bases,
        data.curriculum,
        batch_size,
        seed,
        data.part_rounds,
        data.curriculum.longest,
        labels=data.labels,
        ends=data.ends,
        end_spacing=data.end_spacing,
        share=world,
    )


def check_carries(network: DecoderNetwork, data: DataConfig | RecordedData) -> None:
    """SyndistillError where experiments come in parts and the network begins each at its first round."""
    if isinstance(data, DataConfig) and data.part_rounds is not None and not network.carries:
        raise SyndistillError(
            f"data.part_rounds: a {network.config.family} network does not carry its state from part to part; leave "
            "part_rounds out, or take a flat_gru or local_gru"
        )


def make_source(data: DataConfig | RecordedData, training: TrainingConfig, world: World) -> BatchSource[Shots]:
    if isinstance(data, DataConfig):
        return simulated_source(data, training, world)
    return RecordedModelSource(
        Path(data.folder),
        data.distance,
        data.basis,
        data.center,
        data.model,
        data.curriculum,
        training.batch_size,
        training.seed,
    )


def start_weights(network: DecoderNetwork, path: str, any_distance: bool = False) -> str:
    """Copy a saved network's weights in; returns their hash. Refuses another architecture, but for a local GRU of
    narrower states and a flat one without sign memory, which go on answering as they did.

    any_distance: also take the same architecture of another distance or not turned, as far as its weights carry over.
    """
    found, _ = load_network(path)
    if any_distance and can_begin(found, network):
        network.load_state_dict(carried_over(found, network))
        return weights_hash(found)
    if can_gain_signs(found, network):
        network.load_state_dict(with_signs(found, network))
        return weights_hash(found)
    if can_widen(found, network):
        network.load_state_dict(widened(found, network))
        return weights_hash(found)
    if found.config != network.config:
        raise SyndistillError(f"{path} holds a network of another configuration than this run's; name its own stage")
    network.load_state_dict(found.state_dict())
    return weights_hash(found)


def train_teacher(run: TeacherRun, folder: Path, progress: Progress | None = None) -> Path:
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
    check_carries(network, run.data)
    source = make_source(run.data, run.training, world)
    truth = GroundTruth(run.next_event_weight)
    with open_run(folder, run, hashes, TEACHER_FILE, world):
        shared = isinstance(source, SimulatedSource)
        trainer = Trainer(network, truth, source, run.training, folder, shared=shared, carried=truth.carried)
        trainer.run(progress)
        path = folder / TEACHER_FILE
        if world.is_first:
            network.load_state_dict(trainer.ema_state())
            if isinstance(run.data, DataConfig):
                home = signature(run.data)
            else:
                assert isinstance(source, RecordedModelSource)
                home = source.signature()
            said = {"run": run.model_dump(mode="json"), "shots_seen": trainer.shots_seen, NOISE_KEY: home.to_json()}
            save_network(path, network, said)
    leave_world(world)
    return path
