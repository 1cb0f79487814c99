"""Exact labels: against the table of all patterns, against drawn labels, and their way to a Teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_experiment
from syndistill.decoders.optimal import ExactPosterior
from syndistill.errors import SyndistillError
from syndistill.sampling.exact_labels import ExactEnds, with_exact_labels
from syndistill.sampling.exact_posterior import slice_chain
from syndistill.sampling.shots import simulate


def labelled(rounds, basis="z", noise="si1000", shots=1_000, p=0.006):
    experiment = Experiment(3, rounds, basis, noise, p)
    return experiment, with_exact_labels(simulate(experiment, shots, seed=5), experiment)


@pytest.mark.parametrize(("noise", "basis"), [
    ("si1000", "z"), ("si1000", "x"), ("uniform", "z"), ("uniform", "x"), ("si1000", "both"),
])  # fmt: skip
def test_every_end_equals_the_table(noise, basis):
    """The joint distribution of t-round circuits from a transform over all their patterns."""
    rounds = 1 if basis == "both" else 2
    experiment, shots = labelled(rounds, basis, noise)
    for k in range(rounds):
        shorter = replace(experiment, rounds=k + 1)
        circuit, placement = shorter.circuit(), place_experiment(shorter)
        slices_BTS = torch.cat([shots.events_BRS[:, : k + 1], shots.last_BKS[:, [k]]], 1).numpy()
        detectors_BN = slices_BTS[:, placement.slice_N, placement.stabiliser_N]
        packed = np.packbits(detectors_BN, axis=1, bitorder="little")
        expected_BP = ExactPosterior(circuit.detector_error_model()).class_probabilities(packed)
        assert len(set(placement.lines)) == 1  # else no single line has the table's pattern
        found_BP = shots.posterior_BKLP[:, k, placement.lines[0]].numpy()
        np.testing.assert_allclose(found_BP, expected_BP, atol=1e-6)


@pytest.mark.parametrize("basis", ["x", "z"])
def test_long_experiments_equal_their_own_chain(basis):
    """The repeated block of short experiments is the one of a long one: 9 rounds, from their own error model."""
    experiment, shots = labelled(9, basis, shots=200)
    circuit = experiment.circuit()
    placement = place_experiment(experiment)
    chain = slice_chain(circuit.detector_error_model(), placement.slice_N, placement.stabiliser_N, 8)
    slices_BTS = torch.cat([shots.events_BRS, shots.last_BKS[:, -1:]], 1).long()
    patterns_BT = (slices_BTS * (1 << torch.arange(8))).sum(-1).numpy()
    np.testing.assert_allclose(
        shots.posterior_BKLP[:, -1, placement.lines[0]].numpy(), chain.posterior(patterns_BT), atol=1e-5
    )


@pytest.mark.parametrize("basis", ["x", "both"])
def test_labels_are_draws_from_the_posterior_at_every_line(basis):
    """Mean of label minus probability over 20,000 shots within 5.5 standard errors (false alarm below 1e-6)."""
    _, shots = labelled(3, basis, shots=20_000)
    for o in range(shots.labels_BKLO.shape[-1]):
        patterns = torch.arange(shots.posterior_BKLP.shape[-1])
        flipped_BKL = shots.posterior_BKLP[..., (patterns >> o & 1).bool()].sum(-1)
        for weights in (torch.ones_like(flipped_BKL), flipped_BKL):
            residual = (shots.labels_BKLO[..., o].float() - flipped_BKL) * weights
            error = residual.std(0) / len(shots) ** 0.5
            assert (residual.mean(0).abs() < 5.5 * error).all()


def test_cutting_and_taking_keep_them():
    _, shots = labelled(2, shots=6)
    few = shots.take(slice(2, 4)).only_last_end()
    torch.testing.assert_close(few.posterior_BKLP, shots.posterior_BKLP[2:4, 1:])


def test_other_distances_and_recorded_shots_are_refused():
    with pytest.raises(SyndistillError, match="distance 5"):
        ExactEnds(Experiment(5, 1, "z", "si1000", 0.004))
    experiment, shots = labelled(2, shots=4)
    with pytest.raises(SyndistillError, match="every end"):
        with_exact_labels(shots.only_last_end(), experiment)
