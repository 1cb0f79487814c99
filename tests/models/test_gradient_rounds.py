"""Truncated backpropagation: the same answers, and the gradient of a walk that began to be recorded late."""

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.recipes import recipe
from syndistill.training.run import TeacherRun, train_teacher


def gradients(network, logits):
    network.zero_grad()
    logits.sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def walked(network, shots, learned):
    """The last end's logits round by round, recorded over the last `learned` rounds."""
    state = network.init_state(len(shots), shots.basis)
    for t in range(shots.rounds):
        with torch.set_grad_enabled(t >= shots.rounds - learned):
            state = network.step(state, shots.events_BRS[:, t])
    return network.readout(state, shots.last_BKS[:, -1])


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("learned", [1, 2, 5])
def test_gradients_are_those_of_the_last_rounds(make_network, make_shots, learned, distance):
    network = make_network("transformer", distance=distance)
    shots = make_shots("x", rounds=5, distance=distance).at_ends([4])
    whole_logits = network(shots).logits_BKLC
    whole = gradients(network, whole_logits)
    network.gradient_rounds = learned
    logits = network(shots).logits_BKLC
    assert torch.equal(logits, whole_logits)
    found, expected = gradients(network, logits), gradients(network, walked(network, shots, learned))
    assert found.keys() >= expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    name = "layers.0.attention.qkv.weight"
    assert torch.equal(found[name], whole[name]) == (learned == 5)


def test_asking_for_more_rounds_than_there_are_changes_nothing(make_network, make_shots):
    network, shots = make_network("transformer"), make_shots(rounds=2)
    whole = gradients(network, network(shots).logits_BKLC)
    network.gradient_rounds = 7
    found = gradients(network, network(shots).logits_BKLC)
    assert all(torch.equal(found[name], gradient) for name, gradient in whole.items())


def test_a_run_learns_through_so_many_rounds(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "syndistill.training.run.Trainer.run", lambda trainer, _: asked.append(trainer.model.gradient_rounds)
    )
    tiny = recipe("teacher-tiny").model_dump(mode="json")
    train_teacher(TeacherRun.model_validate(tiny | {"gradient_rounds": 2}), tmp_path / "some")
    assert asked == [2]
    grown = tiny | {"gradient_rounds": 2, "network": {"family": "local_gru", "distance": 3}}
    with pytest.raises(SyndistillError, match="a local_gru network learns through all rounds; set 0"):
        train_teacher(TeacherRun.model_validate(grown), tmp_path / "other")
