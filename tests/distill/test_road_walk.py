"""What a walk checks before its first step, and what it asks of the Teacher."""

from pathlib import Path

import pytest

from syndistill.distill import stage as stage_module
from syndistill.distill.cache import source, store
from syndistill.distill.road import RoadRun, walk_road
from syndistill.distill.signals.features import TargetStatistics
from syndistill.distill.signals.fusion import FusionConfig
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.distill.student import train_student
from syndistill.distill.terms import SpatialTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, save_network
from syndistill.training.changes import validated

FEATURE = {"weight": 1.0, "components": 4}


def test_the_teacher_answers_all_stages_in_one_pass(tmp_path, road, monkeypatch):
    asked, measured = [], []
    ask, measure = store._ask, source.measure_targets

    def asking(shots, teacher, signals, *more):
        asked.append(sorted(signal.name for signal in signals))
        return ask(shots, teacher, signals, *more)

    def measuring(teacher, shots, specs):
        measured.append(sorted(specs))
        return measure(teacher, shots, specs)

    monkeypatch.setattr(store, "_ask", asking)
    for module in (source, stage_module):
        monkeypatch.setattr(module, "measure_targets", measuring)
    walk_road(road(), tmp_path / "road")
    assert asked == [["fused", "spatial", "temporal"]] * 2  # one shard for each basis
    assert measured == [["spatial", "temporal"]]
    paths = [tmp_path / "road" / stage / "targets-temporal.safetensors" for stage in ("stage1", "stage2")]
    assert len({TargetStatistics.load(path).sha256 for path in paths}) == 1


def test_statistics_of_a_half_written_cache_are_taken_up_and_of_another_one_are_not(tmp_path, stage1_run, monkeypatch):
    run = stage1_run()
    monkeypatch.setattr(store, "_ask", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_student(run, tmp_path / "killed", tmp_path / "cache")
    teacher = FrozenTeacher(load_network(Path(run.teacher))[0])
    known = source.cached_statistics(run.terms, run.data, teacher, tmp_path / "cache")
    assert known.keys() == {"spatial", "temporal"}
    other = Terms(spatial=FEATURE | {"layer": 1}, temporal=FEATURE)
    assert source.cached_statistics(other, run.data, teacher, tmp_path / "cache").keys() == {"temporal"}
    data = run.data.model_copy(update={"cache_seed": 5})
    assert source.cached_statistics(run.terms, data, teacher, tmp_path / "cache") == {}


def test_what_cannot_be_walked_is_refused_before_anything_is_written(tmp_path, road, small):
    def refused(run, message, folder=None):
        with pytest.raises(SyndistillError, match=message):
            walk_road(run, tmp_path / "road", folder)
        assert not (tmp_path / "road").exists()

    save_network(tmp_path / "flat.safetensors", small("flat_gru"), {})
    refused(road(teacher=str(tmp_path / "flat.safetensors")), "stage1 needs the signal spatial")
    fuse = road().fuse.model_copy(update={"fusion": FusionConfig(layer=5)})
    refused(road(fuse=fuse), "the fuse stage needs the signal ends.5")
    spatial = road().stage1.model_copy(update={"spatial": SpatialTerm(weight=1.0, student_layer=9)})
    refused(road("transformer", stage1=spatial), "no signal spatial.9")
    walk_road(road(no_kd=None), tmp_path / "first")
    data = road().data.model_copy(update={"cache_seed": 5})
    refused(road(data=data), "made from another shots", tmp_path / "first/cache")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("baseline.readout.weight", 1, "baseline: a baseline learns from labels and final alone"),
        ("stage2.fused.weight", 0, "stage2: fusion and a fused term of weight above 0 belong together"),
        ("data.simulated.distance", 5, "distance 3, the shots are of 5"),
        ("data.cut_rounds", [4], "must begin at 1 to 3"),
    ],
)
def test_sections_that_make_no_stage_are_refused(road, key, value, said):
    content = road().model_dump(mode="json")
    *parents, last = key.split(".")
    section = content
    for name in parents:
        section = section[name]
    section[last] = value
    with pytest.raises(SyndistillError, match=said) as refusal:
        validated(RoadRun, content, "this road")
    assert "\n" not in str(refusal.value)


def test_stage_2_may_go_on_from_the_baseline(tmp_path, road):
    run = road()
    stage2 = run.stage2.model_copy(update={"start": "baseline"})
    changed = run.model_copy(update={"stage2": stage2})
    assert changed.student_run("stage2", tmp_path).start_from == str(tmp_path / "baseline/student.safetensors")
    assert (run.earlier("stage2"), changed.earlier("stage2")) == (("stage1", "fuse"), ("baseline", "fuse"))


def test_a_finished_stage_whose_result_is_damaged_is_refused(tmp_path, road):
    walk_road(road("flat_gru", "two_channel"), tmp_path / "road")
    (tmp_path / "road/road.json").unlink()
    student = tmp_path / "road/baseline/student.safetensors"
    whole = student.read_bytes()
    for damaged in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        student.write_bytes(damaged)
        with pytest.raises(SyndistillError, match=r"baseline/student.safetensors"):
            walk_road(road("flat_gru", "two_channel"), tmp_path / "road")
