"""The whole road, tiny: every family and output form, resumed, repeated, and refused where it must be."""

import json
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch

from syndistill.distill.road import STAGES, RoadRun, walk_road
from syndistill.distill.signals.fusion import SAME
from syndistill.distill.stage1 import Stage1
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import FAMILIES, load_network, save_network
from syndistill.models.tensors_file import load_tensors
from syndistill.training.changes import validated

from ..reporting import Heard, Stopping

FEATURE = {"weight": 1.0, "components": 4}


QUICK = (("flat_gru", "two_channel"), ("local_gru", "joint4"))
SLOW = [pair for pair in product(FAMILIES, ("two_channel", "joint4")) if pair not in QUICK]


@pytest.mark.parametrize(
    ("family", "output"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow("a whole road")) for pair in SLOW)]
)
def test_the_road_of_every_family_and_output(tmp_path, road, family, output):
    heard = Heard()
    run = road(family, output)
    result = json.loads(walk_road(run, tmp_path / "road", reporter=heard).read_text())
    assert tuple(result["stages"]) == STAGES
    fresh = None
    for stage, path in result["stages"].items():
        folder = Path(path).parent
        assert (folder / "run.json").is_file()
        if stage == "fuse":
            continue
        network, metadata = load_network(Path(path))
        fresh = fresh or network.state_dict().keys()
        assert network.state_dict().keys() == load_tensors(Path(path))[0].keys() == fresh
        assert metadata["run"]["kind"] == ("baseline" if stage == "no_kd" else stage)
    report = json.loads(Path(result["fuse_report"]).read_text())
    warned = any("WARNING" in line for line in heard.said)
    metadata = load_network(Path(result["stages"]["stage2"]))[1]
    assert report["better"] == metadata["fused_better_than_calibrated_final"]
    assert warned == (report["verdict"] == SAME or not report["better"])
    assert json.loads((tmp_path / "road/stage2/weights.json").read_text())["fusion"]["better"] == report["better"]
    # one cache, no second one anywhere
    assert [p.parent.name for p in (tmp_path / "road").rglob("begun.json")] == []
    assert len(list((tmp_path / "road").rglob("shard-*"))) == len(run.data.simulated.bases) * 4  # logits + 3 signals
    logged = json.loads((tmp_path / "road/stage2/metrics.jsonl").read_text().splitlines()[-1])
    assert {"fused", "labels", "temporal"} <= logged.keys()
    assert not {"final", "readout", "spatial"} & logged.keys()


def test_finished_stages_are_not_run_again(tmp_path, road):
    run = road()

    with pytest.raises(KeyboardInterrupt):
        walk_road(run, tmp_path / "road", reporter=Stopping("stage1", 1))
    first = {p: p.read_bytes() for p in (tmp_path / "road").glob("*/*.safetensors") if p.name != "state.safetensors"}
    assert {p.parent.name for p in first} >= {"no_kd", "baseline", "fuse"}
    assert not (tmp_path / "road/stage1/student.safetensors").exists()
    heard = Heard()
    walk_road(run, tmp_path / "road", reporter=heard)
    assert list(heard.totals) == ["stage1", "stage2"]
    assert [line for line in heard.said if line.endswith("is finished")] == [
        f"{stage} is finished" for stage in ("fuse", "no_kd", "baseline")
    ]
    assert all(p.read_bytes() == content for p, content in first.items())
    with pytest.raises(SyndistillError, match="finished run"):
        walk_road(run, tmp_path / "road")
    with pytest.raises(SyndistillError, match=r"another configuration|finished run"):
        walk_road(run.model_copy(update={"no_kd": None}), tmp_path / "road")


