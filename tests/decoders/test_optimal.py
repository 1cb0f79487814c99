"""The exact posterior, against enumeration, against sampling, and against the published optimum at d=3, r=3."""

import itertools

import numpy as np
import pytest
import stim
from scipy.stats import binomtest

from syndistill.circuits.experiment import Experiment
from syndistill.decoders import optimal
from syndistill.decoders.matching import MatchingDecoder
from syndistill.decoders.optimal import ExactPosterior, OptimalDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots, dem_of_circuit
from syndistill.statistics.calibration import nll


def enumerate_joint(mechanisms, n_detectors, n_observables):
    """P(observable pattern, detector pattern) by summing over all subsets of (p, detectors, observables)."""
    joint_KM = np.zeros((1 << n_observables, 1 << n_detectors))
    for chosen in itertools.product((0, 1), repeat=len(mechanisms)):
        probability, k, m = 1.0, 0, 0
        for use, (p, detectors, observables) in zip(chosen, mechanisms, strict=True):
            probability *= p if use else 1 - p
            if use:
                for d in detectors:
                    m ^= 1 << d
                for o in observables:
                    k ^= 1 << o
        joint_KM[k, m] += probability
    return joint_KM


def random_model(seed, special=()):
    """A model of 10 mechanisms on 5 detectors and 2 observables; `special` replaces the first probabilities."""
    rng = np.random.default_rng(seed)
    mechanisms = []
    for i in range(10):
        p = special[i] if i < len(special) else float(rng.uniform(0.01, 0.3))
        detectors = [int(d) for d in np.flatnonzero(rng.random(5) < 0.4)] or [i % 5]
        mechanisms.append((p, detectors, [int(o) for o in np.flatnonzero(rng.random(2) < 0.4)]))
    lines = [
        f"error({p!r}) " + " ".join([*(f"D{d}" for d in detectors), *(f"L{o}" for o in observables)])
        for p, detectors, observables in mechanisms
    ]
    return mechanisms, stim.DetectorErrorModel("\n".join([*lines, "detector D4", "logical_observable L1"]))


