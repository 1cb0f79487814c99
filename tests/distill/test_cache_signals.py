"""Features and z_fuse in the cache: as the live Teacher's, whole or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from syndistill.distill.cache import store
from syndistill.distill.cache.source import CachedSource
from syndistill.distill.cache.store import CacheKey, add_signals, announce, folder_of, write_cache
from syndistill.distill.objective import Lessons
from syndistill.distill.signals.features import FeatureTarget, TargetSpec, measure_targets
from syndistill.distill.signals.fusion import FusedTarget, Fusion, FusionConfig
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots, cut, draw_ends
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.safe_files import unsealed
from syndistill.sampling.stream import SimulatedSource
from syndistill.training.config import Curriculum, RoundsPhase

from ..reporting import Heard, Stopping

BATCH, CHUNKS = 16, 2
TERMS = Terms(
    spatial={"weight": 1.0, "components": 4},
    temporal={"weight": 1.0, "components": 3, "every_rounds": 2},
    fused={"weight": 1.0},
)


def source(bases):
    curriculum = Curriculum(p_min=0.004, p_max=0.01, rounds=(RoundsPhase(from_shots=0, rounds=(3,)),))
    return SimulatedSource(3, "si1000", bases, curriculum, BATCH, seed=5, batches_per_chunk=4)


class Setting:
    """A Teacher, its statistics and fusion, and the signals that a cache keeps of them."""

    def __init__(self, path, output="two_channel"):
        self.teacher = FrozenTeacher(load_network(path)[0])
        self.bases = ("both",) if output == "joint4" else ("x", "z")
        specs = {"spatial": TargetSpec("spatial", 4, 1), "temporal": TargetSpec("temporal", 3, 2)}
        self.statistics = measure_targets(self.teacher, source(self.bases).chunk(9), specs)
        torch.manual_seed(3)
        self.fusion = Fusion(FusionConfig(), self.teacher.layout, output, {"transformer": 8, "state": 8})
        self.features = [FeatureTarget(name, s) for name, s in self.statistics.items()]
        self.signals = [*self.features, FusedTarget(self.fusion, self.teacher.key())]
        self.key = CacheKey(teacher=self.teacher.key(), shots={"seed": 5}, circuits="c")

    def write(self, folder, signals=()):
        write_cache(folder, self.key, self.teacher, source(self.bases), CHUNKS, signals=signals)
        return folder

    def read(self, folder, **options):
        return CachedSource(folder, self.key, BATCH, 1, signals=self.signals, **options)


@pytest.fixture
def setting(teacher_file):
    return Setting(teacher_file())


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
@pytest.mark.parametrize("at_once", [True, False])
def test_cached_lessons_are_the_live_ones(tmp_path, teacher_file, output, at_once):
    """Features within half a step of their int8 codes, logits within float16; cut to fewer rounds or not."""
    setting = Setting(teacher_file(output), output)
    folder = setting.write(tmp_path / "cache", setting.signals if at_once else ())
    add_signals(folder, setting.teacher, setting.signals)
    lessons = Lessons(TERMS, setting.teacher, setting.signals)
    for options in ({}, {"cut_rounds": (1, 2, 3), "every_end": True}, {"cut_rounds": (2,)}):
        for taught in setting.read(folder, **options).chunk(0)[:6]:
            cached, live = lessons.of(taught), lessons.of(TaughtShots(taught.shots, None))
            torch.testing.assert_close(cached.teacher_BKLC, live.teacher_BKLC, rtol=2**-11, atol=1e-5)
            torch.testing.assert_close(cached.targets["fused"], live.targets["fused"], rtol=2**-11, atol=1e-5)
            for name, statistics in setting.statistics.items():
                assert cached.targets[name].shape == live.targets[name].shape
                gap_P = (cached.targets[name] - live.targets[name]).abs().flatten(0, -2).amax(0)
                assert (gap_P <= statistics.step_P * 0.5001 + 1e-5).all()
    assert {t.number for t in setting.read(folder).chunk(1)} == set(range(16, 32))


def test_the_manifest_says_shapes_and_statistics(tmp_path, setting):
    folder = setting.write(tmp_path / "cache", setting.signals)
    add_signals(folder, setting.teacher, setting.signals)
    said = {m["signal"]: m for m in (json.loads(p.read_text()) for p in (folder / "signals").glob("*/manifest.json"))}
    assert said["spatial"]["shape"] == [8, 4]
    assert (said["temporal"]["every_rounds"], said["temporal"]["dtype"]) == (2, "int8")
    assert said["spatial"]["content"] == setting.statistics["spatial"].sha256
    assert 0 < said["spatial"]["variance_held"] <= 1
    assert said["fused"]["shape"] == [3, 1]


def test_the_teacher_is_asked_once_for_all_and_only_for_what_is_lacking(tmp_path, setting, monkeypatch):
    asked = []
    answer = setting.teacher.answer

    def noted(shots, want=()):
        asked.append(set(want))
        return answer(shots, want)

    monkeypatch.setattr(setting.teacher, "answer", noted)
    folder = setting.write(tmp_path / "cache", setting.features)
    assert all(want == {"spatial", "temporal"} for want in asked)
    once = len(asked)
    add_signals(folder, setting.teacher, setting.features)  # everything is there: manifests only
    assert len(asked) == once
    add_signals(folder, setting.teacher, setting.signals)
    assert asked[once:] == [setting.fusion.wants] * once
    add_signals(folder, setting.teacher, setting.signals)
    assert len(asked) == 2 * once


def test_a_killed_addition_goes_on(tmp_path, setting):
    class Killed(Exception):
        pass

    folder = setting.write(tmp_path / "cache")
    with pytest.raises(Killed):
        add_signals(folder, setting.teacher, setting.signals, Stopping("Teacher's answers", 2, Killed))
    with pytest.raises(SyndistillError, match="holds no spatial of this run's Teacher and settings"):
        setting.read(folder)
    add_signals(folder, setting.teacher, setting.signals)
    whole = setting.write(tmp_path / "whole", setting.signals)
    add_signals(whole, setting.teacher, setting.signals)
    for a, b in zip(setting.read(folder).chunk(0), setting.read(whole).chunk(0), strict=True):
        assert all(torch.equal(a.kept[name], b.kept[name]) for name in ("spatial", "temporal", "fused"))


def test_whatever_does_not_fit_is_refused(tmp_path, setting, teacher_file):
    folder = setting.write(tmp_path / "cache", setting.signals)
    add_signals(folder, setting.teacher, setting.signals)
    other = Setting(teacher_file(seed=8))
    with pytest.raises(SyndistillError, match="another teacher"):
        CachedSource(folder, other.key, BATCH, 1, signals=other.signals)
    with pytest.raises(SyndistillError, match=r"holds no spatial of .*; it holds fused-.*, spatial-.*, temporal-"):
        CachedSource(folder, setting.key, BATCH, 1, signals=other.signals)
    own = folder_of(folder, setting.features[0])
    part = sorted(own.glob("shard-*"))[0]
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SyndistillError, match="missing or damaged"):
        setting.read(folder)
    part.write_bytes(whole)
    shutil.copy(folder_of(folder, setting.features[1]) / "statistics.safetensors", own / "statistics.safetensors")
    with pytest.raises(SyndistillError, match="is not what the codes were made with"):
        setting.read(folder)
    manifest = own / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"content": "0" * 64}))
    with pytest.raises(SyndistillError, match="not what its sha256 says"):
        setting.read(folder)
    manifest.write_text(json.dumps(unsealed(content) | {"content": "0" * 64}))
    with pytest.raises(SyndistillError, match="another content"):
        setting.read(folder)
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(SyndistillError, match="damaged"):
        setting.read(folder)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(tmp_path, setting, monkeypatch):
    real, calls = Path.write_bytes, []

    def full(path, content):
        calls.append(path)
        if len(calls) > 4:
            real(path, b"half")
            raise OSError(28, "No space left on device")
        real(path, content)

    folder = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(SyndistillError, match=r"cannot write .*No space left on device") as caught:
            setting.write(folder, setting.signals)
    assert "\n" not in str(caught.value)
    left = {p.name for p in folder.rglob("*") if p.is_file()}
    assert not any(name.startswith(".") for name in left)  # no half-written file
    with pytest.raises(SyndistillError, match="no finished cache"):
        setting.read(folder)
    setting.write(folder, setting.signals)  # with room again it goes on
    add_signals(folder, setting.teacher, setting.signals)
    setting.read(folder)


def test_size_is_announced_and_bounded(tmp_path, setting, monkeypatch):
    folder = setting.write(tmp_path / "cache")
    n_shots = sum(shard["shots"] for shard in json.loads((folder / "manifest.json").read_text())["shards"])
    layout = setting.teacher.layout
    add_signals(folder, setting.teacher, setting.signals)
    for signal in setting.signals:
        codes = sum(p.stat().st_size for p in folder_of(folder, signal).glob("shard-*"))
        assert codes == pytest.approx(n_shots * signal.bytes_per_shot(3, layout, 1), abs=4 * 400)  # and 4 headers
    said = announce(1_000_000, 9, layout, 1, tmp_path / "new", setting.features)
    assert said.startswith("cache of about 1,000,000 shots: ")
    assert "spatial 288" in said  # 9 rounds x 8 stabilisers x 4 components
    assert "temporal 120" in said  # 5 x 8 x 3
    with pytest.raises(SyndistillError, match="GB free"):
        announce(10**12, 9, layout, 1, tmp_path / "new", setting.features)
    monkeypatch.setattr(store, "_available_memory", lambda: 10**8)
    with pytest.raises(SyndistillError, match="of memory when read"):
        announce(1_000_000, 9, layout, 1, tmp_path / "new", setting.features)


def test_runs_share_a_cache_that_grows(tmp_path, stage1_run):
    heard = Heard()
    one = stage1_run(terms=Terms(temporal={"weight": 1.0, "components": 4}))
    train_student(one, tmp_path / "one", tmp_path / "cache", reporter=heard)
    before = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    train_student(stage1_run(), tmp_path / "two", tmp_path / "cache", reporter=heard)
    assert all(p.read_bytes() == content for p, content in before.items())
    assert len(list((tmp_path / "cache" / "signals").iterdir())) == 2
    train_student(stage1_run(), tmp_path / "three", tmp_path / "cache", reporter=heard)
    assert len(heard.said) == 2
    assert "spatial" not in heard.said[0]


def test_a_cut_keeps_the_ends_before_where_asked(taught, teacher):
    batch = taught(rounds=4)
    full = TaughtShots(batch.shots, teacher.logits(batch.shots))
    short = cut(full, 2, every_end=True)
    assert short.shots.ends == (1, 2)
    assert torch.equal(short.teacher_BKLC, full.teacher_BKLC[:, :2])
    assert torch.equal(short.shots.labels_BKLO, batch.shots.labels_BKLO[:, :2])


def test_ends_are_drawn_and_the_last_is_kept(taught, teacher):
    batch = taught(rounds=5)
    full = TaughtShots(batch.shots, teacher.logits(batch.shots), {"fused": torch.randn(32, 5, 3, 1)})
    seen = set()
    for number in range(40):
        drawn = draw_ends(replace(full, number=number), 2, seed=1)
        assert drawn.shots.ends[-1] == 5
        assert len(drawn.shots.ends) == 2
        kept = [end - 1 for end in drawn.shots.ends]
        assert torch.equal(drawn.teacher_BKLC, full.teacher_BKLC[:, kept])
        assert torch.equal(drawn.kept["fused"], full.kept["fused"][:, kept])
        assert torch.equal(drawn.shots.labels_BKLO, batch.shots.labels_BKLO[:, kept])
        torch.testing.assert_close(teacher.logits(drawn.shots), drawn.teacher_BKLC, rtol=1e-4, atol=1e-5)
        seen |= set(drawn.shots.ends)
    assert seen == {1, 2, 3, 4, 5}
    again = draw_ends(replace(full, number=7), 2, seed=1).shots.ends
    assert again == draw_ends(replace(full, number=7), 2, seed=1).shots.ends
    assert draw_ends(full, 5, seed=1) is full
