"""The exact posterior as a Teacher."""

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.exact_teacher import exact_teacher
from syndistill.decoders.optimal import posterior_table
from syndistill.errors import SyndistillError
from syndistill.sampling.simulate import simulate
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
    _, least = posterior_table(dem_of_circuit(experiment.circuit())).optimum()
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
