"""A small training run, built the same way in the test process and in a process that gets killed."""

import time

import pytest
import torch

from syndistill.models.networks import build
from syndistill.sampling.stream import SimulatedSource
from syndistill.training.config import Curriculum, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth

CURRICULUM = Curriculum(
    p_min=0.005,
    p_max=0.02,
    rounds=(RoundsPhase(from_shots=0, rounds=(1, 2)), RoundsPhase(from_shots=80, rounds=(2, 3))),
    noise_weight=2.0,
    noise_midpoint=200,
)


def make_trainer(folder, steps=20, optimiser="adamw", pause=0.0, objective=None, dials=None, **training):
    """Teacher-tiny on small batches; every run of the same arguments is the same run. `pause`: seconds a step; dials:
    of the optimiser."""
    schedule = {"learning_rate": 3e-3, "warmup_steps": 5, "decay_steps": 10}
    torch.manual_seed(3)
    config = TrainingConfig(
        steps=steps,
        batch_size=8,
        threads=1,
        optimiser=OptimiserConfig(name=optimiser, **(schedule | (dials or {}))),
        **{"log_every": 5, **training},
    )
    source = SimulatedSource(3, "si1000", ("x", "z"), CURRICULUM, config.batch_size, config.seed, 4)
    truth = objective or GroundTruth()

    def slowly(model, shots):
        time.sleep(pause)
        return truth(model, shots)

    return Trainer(build("teacher-tiny", 3), slowly, source, config, folder)


@pytest.fixture(scope="session", name="make_trainer")
def make_trainer_fixture():
    return make_trainer


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
