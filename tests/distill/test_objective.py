"""The Student's objective: what each term does, and that a term of weight 0 does nothing."""

import copy
from dataclasses import replace

import pytest
import torch

from syndistill.distill.losses import posterior_divergence
from syndistill.distill.objective import StudentObjective
from syndistill.distill.signals.teacher import FrozenTeacher, cut
from syndistill.distill.stage import check_student_signals
from syndistill.distill.terms import FinalTerm, LabelTerm, ReadoutTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build
from syndistill.training.objective import label_loss


class Untouchable(FrozenTeacher):
    """A Teacher that must not be asked."""

    def __init__(self, network):
        super().__init__(network)
        network.forward = self._refuse

    def _refuse(self, *_, **__):
        raise AssertionError("the Teacher was asked")


def trained(network, loss_of, batches):
    """The weights after one AdamW step a batch."""
    network = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for taught in batches:
        loss_of(network, taught).backward()
        optimiser.step()
        optimiser.zero_grad()
    return network.state_dict()


def test_a_final_term_of_weight_0_changes_no_bit_and_asks_no_teacher(small, taught):
    batches = [taught(seed=s) for s in range(4)]
    objective = StudentObjective(Terms(final=FinalTerm(weight=0, temperature=3)), Untouchable(small("transformer")))

    def labels_alone(network, batch):
        return label_loss(network(batch.shots).logits_BKLC, batch.shots.labels_BKLO)[:, -1, 0].mean()

    with_it = trained(small(), lambda network, batch: objective(network, batch)[0], batches)
    without = trained(small(), labels_alone, batches)
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    assert "final" not in objective(small(), batches[0])[1]


def test_a_label_term_of_weight_0_changes_no_bit(small, taught, teacher):
    batches = [taught(seed=s) for s in range(3)]
    objective = StudentObjective(Terms(labels=LabelTerm(weight=0, where="every")), teacher)

    def final_alone(network, batch):
        with torch.no_grad():
            target = teacher.network(batch.shots).logits_BKLC[:, -1, 0]
        return posterior_divergence(network(batch.shots).logits_BKLC[:, -1, 0], target).mean()

    with_it = trained(small(), lambda network, batch: objective(network, batch)[0], batches)
    without = trained(small(), final_alone, batches)
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_terms_are_weighted_and_logged_unweighted(small, taught, teacher):
    network, batch = small(), taught()
    _, values = StudentObjective(Terms(), teacher)(network, batch)
    loss, again = StudentObjective(Terms(labels=LabelTerm(weight=0.25), final=FinalTerm(weight=2)), teacher)(
        network, batch
    )
    assert again["final"] == values["final"]
    torch.testing.assert_close(loss.detach(), 0.25 * values["labels"] + 2 * values["final"])


def test_cached_logits_stand_for_the_live_teacher(small, taught, teacher):
    network, batch = small(), taught()
    live, _ = StudentObjective(Terms(), teacher)(network, batch)
    told = replace(batch, teacher_BKLC=teacher.logits(batch.shots))
    cached, _ = StudentObjective(Terms(), Untouchable(small("transformer")))(network, told)
    assert torch.equal(live, cached)


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_the_teacher_gets_no_gradient_and_never_moves(small, taught, output):
    basis = "both" if output == "joint4" else "x"
    teacher = FrozenTeacher(small("transformer", output, seed=7))
    before = copy.deepcopy(teacher.network.state_dict())
    student = small(output=output)
    loss, _ = StudentObjective(Terms(labels=LabelTerm(weight=0)), teacher)(student, taught(basis=basis))
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert all(torch.equal(before[name], now) for name, now in teacher.network.state_dict().items())
    assert not teacher.network.training
    assert max(p.grad.abs().max() for p in student.parameters() if p.grad is not None) > 0


def test_every_end_and_line_or_the_last_alone(small, taught):
    network, batch = small(), taught(rounds=4)
    every, _ = StudentObjective(Terms(labels=LabelTerm(where="every"), final=FinalTerm(weight=0)), None)(network, batch)
    loss_BKL = label_loss(network(batch.shots).logits_BKLC, batch.shots.labels_BKLO)
    torch.testing.assert_close(every, loss_BKL.mean())
    first = LabelTerm(where="every", lines="first")
    own, _ = StudentObjective(Terms(labels=first, final=FinalTerm(weight=0)), None)(network, batch)
    torch.testing.assert_close(own, loss_BKL[:, :, 0].mean())
    last, _ = StudentObjective(Terms(final=FinalTerm(weight=0)), None)(network, batch)
    torch.testing.assert_close(last, loss_BKL[:, -1, 0].mean())


def test_the_final_posterior_of_every_end_is_the_mean_over_shorter_experiments(small, taught, teacher):
    network, batch = small(), taught(rounds=4)
    labels = LabelTerm(weight=0)
    every, _ = StudentObjective(Terms(labels=labels, final=FinalTerm(where="every")), teacher)(network, batch)
    last = StudentObjective(Terms(labels=labels), teacher)
    shorter = [last(network, cut(batch, rounds))[0].detach() for rounds in (1, 2, 3, 4)]
    assert len({round(float(loss), 5) for loss in shorter}) == 4
    torch.testing.assert_close(every.detach(), torch.stack(shorter).mean())


def test_nothing_to_learn_from_is_an_error(small, taught):
    with pytest.raises(SyndistillError, match="weight 0"):
        StudentObjective(Terms(labels=LabelTerm(weight=0), final=FinalTerm(weight=0)), None)
    with pytest.raises(SyndistillError, match="Teacher"):
        StudentObjective(Terms(), None)(small(), taught())


def test_each_line_is_asked_by_itself_before_the_lines_agree(taught, teacher):
    shots = taught().shots
    torch.manual_seed(5)
    network = build(dials_of({"family": "local_gru", "distance": 3, "width": 4, "readout_width": 8}))
    outputs = network(shots)
    alone, agreed = outputs.alone_BKLC, outputs.logits_BKLC
    lines = (shots.labels_BKLO[:, :, :1] ^ shots.labels_BKLO).float()  # how each stands to the first: shots show it
    torch.testing.assert_close(agreed[:, :, 0], (alone * (1 - 2 * lines)).mean(2))
    assert not torch.allclose(alone, agreed)
    off = {"labels": LabelTerm(weight=0.0), "final": FinalTerm(weight=0.0)}
    terms = Terms(**off, readout=ReadoutTerm(weight=1.0, alone=True))
    loss, _ = StudentObjective(terms, teacher)(network, taught())
    torch.testing.assert_close(loss, posterior_divergence(alone, teacher.logits(shots), 1.0).mean())


def test_lines_that_do_not_agree_are_not_asked_alone(small):
    alone = Terms(readout=ReadoutTerm(weight=1.0, alone=True))
    with pytest.raises(SyndistillError, match=r"those of this flat_gru network do not: leave it out"):
        check_student_signals(small(), alone)
    check_student_signals(small(), Terms(readout=ReadoutTerm(weight=1.0)))
