"""States carried from part to part: the same answers as in one go, the same run after a stop."""

from functools import partial

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.fuse import FuseRun
from syndistill.distill.student import StudentRun
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build, load_network, save_network
from syndistill.models.tensors_file import load_tensors
from syndistill.recipes import recipe
from syndistill.sampling.parts import PartedSource, parts_of
from syndistill.sampling.shots import simulate
from syndistill.training.carried import CarriedStates
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import STATE, Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.run import TeacherRun, train_teacher

DIALS = {
    "flat_gru": {"width": 12, "readout_width": 8, "turn_x": True, "frame_memory": True},
    "local_gru": {"width": 5, "readout_width": 8, "turn_x": True, "next_events": True},
}


def curriculum(*rounds):
    return Curriculum(p_min=0.002, p_max=0.006, n_rates=2, rounds=(RoundsPhase(from_shots=0, rounds=rounds),))


def network(family="flat_gru", seed=5):
    torch.manual_seed(seed)
    made = build(dials_of({"family": family, "distance": 3, **DIALS[family]}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("family", DIALS)
@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_carried_parts_answer_as_the_whole_history(family, basis):
    whole, made = simulate(Experiment(3, 12, basis, "si1000", 0.01), 20, 1), network(family)
    carried = CarriedStates()
    with torch.no_grad():
        expected = made(whole)
        logits = []
        for part in parts_of(whole, 4, lane=7):
            outputs = carried.outputs(made, part)
            logits.append(outputs.logits_BKLC)
        torch.testing.assert_close(torch.cat(logits, 1), expected.logits_BKLC, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(outputs.state.memory_BX, expected.state.memory_BX, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.state.parity_BS, expected.state.parity_BS)
    assert outputs.state.rounds_done == expected.state.rounds_done == 12
    assert expected.logits_BKLC.std() > 0.05


def test_a_part_is_not_answered_from_anything_but_its_own_state():
    first, second = parts_of(simulate(Experiment(3, 8, "z", "si1000", 0.01), 20, 1), 4, lane=0)
    made = network()
    with pytest.raises(SyndistillError, match="from round 4 on need the state of these shots after the rounds before"):
        made(second)
    state = made(first).state
    made(second, (), state)
    for begin, part in ((state, first), (made(second, (), state).state, second), (state, second.take(slice(0, 3)))):
        with pytest.raises(SyndistillError, match="need the state of these shots"):
            made(part, (), begin)
    with pytest.raises(SyndistillError, match="a transformer network begins at an experiment's first round"):
        build("teacher-tiny", 3)(second, (), state)


def test_no_gradient_reaches_the_part_before():
    first, second = parts_of(simulate(Experiment(3, 8, "z", "si1000", 0.01), 20, 1), 4, lane=0)
    truth, made = GroundTruth(0.0), network()
    truth(made, first)
    truth(made, second)[0].backward()
    assert made.start["z"].grad is None
    assert made.gru.weight_hh_l0.grad.abs().max() > 0


def make_trainer(folder, steps, rounds=(3, 6)):
    training = TrainingConfig(steps=steps, batch_size=8, threads=1, log_every=5,
                              optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=5))  # fmt: skip
    source = PartedSource(
        part_rounds=3, longest=6, distance=3, noise="si1000", bases=("x", "z"), schedule=curriculum(*rounds),
        batch_size=8, seed=0, labels="exact",
    )  # fmt: skip
    truth = GroundTruth(0.0)
    return Trainer(network(), truth, source, training, folder, carried=truth.carried)


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, stop):
    """Chunks have 8 batches: in the middle of experiments, and between two."""
    make_trainer(tmp_path / "whole", 18).run()
    make_trainer(tmp_path / "stopped", stop).run()
    make_trainer(tmp_path / "stopped", 18).run()
    expected, found = (load_tensors(tmp_path / name / STATE)[0] for name in ("whole", "stopped"))
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert {name.split(".")[1] for name in expected if name.startswith("carried.")} == {"0", "1", "2", "3"}


def test_the_comparison_above_can_fail(tmp_path):
    """Without its states a run can't go on in the middle of an experiment."""
    make_trainer(tmp_path, 5, (6,)).run()
    trainer = make_trainer(tmp_path, 18, (6,))
    trainer.carried.load = lambda *_: None
    with pytest.raises(SyndistillError, match="need the state of these shots"):
        trainer.run()


def data(**changes):
    return DataConfig(**{"distance": 3, "labels": "exact", "part_rounds": 3, "curriculum": curriculum(3, 6), **changes})


@pytest.mark.parametrize(("change", "said"), [
    ({"labels": "revealed"}, "revealed begin at round 0"),
    ({"part_rounds": 2}, "3 rounds must be whole parts and a divisor of the most, 6"),
    ({"part_rounds": 0}, "greater than or equal to 1"),
])  # fmt: skip
def test_data_that_cannot_come_in_parts(change, said):
    with pytest.raises(ValueError, match=said):
        data(**change)


@pytest.mark.parametrize(("change", "said"), [
    ({"terms": Terms()}, "a Teacher answers whole experiments"),
    ({"data": {"cut_rounds": [3]}}, "fresh and whole"),
    ({"data": {"cached_shots": 4096}}, "fresh and whole"),
])  # fmt: skip
def test_a_student_of_parts_asks_no_teacher_and_no_cache(change, said):
    run = recipe("student-d3-late").legs["parts-10"].model_dump(mode="json")
    changed = run | change | {"data": run["data"] | change.get("data", {})}
    with pytest.raises(ValueError, match=said):
        StudentRun.model_validate(changed)


def test_probes_look_at_whole_experiments():
    fuse = recipe("road-d3").fuse_run().model_dump(mode="json")
    with pytest.raises(ValueError, match="leave part_rounds out"):
        FuseRun.model_validate(fuse | {"data": data().model_dump(mode="json")})


def test_a_run_of_parts_from_a_network_without_signs(tmp_path):
    """Its file says how it was made and is read as any other; a Teacher's family is refused in one line."""
    plain = build(dials_of({"family": "flat_gru", "distance": 3, **DIALS["flat_gru"], "sign_channels": 0}))
    save_network(tmp_path / "plain.safetensors", plain, {})
    training = TrainingConfig(steps=10, batch_size=8, threads=1, optimiser=OptimiserConfig(warmup_steps=0))
    run = TeacherRun(network=network().config, data=data(), training=training, next_event_weight=0.0,
                     start_from=str(tmp_path / "plain.safetensors"))  # fmt: skip
    made, said = load_network(train_teacher(run, tmp_path / "run"))
    assert made.config.sign_channels == 2
    assert said["run"]["data"]["part_rounds"] == 3
    assert made.sign_heads["z"].weight.abs().max() > 0
    assert (made.gru.weight_hh_l0 - plain.gru.weight_hh_l0).abs().max() > 0
    refused = partial(TeacherRun, network=build("teacher-tiny", 3).config, data=data(), training=training)
    with pytest.raises(SyndistillError, match="a transformer network does not carry its state from part to part"):
        train_teacher(refused(), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
