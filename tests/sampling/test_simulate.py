"""Alternative ends of simulated shots against circuits that truly end there, line labels, masks, the reshaping trap.

Legend: B shots, R rounds, K ends, S stabilisers, L lines, O observables, N detectors.
"""

import numpy as np
import pymatching
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import place_experiment
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import concatenate, shots_from_detectors, simulate

SHOTS, ROUNDS, P = 60_000, 4, 0.008
# About 1500 proportions are compared in this file. Two-sided normal tails beyond 6.6 sigma: 4e-11 each, 6e-8 together.
SIGMAS = 6.6

every_noise = pytest.mark.parametrize("noise", ["si1000", "uniform"])
every_basis = pytest.mark.parametrize("basis", ["x", "z", "both"])
_cache = {}


def simulated(noise, basis):
    key = noise, basis
    if key not in _cache:
        _cache[key] = simulate(Experiment(3, ROUNDS, basis, noise, P), SHOTS, seed=5)
    return _cache[key]


def true_end(noise, basis, rounds):
    """(circuit, its placement, detectors_BN, observables_BO) of a circuit that has `rounds` rounds."""
    experiment = Experiment(3, rounds, basis, noise, P)
    circuit = experiment.circuit()
    detectors, observables = circuit.compile_detector_sampler(seed=7).sample(SHOTS, separate_observables=True)
    return circuit, place_experiment(experiment), detectors, observables


def sigmas_apart(one, other):
    """Distance of two sets of proportions, each of SHOTS shots, in standard deviations of their difference."""
    pooled = (one + other) / 2
    spread = np.sqrt(2 * np.maximum(pooled * (1 - pooled), 1 / SHOTS) / SHOTS)
    return np.abs(one - other) / spread


def bits(shots, end):
    """(B, bits): everything that a shot shows had it ended after `end` rounds, labels of all lines included."""
    k = shots.ends.index(end)
    parts = shots.events_BRS[:, :end], shots.last_BKS[:, k], shots.labels_BKLO[:, k]
    return np.concatenate([part.flatten(1).numpy() for part in parts], 1)


@every_noise
@every_basis
@pytest.mark.parametrize("end", [1, 2, ROUNDS])
def test_alternative_ends_are_those_of_true_circuits(noise, basis, end):
    _, placement, detectors, observables = true_end(noise, basis, end)
    true = bits(shots_from_detectors(detectors, placement, observables), end)
    alternative = bits(simulated(noise, basis), end)
    assert alternative.shape == true.shape
    assert sigmas_apart(alternative.mean(0), true.mean(0)).max() < SIGMAS
    # Pairs of neighbouring bits: that events and labels belong together, not only their rates.
    for shift in (1, 3, 8):
        pairs = [(x[:, shift:] & x[:, :-shift]).mean(0) for x in (alternative, true)]
        assert sigmas_apart(*pairs).max() < SIGMAS


@every_noise
@every_basis
@pytest.mark.parametrize("end", [2, ROUNDS])
def test_matching_is_as_good_on_alternative_ends(noise, basis, end):
    """The labels of an end belong to its syndromes: a decoder of the true circuit makes as many mistakes."""
    circuit, placement, detectors, observables = true_end(noise, basis, end)
    shots = simulated(noise, basis)
    k = shots.ends.index(end)
    slices = np.concatenate([shots.events_BRS[:, :end].numpy(), shots.last_BKS[:, [k]].numpy()], 1)
    alternative = slices[:, placement.slice_N, placement.stabiliser_N]
    matching = pymatching.Matching.from_detector_error_model(circuit.detector_error_model(decompose_errors=True))
    true = (matching.decode_batch(detectors) != observables).mean(0)
    lines = [shots.labels_BKLO[:, k, line, o].numpy() for o, line in enumerate(placement.lines)]
    found = (matching.decode_batch(alternative) != np.stack(lines, 1)).mean(0)
    assert (true > 0.005).all()
    assert (true < 0.25).all()
    assert sigmas_apart(found, true).max() < SIGMAS


@every_noise
@every_basis
@pytest.mark.parametrize("distance", [3, 5])
def test_labels_of_lines_differ_by_the_stabilisers_between(noise, basis, distance):
    shots = simulate(Experiment(distance, 3, basis, noise, P), 1000, seed=6)
    layout = Layout(distance)
    for k, end in enumerate(shots.ends):
        final_BS = (shots.events_BRS[:, :end].sum(1) + shots.last_BKS[:, k]) % 2
        for o, line_basis in enumerate(("x", "z") if basis == "both" else (basis,)):
            labels_BL = shots.labels_BKLO[:, k, :, o].long()
            relative_BL = final_BS @ torch.from_numpy(layout.line_matrix(line_basis)).long() % 2
            assert torch.equal(labels_BL ^ labels_BL[:, :1], relative_BL)
    assert 0.01 < shots.labels_BKLO.float().mean() < 0.5


@every_noise
@pytest.mark.parametrize("basis", ["x", "z"])
def test_what_a_slice_does_not_define_is_zero(noise, basis):
    shots = simulated(noise, basis)
    on_S = torch.from_numpy(shots.layout.on_basis_S(basis))
    assert not shots.events_BRS[:, 0, ~on_S].any()
    assert not shots.last_BKS[..., ~on_S].any()
    assert shots.events_BRS[:, 0, on_S].any(0).all()
    assert shots.events_BRS[:, 1:].any(0).all()
    assert shots.last_BKS[..., on_S].any(0).all()