@pytest.mark.parametrize("special", [(), (0.5,), (0.7, 0.5, 0.9), (1.0, 0.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_joint_equals_enumeration(seed, special):
    mechanisms, dem = random_model(seed, special)
    posterior = ExactPosterior(dem)
    np.testing.assert_allclose(posterior.joint_KM, enumerate_joint(mechanisms, 5, 2), atol=1e-15, rtol=1e-12)


def test_lookup_equals_enumeration():
    mechanisms, dem = random_model(3)
    joint_KM = enumerate_joint(mechanisms, 5, 2)
    events_BN = np.array(list(itertools.product((0, 1), repeat=5)), bool)
    shots = StoredShots.from_bits(events_BN, np.zeros((32, 2), bool), dem)
    conditional_BK = (joint_KM / joint_KM.sum(axis=0)).T[(events_BN << np.arange(5)).sum(axis=1)]
    flipped_BO = np.stack([conditional_BK[:, 1] + conditional_BK[:, 3], conditional_BK[:, 2] + conditional_BK[:, 3]], 1)
    decoder, posterior = OptimalDecoder(dem), ExactPosterior(dem)
    np.testing.assert_allclose(posterior.class_probabilities(shots.detectors_packed), conditional_BK, rtol=1e-9)
    np.testing.assert_allclose(decoder.decode(shots), flipped_BO, rtol=1e-9)
    np.testing.assert_allclose(
        posterior.log_odds(shots.detectors_packed), np.log(flipped_BO / (1 - flipped_BO)), rtol=1e-8, atol=1e-9
    )


def test_optimum_equals_enumeration():
    mechanisms, dem = random_model(4)
    joint_OM = enumerate_joint(mechanisms, 5, 2).reshape(2, 2, 32)  # (L1, L0, detectors)
    ler_O, nll_O = ExactPosterior(dem).optimum()
    for o, table in enumerate((joint_OM.sum(axis=0), joint_OM.sum(axis=1))):
        assert ler_O[o] == pytest.approx(np.minimum(*table).sum(), rel=1e-12)
        assert nll_O[o] == pytest.approx(-(table * np.log(table / table.sum(axis=0))).sum(), rel=1e-12)


def test_separators_are_joined():
    joined = ExactPosterior(stim.DetectorErrorModel("error(0.1) D0 D1 L0\nerror(0.2) D1"))
    split = ExactPosterior(stim.DetectorErrorModel("error(0.1) D0 D2 L0 ^ D1 D2\nerror(0.2) D1"))
    np.testing.assert_allclose(split.joint_KM[:, :4], joined.joint_KM, atol=1e-15)


def test_the_posterior_over_many_rounds_is_the_table_where_both_exist(monkeypatch):
    circuit = Experiment(3, 2, "x", "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 5_000, seed=3)
    table = OptimalDecoder(shots.dem)
    monkeypatch.setattr(optimal, "MAX_BITS", 4)
    np.testing.assert_allclose(OptimalDecoder(shots.dem).decode(shots), table.decode(shots), atol=1e-6)


def test_two_observables_over_slices_are_the_table(monkeypatch):
    """Four times of two detectors, random errors of neighbouring times."""
    rng = np.random.default_rng(5)
    errors = []
    for first in rng.integers(0, 6, 30):  # detectors 2t and 2t + 1 are of time t
        among = np.arange(first // 2 * 2, first // 2 * 2 + 4)
        chosen = [f"D{d}" for d in among[rng.random(4) < 0.5]] + [f"L{o}" for o in range(2) if rng.random() < 0.4]
        errors.append(f"error({rng.uniform(0.01, 0.2)}) {' '.join(chosen)}")
    times = [f"detector(0, 0, {d // 2}) D{d}" for d in range(8)]
    dem = stim.DetectorErrorModel("\n".join([*errors, *times, "logical_observable L1"]))
    events_BN = np.array(list(itertools.product((0, 1), repeat=8)), bool)
    shots = StoredShots.from_bits(events_BN, np.zeros((256, 2), bool), dem)
    table = OptimalDecoder(dem)
    monkeypatch.setattr(optimal, "MAX_BITS", 9)
    np.testing.assert_allclose(OptimalDecoder(dem).decode(shots), table.decode(shots), rtol=1e-5)


def test_a_sure_shot_keeps_its_digits(monkeypatch):
    """No events: nothing happened, or all four errors of a chain through three times; odds of 1e-8."""
    dem = stim.DetectorErrorModel(
        "error(0.01) D0 L0\nerror(0.01) D0 D1\nerror(0.01) D1 D2\nerror(0.01) D2\n"
        + "\n".join(f"detector(0, 0, {t}) D{t}" for t in range(3))
    )
    monkeypatch.setattr(optimal, "MAX_BITS", 3)
    shots = StoredShots.from_bits(np.zeros((1, 3), bool), np.zeros((1, 1), bool), dem)
    assert OptimalDecoder(dem).decode(shots)[0, 0] == pytest.approx((0.01 / 0.99) ** 4, rel=1e-6, abs=0)


def test_many_rounds_are_below_correlated_matching():
    """d=3, 9 rounds: no table could hold its 2^72 patterns. 4,000 shots: false alarm below 1e-6 at the true gap."""
    circuit = Experiment(3, 9, "z", "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 4_000, seed=2)
    best = OptimalDecoder(shots.dem).decode(shots)
    wrong = (best > 0.5) != shots.observables()
    assert best.mean() == pytest.approx(shots.observables().mean(), abs=5 * 0.5 / 4_000**0.5)
    assert wrong.mean() < ((MatchingDecoder(shots.dem).decode(shots) > 0.5) != shots.observables()).mean()
    # what it expects of itself is what happens
    expected = np.minimum(best, 1 - best).mean()
    assert wrong.mean() == pytest.approx(expected, abs=5 * (expected / 4_000) ** 0.5)


def test_many_rounds_need_times_and_narrow_slices():
    without = stim.DetectorErrorModel("error(0.1) D0 L0\ndetector D30")
    with pytest.raises(SyndistillError, match="coordinates"):
        OptimalDecoder(without)
    d5 = Experiment(5, 2, "z", "si1000", 0.004).circuit().detector_error_model()
    with pytest.raises(SyndistillError, match="smaller code"):
        OptimalDecoder(d5)
    wide = "error(0.1) D0 L5\n" + "\n".join(f"detector(0, 0, {d // 8}) D{d}" for d in range(32))
    with pytest.raises(SyndistillError, match="13 bits with the observables"):
        OptimalDecoder(stim.DetectorErrorModel(wide))
    far = stim.DetectorErrorModel(
        "error(0.1) D0 D20 L0\n" + "\n".join(f"detector(0, 0, {t}) D{t}" for t in range(30))
    )
    with pytest.raises(SyndistillError, match="neighbouring slices"):
        OptimalDecoder(far)


def test_too_large_or_nothing_to_decode():
    big = stim.DetectorErrorModel("error(0.1) D0 L0\ndetector D25")
    with pytest.raises(SyndistillError, match="26 detectors and 1 observables"):
        ExactPosterior(big)
    with pytest.raises(SyndistillError, match="1 observable or more"):
        OptimalDecoder(stim.DetectorErrorModel("error(0.1) D0"))


def test_published_optimum_of_si1000():
    """d=3, r=3, p=.004: LER .04178 and NLL .11758 in memory Z.  Sampled errors agree (false alarm below 1e-6)."""
    circuit = Experiment(3, 3, "z", "si1000", 0.004).circuit()
    decoder = OptimalDecoder(dem_of_circuit(circuit))
    (least_ler,), (least_nll,) = ExactPosterior(dem_of_circuit(circuit)).optimum()
    assert least_ler == pytest.approx(0.04178, abs=1e-5)
    assert least_nll == pytest.approx(0.11758, abs=1e-5)
    shots = StoredShots.sample(circuit, 100_000, seed=1)
    probabilities_BO, flips_BO = decoder.decode(shots), shots.observables()
    errors = int(((probabilities_BO > 0.5) != flips_BO).sum())
    assert binomtest(errors, shots.n_shots, least_ler).pvalue > 1e-6
    # the NLL of a shot has a standard deviation below .5 here, so 5.5 standard errors are below .0087
    assert nll(probabilities_BO, flips_BO) == pytest.approx(least_nll, abs=0.0087)


@pytest.mark.slow("builds further tables of 2^25 entries")
@pytest.mark.parametrize(
    ("basis", "p", "ler", "nats"),
    [
        ("z", 0.002, 0.01122, 0.03630),
        ("z", 0.006, 0.08530, 0.21662),
        ("x", 0.002, 0.01117, 0.03602),
        ("x", 0.004, 0.04158, 0.11684),
        ("x", 0.006, 0.08492, 0.21544),
    ],
)
def test_published_optima_of_si1000(basis, p, ler, nats):
    (least_ler,), (least_nll,) = ExactPosterior(
        dem_of_circuit(Experiment(3, 3, basis, "si1000", p).circuit())
    ).optimum()
    assert least_ler == pytest.approx(ler, abs=1e-5)
    assert least_nll == pytest.approx(nats, abs=1e-5)
