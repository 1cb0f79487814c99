"""Several decoders as one: networks by their mean, and a decoder that says flips alone by its vote."""

import pickle

import numpy as np
import pytest
import sinter
from scipy.special import expit

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import decisions
from syndistill.decoders.ensemble import fitted_weights
from syndistill.decoders.runtime import decode
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed
from syndistill.sinter_plugin import VARIABLE, SinterDecoder, decoders
from syndistill.statistics.calibration import log_odds, nll

EXPERIMENT = Experiment(3, 5, "z", "si1000", 0.004)
CIRCUIT = EXPERIMENT.circuit()
DEM = dem_of_circuit(CIRCUIT)


@pytest.fixture(scope="module")
def shots():
    return StoredShots.sample(CIRCUIT, 40_000, evaluation_seed(3, 0, 40_000))


def test_nobody_is_certain_and_the_same_fit_comes_again(shots):
    """Where a fit sees no mistake, half a one is believed."""
    calm = Subject.of_circuit(Experiment(3, 3, "z", "si1000", 1e-5).circuit(), "t")
    together = calm.decoder("pymatching,pymatching-correlated")
    p = together.decode(StoredShots.sample(calm.dem(), 100, 1))
    assert 1e-8 < p.min() < 1e-3
    name = "student-d3,pymatching"
    one, again = (Subject.of_circuit(CIRCUIT, "t").decoder(name) for _ in range(2))
    assert one.content_id == again.content_id
    np.testing.assert_array_equal(one.decode(shots.take(0, 500)), again.decode(shots.take(0, 500)))


def test_matching_has_a_vote_of_its_weight(shots):
    """And with it the ensemble errs less often than matching, and is not too sure: of 40,000 shots, 2 % less."""
    subject = Subject.of_circuit(CIRCUIT, "t")
    matching, network = subject.decoder("pymatching-correlated"), subject.decoder("student-d3")
    together = subject.decoder("student-d3,pymatching-correlated")
    few = shots.take(0, 3_000)
    for_network, for_matching = together.weights_M
    vote = np.where(decisions(matching.decode(few)), 1.0, -1.0)
    logits = for_network * log_odds(network.decode(few)) + for_matching * vote
    np.testing.assert_allclose(together.decode(few), expit(logits), rtol=1e-9)
    assert 0.8 < for_network < 1.1
    assert 0 <= for_matching < 0.5
    wrong = [(decisions(one.decode(shots)) != shots.observables()).mean() for one in (together, matching)]
    assert wrong[0] < 0.98 * wrong[1]
    label_B = shots.observables()[:, 0]
    assert nll(together.decode(shots)[:, 0], label_B) < 1.005 * nll(network.decode(shots)[:, 0], label_B)


def test_it_decodes_packed_bits_for_everybody(shots):
    """In one call and in sinter, from a circuit and from its error model, as `evaluate` judges it."""
    name = "student-d3,pymatching-correlated"
    expected = Subject.from_experiment(str(EXPERIMENT)).decoder(name).decode(shots)
    for source in (CIRCUIT, DEM):
        np.testing.assert_allclose(decode(name, source, shots.detectors_packed), expected, atol=1e-5)
    compiled = pickle.loads(pickle.dumps(SinterDecoder(name))).compile_decoder_for_dem(dem=DEM)
    found = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots.detectors_packed)
    sure_B = np.abs(expected[:, 0] - 0.5) > 1e-5  # PyTorch and the compiled network differ in the last digits
    np.testing.assert_array_equal(found[sure_B], decisions(expected)[sure_B])
    assert decode(name, CIRCUIT, shots.detectors_packed[:0]).shape == (0, 1)
    with pytest.raises(SyndistillError, match="takes uint8 of shape"):
        decode(name, CIRCUIT, shots.detectors_packed[:, 1:])


def test_sinter_takes_one_by_name(monkeypatch):
    monkeypatch.setenv(VARIABLE, "both=student-d3,pymatching")
    stats = decoders()["both-batched"].compiled_sampler_for_task(sinter.Task(circuit=CIRCUIT)).sample(2_000)
    assert 0 < stats.errors < stats.shots // 4
    for wrong, said in [
        ("both=student-d3,pymathcing", "pymathcing"),
        ("one=pymatching", "pymatching"),
        ("twice=student-d3,student-d3", "names a member twice"),
    ]:
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(SyndistillError, match=said):
            decoders()


def test_weights_are_those_of_the_least_nll(shots):
    """Of members whose log odds are told apart: one that is right, one that is noise."""
    rng = np.random.default_rng(3)
    flipped = rng.random((20_000, 1)) < 0.3
    right = np.where(flipped, 1.0, -1.0) + rng.normal(size=flipped.shape)  # log odds: twice as much, and the base rate
    found = fitted_weights(np.stack([right, rng.normal(size=flipped.shape)]), flipped)
    nll_of = lambda w: np.logaddexp(0, np.where(flipped, -1, 1) * (w[0] * right)).mean()  # noqa: E731
    assert found[0] == pytest.approx(min(np.linspace(1, 4, 301), key=lambda w: nll_of([w])), abs=0.02)
    assert 0 <= found[1] < 0.1


def test_two_networks_still_are_a_mean():
    together = Subject.of_circuit(CIRCUIT, "t").decoder("student-d3,student-d3-frame")
    assert together.weights_M.tolist() == [0.5, 0.5]
