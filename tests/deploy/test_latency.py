"""Latency of single calls."""

import time

import numpy as np
import pytest
import stim

from syndistill.decoders.contract import Decoder
from syndistill.deploy.bench import latency
from syndistill.sampling.stored import StoredShots

DEM = stim.DetectorErrorModel("error(0.1) D0 L0")


class Slow(Decoder):
    """Waits for 1 ms, every tenth call for 5 ms, and counts the shots of its calls."""

    name = "slow"
    n_detectors = n_observables = 1
    content_id = "slow"

    def __init__(self):
        self.calls = []

    def _probabilities(self, shots):
        self.calls.append(shots.n_shots)
        time.sleep(0.005 if len(self.calls) % 10 == 0 else 0.001)
        return np.zeros((shots.n_shots, 1))


@pytest.fixture
def shots():
    return StoredShots.from_bits(np.zeros((10, 1), bool), np.zeros((10, 1), bool), DEM)


def test_median_and_tail(shots):
    decoder = Slow()
    p50, p99 = latency(decoder, shots, 100)
    assert decoder.calls == [1] * 120
    assert p50 >= 1000
    assert p99 >= 5000
    assert p50 < p99
