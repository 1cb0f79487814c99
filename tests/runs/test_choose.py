"""Naming a run and changing its settings."""

import json

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.teacher import BF16
from syndistill.distill.student import StudentRun, student_hashes
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, save_network, weights_hash
from syndistill.recipes import recipe
from syndistill.runs.choose import chosen_run
from syndistill.training.config import DataConfig
from syndistill.training.run import TeacherRun


def test_settings_are_changed_and_nothing_else():
    changes = ["training.steps=7", "network.width=24", "data.noise=uniform", 'data.bases=["z"]']
    run = chosen_run(TeacherRun, "teacher-tiny", changes)
    assert (run.training.steps, run.network.width, run.data.noise, run.data.bases) == (7, 24, "uniform", ("z",))
    plain = recipe("teacher-tiny").model_dump()
    for path in ("training.steps", "network.width", "data.noise", "data.bases"):
        group, key = path.split(".")
        plain[group][key] = getattr(getattr(run, group), key)
    assert run.model_dump() == plain


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        (TeacherRun, "teacher-tiny", "training.step=7", "did you mean 'steps'"),
        (TeacherRun, "teacher-tiny", "trainin.steps=7", "did you mean 'training'"),
        (TeacherRun, "teacher-tiny", "training.steps.more=7", "no settings below"),
        (TeacherRun, "teacher-tiny", "training.steps", "not key.path=value"),
        (TeacherRun, "teacher-tiny", "training.steps=many", "training.steps"),
        (TeacherRun, "teacher-tiny", "training.steps=0", "greater than or equal to 1"),
        (TeacherRun, "teacher-tiny", "network.family=lstm", "family 'lstm' is unknown"),
        (StudentRun, "baseline-tiny", "terms.final.weight=-1", "terms.final.weight"),
        (StudentRun, "baseline-tiny", "kind=stage1", "follows from its other settings"),
        (TeacherRun, "teacher-tyni", None, "did you mean 'teacher-tiny'"),
        (TeacherRun, "baseline-tiny", None, "use syndistill distill"),
        (StudentRun, "teacher-tiny", None, "use syndistill train"),
        (TeacherRun, "nowhere/run.json", None, "cannot read"),
    ],
)
def test_wrong_names_and_settings_say_what_is_wrong(kind, name, change, said):
    with pytest.raises(SyndistillError, match=said):
        chosen_run(kind, name, [] if change is None else [change])


def test_a_run_json_needs_the_files_that_it_was_made_with(tmp_path):
    file, run_json = tmp_path / "mine.stim", tmp_path / "run.json"
    file.write_text(str(Experiment(3, 3, "z", "si1000", 0.004).circuit()))
    run = recipe("baseline-tiny")
    own = {"noise": "files", "files": (str(file),), "bases": ("z",)}
    simulated = DataConfig.model_validate(run.data.simulated.model_dump() | own)
    data = run.data.model_copy(update={"simulated": simulated, "cached_shots": 0, "cut_rounds": ()})
    run = StudentRun.model_validate(run.model_dump() | {"data": data.model_dump(), "teacher": "teacher-d3"})
    hashes = student_hashes(run, teacher_named("teacher-d3"))
    written = {"format": 1, "config": run.model_dump(mode="json"), "hashes": hashes}
    run_json.write_text(json.dumps(written))
    assert chosen_run(StudentRun, str(run_json), []) == run
    run_json.write_text(json.dumps(written | {"hashes": hashes | {"files": "0" * 64}}))  # of other noise
    with pytest.raises(SyndistillError, match="was made with another files"):
        chosen_run(StudentRun, str(run_json), [])
    assert chosen_run(StudentRun, str(run_json), ['data.simulated.bases=["z"]']) == run  # its data are the user's now


def test_a_run_json_needs_the_teacher_that_it_was_made_with(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "teacher.safetensors"
    network = build("teacher-tiny", 3)
    save_network(path, network, {})
    run = recipe("baseline-tiny").model_copy(update={"teacher": str(path)})
    content = {"format": 1, "config": run.model_dump(mode="json"), "hashes": {"teacher": weights_hash(network)}}
    run_json = tmp_path / "run.json"
    run_json.write_text(json.dumps(content))
    assert chosen_run(StudentRun, str(run_json), []) == run
    other = tmp_path / "other.safetensors"
    save_network(other, build("teacher-tiny", 3), {})
    with pytest.raises(SyndistillError, match="another teacher"):
        chosen_run(StudentRun, str(run_json), [f"teacher={other}"])
    both = {"teacher": f"{path},{other}"}
    keys = [({"teacher_precision": "bf16"}, weights_hash(network) + BF16), (both, teacher_named(both["teacher"]).key())]
    for changes, key in keys:
        run_json.write_text(json.dumps(content | {"config": content["config"] | changes, "hashes": {"teacher": key}}))
        assert chosen_run(StudentRun, str(run_json), []) == run.model_copy(update=changes)
    with pytest.raises(SyndistillError, match="another teacher"):
        chosen_run(StudentRun, str(run_json), [f"teacher={other},{path}"])
    run_json.write_text(json.dumps(content | {"config": content["config"] | {"kind": "stage9"}}))
    with pytest.raises(SyndistillError, match="stage9"):
        chosen_run(StudentRun, str(run_json), [])
