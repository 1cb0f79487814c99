"""A narrow GRU begins a wider one, which answers as it does and then learns with all it has."""

import pytest
import torch

from syndistill.models.gru import FlatGru
from syndistill.models.warm_start import can_widen, widened


@pytest.fixture(params=["two_channel", "joint4"])
def output(request):
    return request.param


@pytest.fixture(params=["local_gru", "flat_gru"])
def pair(request, output, make_network):
    narrow = make_network(request.param, output)
    wide = make_network(request.param, output, width=narrow.config.width + 6)
    wide.load_state_dict(widened(narrow, wide))
    return narrow, wide, "both" if output == "joint4" else "x"


def test_the_wide_one_answers_as_the_narrow(pair, make_shots):
    narrow, wide, basis = pair
    shots = make_shots(basis)
    a, b = narrow(shots), wide(shots)
    torch.testing.assert_close(b.logits_BKLC, a.logits_BKLC)
    torch.testing.assert_close(b.next_BRS, a.next_BRS)


def test_new_states_are_not_all_alike_and_begin_to_be_heard(pair, make_shots):
    before, wide, basis = pair
    shots, narrow = make_shots(basis), before.config.width
    states = wide(shots, ["temporal"]).signals["temporal"]
    assert states[..., narrow:].flatten(0, -2).std(0).min() > 1e-3
    optimiser = torch.optim.SGD(wide.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        wide(shots).logits_BKLC.square().sum().backward()
        optimiser.step()
    weights = wide.gru.weight_hh_l0 if isinstance(wide, FlatGru) else wide.cell.recurrent[0]
    recurrent = weights.view(3, narrow + 6, -1, narrow + 6)
    assert recurrent[:, :narrow, :, narrow:].abs().max() > 0


def test_what_can_be_widened(make_network):
    narrow, wide = make_network("local_gru"), make_network("local_gru", width=11)
    assert can_widen(narrow, wide)
    assert not can_widen(wide, narrow)
    assert not can_widen(narrow, narrow)
    assert not can_widen(narrow, make_network("local_gru", width=11, readout_width=12))
    flat = make_network("flat_gru")
    assert can_widen(flat, make_network("flat_gru", width=flat.config.width + 1))
    assert not can_widen(flat, wide)
