"""Small networks of every family on disk, weights moved off zero so that nothing hides, and shots for them."""

from itertools import product

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import noise_of
from syndistill.circuits.training_noise import NOISE_KEY
from syndistill.files.families import dials_of
from syndistill.models.networks import build, save_network
from syndistill.sampling.stored import StoredShots

DIALS = {
    "transformer": {"width": 8, "layers": 1, "heads": 2, "key_size": 4, "widening": 2, "conv_channels": 4,
                    "embedder_layers": 1, "bias_width": 8, "bias_layers": 1, "readout_width": 8, "readout_layers": 1},
    "flat_gru": {"width": 12, "readout_width": 8, "turn_x": True, "next_events": True},
    "local_gru": {"width": 5, "readout_width": 8, "turn_x": True, "next_events": True},
}  # fmt: skip


def latin_square(*axes):
    """The product of the axes: quick is every third, in which each pair of values comes together; the rest is slow."""
    slow = pytest.mark.slow("quick tests compile a kernel for every pair of these dials, not for every triple")
    chosen = product(*(enumerate(axis) for axis in axes))
    return [
        pytest.param(*(value for _, value in point), marks=() if sum(i for i, _ in point) % 3 == 0 else slow)
        for point in chosen
    ]


@pytest.fixture(scope="session")
def network_file(tmp_path_factory):
    """(family, output, distance, **dials) -> path of a network with random weights; the same call, the same file.

    both: its metadata says that it was trained on shots of two observables.
    """
    folder = tmp_path_factory.mktemp("networks")

    def make(family="flat_gru", output="two_channel", distance=3, metadata=None, seed=5, both=False, **dials):
        config = {"family": family, "distance": distance, "output": output, **DIALS[family], **dials}
        path = folder / f"{abs(hash((str(config), str(metadata), seed, both)))}.safetensors"
        if not path.exists():
            torch.manual_seed(seed)
            network = build(dials_of(config))
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.4 * torch.randn_like(parameter))
            if network.config.unread():
                network.forget_parities()
            noise = {NOISE_KEY: noise_of("uniform", distance, ("both",), (0.001, 0.03), 9).to_json()} if both else {}
            save_network(path, network, (metadata or {}) | noise)
        return path

    return make


@pytest.fixture(scope="session")
def experiment_shots():
    """(basis, rounds, shots, distance, p) -> circuit and stored shots."""

    def make(basis="z", rounds=4, n_shots=50, distance=3, p=0.02, seed=1):
        noise = "uniform" if basis == "both" else "si1000"
        circuit = Experiment(distance, rounds, basis, noise, p).circuit()
        return circuit, StoredShots.sample(circuit, n_shots, seed)

    return make
