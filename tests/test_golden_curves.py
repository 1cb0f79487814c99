"""The losses of 50 training steps of a tiny Teacher and a tiny Student are those that are written here.

They hold still whatever is moved, joined or renamed. Nothing here comes from Stim's random numbers, which differ
between its versions and processors; shots are numpy's. To renew after a change that is meant, run this file.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.distill.objective import StudentObjective
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.terms import Terms
from syndistill.files.families import dials_of
from syndistill.models.networks import build
from syndistill.sampling.shots import shots_from_flips
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth

STEPS, EVERY, BATCH, ROUNDS = 50, 5, 32, 3
GOLDEN = {
    "Teacher, AdamW": [
        1.463908, 1.00497, 0.6414083, 0.6153048, 0.6020302, 0.5892594, 0.5785568, 0.5719251, 0.5742779, 0.5397446,
    ],
    "Student, AdamW": [
        0.9812493, 0.8561054, 0.8647237, 0.773941, 0.7518699, 0.6931109, 0.6909657, 0.6242175, 0.6529021, 0.6051444,
    ],
    "Student, Muon": [
        0.9798061, 0.8480086, 0.8367654, 0.7350924, 0.6872809, 0.6424683, 0.6271419, 0.5779754, 0.6033869, 0.5723714,
    ],
}  # fmt: skip
"""Means of five steps each, with AVX-512."""
TOLERANCE = {"Teacher, AdamW": 2e-5, "Student, AdamW": 2e-5, "Student, Muon": 2e-3}
"""Relative. Processors sum in other orders: PyTorch's kernels without vectors, with AVX2 and with AVX-512, and MKL's
without AVX, gave losses that differ by 2e-7 with AdamW and 3e-4 with Muon, whose orthogonalisation is in bfloat16."""


def drawn_shots(number, basis):
    """Data qubits that flip now and then and stay so, stabilisers that are read wrongly now and then."""
    rng = np.random.Generator(np.random.PCG64([number, basis == "x"]))
    layout = Layout(3)
    data_RQB = np.bitwise_xor.accumulate((rng.random((ROUNDS, 9, BATCH)) < 0.06).astype(np.uint8), axis=0)
    grid = np.zeros((ROUNDS, 5, 5, BATCH), np.uint8)
    grid[:, 1:-1, 1:-1] = data_RQB.reshape(ROUNDS, 3, 3, BATCH)
    corners = grid[:, :-1, :-1] ^ grid[:, 1:, :-1] ^ grid[:, :-1, 1:] ^ grid[:, 1:, 1:]
    parity_RSB = corners[:, layout.cells_S2[:, 0], layout.cells_S2[:, 1]]
    measured_RSB = parity_RSB ^ (rng.random(parity_RSB.shape) < 0.03).astype(np.uint8)
    return shots_from_flips(Experiment(3, ROUNDS, basis, "si1000", 0.004), np.concatenate([measured_RSB, data_RQB], 1))


class Drawn:
    """A source of two batches a chunk, one of each basis."""

    batches_per_chunk = 2

    def __init__(self, taught):
        self.taught = taught

    def chunk(self, index):
        shots = [drawn_shots(index, basis) for basis in ("x", "z")]
        return [TaughtShots(s, None, number=2 * index + i) for i, s in enumerate(shots)] if self.taught else shots


def moved(network, seed):
    """With weights off zero, by numpy's numbers."""
    rng = np.random.Generator(np.random.PCG64(seed))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(0.3 * rng.standard_normal(tuple(parameter.shape), np.float32)))
    return network


def curve(network, objective, optimiser, taught, folder):
    config = TrainingConfig(
        steps=STEPS, batch_size=BATCH, threads=1, log_every=STEPS,
        optimiser=OptimiserConfig(name=optimiser, learning_rate=3e-3, warmup_steps=10, decay_steps=20),
    )  # fmt: skip
    trainer = Trainer(network, objective, Drawn(taught), config, folder)
    losses = [float(trainer.train_step(b)["loss"]) for i in range(STEPS // 2) for b in trainer.source.chunk(i)]
    return [sum(losses[i : i + EVERY]) / EVERY for i in range(0, STEPS, EVERY)]


def teacher_curve(folder, optimiser="adamw"):
    return curve(moved(build("teacher-tiny", 3), 1), GroundTruth(0.02), optimiser, False, folder)


def student_curve(folder, optimiser):
    """Of labels, and of every end and line that the Teacher answers."""
    student = moved(build(dials_of({"family": "flat_gru", "distance": 3, "width": 16, "readout_width": 8})), 2)
    terms = Terms(labels={"weight": 0.5}, final={"weight": 1.0}, readout={"weight": 1.0})
    objective = StudentObjective(terms, FrozenTeacher(moved(build("teacher-tiny", 3), 1)))
    return curve(student, objective, optimiser, True, folder)


CURVES = {
    "Teacher, AdamW": teacher_curve,
    "Student, AdamW": partial(student_curve, optimiser="adamw"),
    "Student, Muon": partial(student_curve, optimiser="muon"),
}


@pytest.mark.parametrize("name", CURVES)
def test_losses_are_those_of_before(tmp_path, name):
    threads = torch.get_num_threads()
    try:
        np.testing.assert_allclose(CURVES[name](tmp_path), GOLDEN[name], rtol=TOLERANCE[name])
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, made in CURVES.items():
            print(name, [float(f"{loss:.7g}") for loss in made(Path(folder))])
