"""Every setting of every kind of run, with values that nobody can mean: refused in one line that names the key."""

import json

import pytest

from syndistill.ablation.plan import Plan, plan_from
from syndistill.ablation.plans import chosen_plan
from syndistill.distill.cache.source import Unsure
from syndistill.distill.fuse import FuseRun
from syndistill.distill.road import RoadRun
from syndistill.distill.student import StudentRun
from syndistill.errors import SyndistillError
from syndistill.models.networks import build, save_network
from syndistill.recipes import recipe
from syndistill.training.changes import changed, validated, with_change
from syndistill.training.run import TeacherRun

from ..command_line import refused


def unsure_student():
    run = recipe("student-d5").legs["taught"]
    unsure = Unsure(network="student-d5")
    return run.model_copy(update={"data": run.data.model_copy(update={"unsure": unsure}), "start_from": "student-d5"})


def own_teacher():
    run = recipe("teacher-tiny")
    curriculum = run.data.curriculum.model_copy(update={"p_min": 0.8, "p_max": 1.25})
    own = {"noise": "files", "files": ("a.stim",), "bases": ("x",), "curriculum": curriculum}
    return run.model_copy(update={"data": run.data.model_copy(update=own)})


RUNS = {
    "teacher": (TeacherRun, recipe("teacher-d5")),
    "own files": (TeacherRun, own_teacher()),
    "student": (StudentRun, unsure_student()),
    "joint student": (StudentRun, recipe("student-d3-joint")),
    "student of long experiments": (StudentRun, recipe("student-d3-frame").legs["first"]),
    "fuse": (FuseRun, recipe("road-d3").fuse_run()),
    "road": (RoadRun, recipe("road-d3")),
    "ablation": (Plan, chosen_plan("ablation-d3", [])),
}
NEVER = (float("nan"), float("inf"), -float("inf"), 10**30, -(10**30), "x y", [None], {"a": 1})
"""For no number."""
NEGATIVE_IS_FINE = {"tilt", "center", "primary", "others", "weights"}
ZERO_IS_FINE = NEGATIVE_IS_FINE | {
    "from_shots", "noise_weight", "weight_decay", "start_decay", "warmup_steps", "decay_steps", "betas", "ema_decay",
    "seed", "seeds", "threads", "checkpoint_minutes", "ends", "end_spacing", "gradient_rounds", "next_event_weight",
    "weight", "smoothing", "components", "fade_steps", "fade", "layer", "student_layer", "cached_shots", "cache_seed",
    "others", "seed_shift", "delay", "most_rounds", "agree_after", "embedder_layers", "bias_layers", "readout_layers",
}  # fmt: skip
BELOW_ONE = {"betas", "ema_decay", "smoothing", "margin"}
"""Shares: 1 is too much."""
FREE_TEXT = {"withdrawn", "teacher", "start_from", "fusion", "files", "network", "title", "text", "says"}
EMPTY_IS_FINE = {
    "rates", "fall_steps", "doubling_steps", "corrections", "cut_rounds", "weights", "arms", "seeds", "others",
    "change", "questions", "files",
}  # fmt: skip
HOW_THE_PLAN_HANGS_TOGETHER = {"name", "title", "text", "says", "change", "saving", "primary", "others", "differs_from"}


def bad_values(key, value):
    if isinstance(value, bool):
        return ["maybe", 7, None, -1, 0.5]
    if isinstance(value, int | float):
        found = [*NEVER, None]
        found += [-1] * (key not in NEGATIVE_IS_FINE) + [0] * (key not in ZERO_IS_FINE)
        found += [0.5] * isinstance(value, int) * (key not in ("center",)) + [1, 2] * (key in BELOW_ONE)
        return found if key != "share" else [v for v in found if v is not None]
    if isinstance(value, str):
        may_be_empty = key in ("title", "text", "says", "withdrawn")
        return [3, None, ["x"]] + ["nonsense"] * (key not in FREE_TEXT) + [""] * (not may_be_empty)
    if value is None:
        return [-1, float("nan"), 10**30, [3], ""]
    if isinstance(value, list):
        return [None, 3, "nonsense", {}] + [[]] * (key not in EMPTY_IS_FINE)
    return [None, 3, "nonsense", []]


