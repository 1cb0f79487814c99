"""A memory's errors at other ends and lengths are those of Stim's own models of them."""

from dataclasses import replace

import numpy as np
import pymatching
import pytest
import stim

from syndistill.circuits.experiment import NOISES, Experiment
from syndistill.circuits.memory_model import MemoryModel
from syndistill.circuits.placement import Placement, place
from syndistill.errors import SyndistillError


def generated(basis, rounds, distance=3, flip=0.02):
    """Noise that no model of ours has: mostly of measurements."""
    return stim.Circuit.generated(
        f"surface_code:rotated_memory_{basis}",
        distance=distance,
        rounds=rounds,
        after_clifford_depolarization=0.004,
        before_round_data_depolarization=0.002,
        before_measure_flip_probability=flip,
        after_reset_flip_probability=0.003,
    )


def of_generated(basis, rounds, distance=3):
    """Where our own generator has them: a circuit of one round may be laid either way round."""
    slice_N, stabiliser_N = NOISES["uniform"].places(distance, rounds, basis)
    placement = Placement.of_lines(place(generated(basis, 3, distance)).layout, basis)
    placement = replace(placement, rounds=rounds, slice_N=slice_N, stabiliser_N=stabiliser_N)
    return MemoryModel.of(generated(basis, rounds, distance).detector_error_model(), placement)


def of_si1000(basis, rounds, distance=3):
    slice_N, stabiliser_N = NOISES["si1000"].places(distance, rounds, basis)
    circuit = Experiment(distance, rounds, basis, "si1000", 0.004).circuit()
    placement = replace(
        Placement.of_lines(place(circuit).layout, basis), rounds=rounds, slice_N=slice_N, stabiliser_N=stabiliser_N
    )
    return MemoryModel.of(circuit.detector_error_model(), placement)


@pytest.mark.parametrize("make", [of_generated, of_si1000])
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("distance", [3, 5])
def test_every_length_is_stim_s_own(make, basis, distance):
    base = make(basis, 6, distance)
    for rounds in (1, 2, 3, 5, 8, 11):
        assert base.of_rounds(rounds).chance == pytest.approx(make(basis, rounds, distance).chance, rel=1e-9), rounds


@pytest.mark.parametrize("rounds", [3, 4])
def test_a_short_model_knows_its_earlier_ends_and_no_later_one(rounds):
    base = of_generated("z", rounds)
    for earlier in range(1, rounds):
        assert base.of_rounds(earlier).chance == pytest.approx(of_generated("z", earlier).chance, rel=1e-9)
    with pytest.raises(SyndistillError, match="does not say how a longer one goes on"):
        base.of_rounds(rounds + 1)


def test_unequal_rounds_can_be_cut_and_not_repeated():
    circuit = stim.Circuit()
    quiet, loud = (generated("z", 6, flip=flip).flattened() for flip in (0.01, 0.05))
    for k, (one, other) in enumerate(zip(quiet, loud, strict=True)):
        circuit.append(other if k > len(quiet) // 2 else one)
    base = MemoryModel.of(circuit.detector_error_model(), place(circuit))
    assert base.of_rounds(2).rounds == 2
    with pytest.raises(SyndistillError, match="not the same in every round"):
        base.of_rounds(7)


@pytest.mark.parametrize("make", [of_generated, of_si1000])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_decomposed_it_is_for_matching_as_stim_decomposes_a_circuit(make, basis):
    """The same errors, in parts of two detectors at most; matching with it errs no more often than with Stim's own
    decomposition of that circuit. 20,000 shots; 6 standard deviations of the difference are below .02."""
    model = make(basis, 5)
    split, whole = model.dem(decomposed=True), model.dem()
    assert [sorted(str(i).replace(" ^", "").split()) for i in split] == [sorted(str(i).split()) for i in whole]
    for instruction in split:
        for part in str(instruction).split("^"):
            assert part.count("D") <= 2
    circuit = generated(basis, 5) if make is of_generated else Experiment(3, 5, basis, "si1000", 0.004).circuit()
    wrong = []
    for dem in (split, circuit.detector_error_model(decompose_errors=True)):
        matching = pymatching.Matching.from_detector_error_model(dem, enable_correlations=True)
        bits, flipped, _ = dem.compile_sampler(seed=7).sample(20_000)
        found = matching.decode_batch(bits.astype(np.uint8), enable_correlations=True)
        wrong.append((found[:, 0] != flipped[:, 0]).mean())
    assert wrong[0] < wrong[1] + 6 * np.sqrt(2 * wrong[1] / 20_000)


def test_a_factor_joins_as_the_errors_do():
    """Of twice as many errors the joined one is that of the parts: 1 - 2p multiplies."""
    base = of_generated("x", 4)
    assert base.scaled(1.0).chance == pytest.approx(base.chance, rel=1e-12)
    twice = base.scaled(2.0).of_rounds(2).chance
    assert twice == pytest.approx(base.of_rounds(2).scaled(2.0).chance, rel=1e-9)
    once = base.of_rounds(2).chance
    assert twice == pytest.approx({shown: 2 * p * (1 - p) for shown, p in once.items()}, rel=1e-9)


def test_its_model_is_placed_where_it_says():
    base = of_generated("z", 4)
    again = MemoryModel.of(base.dem(), base.placement())
    assert again.chance == pytest.approx(base.chance, rel=1e-12)


def test_an_observable_times_checks_is_told_as_a_line():
    """The same errors, whatever checks the observable was multiplied with: of line 0 then."""
    circuit = generated("z", 4)
    plain = MemoryModel.of(circuit.detector_error_model(), place(circuit))
    held = circuit.copy()
    last = [k for k, one in enumerate(circuit.flattened()) if one.name == "DETECTOR"][-1]
    held.append("OBSERVABLE_INCLUDE", circuit.flattened()[last].targets_copy()[:-1], 0)
    placement = place(held)
    assert placement.lines[0] is None
    told = MemoryModel.of(held.detector_error_model(), placement)
    assert (told.line, plain.line) == (0, 0)
    assert told.chance == pytest.approx(plain.chance, rel=1e-12)


def test_what_no_decoder_can_see_is_refused():
    dem = of_generated("z", 3).dem() + stim.DetectorErrorModel("error(0.01) L0")
    with pytest.raises(SyndistillError, match="sets off no detector"):
        MemoryModel.of(dem, of_generated("z", 3).placement())


def test_two_observables_are_refused():
    circuit = Experiment(3, 2, "both", "si1000", 0.004).circuit()
    with pytest.raises(SyndistillError, match="two observables"):
        MemoryModel.of(circuit.detector_error_model(), place(circuit))


@pytest.mark.parametrize("make", [of_generated, of_si1000])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_frames_are_labels_without_the_readout(make, basis):
    """A step in the rounds for every error that a round sees, after which it is the label; nothing for the others."""
    memory = make(basis, 5)
    errors = memory.joint_errors()
    seen_J = errors.events_JRS.any((1, 2))
    first_J = errors.events_JRS.any(2).argmax(1)
    steps_JKL = np.diff(errors.frame_JKL.astype(int), axis=1)
    assert (steps_JKL >= 0).all()
    assert not errors.frame_JKL[~seen_J].any()
    for j in np.flatnonzero(seen_J):
        after = errors.label_JK[j, first_J[j] + 1 :]
        assert (errors.frame_JKL[j, first_J[j] + 1 :, memory.line] == after).all()
    assert errors.frame_JKL.any()