@pytest.mark.slow("a road, and its stages again with caches of their own")
def test_a_stage_repeated_from_its_run_json_is_the_same_to_the_bit(tmp_path, road):
    run = road("transformer", no_kd=None, stage1=Stage1(
        training=road().baseline.training, spatial=FEATURE, temporal=FEATURE, start="baseline"
    ))  # fmt: skip
    walk_road(run, tmp_path / "road")
    for stage in ("baseline", "stage1", "stage2"):
        config = json.loads((tmp_path / "road" / stage / "run.json").read_text())["config"]
        again = validated(StudentRun, config, "run.json")
        train_student(again, tmp_path / stage, tmp_path / f"cache-{stage}")  # a cache of its own
        (expected, _), (found, _) = (
            load_tensors(folder / "student.safetensors") for folder in (tmp_path / "road" / stage, tmp_path / stage)
        )
        assert [n for n in expected if not torch.equal(expected[n], found[n])] == []


KILLED = """
import json, sys, time
from pathlib import Path
from syndistill.training import source
source.STATISTICS_SHOTS = 256
source.STATISTICS_RATES = 1
from syndistill.distill.student import StudentRun, train_student
from syndistill.reporter import Bar, Reporter
class Slow(Reporter):
    def bar(self, *_):
        bar = Bar()
        bar.to = lambda *_: time.sleep(0.05)
        return bar
run = StudentRun.model_validate(json.loads(sys.argv[1]))
train_student(run, Path(sys.argv[2]), Path(sys.argv[3]), Slow())
"""


def slow_run(run, steps):
    training = run.training.model_copy(update={"steps": steps, "checkpoint_minutes": 0.0})
    return run.model_copy(update={"training": training})


@pytest.mark.parametrize("stage", ["stage1", pytest.param("stage2", marks=pytest.mark.slow("a road before it"))])
def test_kill_9_and_resume_is_the_stage_never_stopped(tmp_path, road, stage1_run, stage):
    if stage == "stage1":
        run = slow_run(stage1_run("transformer"), 40)
    else:
        walk_road(road(no_kd=None), tmp_path / "road")
        run = slow_run(road(no_kd=None).student_run("stage2", tmp_path / "road"), 40)
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    train_student(run, whole, cache)
    process = subprocess.Popen([sys.executable, "-c", KILLED, run.model_dump_json(), str(killed), str(cache)])
    deadline = time.monotonic() + 90
    while not (killed / "state.safetensors").exists():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    assert 0 < load_tensors(killed / "state.safetensors")[1]["step"] < 40
    train_student(run, killed, cache)
    for name in ("state.safetensors", "student.safetensors", "adapters.safetensors"):
        (expected, _), (found, _) = (load_tensors(folder / name) for folder in (whole, killed))
        assert expected.keys() == found.keys()
        assert [n for n in expected if not torch.equal(expected[n], found[n])] == []
    names = load_tensors(whole / "state.safetensors")[0]
    assert any(name.startswith("weights.extra.") for name in names)
    assert (whole / "weights.json").read_text() == (killed / "weights.json").read_text()


