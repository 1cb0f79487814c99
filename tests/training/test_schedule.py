"""A rate that falls in steps and a batch that grows, as the paper's: by their formulas, and resumable to the bit."""

import pytest
import torch
from tests.reporting import Stopping

from syndistill.distill.fuse import FuseRun
from syndistill.distill.student import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors
from syndistill.recipes import recipe
from syndistill.training.changes import validated
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.loop import STATE
from syndistill.training.run import TeacherRun


def test_the_rate_falls_by_its_factor_at_each_step_named():
    falling = OptimiserConfig(learning_rate=1.0, warmup_steps=0, fall_steps=(3, 5), fall_factor=0.7)
    assert [falling.rate_at(step, 8) for step in range(8)] == pytest.approx([1, 1, 1, 0.7, 0.7, 0.49, 0.49, 0.49])
    plain = OptimiserConfig(warmup_steps=3, decay_steps=2)
    both = plain.model_copy(update={"fall_steps": (4,), "fall_factor": 0.5})
    rates = [(plain.rate_at(step, 8), both.rate_at(step, 8)) for step in range(8)]
    assert [b / a for a, b in rates] == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])


def test_the_batch_doubles_at_each_step_named():
    growing = TrainingConfig(steps=9, doubling_steps=(2, 5))
    counts = [growing.batches_at(step) for step in range(9)]
    assert counts == [1, 1, 2, 2, 2, 4, 4, 4, 4]
    assert [growing.batches_before(step) for step in range(10)] == [sum(counts[:step]) for step in range(10)]
    assert TrainingConfig(steps=9).batches_before(7) == 7


def test_a_step_of_several_batches_follows_the_mean_of_their_gradients(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, 4, dials={"clip_norm": 1e6})
    batches = trainer.source.chunk(0)[:2]
    expected, losses = [], []
    for shots in batches:
        loss, _ = trainer.loss_module(shots)
        losses.append(float(loss.detach()))
        expected.append(torch.autograd.grad(loss, trainer.parameters, allow_unused=True, materialize_grads=True))
    seen = []
    step = trainer.optimiser.step
    trainer.optimiser.step = lambda: (seen.extend(p.grad.clone() for p in trainer.parameters), step())
    values = trainer.train_step(*batches)
    for found, one, other in zip(seen, *expected, strict=True):
        torch.testing.assert_close(found, (one + other) / 2)
    assert float(values["loss"]) == pytest.approx(sum(losses) / 2)


def test_a_growing_batch_takes_the_batches_one_after_the_other_also_when_taken_up_again(tmp_path, make_trainer):
    taken = {}

    def trainer(name, steps=7):
        def counted(model, shots):
            taken.setdefault(name, []).append(hash(shots.events_BRS.numpy().tobytes()))
            return truth(model, shots)

        made = make_trainer(tmp_path / name, steps, doubling_steps=(2, 4), checkpoint_minutes=0.0,
                            dials={"fall_steps": (3,)})  # fmt: skip
        truth = made.loss_module.objective
        made.loss_module.objective = counted
        return made

    whole = trainer("whole")
    chunks = [hash(shots.events_BRS.numpy().tobytes()) for index in range(5) for shots in whole.source.chunk(index)]
    whole.run()
    assert taken["whole"] == chunks[: 1 + 1 + 2 + 2 + 4 + 4 + 4]
    assert whole.shots_seen == 18 * 8
    with pytest.raises(KeyboardInterrupt):
        trainer("killed").run(Stopping("Teacher", 6).bar("Teacher", 7))
    trainer("killed").run()
    one, other = (load_tensors(tmp_path / name / STATE)[0] for name in ("whole", "killed"))
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


@pytest.mark.parametrize("run", [recipe("baseline-tiny"), recipe("road-tiny").fuse_run()], ids=["student", "fuse"])
def test_what_counts_its_batches_takes_no_growing_one(run):
    content = run.model_dump(mode="json")
    content["training"]["doubling_steps"] = [2]
    with pytest.raises(SyndistillError, match=r"doubling_steps is for a Teacher's training"):
        validated(StudentRun if isinstance(run, StudentRun) else FuseRun, content, "t")


@pytest.mark.parametrize("key", ["doubling_steps", "fall_steps"])
def test_steps_out_of_order_are_refused(key):
    content = recipe("teacher-tiny").model_dump(mode="json")
    (content["training"] if key == "doubling_steps" else content["training"]["optimiser"])[key] = [4, 2]
    with pytest.raises(SyndistillError, match=f"{key}: the steps must come in order"):
        validated(TeacherRun, content, "t")
