"""The Teacher's loss against values written out by hand."""

import math

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.models.contract import Outputs
from syndistill.models.networks import build
from syndistill.sampling.shots import simulate
from syndistill.training.config import Curriculum, DataConfig, RoundsPhase
from syndistill.training.objective import (
    GroundTruth,
    joint_class,
    label_loss,
    next_event_loss,
    posterior_loss,
    wrong_at_last_end,
)
from syndistill.training.source import simulated_source


def shots_of(basis, rounds=3):
    return simulate(Experiment(3, rounds, basis, "si1000", 0.03), 32, seed=2)


def softplus(x):
    return math.log1p(math.exp(x))


def test_binary_loss_per_end_and_line():
    logits = torch.tensor([[[[2.0], [-1.0]]]])
    labels = torch.tensor([[[[0], [1]]]], dtype=torch.uint8)
    torch.testing.assert_close(label_loss(logits, labels), torch.tensor([[[softplus(2), softplus(1)]]]))


def test_two_channels_are_averaged():
    logits = torch.tensor([[[[2.0, -1.0]]]])
    labels = torch.tensor([[[[1, 0]]]], dtype=torch.uint8)
    torch.testing.assert_close(label_loss(logits, labels), torch.tensor([[[(softplus(-2) + softplus(-1)) / 2]]]))


def test_joint_classes_are_i_x_z_y():
    """(x line, z line) flips: a logical X error flips the Z observable, a logical Z the X observable."""
    labels = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.uint8)[None, None]
    assert joint_class(labels).flatten().tolist() == [0, 1, 2, 3]
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 1, 4, 4)
    whole = math.log(sum(math.exp(k) for k in range(4)))
    torch.testing.assert_close(label_loss(logits, labels)[0, 0], torch.tensor([whole - k for k in range(4)]))


def test_next_events_are_those_of_the_round_after():
    shots = shots_of("z")
    right = torch.cat([shots.events_BRS[:, 1:], shots.events_BRS[:, :1]], 1).float() * 40 - 20
    assert next_event_loss(Outputs(torch.zeros(1), right), shots) < 1e-6
    assert next_event_loss(Outputs(torch.zeros(1), shots.events_BRS.float() * 40 - 20), shots) > 1
    one_round = shots_of("z", 1)
    assert next_event_loss(Outputs(torch.zeros(1), torch.ones(32, 1, 8)), one_round) == 0


def test_wrong_shots_are_those_whose_first_line_is_wrong_at_the_end():
    shots = shots_of("both")
    labels = shots.labels_BKLO
    assert labels[:, -1, 0].any()
    right = labels.float() * 2 - 1
    assert wrong_at_last_end(Outputs(right), shots) == 0
    elsewhere = right.clone()
    elsewhere[:, :-1] *= -1
    elsewhere[:, :, 1:] *= -1
    assert wrong_at_last_end(Outputs(elsewhere), shots) == 0
    wrong = right.clone()
    wrong[:8, -1, 0, 1] *= -1
    assert wrong_at_last_end(Outputs(wrong), shots) == 0.25
    joint = torch.nn.functional.one_hot(joint_class(labels), 4).float()
    assert wrong_at_last_end(Outputs(joint), shots) == 0
    assert wrong_at_last_end(Outputs(joint.roll(1, -1)), shots) == 1


def test_objective_is_the_sum_of_its_named_parts():
    torch.manual_seed(0)
    shots, network = shots_of("x"), build("teacher-tiny", 3)
    loss, values = GroundTruth(0.5)(network, shots)
    torch.testing.assert_close(loss.detach(), values["nll"] + 0.5 * values["next_event"])
    without, fewer = GroundTruth(0.0)(network, shots)
    torch.testing.assert_close(without.detach(), values["nll"])
    assert "next_event" not in fewer
    assert not any(v.requires_grad for v in values.values())


def test_what_is_missing_is_said():
    shots = shots_of("x")
    with pytest.raises(SyndistillError, match="no next-stabiliser head; set next_event_weight to 0"):
        GroundTruth()(build("flat-gru-5k", 3), shots)
    unlabelled = type(shots)(shots.layout, "x", shots.events_BRS, shots.last_BKS, None, shots.ends)
    with pytest.raises(SyndistillError, match="carry no labels"):
        GroundTruth()(build("teacher-tiny", 3), unlabelled)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_loss_of_a_certain_posterior_is_that_of_the_label(channels):
    """Probability 1 for one pattern is a label."""
    generator = torch.Generator().manual_seed(1)
    observables = 1 if channels == 1 else 2
    logits = torch.randn(5, 2, 3, channels, generator=generator)
    labels = torch.randint(0, 2, (5, 2, 3, observables), generator=generator, dtype=torch.uint8)
    pattern_BKL = (labels.long() << torch.arange(observables)).sum(-1)
    certain = torch.nn.functional.one_hot(pattern_BKL, 1 << observables).float()
    torch.testing.assert_close(posterior_loss(logits, certain), label_loss(logits, labels))


def test_loss_of_a_posterior_is_the_mean_over_its_labels():
    logits = torch.tensor([[[[0.7, -1.2, 0.1, 2.0]]]])
    posterior = torch.tensor([[[[0.1, 0.2, 0.3, 0.4]]]])
    each = [label_loss(logits, torch.tensor([[[[p & 1, p >> 1]]]], dtype=torch.uint8)) for p in range(4)]
    expected = sum(posterior[0, 0, 0, p] * each[p] for p in range(4))
    torch.testing.assert_close(posterior_loss(logits, posterior), expected)


@pytest.mark.parametrize("labels", ["exact", "revealed"])
def test_soft_labels_are_what_a_run_with_them_learns_from(labels):
    if labels == "revealed":
        pytest.importorskip("numba")
    data = DataConfig(
        distance=3,
        labels=labels,
        curriculum=Curriculum(p_min=0.004, p_max=0.006, rounds=(RoundsPhase(from_shots=0, rounds=(2,)),)),
    )
    shots = simulated_source(data, 8, 0).chunk(0)[0]
    network = build("teacher-tiny", 3)
    _, values = GroundTruth(0.0)(network, shots)
    expected = posterior_loss(network(shots).logits_BKLC, shots.posterior_BKLP).mean()
    torch.testing.assert_close(values["nll"], expected.detach())
