"""Teachers: the frozen network, the black box, and one of one's own."""

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.objective import StudentObjective
from syndistill.distill.signals.teacher import Answer, FrozenTeacher, PosteriorTeacher, Teacher
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import weights_hash


def test_a_frozen_network_offers_all_that_it_has(small, taught):
    network = small("transformer")
    teacher = FrozenTeacher(network)
    assert teacher.offers == {"final", "readout", "spatial", "temporal", "ends", "gradients", "answer_from"}
    assert teacher.key() == weights_hash(network)
    assert teacher.offers_signal("spatial.0")
    assert not teacher.offers_signal("spatial.1")  # it has one layer
    answer = teacher.answer(taught().shots, {"spatial", "temporal", "final"})
    assert set(answer.signals) == {"spatial", "temporal"}
    assert not any(x.requires_grad for x in (answer.logits_BKLC, *answer.signals.values()))


def test_spatial_is_not_temporal(small, taught):
    """With one layer too: it is taken before the layer ends in the new state."""
    signals = FrozenTeacher(small("transformer")).answer(taught().shots, {"spatial", "temporal", "ends"}).signals
    assert signals["spatial"].shape == signals["temporal"].shape == signals["ends"].shape == (32, 3, 8, 8)
    gaps = (signals["spatial"] - signals["temporal"], signals["ends"] - signals["spatial"])
    assert min(float(gap.abs().mean()) for gap in gaps) > 0.01


def test_a_missing_signal_is_named(small):
    teacher = FrozenTeacher(small("flat_gru"))
    terms = Terms(spatial={"weight": 1.0})
    with pytest.raises(SyndistillError, match="needs the signal spatial, which this Teacher does not offer"):
        teacher.require(terms.asked, "stage1")
    teacher.require(Terms(spatial={"weight": 0.0}, temporal={"weight": 1.0}).asked, "stage1")


class LabelTeacher(Teacher):
    """A foreign decoder behind the adapter class: it knows the truth and doubts it a little."""

    offers = frozenset({"final", "readout"})
    layout, output = Layout(3), "two_channel"

    def key(self):
        return "labels at +-2"

    def answer(self, shots, want=()):
        return Answer(4.0 * shots.labels_BKLO.float() - 2.0)


def test_one_of_ones_own_distils_and_is_refused_where_it_has_nothing_to_say(tmp_path, stage1_run):
    run = stage1_run(terms=Terms(readout={"weight": 1.0}))
    path = train_student(run, tmp_path / "run", teacher=LabelTeacher())
    assert path.is_file()
    with pytest.raises(SyndistillError, match=r"stage1 needs the signal spatial.0, temporal"):
        train_student(stage1_run(), tmp_path / "other", teacher=LabelTeacher())
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("cached_shots", [0, 4096])
def test_a_black_box_gives_the_final_posterior_alone(tmp_path, stage1_run, taught, small, cached_shots):
    box = PosteriorTeacher(lambda shots: 4.0 * shots.labels_BKLO[:, -1, 0].float() - 2, "truth", Layout(3))
    batch = taught()
    logits_BKLC = box.logits(batch.shots)
    assert logits_BKLC.shape == (32, 1, 1, 1)
    _, values = StudentObjective(Terms(), box)(small(), batch)
    assert values["final"] > 0
    run = stage1_run(terms=Terms(), cached_shots=cached_shots)
    if cached_shots:
        with pytest.raises(SyndistillError, match=r"cannot be cut to fewer rounds; set data.cut_rounds"):
            train_student(run, tmp_path / "cut", teacher=box)
        run = run.model_copy(update={"data": run.data.model_copy(update={"cut_rounds": ()})})
    train_student(run, tmp_path / "run", teacher=box)
    with pytest.raises(SyndistillError, match="readout"):
        train_student(stage1_run(terms=Terms(readout={"weight": 1.0})), tmp_path / "other", teacher=box)
    with pytest.raises(SyndistillError, match="readout"):
        train_student(stage1_run(terms=Terms(final={"where": "every"})), tmp_path / "every", teacher=box)
    with pytest.raises(SyndistillError, match=r"posterior of shape \(3,\) for 32 shots"):
        PosteriorTeacher(lambda _: torch.zeros(3), "broken", Layout(3)).logits(batch.shots)
