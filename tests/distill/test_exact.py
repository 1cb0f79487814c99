"""The exact posterior as a Teacher."""

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place
from syndistill.decoders.optimal import ExactPosterior
from syndistill.distill.signals.exact import ExactEveryEnd, exact_teacher
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import simulate
from syndistill.sampling.stored import dem_of_circuit
from syndistill.training.objective import label_loss


@pytest.mark.parametrize("basis", ["x", "z"])
def test_its_nll_is_the_least_possible(basis):
    """The mean over 20,000 shots within 5.5 of its standard errors of the table's own: false alarm < 1e-6."""
    experiment = Experiment(3, 2, basis, "si1000", 0.004)
    shots = simulate(experiment, 20_000, seed=3)
    logits = exact_teacher(experiment).logits(shots)
    assert logits.shape == (20_000, 1, 1, 1)
    nll_B = label_loss(logits[:, :, :, :], shots.labels_BKLO[:, -1:, :1])[:, 0, 0]
    _, least = ExactPosterior(dem_of_circuit(experiment.circuit())).optimum()
    assert abs(float(nll_B.mean()) - least[0]) < 5.5 * float(nll_B.std()) / 20_000**0.5


def test_four_classes_agree_with_the_labels():
    """A wrong order of classes would cost many nats; calibrated ones cost their own entropy, to 5.5 standard errors."""
    experiment = Experiment(3, 1, "both", "uniform", 0.01)
    shots = simulate(experiment, 20_000, seed=3)
    logits = exact_teacher(experiment).logits(shots)
    nll_B = label_loss(logits, shots.labels_BKLO[:, -1:, :1])[:, 0, 0]
    log_p = torch.log_softmax(logits[:, 0, 0], -1)
    entropy_B = -(log_p.exp() * log_p).sum(-1)
    difference = nll_B - entropy_B
    assert abs(float(difference.mean())) < 5.5 * float(difference.std()) / 20_000**0.5


def test_other_shots_are_refused():
    teacher = exact_teacher(Experiment(3, 1, "z", "si1000", 0.004))
    with pytest.raises(SyndistillError, match="of basis z and 1 rounds, these shots are of z and 2"):
        teacher.logits(simulate(Experiment(3, 2, "z", "si1000", 0.004), 4, 0))
    with pytest.raises(SyndistillError, match="needs the signal readout"):
        teacher.answer(simulate(Experiment(3, 1, "z", "si1000", 0.004), 4, 0), {"readout"})


@pytest.mark.parametrize("basis", ["x", "z"])
def test_of_every_end_it_is_the_exact_posterior_of_every_line(basis):
    """Against the table of the whole experiment at the last end, and the labels' own entropy at every end and line."""
    experiment = Experiment(3, 2, basis, "si1000", 0.004)
    shots = simulate(experiment, 4_000, seed=3)
    teacher = ExactEveryEnd("si1000", 0.004)
    logits = teacher.answer(shots, {"readout"}).logits_BKLC
    assert logits.shape == (4_000, 2, 3, 1)
    line = place(experiment.circuit()).lines[0] or 0
    torch.testing.assert_close(
        logits[:, -1, line, 0], exact_teacher(experiment).logits(shots)[:, 0, 0, 0], atol=2e-3, rtol=1e-3
    )
    nll_BKL = label_loss(logits, shots.labels_BKLO)
    p = torch.sigmoid(logits[..., 0])
    entropy_BKL = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
    difference_B = (nll_BKL - entropy_BKL).mean((1, 2))
    assert abs(float(difference_B.mean())) < 5.5 * float(difference_B.std()) / 4_000**0.5
    assert teacher.key() != ExactEveryEnd("si1000", 0.003).key()


def test_of_every_end_it_answers_memories_alone():
    with pytest.raises(SyndistillError, match="two_channel answers x and z"):
        ExactEveryEnd("uniform", 0.01).answer(simulate(Experiment(3, 1, "both", "uniform", 0.01), 4, 0))
    with pytest.raises(SyndistillError, match="needs the signal spatial"):
        ExactEveryEnd("uniform", 0.01).answer(simulate(Experiment(3, 1, "z", "uniform", 0.01), 4, 0), {"spatial"})
