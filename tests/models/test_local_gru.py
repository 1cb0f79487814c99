"""How far the local GRU's stabilisers hear, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

DISTANCE = 5


@pytest.fixture
def network(make_network):
    return make_network("local_gru", distance=DISTANCE)


def test_an_event_moves_one_stabiliser_a_round(network, make_shots):
    shots = make_shots("z", 3, n_shots=1, distance=DISTANCE)
    source = int(np.flatnonzero(network.layout.on_basis_S("z"))[5])
    changed = shots.events_BRS.clone()
    changed[0, 0, source] ^= 1
    hears_SS = network.layout.places_SS < 9
    with torch.no_grad():
        before, after = (
            network(replace(shots, events_BRS=events), ["temporal"]).signals["temporal"][0]
            for events in (shots.events_BRS, changed)
        )
    reached_S = np.arange(network.layout.n_stabilisers) == source
    for moved_SD in (after - before).abs():
        reached_S = (hears_SS & reached_S).any(1)
        assert ((moved_SD.max(-1).values > 0).numpy() == reached_S).all()
        if not reached_S.all():
            assert reached_S.sum() > 1


def test_its_lines_give_one_answer(network, make_shots):
    shots = make_shots("z", 3, distance=DISTANCE)
    with torch.no_grad():
        logits_BKL = network(shots).logits_BKLC[..., 0]
    turned_BKL = logits_BKL * (1 - 2 * (shots.labels_BKLO[..., 0] ^ shots.labels_BKLO[..., :1, 0]).float())
    torch.testing.assert_close(turned_BKL, turned_BKL[..., :1].expand_as(turned_BKL))


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_multiply_adds_are_the_weights_that_are_not_zero(make_network, output):
    rounds, network = 3, make_network("local_gru", output, DISTANCE, readout_layers=2)
    cell = sum(int((weights != 0).sum()) for weights in network.cell.written_out()[:2])
    corners = sum(len(qubits) for qubits in network.layout.supports)
    out, channels = network.config.readout_width, 4 if output == "joint4" else 1
    line = 4 * out**2 + out * channels + (2 * out**2 if output == "joint4" else 0)
    readout = corners * (network.config.width + 2) * out + DISTANCE * line
    assert network.multiply_adds(rounds) * rounds == pytest.approx((rounds + 1) * cell + readout)
