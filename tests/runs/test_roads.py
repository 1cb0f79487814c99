"""Roads and their stages on the command line."""

import json
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from syndistill.cli.main import run_app
from syndistill.distill.road import STAGES
from syndistill.evaluation.gate import judge_teacher
from syndistill.models.networks import build, load_network, save_network, weights_hash
from syndistill.recipes import recipe
from syndistill.runs import console, gated
from syndistill.runs.choose import chosen_distillation

from ..command_line import refused, run, snapshot
from ..reporting import Stopping

DOCUMENT = Path(__file__).parents[2] / "docs" / "distil.md"
TINY_TRAINING = {"steps": 3, "batch_size": 32, "threads": 1, "log_every": 1}
CONTROL = ["--set", f"no_kd={json.dumps(TINY_TRAINING)}"]
GO = ("--accept-any-teacher",)


@pytest.fixture(scope="module", autouse=True)
def in_seconds():
    """A gate of 200 shots, statistics of 256."""
    judge = lambda network, **options: judge_teacher(network, **options | {"shots": 200})  # noqa: E731
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gated, "judge_teacher", judge)
        patched.setattr("syndistill.training.source.STATISTICS_SHOTS", 256)
        patched.setattr("syndistill.training.source.STATISTICS_RATES", 1)
        yield