MAY_BE_NONE = ("start_from", "fusion", "no_kd", "unsure", "part_rounds", "informative", "student")


def variations(key, value):
    """(last key, bad value in its place): of a value and of everything in it, one at a time."""
    for bad in bad_values(key, value):
        if bad is not None or key not in MAY_BE_NONE:
            yield key, bad
    if isinstance(value, dict):
        for inner in value:
            if inner in HOW_THE_PLAN_HANGS_TOGETHER or inner == "kind":
                continue
            for last, bad in variations(inner, value[inner]):
                yield last, value | {inner: bad}
        yield "unknown_key", value | {"unknown_key": 1}
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            for last, bad in variations(key, value[i]):
                yield last, [*value[:i], bad, *value[i + 1 :]]


@pytest.mark.parametrize("kind", RUNS)
def test_every_setting(kind):
    model, run = RUNS[kind]
    content = run.model_dump(mode="json")
    assert validated(model, content, "t") == run
    tried, passed, unnamed = 0, [], []
    for top in content:
        if top in HOW_THE_PLAN_HANGS_TOGETHER or top == "kind":
            continue
        for last, bad in variations(top, content[top]):
            tried += 1
            try:
                validated(model, content | {top: bad}, "t")
            except SyndistillError as error:
                message = str(error)
                if "\n" in message or not (last in message or top in message):
                    unnamed.append((top, last, message))
            else:
                passed.append((top, last, bad))
    assert [(top, last) for top, last, _ in passed] == []
    assert unnamed == []
    assert tried > 200


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("teacher-tiny", {"data.distance": 5}, "the network is of distance 3, the shots are of 5"),
    ("baseline-tiny", {"data.simulated.distance": 5}, "the network is of distance 3, the shots are of 5"),
    ("road-tiny", {"data.simulated.distance": 5}, "the network is of distance 3, the shots are of 5"),
    ("teacher-tiny", {"data.distance": 4}, "data.distance: a distance is odd"),
    ("teacher-tiny", {"data.noise": "pink"}, "data.noise: noise 'pink' is unknown; pick one of si1000"),
    ("teacher-tiny", {"data.bases": ["x", "x"]}, "a basis comes twice"),
    ("teacher-tiny", {"network.output": "joint4"}, "a network of output joint4 learns from bases"),
    ("teacher-d3", {"network.distance": 5, "data.distance": 5}, "labels=exact are for distance 3"),
    ("teacher-d5", {"data.bases": ["both"]}, "labels=revealed are for"),
    ("teacher-tiny", {"data.curriculum.p_min": 0.01}, "p_min=0.01 is above p_max"),
    ("teacher-tiny", {"data.curriculum.p_max": 1.0}, "p_max=1.0 is above 0.1"),
    ("teacher-tiny", {"data.noise": "files"}, "files and noise=files belong together"),
    ("teacher-tiny", {"data.files": ["a.stim"]}, "files and noise=files belong together"),
    ("own files", {"data.bases": ["both"]}, "own files are of bases x and z"),
    ("teacher-tiny", {"data.curriculum.rounds": [{"from_shots": 5, "rounds": [3]}]}, "begin at from_shots=0"),
    ("teacher-tiny", {"data.curriculum.rounds": [{"from_shots": 0, "rounds": [3]}] * 2}, "no two at the same"),
    ("teacher-tiny", {"data.curriculum.rounds": [{"from_shots": 0, "rounds": [0]}]}, "rounds.0.rounds.0: Input"),
    ("teacher-tiny", {"data.curriculum.rounds": [{"from_shots": 0, "rounds": [2**63]}]}, "rounds.0.rounds.0: Input"),
    ("teacher-tiny", {"training.seed": 2**63}, "training.seed: Input should be less"),
    ("teacher-tiny", {"training.optimiser.name": "sgd"}, "training.optimiser.name: Input should be"),
    ("teacher-tiny", {"network.width": 20_000}, "width=20000 must be from 1 to 4096"),
    ("teacher-tiny", {"network.layers": 10**9}, "layers=1000000000 must be from 1 to 64"),
    ("teacher-tiny", {"network.distance": 10**6 + 1, "data.distance": 3}, "distance=1000001 must be from 3 to 31"),
])  # fmt: skip
def test_settings_that_do_not_fit_together(name, changes, said):
    run = RUNS[name][1] if name in RUNS else recipe(name)
    content = run.model_dump(mode="json")
    for key, value in changes.items():
        content = changed(content, key.split("."), value, "t")
    with pytest.raises(SyndistillError) as caught:
        validated(type(run), content, "t")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_read():
    content = recipe("teacher-tiny").model_dump(mode="json")
    for text in ("9" * 5000, "[" * 100_000, "1e400", "NaN"):
        with pytest.raises(SyndistillError, match=r"training\.steps"):
            validated(TeacherRun, with_change(content, f"training.steps={text}"), "t")
    with pytest.raises(SyndistillError, match="margin"):
        plan_from(chosen_plan("ablation-d3", []).model_dump(mode="json") | {"margin": float("nan")}, "t")