def test_two_observable_shots_define_everything():
    shots = simulated("si1000", "both")
    assert shots.events_BRS.any(0).all()
    assert shots.last_BKS.any(0).all()
    assert shots.labels_BKLO.shape == (SHOTS, ROUNDS, 3, 2)


@every_basis
def test_without_noise_nothing_happens(basis):
    shots = simulate(Experiment(3, 3, basis, "si1000", 0.0), 10, seed=0)
    assert not any(x.any() for x in (shots.events_BRS, shots.last_BKS, shots.labels_BKLO))


def test_same_arguments_same_shots():
    first, again, other = (simulate(Experiment(5, 2, "x", "si1000", P), 100, seed) for seed in (1, 1, 2))
    for name in ("events_BRS", "last_BKS", "labels_BKLO"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.events_BRS, other.events_BRS)


@every_noise
@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("distance", [3, 5])
def test_a_plain_reshape_would_mix_rounds(noise, basis, distance):
    """N is S * R, so that a reshape runs; it is wrong in every round. Each detector must land in its own slice."""
    rounds = 3
    experiment = Experiment(distance, rounds, basis, noise, P)
    circuit, placement = experiment.circuit(), place_experiment(experiment)
    n = circuit.num_detectors
    n_stabilisers = distance**2 - 1
    assert n == rounds * n_stabilisers
    shots = shots_from_detectors(np.eye(n, dtype=bool), placement)  # shot i: detector i alone
    slices_BTS = torch.cat([shots.events_BRS, shots.last_BKS], 1)
    assert (slices_BTS.sum((1, 2)) == 1).all()
    assert slices_BTS.sum(0).max() == 1
    times = np.array([circuit.get_detector_coordinates()[i][2] for i in range(n)])
    slice_B = slices_BTS.sum(2).argmax(1).numpy()
    assert (np.unique(times, return_inverse=True)[1] == slice_B).all()
    on_S = shots.layout.on_basis_S(basis)
    assert (slices_BTS.sum((0, 2)) == torch.tensor([on_S.sum(), n_stabilisers, n_stabilisers, on_S.sum()])).all()
    assert not slices_BTS[:, [0, rounds]][..., ~on_S].any()
    reshaped_BRS = torch.eye(n, dtype=torch.uint8).view(n, rounds, n_stabilisers)
    assert (reshaped_BRS != shots.events_BRS).any(2).any(0).all()


def test_stored_shots_know_one_end_only():
    _, placement, detectors, observables = true_end("si1000", "z", 2)
    shots = shots_from_detectors(detectors[:100], placement, observables[:100])
    assert shots.ends == (2,)
    assert shots.labels_BKLO.shape == (100, 1, 3, 1)
    assert (shots.labels_BKLO[:, 0, placement.lines[0], 0].numpy() == observables[:100, 0]).all()
    assert shots_from_detectors(detectors[:100], placement).labels_BKLO is None
    with pytest.raises(SyndistillError, match=r"15\); the circuit's are \(shots, 16"):
        shots_from_detectors(detectors[:, :-1], placement)


def test_cutting_and_joining_shots():
    shots = simulated("si1000", "z")
    parts = [shots.take(slice(0, 7)), shots.take(torch.arange(7, 12))]
    joined = concatenate(parts)
    assert (len(joined), joined.rounds) == (12, ROUNDS)
    for name in ("events_BRS", "last_BKS", "labels_BKLO"):
        assert torch.equal(getattr(joined, name), getattr(shots, name)[:12])
    last = shots.only_last_end()
    assert last.ends == (ROUNDS,)
    assert torch.equal(last.labels_BKLO[:, 0], shots.labels_BKLO[:, -1])
    assert torch.equal(last.last_BKS[:, 0], shots.last_BKS[:, -1])


@pytest.mark.parametrize(("noise", "flip"), [("si1000", 5), ("uniform", 1)])
def test_a_frame_is_the_label_of_a_readout_without_errors(noise, flip):
    """They differ where an odd number of a line's data qubits is read wrongly (6 sigma: 2e-9 a comparison)."""
    p, n = 0.01, 40_000
    shots = simulate(Experiment(3, 4, "x", noise, p), n, 11)
    differ_KL = (shots.frames_BKLO != shots.labels_BKLO)[..., 0].double().mean(0)
    expected = (1 - (1 - 2 * flip * p) ** 3) / 2
    assert (differ_KL - expected).abs().max() < 6 * (expected / n) ** 0.5
    turned = (shots.frames_BKLO[:, 1:] != shots.frames_BKLO[:, :-1]).double().mean()
    assert 0.01 < turned < 0.2


def test_frames_go_with_the_ends_and_the_shots():
    shots = simulate(Experiment(3, 4, "z", "si1000", 0.02), 50, 12)
    kept = shots.at_ends([1, 3]).take(slice(5, 9))
    assert torch.equal(kept.frames_BKLO, shots.frames_BKLO[5:9, [1, 3]])
    assert torch.equal(concatenate([shots, shots]).frames_BKLO[50:], shots.frames_BKLO)
    assert simulate(Experiment(3, 4, "both", "si1000", 0.02), 5, 1).frames_BKLO is None
