"""Small networks of every family and shots for them."""

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.files.families import dials_of
from syndistill.models.networks import build
from syndistill.sampling.shots import simulate

SMALL = {
    "transformer": {"width": 8, "layers": 2, "heads": 2, "key_size": 4, "widening": 2, "conv_channels": 4,
                    "embedder_layers": 1, "bias_width": 8, "bias_layers": 1, "readout_width": 8, "readout_layers": 1},
    "flat_gru": {"width": 12, "readout_width": 8, "turn_x": True, "next_events": True},
    "local_gru": {"width": 5, "readout_width": 8, "turn_x": True, "next_events": True},
}  # fmt: skip


@pytest.fixture(scope="session")
def make_network():
    """(family, output, distance, **dials) -> network with every weight moved off zero, so that nothing hides."""

    def make(family, output="two_channel", distance=3, **dials):
        torch.manual_seed(5)
        config = {"family": family, "distance": distance, "output": output, **SMALL[family], **dials}
        network = build(dials_of(config))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return network

    return make


@pytest.fixture(scope="session")
def make_shots():
    def make(basis="z", rounds=5, n_shots=12, distance=3, p=0.02, seed=1):
        return simulate(Experiment(distance, rounds, basis, "si1000", p), n_shots, seed)

    return make
