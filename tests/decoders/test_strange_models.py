"""Every reference on models that are valid and unusual: the exact posterior's decision, or a refusal in one line."""

from itertools import product

import numpy as np
import pymatching
import pytest
import stim
from matching_gap import MatchingGapDecoder

from syndistill.decoders.contract import Decoder, decisions, error_texts, reference_id
from syndistill.decoders.matching import MatchingDecoder
from syndistill.decoders.optimal import ExactPosterior
from syndistill.decoders.reference import UnlikelyErrors, package_errors
from syndistill.decoders.registry import build_decoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots, dem_of_circuit

REFERENCES = ["pymatching", "pymatching-correlated", "tesseract", "belief-matching", "optimal", "matching-gap"]
PLAIN = "error(0.1) D0 L0\nerror(0.04) D0 D1\nerror(0.12) D1"

# name -> errors, and who refuses. No pattern of detectors has two explanations of nearly the same weight.
MODELS: dict[str, tuple[str, set[str]]] = {
    "plain": (PLAIN, set()),
    "p above 1/2": ("error(0.8) D0 L0\nerror(0.04) D0 D1\nerror(0.12) D1", set()),
    "p above 1/2 twice": ("error(0.8) D0 L0\nerror(0.96) D0 D1\nerror(0.12) D1", set()),
    "p above 1/2, decomposed": (PLAIN + "\nerror(0.97) D0 L0 ^ D1 D2\nerror(0.01) D1 D2\nerror(0.12) D2", set()),
    "p = 1": ("error(1) D0 L0\nerror(0.04) D0 D1\nerror(0.12) D1", set()),
    "p = 0": (PLAIN + "\nerror(0) D0 D2 L0", set()),
    "p = 0 alone": ("error(0) D0 L0", set()),
    "no errors": ("detector D1\nlogical_observable L0", set()),
    "a detector without errors": (PLAIN + "\ndetector D3", set()),
    "an observable that nothing flips": (PLAIN.replace(" L0", "") + "\nlogical_observable L0", set()),
    "one of two that nothing flips": (PLAIN.replace("L0", "L1"), {"matching-gap"}),
    "an error that no detector sees": (PLAIN + "\nerror(0.1) L0", set()),
    "one above 1/2 that no detector sees": (PLAIN + "\nerror(0.9) L0", set()),
    "a part that no detector sees": ("error(0.12) D0\nerror(0.3) D1 ^ L0\nerror(0.04) D0 D1", set()),
    "targets named twice": ("error(0.12) D0 D1 D1 L0 L0\nerror(0.3) D1 L0\nerror(0.04) D0 D1", set()),
    "an error without targets": (PLAIN + "\nerror(0.2)", set()),
    "no boundary": ("error(0.1) D0 D1 L0\nerror(0.04) D1 D2\nerror(0.12) D0 D2", {"matching-gap"}),
    "no boundary but the observable": ("error(0.1) D0 L0\nerror(0.04) D0 D1", set()),
    "two ways between the same detectors": (PLAIN + "\nerror(0.3) D0\nerror(0.3) D1 L0", set()),
    "two observables": (PLAIN + "\nerror(0.1) D2 L1", {"matching-gap"}),
    "hyperedge": (
        PLAIN + "\nerror(0.01) D0 D1 D2\nerror(0.1) D2",
        {"pymatching", "pymatching-correlated", "belief-matching", "matching-gap"},
    ),
    "hyperedge above 1/2": (
        PLAIN + "\nerror(0.99) D0 D1 D2\nerror(0.1) D2",
        {"pymatching", "pymatching-correlated", "belief-matching", "matching-gap"},
    ),
    "71 observables": (
        "\n".join(f"error(0.1) D0 L{k}" for k in range(0, 71, 70)) + "\nerror(0.3) D1 L3",
        {"matching-gap", "optimal"},
    ),
}

ORDINARY = {
    *("plain", "no errors", "a detector without errors", "an observable that nothing flips", "two observables"),
    *("one of two that nothing flips", "an error that no detector sees"),
    *("no boundary", "no boundary but the observable", "two ways between the same detectors"),
}


def made(name: str, dem: stim.DetectorErrorModel) -> Decoder:
    return MatchingGapDecoder(dem) if name == "matching-gap" else build_decoder(name, dem)


def patterns(n_bits: int) -> np.ndarray:
    return np.array(list(product([False, True], repeat=n_bits)))


def shots_of(dem: stim.DetectorErrorModel, events_BN: np.ndarray) -> StoredShots:
    return StoredShots.from_bits(events_BN, np.zeros((len(events_BN), dem.num_observables), bool), dem)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("model", MODELS)
def test_decides_as_the_exact_posterior_or_refuses(reference: str, model: str) -> None:
    text, refusing = MODELS[model]
    dem = stim.DetectorErrorModel(text)
    if reference in refusing:
        with pytest.raises(SyndistillError, match=reference) as caught:
            made(reference, dem)
        assert "\n" not in str(caught.value)
        return
    decoder = made(reference, dem)
    assert (decoder.n_detectors, decoder.n_observables) == (dem.num_detectors, dem.num_observables)
    if dem.num_observables > 20:
        found_BO = decoder.decode(shots_of(dem, np.array([[False, True]])))
        assert np.flatnonzero(decisions(found_BO)[0]).tolist() == [3]
        return
    exact = ExactPosterior(dem)
    possible_B = exact.joint_KM.sum(axis=0) > 1e-9
    events_BN = patterns(dem.num_detectors)[:, ::-1][possible_B]  # in the order of the table
    shots = shots_of(dem, events_BN)
    best_BO = exact.log_odds(shots.detectors_packed) > 0
    np.testing.assert_array_equal(decisions(decoder.decode(shots)), best_BO)


