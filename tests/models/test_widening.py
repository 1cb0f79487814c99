"""A narrow local GRU begins a wider one, which answers as it does and then learns with all it has."""

import pytest
import torch

from syndistill.models.warm_start import can_widen, widened


@pytest.fixture(params=["two_channel", "joint4"])
def pair(request, make_network):
    narrow = make_network("local_gru", request.param)
    wide = make_network("local_gru", request.param, width=11)
    wide.load_state_dict(widened(narrow, wide))
    return narrow, wide, "both" if request.param == "joint4" else "x"


def test_the_wide_one_answers_as_the_narrow(pair, make_shots):
    narrow, wide, basis = pair
    shots = make_shots(basis)
    a, b = narrow(shots), wide(shots)
    torch.testing.assert_close(b.logits_BKLC, a.logits_BKLC)
    torch.testing.assert_close(b.next_BRS, a.next_BRS)


def test_new_states_are_not_all_alike_and_begin_to_be_heard(pair, make_shots):
    _, wide, basis = pair
    shots = make_shots(basis)
    new_BRSD = wide(shots, ["temporal"]).signals["temporal"].unflatten(-1, (-1,))[..., 5:]
    assert new_BRSD.flatten(0, -2).std(0).min() > 1e-3
    optimiser = torch.optim.SGD(wide.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        wide(shots).logits_BKLC.square().sum().backward()
        optimiser.step()
    recurrent = wide.cell.recurrent[0].view(3, 11, 9, 11)
    assert recurrent[:, :5, :, 5:].abs().max() > 0


def test_what_can_be_widened(make_network):
    narrow, wide = make_network("local_gru"), make_network("local_gru", width=11)
    assert can_widen(narrow, wide)
    assert not can_widen(wide, narrow)
    assert not can_widen(narrow, narrow)
    assert not can_widen(narrow, make_network("local_gru", width=11, readout_width=12))
    assert not can_widen(make_network("flat_gru"), wide)
