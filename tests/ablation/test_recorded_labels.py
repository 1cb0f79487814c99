"""Where labels are scarce: Students learn from so many shots of a recording, here of a twin made of simulated ones."""

import json
import shutil

import pytest
import torch
from tests.sampling.recordings import make_plain

from syndistill.ablation import work
from syndistill.ablation.backends import Inline
from syndistill.ablation.jobs import jobs_of, parts_of
from syndistill.ablation.plans import chosen_plan
from syndistill.ablation.runner import run_plan
from syndistill.circuits.experiment import Experiment
from syndistill.distill.cache.source import recorded
from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import Recording
from syndistill.sampling.recorded_shots import RecordedShots


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A folder of 200 shots of two rounds, in the layout of a published recording."""
    circuit = Experiment(3, 2, "z", "si1000", 0.006).circuit()
    return make_plain(tmp_path_factory.mktemp("twin") / "recorded", circuit, "z", 2, shots=200)


def scarce(small_plan, folder, *counts):
    """Of each count an arm with the Teacher and features, and one from labels alone."""
    arms, alone = [], {"terms.final.weight": 0.0, "terms.labels.weight": 1.0}
    inside = {"terms.temporal.weight": 1.0, "terms.temporal.fade": 0.5}
    for count in counts:
        of_these = {"data.cached_shots": 0, "data.cut_rounds": [],
                    "data.recorded": {"folders": [str(folder)], "shots": count}}  # fmt: skip
        for name, change in ((f"labels-{count}", alone), (f"inside-{count}", inside)):
            arms.append({"name": name, "block": "controls", "says": name, "differs_from": "baseline",
                         "change": of_these | change})  # fmt: skip
    own = [arm.model_dump(mode="json") for arm in chosen_plan("ablation-tiny", []).arms] + arms
    sweeps = [{"student": "flat-gru-5k", "budget": 1, "arms": [arm["name"] for arm in arms], "seeds": [1]}]
    rounds = json.dumps([{"from_shots": 0, "rounds": [2]}])
    return small_plan("arms=" + json.dumps(own), "sweeps=" + json.dumps(sweeps), 'base.data.simulated.bases=["z"]',
                      f"base.data.simulated.curriculum.rounds={rounds}", "judging.cases=[[2,300]]",
                      "judging.primary_rounds=2", "judging.optimum=false", "base.data.cut_rounds=[]")  # fmt: skip


def test_every_epoch_has_each_of_the_first_shots_once(twin):
    source = RecordedShots([str(twin)], 96, 32, seed=5)
    recording = Recording.load(twin)
    batches = source.chunk(0)
    assert len(batches) == 16

    def events(shots):
        return torch.cat([shots.events_BRS, shots.last_BKS], 1).flatten(1).tolist()

    for epoch in range(5):
        seen = [shot for batch in batches[3 * epoch : 3 * epoch + 3] for shot in events(batch)]
        assert sorted(seen) == sorted(events(source.shots[0]))
    assert not torch.equal(batches[0].events_BRS, batches[3].events_BRS)
    again = RecordedShots([str(twin)], 96, 32, seed=5)
    assert torch.equal(again.chunk(1)[2].events_BRS, source.chunk(1)[2].events_BRS)
    line = recording.placement.lines[0]
    assert torch.equal(source.shots[0].labels_BKLO[:, 0, line, 0],
                       torch.from_numpy(recording.stored_shots().observables()[:96, 0].astype("uint8")))  # fmt: skip
    with pytest.raises(SyndistillError, match=r"201 shots of .* which has 200"):
        RecordedShots([str(twin)], 201, 32, seed=5)


def test_recordings_take_turns_and_each_shot_comes_once_an_epoch(twin, tmp_path):
    """Batches of one recording each, of unlike numbers of rounds, in a new order every epoch."""
    longer = Experiment(3, 3, "z", "si1000", 0.006).circuit()
    other = make_plain(tmp_path / "other", longer, "z", 3, shots=100)
    source = RecordedShots([str(twin), str(other)], 64, 16, seed=5, dev_shots=20)
    assert [len(shots) for shots in source.dev] == [20, 20]
    batches = source.chunk(0)
    orders = []
    for epoch in range(2):
        of_epoch = batches[8 * epoch : 8 * epoch + 8]
        orders.append([batch.rounds for batch in of_epoch])
        for shots in source.shots:
            seen = torch.cat([batch.events_BRS for batch in of_epoch if batch.rounds == shots.rounds])
            assert sorted(seen.flatten(1).tolist()) == sorted(shots.events_BRS.flatten(1).tolist())
    assert sorted(orders[0]) == [2] * 4 + [3] * 4
    assert orders[0] != orders[1]


def test_a_plan_of_scarce_labels_runs_and_knows_its_shots_by_content(small_plan, twin, tmp_path):
    plan = scarce(small_plan, twin, 64, 160)
    work.check_tasks(plan, tmp_path, work.teacher_keys(plan))
    assert not run_plan(plan, tmp_path / "sweep", Inline, accept_any_teacher=True).failed
    elsewhere = shutil.copytree(twin, tmp_path / "elsewhere")
    keys = work.teacher_keys(plan)
    hashes = [
        [parts_of(p, job, tmp_path, keys)[-1].hash for job in jobs_of(p)]
        for p in (plan, scarce(small_plan, elsewhere, 64, 160))
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 4


def test_shots_that_are_not_as_the_configuration_says_are_refused(small_plan, twin, tmp_path):
    plan = scarce(small_plan, twin, 64)
    run = parts_of(plan, jobs_of(plan)[0], tmp_path, work.teacher_keys(plan))[-1].run
    other = run.data.simulated.model_copy(update={"bases": ("x",)})
    with pytest.raises(SyndistillError, match=r"basis z and 2 rounds, data.simulated says nothing of such shots"):
        recorded(run.data.model_copy(update={"simulated": other}), 32, 1)
