"""States carried from part to part: the same answers as in one go, the same run after a stop."""

from dataclasses import replace

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.fuse import FuseRun
from syndistill.distill.student import StudentRun
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build, fresh_network, load_network
from syndistill.models.tensors_file import load_tensors
from syndistill.recipes import recipe
from syndistill.sampling.exact_labels import with_exact_labels
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
    "transformer": {"width": 8, "layers": 1, "heads": 2, "key_size": 4, "conv_channels": 4, "readout_width": 8,
                    "turn_x": True, "frame_memory": True},
}  # fmt: skip


def curriculum(*rounds):
    return Curriculum(p_min=0.002, p_max=0.006, n_rates=2, rounds=(RoundsPhase(from_shots=0, rounds=rounds),))


def network(family="flat_gru", seed=5, **dials):
    torch.manual_seed(seed)
    made = build(dials_of({"family": family, "distance": 3, **DIALS[family], **dials}))
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
    run = recipe("student-d3-frame").legs["first"].model_dump(mode="json")
    changed = run | change | {"data": run["data"] | change.get("data", {})}
    with pytest.raises(ValueError, match=said):
        StudentRun.model_validate(changed)


def test_probes_look_at_whole_experiments():
    fuse = recipe("road-d3").fuse_run().model_dump(mode="json")
    with pytest.raises(ValueError, match="leave part_rounds out"):
        FuseRun.model_validate(fuse | {"data": data().model_dump(mode="json")})


def test_a_run_of_parts_is_made_and_its_file_says_how(tmp_path):
    """A told frame is refused in one line where none is kept."""
    training = TrainingConfig(steps=10, batch_size=8, threads=1, optimiser=OptimiserConfig(warmup_steps=0))
    told = data(tell_frame=True)
    run = TeacherRun(network=network().config, data=told, training=training, next_event_weight=0.0)
    made, said = load_network(train_teacher(run, tmp_path / "run"))
    assert made.config.frame_memory
    assert said["run"]["data"]["tell_frame"]
    fresh = fresh_network(made.config, training.seed)
    pairs = zip(made.frames.parameters(), fresh.frames.parameters(), strict=True)
    assert all((a - b).abs().max() > 0 for a, b in pairs)
    for other, its, why in (
        (network("local_gru"), told, "a local_gru network of these dials keeps no frame of its own"),
        (build("teacher-tiny", 3), told, "a transformer network of these dials keeps no frame of its own"),
        (build(replace(network().config, frame_memory=False)), told, "or set network.frame_memory"),
    ):
        with pytest.raises(SyndistillError, match=why):
            train_teacher(TeacherRun(network=other.config, data=its, training=training), tmp_path / "refused")
        assert not (tmp_path / "refused").exists()


def told_parts(n_shots=24):
    experiment = Experiment(3, 9, "x", "si1000", 0.006)
    return parts_of(with_exact_labels(simulate(experiment, n_shots, 7), experiment, 3), 3, 0, told=True)


def test_a_told_part_is_judged_in_its_own_frame():
    """Its answers begin from a known frame, and a shot's sign is the one that the posterior agrees with: turning all
    labels of a shot changes nothing."""
    model, parts = network(), told_parts()
    turned = [replace(part, posterior_BKLP=part.posterior_BKLP.flip(-1)) if part.part.told else part for part in parts]
    one, other = CarriedStates(), CarriedStates()
    begin = None
    for part, flipped in zip(parts, turned, strict=True):
        a, b = one.outputs(model, part), other.outputs(model, flipped)
        expected = -a.logits_BKLC if part.part.told else a.logits_BKLC
        torch.testing.assert_close(b.logits_BKLC, expected)
        if part.part.told:
            means = torch.tanh(a.logits_BKLC[..., 0] / 2) * (2 * part.posterior_BKLP[..., 1] - 1)
            assert (means.sum((1, 2)) >= 0).all()
            state = model.with_known_frame(begin)
            assert (state.memory_BX[:, -1] == 1).all()
            torch.testing.assert_close(a.logits_BKLC.abs(), model(part, (), state).logits_BKLC.abs())
        begin = a.state


@pytest.mark.parametrize("family", DIALS)
def test_a_drawn_part_begins_with_the_frame_that_it_is_told(family):
    """Every line with its own, where lines have their own; told the opposite, the answers have the opposite sign."""
    model, carried, other = network(family, frame_memory=True), CarriedStates(), CarriedStates()
    first, second = parts_of(simulate(Experiment(3, 8, "x", "si1000", 0.02), 64, 7), 4, 0, told=True)
    begin = carried.outputs(model, first).state
    other.outputs(model, first)
    state = model.with_known_frame(begin, second.known_BLO)
    n_frames = 1 if family == "flat_gru" else 3
    assert torch.equal(state.memory_BX[:, -n_frames:], 1.0 - 2.0 * second.known_BLO[:, :n_frames, 0])
    assert torch.equal(state.memory_BX[:, :-n_frames], begin.memory_BX[:, :-n_frames])
    found = carried.outputs(model, second).logits_BKLC
    assert torch.equal(found, model(second, (), state).logits_BKLC)
    opposite = other.outputs(model, replace(second, known_BLO=1 - second.known_BLO)).logits_BKLC
    torch.testing.assert_close(opposite, -found)
    assert second.known_BLO.any()


def test_gradients_of_a_told_part_are_numbers():
    """Where the frame is known for sure and the readout is sure too."""
    model = network()
    with torch.no_grad():
        model.heads["x"].bias.fill_(80.0)
        model.frames["x"].bias.fill_(30.0)
    truth = GroundTruth(0.0)
    for part in told_parts():
        loss, _ = truth(model, part)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