@pytest.fixture
def start(tmp_path):
    save_network(tmp_path / "start.safetensors", build("flat-gru-5k", 3), {})
    return tmp_path / "start.safetensors"


@pytest.mark.parametrize(("verb", "name", "change", "said"), [
    ("train", "teacher-tiny", "training.log_every=0", "training.log_every"),
    ("train", "teacher-tiny", "training.device=cuda:7", "device 'cuda:7' can't be used here"),
    ("train", "teacher-tiny", "training.device=meta", "training.device"),
    ("train", "teacher-tiny", "start_from=nowhere.safetensors", "there is no file nowhere.safetensors"),
    ("train", "teacher-tiny", "start_from=START", "another configuration"),
    ("train", "teacher-tiny", "start_from=" + "n" * 5000, "there is no file"),
    ("distill", "baseline-tiny", "training.device=cuda:7", "device 'cuda:7' can't be used here"),
    ("distill", "baseline-tiny", "teacher=nowhere.safetensors", "there is no file nowhere.safetensors"),
    ("distill", "baseline-tiny", "start_from=START", "no Student after its baseline"),
    ("distill", "baseline-tiny", "network.distance=5", "distance"),
    ("distill", "road-tiny", "fuse.training.device=cuda:7", "device 'cuda:7' can't be used here"),
    ("distill", "road-tiny", "stage1.training.optimiser.learning_rate=0", "learning_rate"),
    ("distill", "road-tiny", "stage2.fused.temperature=0", "temperature"),
])  # fmt: skip
def test_refused_runs_write_nothing(tmp_path, start, capsys, verb, name, change, said):
    more = [] if verb == "train" or "teacher=" in change else ["--set", "teacher=teacher-d3"]
    change = change.replace("START", str(start))
    assert said in refused(capsys, verb, name, "--out", tmp_path / "out", *more, "--set", change)
    assert not (tmp_path / "out").exists()


def test_the_published_runs_are_within_bounds():
    """run.json of every shipped network's last leg, as far as its file keeps one."""
    from syndistill.files.network_file import read_header, shipped_names

    found = 0
    for name in shipped_names():
        run = read_header(name).metadata.get("run")
        if isinstance(run, dict) and run.get("kind") in ("teacher", "baseline", "stage1", "stage2"):
            validated(TeacherRun if run["kind"] == "teacher" else StudentRun, json.loads(json.dumps(run)), name)
            found += 1
    assert found > 0