@pytest.fixture(scope="module")
def sets(teacher_path):
    """--set arguments that make road-tiny a matter of seconds, without its control."""
    changes = {"teacher": teacher_path, "data.cached_shots": 4096, "fuse.fit_shots": 256, "fuse.report_shots": 256}
    for stage in ("baseline", "stage1", "fuse", "stage2"):
        changes |= {f"{stage}.training.{key}": n for key, n in TINY_TRAINING.items()}
    changes["no_kd"] = "null"
    for term in ("stage1.spatial", "stage1.temporal"):
        changes[f"{term}.components"] = 4
    return [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def walked(tmp_path_factory, sets):
    """The folder of a whole road, walked once; whoever changes it puts it right again."""
    folder = tmp_path_factory.mktemp("walked") / "road"
    assert run_app([str(a) for a in ("distill", "road-tiny", *sets, *GO, "--out", folder)]) == 0
    return folder


def hash_of(folder):
    return weights_hash(load_network(folder / "student.safetensors")[0])


def test_a_road_is_gated_walked_and_repeated_by_its_run_json(capsys, tmp_path, sets):
    first = tmp_path / "first"
    command = ["distill", "road-tiny", *sets, *CONTROL, "--out", first]
    code, out, err = run(capsys, *command)
    assert (code, out) == (2, "")
    assert "error: the gate refuses the Teacher" in err
    assert sorted(p.name for p in first.iterdir() if p.name != ".lock") == ["gate.json", "run.json"]
    code, out, _ = run(capsys, *command, *GO)
    assert (code, out) == (0, f"{first / 'road.json'}\n")
    listed = json.loads((first / "road.json").read_text())
    assert tuple(listed["stages"]) == STAGES
    assert all(Path(path).is_file() for path in [*listed["stages"].values(), listed["fuse_report"]])
    assert "finished run" in refused(capsys, *command, *GO)
    second = tmp_path / "second"
    assert run(capsys, "distill", first / "run.json", *GO, "--out", second)[0] == 0
    for stage in ("no_kd", "baseline", "stage1", "stage2"):
        assert hash_of(second / stage) == hash_of(first / stage)
    assert hash_of(first / "stage1") != hash_of(first / "stage2")


def test_an_interrupted_road_goes_on_to_the_same_weights(capsys, tmp_path, sets, walked, monkeypatch):
    command = ["distill", "road-tiny", *sets, *GO, "--out", tmp_path / "cut"]
    with monkeypatch.context() as patched:
        patched.setattr(console, "terminal_reporter", lambda: nullcontext(Stopping("stage1", 2)))
        code, _, err = run(capsys, *command)
    assert code == 130
    assert f"the same command goes on from what {tmp_path / 'cut'} holds" in err
    assert not (tmp_path / "cut/stage1/student.safetensors").exists()
    assert run(capsys, *command)[0] == 0
    assert hash_of(tmp_path / "cut/stage2") == hash_of(walked / "stage2")


def test_a_stage_alone_ends_as_on_the_road_and_shares_its_cache(capsys, tmp_path, sets, walked):
    answers = snapshot(walked / "cache")
    road = ["distill", "road-tiny", *sets, *GO]
    for stage in ("baseline", "stage1", "stage2"):
        code, out, err = run(capsys, *road, "--stage", stage, "--from", walked, "--out", tmp_path / stage)
        assert (code, out) == (0, f"{tmp_path / stage / 'student.safetensors'}\n"), err
        assert hash_of(tmp_path / stage) == hash_of(walked / stage)
        assert not (tmp_path / stage / "cache").exists()
    assert run(capsys, *road, "--stage", "fuse", "--out", tmp_path / "fuse")[0] == 0
    reports = [json.loads((folder / "fuse/fuse_report.json").read_text()) for folder in (tmp_path, walked)]
    assert reports[0] == reports[1]
    assert run(capsys, "distill", walked / "fuse/run.json", *GO, "--out", tmp_path / "again")[0] == 0
    assert snapshot(walked / "cache") == answers
    changed = [*road, "--set", "stage2.start=baseline", "--set", "stage2.fused.temperature=2", "--stage", "stage2"]
    assert run(capsys, *changed, "--from", walked, "--out", tmp_path / "warm")[0] == 0
    content = json.loads((tmp_path / "warm/run.json").read_text())["config"]
    assert content["start_from"] == str(walked / "baseline/student.safetensors")
    assert content["terms"]["fused"]["temperature"] == 2
    assert hash_of(tmp_path / "warm") != hash_of(walked / "stage2")


def test_one_key_switches_a_signal_off(capsys, tmp_path, sets, walked):
    off = ["--set", "stage1.spatial.weight=0"]
    assert run(capsys, "distill", "road-tiny", *sets, *off, *GO, "--out", tmp_path / "off")[0] == 0
    logs = [folder / "stage1/metrics.jsonl" for folder in (walked, tmp_path / "off")]
    with_spatial, without = (json.loads(log.read_text().splitlines()[0]) for log in logs)  # features fade
    assert with_spatial.keys() - without.keys() == {"spatial", "share.spatial"}
    assert [path.name for path in (tmp_path / "off/cache/signals").glob("spatial-*")] == []
    assert hash_of(tmp_path / "off/baseline") == hash_of(walked / "baseline")
    assert hash_of(tmp_path / "off/stage1") != hash_of(walked / "stage1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["road-tiny", "--set", "stage1.spatial.wait=0"], "did you mean 'weight'"),
        (["road-tiny", "--set", "baseline.readout.weight=1"], "baseline: a baseline learns from labels and final"),
        (["road-tiny", "--set", "stage2.start=fuse"], "stage2.start"),
        (["road-tiny", "--stage", "stage3"], "'stage3' is unknown"),
        (["road-tiny", "--stage", "stage2"], "name their road's folder, --from"),
        (["road-tiny", "--stage", "stage2", "--from", "nowhere"], "nowhere has no finished stage1"),
        (["road-tiny", "--stage", "fuse", "--from", "nowhere"], "leave --from out"),
        (["road-tiny", "--from", "nowhere"], "--from belongs to --stage"),
        (["baseline-tiny", "--stage", "stage1"], "--stage is for a road"),
        (["road-tiny", "--set", "teacher=no.safetensors"], "there is no file"),
        (["road-tiny", "--set", "network.distance=5"], "the network is of distance 5, the shots are of 3"),
    ],
)
def test_wrong_roads_write_nothing(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "distill", *arguments, "--out", "new")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_belong_together_is_refused_and_nothing_written(capsys, tmp_path, sets, walked):
    before, out = snapshot(walked), tmp_path / "new"

    def refuse(said, *arguments):
        assert said in refused(capsys, "distill", "road-tiny", *sets, *GO, *arguments, "--out", out)
        assert not out.exists()
        assert snapshot(walked) == before

    stage2 = ["--stage", "stage2", "--from", walked]
    refuse("another configuration than this run's", *stage2, "--set", "network.width=9")
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_network(other, build("teacher-tiny", 3), {})
    refuse("fused from another Teacher", *stage2, "--set", f"teacher={other}")
    refuse("made from another teacher", "--cache", walked / "cache", "--set", f"teacher={other}")
    refuse("made from another shots", "--cache", walked / "cache", "--set", "data.cache_seed=5")
    refuse("made from another shots", "--stage", "baseline", "--from", walked, "--set", "data.cache_seed=5")
    flat = tmp_path / "flat.safetensors"
    save_network(flat, build("flat-gru-5k", 3), {})
    refuse("stage1 needs the signal spatial", "--set", f"teacher={flat}")
    shard = next((walked / "cache").glob("shard-*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    before = snapshot(walked)
    alone = ["--stage", "baseline", "--from", walked]
    code, _, err = run(capsys, "distill", "road-tiny", *sets, *GO, *alone, "--out", out)
    assert code == 2
    assert "is missing or damaged" in err
    assert snapshot(walked) == before
    shard.write_bytes(whole)


def document_commands():
    """The arguments of each `syndistill distill` in the document's sh blocks."""
    blocks = DOCUMENT.read_text(encoding="utf-8").split("```sh\n")[1:]
    lines = "".join(block.split("```")[0] for block in blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("syndistill distill ")]


def test_the_settings_in_the_document_exist():
    commands = document_commands()
    assert len(commands) >= 4
    for name, *options in commands:
        changes = [options[i + 1] for i, option in enumerate(options) if option == "--set"]
        chosen = chosen_distillation("road-d3" if name.endswith(".json") else name, changes)
        assert (chosen != recipe("road-d3")) == bool(changes)
    assert any("stage1.spatial.weight=0" in options for _, *options in commands)


def test_the_commands_in_the_document_parse(capsys):
    for arguments in document_commands():
        code, out, err = run(capsys, "distill", *arguments, "--help")
        assert (code, err) == (0, ""), arguments
        assert "Usage: " in out
