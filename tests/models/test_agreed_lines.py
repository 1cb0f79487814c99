"""Lines that answer as one: each line's answer is the others' turned by known stabiliser values."""

import pytest
import torch

from syndistill.training.objective import joint_class

CASES = [("two_channel", "x"), ("two_channel", "z"), ("two_channel", "both"), ("joint4", "both")]


@pytest.mark.parametrize(("output", "basis"), CASES)
def test_every_line_gives_its_own_label_the_same_odds(make_network, make_shots, output, basis):
    network, shots = make_network("transformer", output, agree_lines=True), make_shots(basis, rounds=3)
    with torch.no_grad():
        logits_BKLC = network(shots).logits_BKLC
    labels_BKLO = shots.labels_BKLO
    assert (labels_BKLO != labels_BKLO[:, :, :1]).any()  # else there is nothing to turn
    if output == "joint4":
        of_label = torch.gather(logits_BKLC, -1, joint_class(labels_BKLO)[..., None])
    else:
        of_label = torch.where(labels_BKLO.bool(), logits_BKLC, -logits_BKLC)
    assert of_label.std() > 1e-3
    torch.testing.assert_close(of_label, of_label[:, :, :1].expand_as(of_label), rtol=1e-5, atol=1e-5)


def test_agreement_is_the_mean_of_turned_logits(make_network, make_shots):
    alone, together = make_network("transformer"), make_network("transformer", agree_lines=True)
    shots = make_shots("z", rounds=2)
    with torch.no_grad():
        z_BKL, agreed_BKL = alone(shots).logits_BKLC[..., 0], together(shots).logits_BKLC[..., 0]
    labels_BKL = shots.labels_BKLO[..., 0].int()
    for line in range(3):
        sign_BKL = 1 - 2 * (labels_BKL ^ labels_BKL[:, :, [line]])
        torch.testing.assert_close(agreed_BKL[:, :, line], (sign_BKL * z_BKL).mean(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("basis", ["x", "z"])
def test_agreement_streams(make_network, make_shots, basis):
    network, shots = make_network("transformer", agree_lines=True), make_shots(basis, rounds=4)
    state = network.init_state(len(shots), basis)
    with torch.no_grad():
        whole_BKLC = network(shots).logits_BKLC
        for t in range(4):
            state = network.step(state, shots.events_BRS[:, t])
            streamed_BLC = network.readout(state, shots.last_BKS[:, t])
            torch.testing.assert_close(streamed_BLC, whole_BKLC[:, t], rtol=1e-5, atol=1e-5)
