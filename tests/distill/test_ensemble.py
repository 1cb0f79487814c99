"""Several who answer as one Teacher: the mean of their logits, features of the first, an identity of their hashes."""

from types import SimpleNamespace

import pytest
import torch
from scipy.special import expit

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.ensemble import EnsembleDecoder
from syndistill.decoders.network import on_circuit
from syndistill.decoders.torch_engine import TorchEngine
from syndistill.distill.cache.source import cache_key
from syndistill.distill.fuse import FuseRun
from syndistill.distill.signals.ensemble import CarriedPosterior, EnsembleTeacher, teacher_named
from syndistill.distill.signals.teacher import BF16, FrozenTeacher, PosteriorTeacher
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import load_network, save_network
from syndistill.recipes import recipe
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.shots import simulate
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.calibration import log_odds
from syndistill.training.changes import validated

EXPERIMENT = Experiment(3, 3, "z", "si1000", 0.006)


@pytest.fixture(scope="module")
def shots():
    return with_exact_labels(simulate(EXPERIMENT, 64, 3), EXPERIMENT)


@pytest.fixture
def files(teacher_file, small, tmp_path):
    """A Teacher of two layers, and a flat network of another seed."""
    save_network(tmp_path / "flat.safetensors", small("flat_gru", seed=2), {})
    return teacher_file(), str(tmp_path / "flat.safetensors")


def test_it_answers_with_the_mean_and_shows_the_first_one_s_inside(files, shots):
    first, second = (FrozenTeacher(load_network(file)[0]) for file in files)
    together = teacher_named(",".join([*files, "exact"]))
    want = ["temporal", "spatial.1"]
    one, other = first.answer(shots, want), second.answer(shots)
    exact = CarriedPosterior(together.layout, "two_channel").answer(shots)
    answer = together.answer(shots, want)
    expected = (one.logits_BKLC + other.logits_BKLC + exact.logits_BKLC) / 3
    torch.testing.assert_close(answer.logits_BKLC, expected)
    assert answer.signals.keys() == {*want}
    assert all(torch.equal(answer.signals[name], one.signals[name]) for name in want)
    assert together.offers_signal("spatial.1")
    assert not together.offers_signal("spatial.2")
    assert together.labels == "exact"
    towards = torch.ones(64, 3, 1)
    gradient = together.gradients(shots, ["temporal"], towards)["temporal"]
    assert torch.equal(gradient, first.gradients(shots, ["temporal"], towards)["temporal"])
    states = one.signals["temporal"]
    assert torch.equal(together.answer_from(shots, states), first.answer_from(shots, states))


def test_beside_a_black_box_it_answers_for_the_last_end_alone(files, shots):
    network = FrozenTeacher(load_network(files[0])[0])
    box = PosteriorTeacher(lambda shots: torch.full((len(shots), 1), 2.0), "k", network.layout)
    together = EnsembleTeacher([network, box])
    expected = (network.logits(shots)[:, -1, 0] + 2) / 2
    torch.testing.assert_close(together.logits(shots)[:, 0, 0], expected)
    assert together.logits(shots).shape == (64, 1, 1, 1)
    with pytest.raises(SyndistillError, match="needs the signal readout"):
        together.require({"readout"}, "it")


def test_the_key_is_of_every_member(files, teacher_file, stage1_run):
    first, second = files
    names = [first, second, f"{first},{second}", f"{second},{first}", f"{first},exact", f"{first},{second},exact"]
    teachers = [teacher_named(name) for name in names]
    data = stage1_run().data
    assert len({teacher.key() for teacher in teachers}) == len(names)
    assert len({cache_key(data, teacher).model_dump_json() for teacher in teachers}) == len(names)
    assert teacher_named(f"{first},{second}").key() == teachers[2].key()
    half = EnsembleTeacher([FrozenTeacher(load_network(name)[0], "bf16") for name in files])
    assert half.key() == teachers[2].key() + BF16


def test_a_student_learns_from_one_and_its_run_is_known_by_all_members(files, stage1_run, tmp_path):
    run = stage1_run(terms=Terms(spatial={"weight": 1.0, "components": 4}), cached_shots=512)
    simulated = run.data.simulated.model_copy(update={"labels": "exact"})
    data = run.data.model_copy(update={"simulated": simulated})
    name = ",".join([*files, "exact"])
    run = validated(StudentRun, run.model_dump(mode="json") | {"teacher": name, "data": data.model_dump()}, "t")
    saved = load_network(train_student(run, tmp_path / "run"))[1]
    assert saved["teacher_hash"] == teacher_named(name).key()
    assert saved["run"]["teacher"] == name


@pytest.mark.parametrize("name", ["student-d3,teacher-d3", "teacher-d3,exact"])
def test_as_a_decoder_it_is_judged_as_it_would_teach(name):
    experiment = Experiment(3, 3, "z", "si1000", 0.004)
    stored = StoredShots.sample(experiment.circuit(), 500, 5)
    members = name.split(",")
    subject = Subject.of_circuit(experiment.circuit(), "t")
    alone = [subject.decoder("optimal" if m == "exact" else m) for m in members]
    decoder = subject.decoder(name)
    found = decoder.decode(stored)
    mean = sum(log_odds(one.decode(stored)) for one in alone) / 2
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expit(mean)))
    assert decoder.name == name
    assert decoder.content_id not in [one.content_id for one in alone]
    shots = with_exact_labels(simulate(experiment, 300, 2), experiment)
    taught = teacher_named(name).logits(shots)[:, -1, 0]
    events = torch.cat([shots.events_BRS, shots.last_BKS[:, -1:]], 1)
    placed = on_circuit(TorchEngine("teacher-d3"), experiment.circuit()).placement
    bits = events[:, placed.slice_N, placed.stabiliser_N].numpy().astype(bool)
    same = decoder.decode(StoredShots.from_bits(bits, stored.observables()[:300], stored.dem))
    torch.testing.assert_close(torch.sigmoid(taught), torch.from_numpy(same).float(), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("name", "said"), [
    ("teacher-d3,teacher-d3", "names a member twice"),
    ("teacher-d3,", "none between two commas"),
    ("teacher-d3,teacher-d5", "an ensemble of a decoder of distance 3"),
    ("exact,teacher-d3", "begins with exact; name a network first"),
    ("teacher-d3,nothing", "there is no file nothing"),
])  # fmt: skip
def test_what_is_no_ensemble_is_refused_in_one_line(name, said):
    with pytest.raises(SyndistillError, match=said) as error:
        teacher_named(name)
    assert "\n" not in str(error.value)


def test_flips_of_an_unknown_error_model_are_no_member():
    hard = Subject.of_circuit(EXPERIMENT.circuit(), "t").decoder("pymatching")
    mine = SimpleNamespace(name="mine", gives_probabilities=False, n_detectors=1, n_observables=1)
    with pytest.raises(SyndistillError, match="mine says flips, not probabilities; leave it out"):
        EnsembleDecoder([mine, hard], "both")


@pytest.mark.parametrize(("model", "run"), [
    (StudentRun, recipe("baseline-tiny")),
    (FuseRun, recipe("road-tiny").fuse_run()),
])  # fmt: skip
def test_the_exact_member_needs_shots_that_carry_it(model, run):
    with pytest.raises(SyndistillError, match="reads the exact posterior of its shots; set their labels=exact"):
        validated(model, run.model_dump(mode="json") | {"teacher": "teacher-d3,exact"}, "t")
