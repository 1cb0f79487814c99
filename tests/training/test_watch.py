"""Early stop: what did best on development shots is kept, to the bit, however often the run was taken up again."""

import pytest
import torch

from syndistill.models.tensors_file import load_tensors
from syndistill.training.loop import STATE
from syndistill.training.watch import Watch


def judge_by(values):
    """A judge that gives these values in turn, and how often it was asked."""
    left = list(values)
    return lambda weights: left.pop(0)


def nearest_to(step, of):
    """A judge of averaged weights whose best ones are those after `step` steps of the run `of`."""
    return lambda weights: sum(float((weights[k] - of[step][k]).square().sum()) for k in weights)


def by_step(make_trainer, folder, steps):
    """Averaged weights after every step of a run without a watch."""
    trainer, found = make_trainer(folder, steps), {}
    found[0] = {k: v.clone() for k, v in trainer.ema_state().items()}
    step = trainer.train_step

    def watched(*batches):
        values = step(*batches)
        found[trainer.step] = {k: v.clone() for k, v in trainer.ema_state().items()}
        return values

    trainer.train_step = watched
    trainer.run()
    return found


@pytest.mark.parametrize(("values", "patience", "best", "ended"), [
    ([3, 2, 1, 2, 3, 4], 2, 2, True),
    ([3, 2, 1, 2, 0, 4], 2, 4, False),
    ([1, 2, 3, 4, 5, 6], 0, 0, False),
    ([1, 1, 1, 1], 3, 0, True),  # as good is not better
])  # fmt: skip
def test_patience_counts_looks_without_a_new_best(values, patience, best, ended):
    watch = Watch(judge_by(values), every=5, patience=patience)
    for step in range(len(values) * 5):
        watch.look(step, lambda step=step: {"w": torch.tensor(float(step))})
        watch.look(step, lambda: pytest.fail("one step is looked at once"))
    assert (watch.best_step, watch.best["w"].item(), watch.has_ended) == (5 * best, 5 * best, ended)


@pytest.fixture(scope="module")
def known(make_trainer, tmp_path_factory):
    return by_step(make_trainer, tmp_path_factory.mktemp("known"), 40)


class Killed(BaseException):
    pass


def kill_after(trainer, steps):
    """No step more than these, with a checkpoint after each."""
    step = trainer.train_step

    def until_then(*batches):
        if trainer.step == steps:
            raise Killed
        return step(*batches)

    trainer.train_step = until_then


@pytest.mark.parametrize("cut", [7, 15])
def test_a_run_taken_up_again_keeps_the_same_weights_and_ends_at_the_same_step(tmp_path, make_trainer, known, cut):

    def trainer_in(name):
        trainer = make_trainer(tmp_path / name, 40, checkpoint_minutes=0.0)
        trainer.watch = Watch(nearest_to(10, known), every=5, patience=3)
        return trainer

    whole, first, again = trainer_in("whole"), trainer_in("cut"), trainer_in("cut")
    whole.run()
    kill_after(first, cut)
    with pytest.raises(Killed):
        first.run()
    again.run()
    for trainer in (whole, again):
        assert (trainer.step, trainer.watch.best_step) == (25, 10)
        assert all(torch.equal(trainer.watch.best[k], known[10][k]) for k in known[10])
    states = [load_tensors(tmp_path / name / STATE)[0] for name in ("whole", "cut")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
