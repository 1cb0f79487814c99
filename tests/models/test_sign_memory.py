"""Signs beside the state of a flat GRU: a network without them begins one with them, which streams as it answers."""

import pytest
import torch

from syndistill.models.warm_start import can_gain_signs, with_signs

from .test_contract import CASES, stream


@pytest.mark.parametrize(("output", "basis", "channels"), CASES)
def test_streaming_is_whole_history(make_network, make_shots, output, basis, channels):
    network, shots = make_network("flat_gru", output, sign_channels=3), make_shots(basis, 7)
    with torch.no_grad():
        logits = network(shots).logits_BKLC
        assert logits.shape == (12, 7, 3, channels)
        torch.testing.assert_close(stream(network, shots), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("output", "basis"), [("two_channel", "x"), ("two_channel", "z"), ("joint4", "both")])
def test_it_begins_with_the_answers_of_one_without_and_then_hears_them(make_network, make_shots, output, basis):
    source, target = make_network("flat_gru", output), make_network("flat_gru", output, sign_channels=4)
    assert can_gain_signs(source, target)
    assert not can_gain_signs(target, source)
    assert not can_gain_signs(source, make_network("flat_gru", output, width=13, sign_channels=4))
    target.load_state_dict(with_signs(source, target))
    shots = make_shots(basis)
    assert torch.equal(target(shots).logits_BKLC, source(shots).logits_BKLC)
    optimiser = torch.optim.SGD(target.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        target(shots).logits_BKLC.square().sum().backward()
        optimiser.step()
    assert target.sign_heads["both" if output == "joint4" else basis].weight.grad.abs().max() > 0
    assert target.signs.weight.grad.abs().max() > 0


def test_a_sign_is_the_product_of_its_factors(make_network, make_shots):
    """From the states that the network says it had."""
    network, shots = make_network("flat_gru", sign_channels=2), make_shots(rounds=6)
    with torch.no_grad():
        states_BRD, signs_BRK = network(shots, ["temporal"]).signals["temporal"].split([12, 2], -1)
        expected_BK = torch.ones(len(shots), 2)
        for t in range(6):
            sums_BK = states_BRD[:, t] @ network.signs.weight.T / 12**0.5 + network.signs.bias
            expected_BK = expected_BK * torch.tanh(sums_BK)
            torch.testing.assert_close(signs_BRK[:, t], expected_BK, rtol=1e-5, atol=1e-6)
    assert signs_BRK.std() > 0.01


def test_no_channels_add_nothing(make_network):
    assert not [name for name in make_network("flat_gru").state_dict() if "sign" in name]
