"""Latency of single calls."""

import time

import numpy as np
import pytest
import stim

from syndistill.decoders.contract import Decoder
from syndistill.deploy.bench import measure_latency
from syndistill.errors import SyndistillError
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
    found = measure_latency(decoder, shots, batch=4, calls=100, warm_up=3)
    assert decoder.calls == [4] * 103
    assert found.p50_us >= 1000
    assert found.p99_us >= 5000
    assert found.p50_us < found.p99_us
    assert found.us_per_shot == found.p50_us / 4
    assert (found.decoder, found.batch, found.calls) == ("slow", 4, 100)


def test_bad_input(shots):
    for settings in ({"batch": 11}, {"batch": 0}, {"calls": 99}, {"warm_up": 0}):
        with pytest.raises(SyndistillError):
            measure_latency(Slow(), shots, **settings)
