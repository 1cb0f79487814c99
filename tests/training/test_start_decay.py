"""Decay towards the weights that a run starts from, as the paper fine-tunes."""

import pytest
import torch
from tests.reporting import Stopping

from syndistill.distill.fuse import FuseRun
from syndistill.distill.road import RoadRun
from syndistill.distill.student import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import fresh_network, load_network, save_network
from syndistill.models.tensors_file import load_tensors
from syndistill.recipes import recipe
from syndistill.training.changes import validated
from syndistill.training.loop import STATE
from syndistill.training.run import TeacherRun, train_teacher

OPTIMISERS = pytest.mark.parametrize("optimiser", ["adamw", "muon"])


class Killed(Exception):
    pass


def moved(trainer, start):
    return max(float((p - q).abs().max().detach()) for p, q in zip(trainer.model.parameters(), start, strict=True))


@OPTIMISERS
def test_a_huge_strength_leaves_every_weight_where_it_was(tmp_path, make_trainer, optimiser):
    for strength, name in ((1e6, "held"), (0.0, "free")):
        trainer = make_trainer(tmp_path / name, 6, optimiser, dials={"start_decay": strength})
        start = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.run()
        assert (moved(trainer, start) == 0) == (name == "held")


@OPTIMISERS
def test_without_a_gradient_a_step_goes_rate_times_strength_of_the_way_back(tmp_path, make_trainer, optimiser):
    def nothing(model, shots):
        return sum(0 * p.sum() for p in model.parameters()), {}

    dials = {"start_decay": 7.0, "weight_decay": 0.0, "warmup_steps": 0, "decay_steps": 0, "matrix_rate": 0.02}
    trainer = make_trainer(tmp_path, 6, optimiser, objective=nothing, dials=dials)
    start = [p.detach().clone() for p in trainer.model.parameters()]
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(torch.randn_like(p))
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train_step(trainer.source.chunk(0)[0])
    for now, was, first in zip(trainer.model.parameters(), before, start, strict=True):
        rate = 0.02 if optimiser == "muon" and now.ndim > 1 else 3e-3
        torch.testing.assert_close(now.detach(), was - rate * 7.0 * (was - first))


@OPTIMISERS
def test_taken_up_again_it_still_decays_to_the_start(tmp_path, make_trainer, optimiser):
    def trainer(name):
        return make_trainer(tmp_path / name, 12, optimiser, dials={"start_decay": 20.0}, checkpoint_minutes=0.0)

    trainer("whole").run()
    with pytest.raises(Killed):
        trainer("killed").run(Stopping("steps", 7, Killed()).bar("steps", 12))
    trainer("killed").run()
    whole, killed = (load_tensors(tmp_path / name / STATE)[0] for name in ("whole", "killed"))
    assert [k for k in whole if not torch.equal(whole[k], killed[k])] == []
    make_trainer(tmp_path / "without", 12, optimiser).run()
    without = load_tensors(tmp_path / "without" / STATE)[0]
    weights = [k for k in whole if k.startswith("weights.")]
    assert not any(torch.equal(whole[k], without[k]) for k in weights if whole[k].is_floating_point())


def tuning(start_from, strength, steps=6):
    content = recipe("teacher-tiny").model_dump(mode="json")
    optimiser = content["training"]["optimiser"] | {"start_decay": strength}
    training = content["training"] | {"steps": steps, "batch_size": 8, "threads": 1, "checkpoint_minutes": 0.0}
    content |= {"training": training | {"optimiser": optimiser}, "start_from": start_from}
    return validated(TeacherRun, content, "t")


def test_a_teacher_is_tuned_towards_the_file_that_it_starts_from(tmp_path):
    start = fresh_network(tuning(None, 0.0).network, 5)
    save_network(tmp_path / "start.safetensors", start, {})
    run = tuning(str(tmp_path / "start.safetensors"), 1e6)
    with pytest.raises(Killed):
        train_teacher(run, tmp_path / "run", Stopping("Teacher", 3, Killed()))
    tuned, _ = load_network(train_teacher(run, tmp_path / "run"))
    expected = start.state_dict()
    assert [k for k, v in tuned.state_dict().items() if not torch.equal(v, expected[k])] == []


@pytest.mark.parametrize(("model", "run", "where"), [
    (TeacherRun, recipe("teacher-tiny"), "training"),
    (StudentRun, recipe("baseline-tiny"), "training"),
    (FuseRun, recipe("road-tiny").fuse_run(), "training"),
    (RoadRun, recipe("road-tiny"), "baseline.training"),
])  # fmt: skip
def test_where_there_is_no_start_it_is_refused_in_one_line(model, run, where):
    content = run.model_dump(mode="json")
    training = content
    for key in where.split("."):
        training = training[key]
    training["optimiser"]["start_decay"] = 0.08
    with pytest.raises(SyndistillError, match=r"start_decay draws towards the weights that the run starts from") as e:
        validated(model, content, "t")
    assert "\n" not in str(e.value)
