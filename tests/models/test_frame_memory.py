"""The logical frame beside the states of a GRU: it streams as it answers, and it is the product of its factors."""

from dataclasses import replace

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.files.families import MOST_LOGIT, dials_of
from syndistill.models.frames import in_frame
from syndistill.models.warm_start import can_gain_frame, can_widen, widened, with_frame

from .test_contract import CASES, stream

FAMILIES = pytest.mark.parametrize("family", ["flat_gru", "local_gru", "transformer"])


@FAMILIES
@pytest.mark.parametrize(("output", "basis", "channels"), [case for case in CASES if case[0] == "two_channel"])
def test_streaming_is_whole_history(make_network, make_shots, family, output, basis, channels):
    network, shots = make_network(family, output, frame_memory=True), make_shots(basis, 7)
    with torch.no_grad():
        logits = network(shots).logits_BKLC
        assert logits.shape == (12, 7, 3, channels)
        torch.testing.assert_close(stream(network, shots), logits, rtol=1e-5, atol=1e-5)


def test_the_frame_is_the_product_of_its_factors_and_turns_the_answer(make_network, make_shots):
    """From the states that the network says it had; a frame of -1 answers the opposite."""
    network, shots = make_network("flat_gru", frame_memory=True), make_shots(rounds=6)
    factor = network.frames[shots.basis]
    with torch.no_grad():
        outputs = network(shots, ["temporal"])
        expected_BR1 = torch.tanh(outputs.signals["temporal"] @ factor.weight.T + factor.bias)
        torch.testing.assert_close(outputs.turns_BRFC[..., 0], expected_BR1, rtol=1e-5, atol=1e-6)
        frame_B = outputs.state.memory_BX[:, -1]
        torch.testing.assert_close(frame_B, expected_BR1.prod(1)[:, 0], rtol=1e-5, atol=1e-6)
    assert frame_B.std() > 0.01


def test_the_frame_of_a_line_is_the_product_of_its_qubits(make_network, make_shots):
    """Factors written out by hand: the corners of a data qubit by its place in the grid, weights by its colour."""
    network, shots = make_network("local_gru", frame_memory=True, turn_x=False), make_shots("x", rounds=3)
    d, n = network.layout.n_lines, network.layout.n_stabilisers
    with torch.no_grad():
        for parameter in (*network.frame_weight.values(), *network.frame_bias.values()):
            parameter.normal_()
        outputs = network(shots, ["temporal"])
        states_BRSD = outputs.signals["temporal"]
        expected_BRL = torch.ones(len(shots), 3, d)
        places = {(i + j) % 2: [(a, b) for a in range(d) for b in range(d) if (a + b) % 2 == (i + j) % 2]
                  for i, j in ((0, 0), (0, 1))}  # fmt: skip
        for i in range(d):
            for j in range(d):
                kind = (i + j) % 2
                number = places[kind].index((i, j)) + (len(places[0]) if kind else 0)
                total_BR = network.frame_bias["x"][number].expand(len(shots), 3).clone()
                for corner, s in enumerate(network.layout.corners_Q4[i * d + j]):
                    if s < n:
                        total_BR += states_BRSD[:, :, s] @ network.frame_weight["x"][kind, corner]
                expected_BRL[..., i] *= torch.tanh(total_BR)  # an x line is a row
        torch.testing.assert_close(outputs.turns_BRFC[..., 0], expected_BRL, rtol=1e-4, atol=1e-5)
        frames_BL = outputs.state.memory_BX[:, network.n_states :]
        torch.testing.assert_close(frames_BL, expected_BRL.prod(1), rtol=1e-4, atol=1e-5)
    assert expected_BRL.std() > 0.1


@FAMILIES
def test_a_frame_of_minus_one_answers_the_opposite(make_network, make_shots, family):
    network, shots = make_network(family, frame_memory=True), make_shots(rounds=6)
    with torch.no_grad():
        state = network.init_state(len(shots), shots.basis)
        frames_BX = state.memory_BX[:, network.n_states :]
        opposite = replace(state, memory_BX=torch.cat([state.memory_BX[:, : network.n_states], -frames_BX], -1))
        for end in range(6):
            state, opposite = (network.step(s, shots.events_BRS[:, end]) for s in (state, opposite))
            answers = [network.readout(s, shots.last_BKS[:, end]) for s in (state, opposite)]
            torch.testing.assert_close(answers[0], -answers[1])


def test_answers_in_a_frame_are_those_of_two_signs():
    """P(flip) = (1 + f m) / 2 with m = tanh(logit / 2), in double precision."""
    logits, frame = torch.linspace(-25, 25, 101)[:, None], torch.tensor([-1.0, -0.999, -0.2, 0.0, 0.5, 0.9999, 1.0])
    p_flip, p_known = torch.sigmoid(logits.double()), (1 + frame.double()) / 2
    flip = p_flip * p_known + (1 - p_flip) * (1 - p_known)
    no_flip = (1 - p_flip) * p_known + p_flip * (1 - p_known)
    torch.testing.assert_close(in_frame(logits, frame).double(), (flip / no_flip).log(), rtol=1e-4, atol=1e-5)
    assert in_frame(torch.tensor(1e6), torch.tensor(1.0)) == pytest.approx(MOST_LOGIT)


@FAMILIES
def test_no_frame_adds_nothing_and_a_joint_answer_has_none(make_network, family):
    assert not [name for name in make_network(family).state_dict() if "frame" in name]
    with pytest.raises(SyndistillError, match="take two_channel"):
        dials_of({"family": family, "distance": 3, "frame_memory": True, "output": "joint4"})


@FAMILIES
def test_a_network_without_a_frame_begins_one_with_it(make_network, make_shots, family):
    """It answers as before while the frame's factors are all but 1, and the frame is fresh."""
    plain, framed, shots = make_network(family), make_network(family, frame_memory=True), make_shots(rounds=2)
    assert can_gain_frame(plain, framed)
    assert not can_gain_frame(framed, framed)
    assert not can_gain_frame(plain, make_network(family, frame_memory=True, readout_width=13))
    fresh = {name: value for name, value in framed.state_dict().items() if "frame" in name}
    framed.load_state_dict(with_frame(plain, framed))
    assert fresh
    assert all(torch.equal(framed.state_dict()[name], value) for name, value in fresh.items())
    with torch.no_grad():
        for name, parameter in framed.named_parameters():
            if "frame" in name and "bias" in name:
                parameter.fill_(12.0)
        torch.testing.assert_close(framed(shots).logits_BKLC, plain(shots).logits_BKLC, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["local_gru", "flat_gru"])
def test_a_wide_network_has_the_frame_of_the_narrow_one(family, make_network, make_shots):
    narrow, wide = (make_network(family, frame_memory=True, width=width) for width in (5, 9))
    assert can_widen(narrow, wide)
    wide.load_state_dict(widened(narrow, wide))
    shots = make_shots(rounds=4)
    with torch.no_grad():
        torch.testing.assert_close(wide(shots).turns_BRFC, narrow(shots).turns_BRFC)
        torch.testing.assert_close(wide(shots).logits_BKLC, narrow(shots).logits_BKLC)


@FAMILIES
def test_frames_stay_float32_where_all_else_is_bfloat16(make_network, make_shots, family):
    """In bfloat16 a factor of .999 is 1."""
    network, shots = make_network(family, frame_memory=True), make_shots(rounds=4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = network(shots)
    assert outputs.turns_BRFC.dtype == torch.float32
    assert not torch.equal(outputs.turns_BRFC, outputs.turns_BRFC.bfloat16().float())
