"""A recording's shots as labels: the weights that did best on its development shots are saved."""

import pytest
import torch
from tests.sampling.recordings import make_plain

from syndistill.circuits.experiment import Experiment
from syndistill.distill.cache.source import recorded
from syndistill.distill.student import STUDENT_FILE, StudentRun, train_student
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.recipes import recipe
from syndistill.training.changes import validated
from syndistill.training.objective import label_loss

from ..reporting import Heard


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """600 shots of two rounds, in the layout of a published recording."""
    circuit = Experiment(3, 2, "z", "si1000", 0.01).circuit()
    return make_plain(tmp_path_factory.mktemp("twin") / "recorded", circuit, "z", 2, shots=600)


def run_of(twin, shots=64, dev=500, **training):
    content = recipe("baseline-tiny").model_dump(mode="json")
    content["teacher"] = "teacher-d3"
    content["data"] |= {"cached_shots": 0, "cut_rounds": [],
                        "recorded": {"folders": [str(twin)], "shots": shots, "dev_shots": dev, "dev_every": 10,
                                     "patience": 4}}  # fmt: skip
    content["data"]["simulated"] |= {"bases": ["z"]}
    content["data"]["simulated"]["curriculum"]["rounds"] = [{"from_shots": 0, "rounds": [2]}]
    content["terms"]["labels"] = {"weight": 1.0, "where": "last"}
    content["terms"]["final"] = {"weight": 0.0, "where": "last"}
    content["training"] |= {"batch_size": 32, "seed": 3, **training}
    return validated(StudentRun, content, "t")


def dev_nll(run, network):
    dev = recorded(run.data, 32, 3).dev[0]
    with torch.no_grad():
        logits = network(dev).logits_BKLC[:, -1:, :1]
    return float(label_loss(logits, dev.labels_BKLO[:, -1:, :1]).mean())


def test_shots_learned_by_heart_stop_the_run(twin, tmp_path):
    """64 shots 250 times over: the dev NLL turns, the run ends early, and what is saved is far better than its end."""
    heard = Heard()
    run = run_of(twin, steps=500)
    stopped = load_network(train_student(run, tmp_path / "a", reporter=heard))[0]
    to_the_end = load_network(train_student(run_of(twin, dev=0, steps=500), tmp_path / "b"))[0]
    best, last = dev_nll(run, stopped), dev_nll(run, to_the_end)
    assert best < 0.8 * last
    assert any("did best on the development shots" in line for line in heard.said)
    (tmp_path / "a" / STUDENT_FILE).unlink()  # as if killed between the last step and the file
    again = load_network(train_student(run, tmp_path / "a"))[0]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), stopped.parameters(), strict=True))


def test_what_does_no_good_leaves_the_weights_that_it_began_from(twin, tmp_path):
    start = train_student(run_of(twin, shots=300, dev=0, steps=200), tmp_path / "start")
    run = run_of(twin, shots=32, dev=200, steps=60).model_copy(update={"start_from": str(start)})
    wild = run.training.optimiser.model_copy(update={"learning_rate": 0.5, "warmup_steps": 0})
    run = run.model_copy(update={"training": run.training.model_copy(update={"optimiser": wild})})
    kept, said = load_network(train_student(run, tmp_path / "tuned"))
    before, known = load_network(start)
    assert said["training_noise"] == known["training_noise"]
    assert known["seen"] == {"recorded": 300}  # of its start more shots than its own
    assert said["seen"] == {"recorded": 300}
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), before.parameters(), strict=True))


def test_development_shots_are_not_learned_from(twin):
    source = recorded(run_of(twin).data, 32, 3)
    assert (len(source.shots[0]), len(source.dev[0])) == (64, 500)
    plain = recorded(run_of(twin, shots=564, dev=0).data, 32, 3).shots[0]
    assert torch.equal(plain.events_BRS[64:], source.dev[0].events_BRS)
    with pytest.raises(SyndistillError, match="64 shots and 537 of development of"):
        recorded(run_of(twin, dev=537).data, 32, 3)


@pytest.mark.parametrize(("key", "value"), [("dev_shots", -1), ("dev_every", 0), ("patience", -1), ("patience", 1.5)])
def test_bad_settings_are_refused(twin, key, value):
    content = run_of(twin).model_dump(mode="json")
    content["data"]["recorded"][key] = value
    with pytest.raises(SyndistillError, match=key):
        validated(StudentRun, content, "t")
