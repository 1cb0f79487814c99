"""A local GRU that reads detection events alone: what it does not read cannot change its answer."""

from dataclasses import replace

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.files.network_file import read_network
from syndistill.models.networks import build, load_network, save_network, weights_hash
from syndistill.training.start import start_weights


def begun_with(network, shots, parity_BS):
    """Logits (B, K, L, C) of an experiment that begins with these stabiliser values, the frames of the lines told."""
    flips_BL = parity_BS.numpy() @ network.layout.line_matrix(network.read_as(shots.basis)) % 2
    state = replace(network.init_state(len(shots), shots.basis), parity_BS=parity_BS)
    flips_BLO = torch.from_numpy(flips_BL)[..., None]
    with torch.no_grad():
        return network(shots, (), network.with_known_frame(state, flips_BLO)).logits_BKLC, flips_BLO[:, None]


@pytest.mark.parametrize("basis", ["x", "z"])
def test_the_middle_of_an_experiment_looks_like_its_beginning(make_network, make_shots, basis):
    """Stabiliser values that are left from before turn the answers of the lines that they flip, and change no other.
    A network that reads parities answers otherwise."""
    network, shots = make_network("local_gru", frame_memory=True, events_alone=True), make_shots(basis, rounds=4)
    parity_BS = torch.randint(0, 2, (len(shots), 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    fresh_BKLC, _ = begun_with(network, shots, 0 * parity_BS)
    left_BKLC, flips_B1LO = begun_with(network, shots, parity_BS)
    assert flips_B1LO.float().mean() > 0.2
    torch.testing.assert_close(left_BKLC, (1 - 2.0 * flips_B1LO) * fresh_BKLC, rtol=1e-4, atol=1e-5)
    reading = build(replace(network.config, events_alone=False))
    reading.load_state_dict(network.state_dict())
    left_BKLC, _ = begun_with(reading, shots, parity_BS)
    assert (left_BKLC - (1 - 2.0 * flips_B1LO) * fresh_BKLC).abs().max() > 1e-2


def test_weights_of_parities_are_zero_and_stay_zero(make_shots):
    config = dials_of({"family": "local_gru", "distance": 3, "width": 5, "readout_width": 8, "events_alone": True})
    network, shots = build(config), make_shots()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    before = weights_hash(network)
    for _ in range(3):
        optimiser.zero_grad()
        network(shots).logits_BKLC.square().sum().backward()
        optimiser.step()
    assert weights_hash(network) != before
    assert len(config.unread()) == 6
    for name, shape in config.unread().items():
        columns = network.get_parameter(name).view(shape)
        assert not columns[..., -1].any()
        assert columns[..., -2].all()


def test_a_file_with_weights_of_parities_is_refused(make_network, tmp_path):
    network = make_network("local_gru", events_alone=True)
    save_network(tmp_path / "bad.safetensors", network, {})
    with pytest.raises(SyndistillError, match=r"bad.safetensors: .* weights of bits that its config says it does not"):
        read_network(tmp_path / "bad.safetensors")
    network.forget_parities()
    save_network(tmp_path / "good.safetensors", network, {})
    assert load_network(tmp_path / "good.safetensors")[0].config == network.config


@pytest.mark.parametrize("dials", [{}, {"width": 7}, {"frame_memory": True}])
def test_one_that_read_parities_begins_one_that_does_not(make_network, tmp_path, dials):
    """Also where states become wider or a frame is gained on the way; never the other way round."""
    reading, network = make_network("local_gru"), make_network("local_gru", events_alone=True, **dials)
    network.forget_parities()  # as a fresh one has
    path = str(tmp_path / "reading.safetensors")
    save_network(tmp_path / "reading.safetensors", reading, {})
    before = torch.get_rng_state()
    assert start_weights(network, path) == weights_hash(reading)
    assert torch.equal(torch.get_rng_state(), before)  # else a start would change the shots or weights that come after
    old = reading.state_dict()
    for name, shape in network.config.unread().items():
        new = network.state_dict()[name].view(shape)
        assert not new[..., -1].any()
        if not dials:
            torch.testing.assert_close(new[..., :-1], old[name].view(shape)[..., :-1])
    torch.testing.assert_close(network.state_dict()["heads.z.weight"], old["heads.z.weight"])
    save_network(tmp_path / "alone.safetensors", network, {})
    with pytest.raises(SyndistillError, match="another configuration"):
        start_weights(reading, str(tmp_path / "alone.safetensors"))
