"""Small networks and shots to distil with."""

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.baseline import Baseline
from syndistill.distill.cache.source import StudentData
from syndistill.distill.fuse import Fuse
from syndistill.distill.road import RoadRun
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.stage1 import Stage1
from syndistill.distill.stage2 import Stage2
from syndistill.distill.student import StudentRun
from syndistill.distill.terms import Terms
from syndistill.files.families import dials_of
from syndistill.models.networks import build, save_network
from syndistill.sampling.shots import simulate
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig

SIZES = {
    "transformer": {"width": 8, "layers": 1, "heads": 2, "key_size": 4, "widening": 2, "conv_channels": 4,
                    "embedder_layers": 1, "bias_width": 8, "bias_layers": 1, "readout_width": 8, "readout_layers": 1},
    "flat_gru": {"width": 12, "readout_width": 8},
}  # fmt: skip


@pytest.fixture(scope="session")
def small():
    """(family, output, seed) -> network with every weight moved off zero, so that its posterior says something."""

    def make(family="flat_gru", output="two_channel", seed=1):
        torch.manual_seed(seed)
        network = build(dials_of({"family": family, "distance": 3, "output": output, **SIZES[family]}))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return network

    return make


@pytest.fixture
def teacher(small):
    return FrozenTeacher(small("transformer", seed=7))


@pytest.fixture(scope="session")
def taught():
    """(basis, rounds, n_shots) -> shots whose Teacher is to be asked live."""

    def make(basis="z", rounds=3, n_shots=32, seed=3):
        return TaughtShots(simulate(Experiment(3, rounds, basis, "si1000", 0.01), n_shots, seed), None)

    return make


STUDENT_SIZES = {
    "flat_gru": {"width": 10, "readout_width": 8},
    "local_gru": {"width": 4, "readout_width": 8},
    "transformer": {**SIZES["transformer"], "attention_bias": False},
}


@pytest.fixture(scope="session")
def teacher_file(small, tmp_path_factory):
    """output -> the path of a saved Teacher of two layers."""
    paths = {}

    def make(output="two_channel", seed=7):
        if (output, seed) not in paths:
            torch.manual_seed(seed)
            dials = SIZES["transformer"] | {"layers": 2, "distance": 3, "output": output, "family": "transformer"}
            network = build(dials_of(dials))
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
            paths[output, seed] = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
            save_network(paths[output, seed], network, {})
        return str(paths[output, seed])

    return make


def training(steps=4, seed=1, **changes):
    optimiser = OptimiserConfig(learning_rate=3e-3, warmup_steps=2)
    return TrainingConfig(**{"steps": steps, "batch_size": 32, "threads": 1, "log_every": 2, "seed": seed,
                             "optimiser": optimiser, **changes})  # fmt: skip


def student_data(bases=("x", "z"), cached_shots=4096, cut_rounds=(1, 2, 3)):
    phases = (RoundsPhase(from_shots=0, rounds=(3,)),)
    curriculum = Curriculum(p_min=0.004, p_max=0.01, rounds=phases, rates_per_chunk=1)
    simulated = DataConfig(distance=3, bases=bases, curriculum=curriculum)
    return StudentData(simulated=simulated, cached_shots=cached_shots, cut_rounds=cut_rounds)


def stage1_run(teacher, family="flat_gru", output="two_channel", terms=None, steps=4, cached_shots=4096, **changes):
    """A stage-1 run with every signal, or with the given terms."""
    default = Terms(readout={"weight": 1.0}, spatial={"weight": 1.0, "components": 4, "layer": 0},
                    temporal={"weight": 1.0, "components": 4})  # fmt: skip
    network = dials_of({"family": family, "distance": 3, "output": output, **STUDENT_SIZES[family]})
    bases = ("both",) if output == "joint4" else ("x", "z")
    return StudentRun(
        network=network, teacher=teacher, data=student_data(bases, cached_shots),
        terms=terms or default, training=training(steps), **changes,
    )  # fmt: skip


@pytest.fixture(scope="session", name="stage1_run")
def stage1_run_fixture(teacher_file):
    """A run of the shared Teacher; arguments as of the function."""

    def make(family="flat_gru", output="two_channel", **changes):
        return stage1_run(teacher_file(output), family, output, **changes)

    return make


@pytest.fixture
def road(teacher_file, stage1_run):
    """Every signal, 4 steps a stage; arguments as of `stage1_run`, then whole sections."""

    def make(family="flat_gru", output="two_channel", teacher=None, **changes):
        of_stage1 = stage1_run(family, output)
        training, feature = of_stage1.training, {"weight": 1.0, "components": 4}
        return RoadRun(
            network=of_stage1.network,
            teacher=teacher or teacher_file(output),
            **{
                "data": of_stage1.data,
                "no_kd": training,
                "baseline": Baseline(training=training),
                "stage1": Stage1(training=training, spatial=feature, temporal=feature),
                "fuse": Fuse(training=training, fit_shots=512, report_shots=512),
                "stage2": Stage2(training=training, temporal=feature | {"fade_steps": 3}),
            }
            | changes,
        )

    return make


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    """Statistics from 256 shots: seconds matter here, their precision does not."""
    monkeypatch.setattr("syndistill.training.source.STATISTICS_SHOTS", 256)
    monkeypatch.setattr("syndistill.training.source.STATISTICS_RATES", 1)


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