@pytest.mark.parametrize("model", [m for m in MODELS if MODELS[m][1] <= {"matching-gap"}])
def test_unlikely_errors_are_the_same_model(model: str) -> None:
    """The same joint distribution, after the certain flips; an ordinary model stays as it is."""
    dem = stim.DetectorErrorModel(MODELS[model][0])
    unlikely = UnlikelyErrors.of(dem, keep_unseen=True)
    assert all(0 < i.args_copy()[0] <= 0.5 for i in unlikely.dem if i.type == "error")
    assert (unlikely.dem is dem) == (model in ORDINARY)
    before, after = ExactPosterior(dem).joint_KM, ExactPosterior(unlikely.dem).joint_KM
    m = int(unlikely.detectors_N @ (1 << np.arange(dem.num_detectors)))
    k = int(unlikely.observables_O @ (1 << np.arange(dem.num_observables)))
    moved = after[np.arange(len(after)) ^ k][:, np.arange(after.shape[1]) ^ m]
    np.testing.assert_allclose(moved, before, atol=1e-12)


@pytest.mark.parametrize(
    "noise",
    [
        "HERALDED_ERASE(0.3) 1 3 8\nDETECTOR rec[-1]\nDETECTOR rec[-2]\nDETECTOR rec[-3]",
        "HERALDED_ERASE(1) 1 3 8\nDETECTOR rec[-1]\nDETECTOR rec[-2]\nDETECTOR rec[-3]",
        "HERALDED_ERASE(0.8) 1 3 8",
        "HERALDED_PAULI_CHANNEL_1(0.9, 0.02, 0.03, 0.04) 1 3 8\nDETECTOR rec[-1]\nDETECTOR rec[-2]\nDETECTOR rec[-3]",
        "HERALDED_PAULI_CHANNEL_1(0, 0.9, 0, 0) 1 3 8\nDETECTOR rec[-1]\nDETECTOR rec[-2]\nDETECTOR rec[-3]",
        "X_ERROR(1) 1\nX_ERROR(0.51) 3",
        "PAULI_CHANNEL_1(0.3, 0.3, 0.3) 8",
        "E(0.3) X1 X3 X5 X8 X10 X12",  # across the code: the same detector as single flips, and the observable
        "E(0.3) X1\nELSE_CORRELATED_ERROR(0.6) X3\nELSE_CORRELATED_ERROR(0.9) X8 Z1",
    ],
)
def test_unusual_noise_in_a_memory(noise: str) -> None:
    """Erasures and likely errors on data qubits before the first round: every reference decodes most shots rightly.

    A decoder that missed a certain flip would be wrong on nearly all or on half of them.
    """
    memory = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=2, after_clifford_depolarization=0.005
    ).flattened()
    first_tick = next(k for k, instruction in enumerate(memory) if instruction.name == "TICK")
    circuit = memory[:first_tick] + stim.Circuit(noise) + memory[first_tick:]
    shots = StoredShots.sample(circuit, 1000, seed=5, dem=dem_of_circuit(circuit))
    for reference in REFERENCES:
        wrong = decisions(made(reference, shots.dem).decode(shots)) != shots.observables()
        assert wrong.mean() < 0.06, reference


@pytest.mark.parametrize("reference", ["pymatching", "pymatching-correlated", "belief-matching", "matching-gap"])
def test_shots_that_no_error_explains(reference: str) -> None:
    dem = stim.DetectorErrorModel(PLAIN + "\ndetector D2\nerror(0.1) D3 D4")
    decoder = made(reference, dem)
    for impossible in ([0, 0, 1, 0, 0], [1, 0, 0, 1, 0]):
        with pytest.raises(SyndistillError, match=f"{reference} cannot decode these shots") as caught:
            decoder.decode(shots_of(dem, np.array([impossible], bool)))
        assert "\n" not in str(caught.value)


def test_hashes_of_ordinary_models_stay() -> None:
    """Rows are known by them; a model whose answers changed has another one."""
    for text, stays in ((PLAIN, True), (PLAIN.replace("0.12", "0.9"), False), (PLAIN + "\nerror(0) D5", False)):
        dem = stim.DetectorErrorModel(text)
        before = reference_id("pymatching", pymatching.__version__, "", dem)
        assert (MatchingDecoder(dem).content_id == before) == stays


def test_errors_as_text() -> None:
    dem = stim.DetectorErrorModel("error[D9 (^)](1e-5) D0 ^ D1 L0\nrepeat 2 {\n error(0.5) D2\n shift_detectors 1\n}")
    found = [(p, parts) for _, p, parts in error_texts(dem)]
    assert found == [(1e-5, [" D0 ", " D1 L0"]), (0.5, [" D2"]), (0.5, [" D3"])]


def test_what_a_package_raises_is_one_line() -> None:
    with pytest.raises(SyndistillError, match=r"^x cannot \(ValueError: first\); give") as caught:  # noqa: SIM117
        with package_errors("x cannot"):
            raise ValueError("first\nsecond")
    assert "\n" not in str(caught.value)
    with pytest.raises(KeyboardInterrupt), package_errors("x cannot"):
        raise KeyboardInterrupt