def test_stage_2_takes_up_the_same_student_only(tmp_path, road, teacher_file):
    run = road(no_kd=None)
    walk_road(run, tmp_path / "road")
    stage2 = run.student_run("stage2", tmp_path / "road")

    def refused(message, **changes):
        with pytest.raises(SyndistillError, match=message):
            train_student(stage2.model_copy(update=changes), tmp_path / "new", tmp_path / "road/cache")
        assert not (tmp_path / "new").exists()

    narrower = {"family": "flat_gru", "distance": 3, "width": 3, "readout_width": 8}  # a wider one may go on
    refused("another configuration than this run's", network=dials_of(narrower))
    refused("no Student after its baseline or stage 1", start_from=teacher_file())
    refused("there is no file|neither a shipped", start_from=str(tmp_path / "none.safetensors"))
    student, metadata = load_network(tmp_path / "road/stage1/student.safetensors")
    save_network(tmp_path / "foreign.safetensors", student, metadata | {"teacher_hash": "0" * 64})
    refused("the Student of another Teacher", start_from=str(tmp_path / "foreign.safetensors"))
    refused("fused from another Teacher", teacher=teacher_file(seed=8))
    refused("holds no fusion", fusion=stage2.start_from)
    # from the baseline it may go: a stage can be run alone from any earlier checkpoint
    train_student(
        stage2.model_copy(update={"start_from": str(tmp_path / "road/baseline/student.safetensors")}),
        tmp_path / "new",
        tmp_path / "road/cache",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": Terms(fused={"weight": 1.0})}, "belong together"),
        ({"fusion": "fusion.safetensors"}, "belong together"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stage1_run, changes, message):
    content = stage1_run().model_dump(mode="json")
    content |= {k: v.model_dump(mode="json") if isinstance(v, Terms) else v for k, v in changes.items()}
    with pytest.raises(SyndistillError, match=message):
        validated(StudentRun, content, "this run")


@pytest.mark.parametrize(
    ("terms", "more", "kind"),
    [
        (Terms(), {}, "baseline"),
        (Terms(), {"start_from": "student.safetensors"}, "baseline"),
        (Terms(readout={"weight": 1.0}), {"start_from": "student.safetensors"}, "stage1"),
        (Terms(fused={"weight": 1.0}), {"fusion": "fusion.safetensors"}, "fused"),
        (Terms(fused={"weight": 1.0}), {"fusion": "fusion.safetensors", "start_from": "s.safetensors"}, "stage2"),
    ],
)
def test_the_kind_follows_from_what_is_learned_and_from_where(stage1_run, terms, more, kind):
    content = stage1_run().model_dump(mode="json") | more | {"terms": terms.model_dump(mode="json"), "kind": "stage1"}
    run = validated(StudentRun, content, "a file that says stage1")
    assert run.kind == run.model_dump(mode="json")["kind"] == kind


def test_one_key_switches_a_signal(tmp_path, road):
    content = road(no_kd=None).model_dump(mode="json")
    content["stage1"]["spatial"]["weight"] = 0
    run = validated(RoadRun, content, "recipe")
    assert run.student_run("stage1", tmp_path).terms.features.keys() == {"temporal"}
    content["stage1"]["spatial"]["wait"] = 0
    with pytest.raises(SyndistillError, match=r"stage1\.spatial\.wait"):
        validated(RoadRun, content, "recipe")


@pytest.mark.parametrize("where", ["last", "every"])
def test_the_control_from_labels_looks_at_the_ends_that_the_baseline_looks_at(tmp_path, road, where):
    content = road().model_dump(mode="json")
    content["baseline"]["final"]["where"] = where
    run = validated(RoadRun, content, "recipe")
    assert run.student_run("no_kd", tmp_path).terms.labels.where == where
    assert run.student_run("baseline", tmp_path).terms.labels.where == "last"


def test_an_adapter_of_another_width_is_refused(tmp_path, stage1_run):
    run = stage1_run()
    train_student(run, tmp_path / "run", tmp_path / "cache")
    (tmp_path / "run/student.safetensors").unlink()
    other = stage1_run(terms=Terms(spatial=FEATURE | {"components": 6, "layer": 0}))
    train_student(other, tmp_path / "other", tmp_path / "cache")
    kept = tmp_path / "run/targets-spatial.safetensors"
    own = kept.read_bytes()
    kept.write_bytes((tmp_path / "other/targets-spatial.safetensors").read_bytes())
    with pytest.raises(SyndistillError, match=r"statistics of spatial.0 reduced to 6, every 2 rounds, this run asks"):
        train_student(run, tmp_path / "run", tmp_path / "cache")
    kept.write_bytes(own)
    state = tmp_path / "run/state.safetensors"
    state.write_bytes((tmp_path / "other/state.safetensors").read_bytes())  # adapters of another width
    with pytest.raises(SyndistillError, match="is of another run than this folder's"):
        train_student(run, tmp_path / "run", tmp_path / "cache")
