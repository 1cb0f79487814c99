"""The logical frame beside the state of a flat GRU: it streams as it answers, and it is the product of its factors."""

from dataclasses import replace

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.files.families import MOST_LOGIT, dials_of
from syndistill.models.gru import in_frame

from .test_contract import CASES, stream


@pytest.mark.parametrize(("output", "basis", "channels"), [case for case in CASES if case[0] == "two_channel"])
def test_streaming_is_whole_history(make_network, make_shots, output, basis, channels):
    network, shots = make_network("flat_gru", output, frame_memory=True), make_shots(basis, 7)
    with torch.no_grad():
        logits = network(shots).logits_BKLC
        assert logits.shape == (12, 7, 3, channels)
        torch.testing.assert_close(stream(network, shots), logits, rtol=1e-5, atol=1e-5)


def test_the_frame_is_the_product_of_its_factors_and_turns_the_answer(make_network, make_shots):
    """From the states that the network says it had; a frame of -1 answers the opposite."""
    network, shots = make_network("flat_gru", frame_memory=True), make_shots(rounds=6)
    factor = network.frames[shots.basis]
    with torch.no_grad():
        states_BRD, frame_BR1 = network(shots, ["temporal"]).signals["temporal"].split([12, 1], -1)
        expected_B1 = torch.ones(len(shots), 1)
        for t in range(6):
            expected_B1 = expected_B1 * torch.tanh(states_BRD[:, t] @ factor.weight.T + factor.bias)
            torch.testing.assert_close(frame_BR1[:, t], expected_B1, rtol=1e-5, atol=1e-6)
        state = network.init_state(len(shots), shots.basis)
        opposite = replace(state, memory_BX=torch.cat([state.memory_BX[:, :-1], -state.memory_BX[:, -1:]], -1))
        for end in range(6):
            state, opposite = (network.step(s, shots.events_BRS[:, end]) for s in (state, opposite))
            answers = [network.readout(s, shots.last_BKS[:, end]) for s in (state, opposite)]
            torch.testing.assert_close(answers[0], -answers[1])
    assert frame_BR1.std() > 0.01


def test_answers_in_a_frame_are_those_of_two_signs():
    """P(flip) = (1 + f m) / 2 with m = tanh(logit / 2), in double precision."""
    logits, frame = torch.linspace(-25, 25, 101)[:, None], torch.tensor([-1.0, -0.999, -0.2, 0.0, 0.5, 0.9999, 1.0])
    p_flip, p_known = torch.sigmoid(logits.double()), (1 + frame.double()) / 2
    flip = p_flip * p_known + (1 - p_flip) * (1 - p_known)
    no_flip = (1 - p_flip) * p_known + p_flip * (1 - p_known)
    torch.testing.assert_close(in_frame(logits, frame).double(), (flip / no_flip).log(), rtol=1e-4, atol=1e-5)
    assert in_frame(torch.tensor(1e6), torch.tensor(1.0)) == pytest.approx(MOST_LOGIT)


def test_no_frame_adds_nothing_and_a_joint_answer_has_none(make_network):
    assert not [name for name in make_network("flat_gru").state_dict() if "frame" in name]
    with pytest.raises(SyndistillError, match="take two_channel"):
        dials_of({"family": "flat_gru", "distance": 3, "frame_memory": True, "output": "joint4"})
