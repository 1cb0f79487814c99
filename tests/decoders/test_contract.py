"""The contract of everything that decodes, checked on every registered decoder."""

import numpy as np
import pytest
import stim
from scipy.stats import binomtest

from syndistill.decoders.contract import decisions
from syndistill.decoders.network import on_circuit
from syndistill.decoders.registry import build_decoder, decoder_names
from syndistill.decoders.torch_engine import TorchEngine
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

P = 0.01


def memory(rounds):
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=3,
        rounds=rounds,
        after_clifford_depolarization=P,
        before_round_data_depolarization=P,
        before_measure_flip_probability=P,
        after_reset_flip_probability=P,
    )


@pytest.fixture(scope="module")
def circuit():
    return memory(rounds=2)  # 16 detectors: within reach of the exact posterior


@pytest.fixture(scope="module")
def shots(circuit):
    return StoredShots.sample(circuit, 4000, seed=11)


def made(name, dem, circuit):
    return build_decoder(name, dem) if name in decoder_names() else on_circuit(TorchEngine(name), circuit)


@pytest.fixture(scope="module", params=[*decoder_names(), "teacher-d3"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def decoder(name, circuit, shots):
    return made(name, shots.dem, circuit)


@pytest.fixture(scope="module")
def probabilities_BO(decoder, shots):
    return decoder.decode(shots)


def test_attributes(decoder, name):
    assert decoder.name == name
    assert (decoder.n_detectors, decoder.n_observables) == (16, 1)
    assert decoder.n_parameters is None or decoder.n_parameters > 0
    assert int(decoder.content_id, 16) >= 0


def test_shape_dtype_range(decoder, probabilities_BO):
    assert probabilities_BO.shape == (4000, 1)
    assert probabilities_BO.dtype == np.float64
    assert probabilities_BO.min() >= 0
    assert probabilities_BO.max() <= 1
    if not decoder.gives_probabilities:
        assert set(np.unique(probabilities_BO)) <= {0.0, 1.0}


def test_deterministic(decoder, name, circuit, shots, probabilities_BO):
    np.testing.assert_array_equal(decoder.decode(shots), probabilities_BO)
    again = made(name, shots.dem, circuit)
    assert again.content_id == decoder.content_id
    np.testing.assert_array_equal(again.decode(shots), probabilities_BO)


def test_each_shot_on_its_own(decoder, shots, probabilities_BO):
    np.testing.assert_allclose(decoder.decode(shots.take(100, 163)), probabilities_BO[100:163], atol=1e-5, rtol=0)
    np.testing.assert_allclose(decoder.decode(shots.take(5, 6)), probabilities_BO[5:6], atol=1e-5, rtol=0)


def test_zero_shots(decoder, shots):
    found = decoder.decode(shots.take(0, 0))
    assert found.shape == (0, 1)
    assert found.dtype == np.float64


def test_noiseless_shots_decode_to_zero(decoder, shots):
    quiet = StoredShots.from_bits(np.zeros((9, 16), bool), np.zeros((9, 1), bool), shots.dem)
    assert not decisions(decoder.decode(quiet)).any()


def test_wrong_detector_count(decoder):
    other = StoredShots.sample(memory(rounds=3), 5, seed=1)
    with pytest.raises(SyndistillError, match="16 detectors"):
        decoder.decode(other)


def test_better_than_guessing(probabilities_BO, shots):
    """One-sided: at the rate of always answering "no flip" the chance of so few errors is below 1e-6."""
    errors = int((decisions(probabilities_BO) != shots.observables()).sum())
    base_rate = float(shots.observables().mean())
    assert binomtest(errors, shots.n_shots, base_rate, alternative="less").pvalue < 1e-6


TWO_OBSERVABLES = stim.DetectorErrorModel("""
    error(0.1) D0 L0
    error(0.1) D0 D1
    error(0.1) D1 L1
    error(0.02) D0 D2 L0 L1
    error(0.1) D2
""")


def test_two_observables(name):
    """Every syndrome here has one explanation that is likelier than all others together."""
    if name == "teacher-d3":
        pytest.skip("this model is no surface code; tests/decoders/test_network.py has two observables for networks")
    decoder = build_decoder(name, TWO_OBSERVABLES)
    events_BN = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]], bool)
    shots = StoredShots.from_bits(events_BN, np.zeros((5, 2), bool), TWO_OBSERVABLES)
    expected = [[0, 0], [1, 0], [0, 1], [0, 0], [0, 0]]
    np.testing.assert_array_equal(decisions(decoder.decode(shots)), np.array(expected, bool))
