"""A hard decoder's own confidence: its decisions stay, its probabilities can be believed, an ensemble may count it."""

import pickle

import numpy as np
import pytest
import sinter
import stim
import torch
from scipy.special import expit

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.confidence import ConfidentDecoder
from syndistill.decoders.contract import decisions
from syndistill.decoders.ensemble import _fitted
from syndistill.decoders.exact_teacher import decoder_teacher
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import decode
from syndistill.distill.signals.ensemble import EnsembleTeacher, teacher_named
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.sampling.shots import simulate
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed
from syndistill.sinter_plugin import VARIABLE, SinterDecoder, decoders
from syndistill.statistics.calibration import log_odds, nll

EXPERIMENT = Experiment(3, 5, "z", "si1000", 0.004)
CIRCUIT = EXPERIMENT.circuit()
DEM = dem_of_circuit(CIRCUIT)


def confident(name, dem=DEM):
    return ConfidentDecoder(build_decoder(name, dem), dem)


@pytest.fixture(scope="module")
def shots():
    return StoredShots.sample(CIRCUIT, 40_000, evaluation_seed(3, 0, 40_000))


@pytest.mark.parametrize("name", ["pymatching", "pymatching-correlated"])
def test_as_often_wrong_as_it_says_in_every_group(name, shots):
    """Groups by detectors that fired, and by decision: |sum of wrong - sum of p| within 6 standard deviations and the
    fit's own error (another 2 % of the group); 9 groups, normal tails 2e-9 each."""
    decoder = confident(name)
    p = decoder.decode(shots)[:, 0]
    hard = decoder.decoder.decode(shots)[:, 0]
    assert (decisions(p) == decisions(hard)).all()
    wrong, unsure = decisions(p) != shots.observables()[:, 0], np.minimum(p, 1 - p)
    fired = np.minimum(shots.detectors().sum(1), 6)
    for group in [*(fired == n for n in range(7)), *(decisions(p) == flip for flip in (False, True))]:
        spread = np.sqrt((unsure * (1 - unsure))[group].sum())
        assert abs(wrong[group].sum() - unsure[group].sum()) < 6 * spread + 0.02 * group.sum()
    always = np.where(decisions(hard), 1 - wrong.mean(), wrong.mean())
    assert nll(p, shots.observables()[:, 0]) < 0.93 * nll(always, shots.observables()[:, 0])


def test_nobody_is_certain_and_the_same_fit_comes_again(shots):
    calm = dem_of_circuit(Experiment(3, 3, "z", "si1000", 1e-5).circuit())
    p = confident("pymatching", calm).decode(StoredShots.sample(calm, 100, 1))
    assert 1e-8 < p.min() < 1e-3
    one, again = confident("pymatching"), confident("pymatching")
    assert one.content_id == again.content_id != one.decoder.content_id
    np.testing.assert_array_equal(one.decode(shots), again.decode(shots))


def test_two_observables_have_a_confidence_each():
    text = "error(0.1) D0 L0\nerror(0.3) D1 L1\nerror(0.02) D0\nerror(0.2) D1"
    dem = stim.DetectorErrorModel(text)
    p = confident("pymatching", dem).decode(StoredShots.sample(dem, 2_000, 5))
    surely = np.abs(log_odds(p)).mean(0)
    assert surely[0] > surely[1] + 1


def test_it_is_a_member_of_an_ensemble(shots):
    subject = Subject.of_circuit(CIRCUIT, "t")
    matching, network = confident("pymatching-correlated"), subject.decoder("student-d3")
    together = subject.decoder("student-d3,pymatching-correlated")
    few, logits = shots.take(0, 3_000), []
    for one, weight in zip((network, matching), together.weights_M, strict=True):
        logits.append(weight * log_odds(one.decode(few)))
    np.testing.assert_allclose(together.decode(few), expit(sum(logits)), rtol=1e-9)
    # The network knows what a shot looks like, matching's confidence how many events there were.
    assert together.weights_M[0] > 2 * together.weights_M[1] > 0
    there = matching.fitted_on  # whose flips are kept: the same as of a copy, which is decoded
    np.testing.assert_array_equal(matching.decode(there), matching.decode(there.take(0, there.n_shots)))
    wrong = [(decisions(one.decode(shots)) != shots.observables()).mean() for one in (together, matching)]
    assert wrong[0] < 0.97 * wrong[1]


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
    found = _fitted(np.stack([right, rng.normal(size=flipped.shape)]), flipped)
    nll_of = lambda w: np.logaddexp(0, np.where(flipped, -1, 1) * (w[0] * right)).mean()  # noqa: E731
    assert found[0] == pytest.approx(min(np.linspace(1, 4, 301), key=lambda w: nll_of([w])), abs=0.02)
    assert 0 <= found[1] < 0.1


def test_two_networks_still_are_a_mean():
    together = Subject.of_circuit(CIRCUIT, "t").decoder("student-d3,student-d3-frame")
    assert together.weights_M.tolist() == [0.5, 0.5]


def test_it_teaches_beside_a_network():
    decoder = confident("pymatching-correlated")
    teacher = EnsembleTeacher([teacher_named("student-d3"), decoder_teacher(decoder, EXPERIMENT)])
    simulated = simulate(EXPERIMENT, 300, 2)
    events = torch.cat([simulated.events_BRS, simulated.last_BKS[:, -1:]], 1)
    placed = Subject.of_circuit(CIRCUIT, "t").decoder("student-d3").placement
    bits = events[:, placed.slice_N, placed.stabiliser_N].numpy().astype(bool)
    stored = StoredShots.from_bits(bits, np.zeros((300, 1), bool), DEM)
    network = Subject.of_circuit(CIRCUIT, "t").decoder("student-d3")
    mean = (log_odds(network.decode(stored)) + log_odds(decoder.decode(stored))) / 2
    taught = torch.sigmoid(teacher.logits(simulated)[:, -1, 0]).numpy()
    np.testing.assert_allclose(taught, expit(mean), atol=2e-4)
    assert teacher.key() != EnsembleTeacher([teacher_named("student-d3")]).key()


@pytest.mark.parametrize(("decoder", "experiment", "said"), [
    (build_decoder("pymatching", DEM), EXPERIMENT, "says flips, a Teacher probabilities"),
    (confident("pymatching"), Experiment(3, 5, "both", "si1000", 0.004), "basis x or z"),
])  # fmt: skip
def test_what_cannot_teach_is_refused(decoder, experiment, said):
    with pytest.raises(SyndistillError, match=said):
        decoder_teacher(decoder, experiment)


def test_shots_of_another_experiment_are_refused():
    teacher = decoder_teacher(confident("pymatching"), EXPERIMENT)
    with pytest.raises(SyndistillError, match="of basis z and 5 rounds, these shots are of x and 5"):
        teacher.logits(simulate(Experiment(3, 5, "x", "si1000", 0.004), 8, 1))
