"""Experiments by their parameters, and from a line of text."""

import pytest

from syndistill.circuits.experiment import NOISES, Experiment, every_end
from syndistill.errors import SyndistillError


def test_parse_and_print() -> None:
    e = Experiment.parse("d=3,rounds=5,basis=Z,noise=si1000,p=0.004")
    assert e == Experiment(3, 5, "z", "si1000", 0.004)
    assert Experiment.parse(str(e)) == e
    assert Experiment.parse(" p=1e-3, basis=both ,noise=uniform,distance=5,r=1") == Experiment(
        5, 1, "both", "uniform", 0.001
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("d=3,rounds=3,basis=z,noise=si1000", "lacks p"),
        ("", "key '' "),
        ("d=3,rounds=3,basis=z,noise=si1000,p=0.004,size=3", "key 'size'"),
        ("d=three,rounds=3,basis=z,noise=si1000,p=0.004", "'d=three'"),
        ("d=4,rounds=3,basis=z,noise=si1000,p=0.004", "distance 4"),
        ("d=3,rounds=0,basis=z,noise=si1000,p=0.004", "rounds=0"),
        ("d=3,rounds=3,basis=y,noise=si1000,p=0.004", "basis=y"),
        ("d=3,rounds=3,basis=z,noise=thermal,p=0.004", "noise=thermal"),
        ("d=3,rounds=3,basis=z,noise=si1000,p=0.4", "p=0.4"),
        ("d=3,rounds=3,basis=z,noise=si1000,p=nan", "p=nan"),
        ("d=3,rounds=3,basis=z,noise=si1000,p=1e400", "p=inf"),
        ("d=3,d=5,rounds=3,basis=z,noise=si1000,p=0.004", "names distance twice"),
        ("d=3,rounds=9223372036854775807,basis=z,noise=si1000,p=0.004", "more than 200,000 detectors"),
        ("d=3,rounds=9223372036854775808,basis=z,noise=uniform,p=0.004", "more than 200,000 detectors"),
        (f"d=3,rounds={'9' * 4000},basis=z,noise=uniform,p=0.004", "more than 200,000 detectors"),
        (f"d=3,rounds={'9' * 5000},basis=z,noise=uniform,p=0.004", "'rounds=9+' .* no int"),
        ("d=1000000000001,rounds=1,basis=both,noise=si1000,p=0.004", "more than 200,000 detectors"),
    ],
)
def test_bad_text(text: str, says: str) -> None:
    with pytest.raises(SyndistillError, match=says) as caught:
        Experiment.parse(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_every_circuit_is_deterministic_without_noise(noise: str, basis: str) -> None:
    circuit = Experiment(3, 3, basis, noise, 0.0).circuit()
    assert circuit.num_observables == (2 if basis == "both" else 1)
    assert circuit.detector_error_model().num_errors == 0


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_every_end_has_one_block_per_round(noise: str, basis: str) -> None:
    """Ancillas, then the data: as read and as they are, or in both bases."""
    circuit = every_end(Experiment(3, 4, basis, noise, 0.01))
    assert circuit.num_measurements == 4 * (8 + 2 * 9)
