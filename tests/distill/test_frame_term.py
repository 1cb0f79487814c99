"""The frame term: what a network's frames were multiplied by between two ends, against the true turns."""

import math

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.objective import CERTAIN, StudentObjective
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.student import StudentRun
from syndistill.distill.terms import FinalTerm, FrameTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build
from syndistill.recipes import recipe
from syndistill.sampling.parts import parts_of
from syndistill.sampling.shots import simulate
from syndistill.training.carried import CarriedStates

ALONE = Terms(labels=LabelTerm(weight=0), final=FinalTerm(weight=0), frame=FrameTerm(weight=1, delay=2))


def network(family, **dials):
    torch.manual_seed(3)
    made = build(
        dials_of({"family": family, "distance": 3, "width": 8, "readout_width": 8, "frame_memory": True} | dials)
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "frame" in name:
                parameter.normal_(1.5 if "bias" in name else 0.0)
    return made


def by_hand(turns_BRF, frames_BKF, ends, delay):
    """A window after the other, in double precision."""
    losses, begin, before = [], 0, torch.zeros_like(frames_BKF[:, 0])
    for k, end in enumerate(ends):
        if end + delay > turns_BRF.shape[1]:
            break
        kept = turns_BRF[:, begin : end + delay].double().prod(1)
        turned = (frames_BKF[:, k] != before).double()
        p_turned = (1 - CERTAIN * kept) / 2
        losses.append(-(turned * p_turned.log() + (1 - turned) * (1 - p_turned).log()).mean())
        begin, before = end + delay, frames_BKF[:, k]
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize(("family", "n_frames"), [("flat_gru", 1), ("local_gru", 3)])
@pytest.mark.parametrize("delay", [0, 2])
def test_the_loss_is_the_cross_entropy_of_the_turns(family, n_frames, delay):
    shots = simulate(Experiment(3, 9, "z", "si1000", 0.02), 64, 1).at_ends([1, 2, 5, 8])
    model = network(family)
    terms = ALONE.model_copy(update={"frame": FrameTerm(weight=1, delay=delay)})
    found, values = StudentObjective(terms, None)(model, TaughtShots(shots, None, number=0))
    turns_BRF = model(shots).turns_BRFC[..., 0]
    assert turns_BRF.shape == (64, 9, n_frames)
    expected = by_hand(turns_BRF, shots.frames_BKLO[:, :, :n_frames, 0], shots.ends, delay)
    assert found.item() == pytest.approx(expected, rel=1e-4) == values["frame"].item()
    assert abs(expected - math.log(2)) > 0.003
    found.backward()
    assert max(p.grad.abs().max() for name, p in model.named_parameters() if "frame" in name and p.grad is not None) > 0


def test_the_term_fades_over_a_share_of_the_steps():
    frame = FrameTerm(weight=2, fade=0.75)
    terms = ALONE.model_copy(update={"labels": LabelTerm(weight=1), "frame": frame})
    (term,) = [t for t in StudentObjective(terms, None, steps=8).terms if t.name == "frame"]
    assert [term.weight_at(step) for step in (0, 3, 6, 7)] == [2.0, 1.0, 0.0, 0.0]
    (term,) = [t for t in StudentObjective(ALONE, None, steps=8).terms if t.name == "frame"]
    assert term.weight_at(7) == 1.0


def test_a_part_is_compared_from_its_first_end_on():
    """What lies between its first round and that end began in the part before."""
    whole = simulate(Experiment(3, 8, "x", "si1000", 0.02), 64, 1)
    model, carried = network("local_gru"), CarriedStates()
    first, second = parts_of(whole, 4, lane=0)
    carried.outputs(model, first)
    objective = StudentObjective(ALONE.model_copy(update={"frame": FrameTerm(weight=1, delay=1)}), None)
    objective.carried = carried
    found, _ = objective(model, TaughtShots(second, None, number=0))
    turns_BRL, frames_BKL = model(whole).turns_BRFC[..., 0], whole.frames_BKLO[..., 0]
    turned_BKL = frames_BKL[:, 5:7] ^ frames_BKL[:, 4:6]  # ends 6 and 7 against those before; turns a round later
    expected = by_hand(turns_BRL[:, 6:8], turned_BKL.cumsum(1) % 2, (1, 2), 0)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_a_told_part_is_compared_with_what_it_was_told():
    """What was turned since then shows within the part, an error of its last rounds before too."""
    whole = simulate(Experiment(3, 8, "x", "si1000", 0.02), 64, 1)
    model, carried = network("local_gru"), CarriedStates()
    first, second = parts_of(whole, 4, lane=0, told=True)
    carried.outputs(model, first)
    objective = StudentObjective(ALONE.model_copy(update={"frame": FrameTerm(weight=1, delay=1)}), None)
    objective.carried = carried
    found, _ = objective(model, TaughtShots(second, None, number=0))
    turns_BRL, frames_BKL = model(whole).turns_BRFC[..., 0], whole.frames_BKLO[..., 0]
    since_BKL = frames_BKL[:, 4:7] ^ frames_BKL[:, [0]]  # ends 5, 6 and 7; told: the frame after the first round
    assert found.item() == pytest.approx(by_hand(turns_BRL[:, 4:], since_BKL, (1, 2, 3), 1), rel=1e-4)


def test_what_has_no_frame_is_refused():
    shots = simulate(Experiment(3, 5, "z", "si1000", 0.02), 8, 1)
    with pytest.raises(SyndistillError, match="needs a network of frame_memory"):
        StudentObjective(ALONE, None)(network("local_gru", frame_memory=False), TaughtShots(shots, None, number=0))
    assert ALONE.needs_every_end


WHOLE = {"part_rounds": None, "tell_frame": False}


@pytest.mark.parametrize(("changes", "said"), [
    ({"network": {"frame_memory": False}}, "set network.frame_memory"),
    ({"terms": {"frame": {"delay": 25}}}, "delay=25 leaves nothing of 25 rounds"),
    ({"data": {"cached_shots": 4096, "simulated": WHOLE}}, "needs fresh simulated shots"),
    ({"data": {"simulated": {**WHOLE, "labels": "revealed"}}}, "needs fresh simulated shots"),
])  # fmt: skip
def test_runs_that_know_no_frames(changes, said):
    run = recipe("student-d3-frame").legs["first"].model_dump(mode="json")
    run["terms"]["frame"]["weight"] = 1.0
    StudentRun.model_validate(run)
    for key, value in changes.items():
        run[key] = merged(run[key], value)
    with pytest.raises(ValueError, match=said):
        StudentRun.model_validate(run)


def merged(old, new):
    return {**old, **{key: merged(old[key], value) if isinstance(value, dict) else value for key, value in new.items()}}


@pytest.mark.parametrize("most", [3, 9])
def test_a_teacher_of_few_rounds_is_asked_about_these(most):
    """As of experiments that ended there: the loss is that of a Teacher that saw no later round."""
    shots = simulate(Experiment(3, 6, "z", "si1000", 0.02), 32, 1).at_ends([0, 2, 3, 5])
    teacher, model = network("flat_gru", width=9), network("flat_gru")
    term = FinalTerm(where="every", most_rounds=most)
    objective = StudentObjective(Terms(labels=LabelTerm(weight=0), final=term), FrozenTeacher(teacher))
    asked = []
    teacher.register_forward_hook(lambda _, given, __: asked.append((given[0].rounds, given[0].ends)))
    found, _ = objective(model, TaughtShots(shots, None, number=0))
    assert asked == [(3, (1, 3)) if most == 3 else (6, (1, 3, 4, 6))]
    n = len(asked[0][1])
    own, its = (net(shots).logits_BKLC[:, :n, 0] for net in (model, teacher))
    torch.testing.assert_close(found, posterior_divergence(own, its).mean())


def test_a_teacher_that_no_end_is_for_says_nothing():
    shots = simulate(Experiment(3, 6, "z", "si1000", 0.02), 32, 1).at_ends([3, 5])
    term = FinalTerm(where="every", most_rounds=3)
    objective = StudentObjective(Terms(labels=LabelTerm(weight=0), final=term), FrozenTeacher(network("flat_gru")))
    found, _ = objective(network("flat_gru"), TaughtShots(shots, None, number=0))
    found.backward()
    assert found.item() == 0


@pytest.mark.parametrize("change", [
    {"data": {"cached_shots": 4096}},
    {"terms": {"readout": {"weight": 1.0}}},
    {"terms": {"spatial": {"weight": 1.0}}},
])  # fmt: skip
def test_few_rounds_are_for_a_live_teacher_s_final_logits(change):
    """A cache holds every end, and other terms look at all."""
    run = recipe("student-d3").legs["rounds-9"].model_dump(mode="json")
    run["data"]["cached_shots"], run["terms"]["final"]["most_rounds"] = 0, 5
    StudentRun.model_validate(run)
    with pytest.raises(ValueError, match="a Teacher's final logits alone"):
        StudentRun.model_validate(merged(run, change))
