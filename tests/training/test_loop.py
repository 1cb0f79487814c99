"""What the loop does with weights, their average, bad gradients and bfloat16."""

import math

import pytest
import torch
from tests.reporting import Calling

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, load_network
from syndistill.models.tensors_file import load_tensors
from syndistill.recipes import recipe
from syndistill.sampling.shots import simulate
from syndistill.training.changes import validated
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.loop import STATE, Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.run import TeacherRun, train_teacher


class TheSameShots:
    """A source that repeats one batch."""

    batches_per_chunk = 1

    def __init__(self, shots):
        self.shots = shots

    def chunk(self, _index):
        return [self.shots]


def flat(state):
    return torch.cat([tensor.flatten() for tensor in state.values()])


@pytest.mark.parametrize(
    ("name", "output", "basis"),
    [
        ("teacher-tiny", "two_channel", "z"),
        ("teacher-tiny", "joint4", "both"),
        ("flat-gru-20k", "two_channel", "both"),
    ],
)
def test_sixteen_shots_are_overfitted(tmp_path, name, output, basis):
    """A readout that drops stabilisers, dead activations or a cut gradient stay at the base rate for ever."""
    shots = simulate(Experiment(3, 3, basis, "si1000", 0.03), 16, seed=4)
    torch.manual_seed(0)
    steps = 100
    optimiser = OptimiserConfig(learning_rate=5e-3, warmup_steps=20, decay_steps=40)
    trainer = Trainer(
        build(name, 3, output), GroundTruth(0.0), TheSameShots(shots),
        TrainingConfig(steps=steps, batch_size=16, threads=1, optimiser=optimiser), tmp_path,
    )  # fmt: skip
    base, _ = GroundTruth(0.0)(trainer.model, shots)
    trainer.run()
    loss, values = GroundTruth(0.0)(trainer.model, shots)
    assert base > 0.3
    assert loss < 0.05
    assert values["ler_last"] == 0


def test_average_of_a_short_run_is_the_mean_of_its_weights(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, 20)
    path = [flat(trainer.model.state_dict()).clone()]
    trainer.run(Calling(lambda: path.append(flat(trainer.model.state_dict()).clone())))
    average, first, last = flat(trainer.ema_state()), path[0], path[-1]
    assert len(path) == 21
    torch.testing.assert_close(average, torch.stack(path).mean(0), rtol=1e-4, atol=1e-6)
    assert (average - last).norm() < (average - first).norm()
    # A plain average of rate 1e-3 would still be 98 % the initial weights.
    assert (average - first).norm() > 0.3 * (last - first).norm()


def test_average_forgets_once_warm(tmp_path, make_trainer):
    optimiser = OptimiserConfig(ema_decay=0.5, learning_rate=1e-3, warmup_steps=1)
    trainer = make_trainer(tmp_path, 6)
    trainer.config = trainer.config.model_copy(update={"optimiser": optimiser})
    expected = flat(trainer.model.state_dict()).clone()

    def follow():
        nonlocal expected
        expected = 0.5 * (expected + flat(trainer.model.state_dict()))

    trainer.run(Calling(follow))
    torch.testing.assert_close(flat(trainer.ema_state()), expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, make_trainer):
    truth, calls = GroundTruth(), []

    def broken(model, shots):
        loss, values = truth(model, shots)
        calls.append(1)
        return loss * (math.nan if len(calls) == 4 else 1.0), values

    with pytest.raises(SyndistillError, match=r"gradient is not finite at step 3; lower the learning rate"):
        make_trainer(tmp_path, 10, objective=broken, checkpoint_minutes=0.0).run()
    tensors, metadata = load_tensors(tmp_path / STATE)
    assert metadata == {"step": 3}
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_clipping_bounds_what_a_step_can_do(tmp_path, make_trainer):
    truth = GroundTruth()

    def steep(model, shots):
        loss, values = truth(model, shots)
        return 1e6 * loss, values

    trainer = make_trainer(tmp_path, 1, objective=steep)
    batch = trainer.source.chunk(0)[0]
    norms = []
    original = trainer.optimiser.step

    def step(*args, **kwargs):
        norms.append(torch.stack([p.grad.norm() for p in trainer.parameters if p.grad is not None]).norm())
        return original(*args, **kwargs)

    trainer.optimiser.step = step
    values = trainer.train_step(batch)
    assert values["gradient_norm"] > 1e3
    assert norms[0] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("name", ["teacher-tiny", "flat-gru-5k"])
def test_bfloat16_learns_and_keeps_fp32_weights(tmp_path, name):
    shots = simulate(Experiment(3, 3, "z", "si1000", 0.03), 16, seed=4)
    torch.manual_seed(0)
    config = TrainingConfig(
        steps=40, precision="bf16", threads=1, optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=5)
    )
    trainer = Trainer(build(name, 3), GroundTruth(0.0), TheSameShots(shots), config, tmp_path)
    before, _ = GroundTruth(0.0)(trainer.model, shots)
    trainer.run()
    after, _ = GroundTruth(0.0)(trainer.model, shots)
    assert after < before - 0.05
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_a_teacher_ships_its_averaged_weights(tmp_path):
    content = recipe("teacher-tiny").model_dump(mode="json")
    content["training"] |= {"steps": 4, "batch_size": 8, "threads": 1}
    path = train_teacher(validated(TeacherRun, content, "t"), tmp_path)
    shipped, kept = load_network(path)[0].state_dict(), load_tensors(tmp_path / STATE)[0]
    assert all(torch.equal(x, kept[f"ema.model.{name}"]) for name, x in shipped.items())
    assert any(not torch.equal(x, kept[f"weights.model.{name}"]) for name, x in shipped.items())
