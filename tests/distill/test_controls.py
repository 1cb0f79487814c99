"""What an ablation controls with: smoothed labels, targets without knowledge, z_fuse from fresh weights."""

import pytest
import torch

from syndistill.distill.cache.source import CachedSource, cache_key, fill_cache
from syndistill.distill.fuse import FuseRun, train_fusion
from syndistill.distill.objective import Lessons, StudentObjective
from syndistill.distill.signals.features import FeatureTarget, TargetSpec, measure_targets
from syndistill.distill.signals.fusion import FusedTarget, FusionConfig, load_fusion
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.training.changes import validated
from syndistill.training.objective import coin_loss, label_loss

FEATURE = {"weight": 1.0, "components": 4}


@pytest.mark.parametrize(("channels", "observables"), [(1, 1), (2, 2), (4, 2)])
def test_a_smoothed_label_is_a_mixture_with_a_coin(channels, observables):
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 3, channels)
    patterns = [torch.tensor(bits) for bits in ([[0], [1]] if observables == 1 else [[0, 0], [0, 1], [1, 0], [1, 1]])]
    each = [label_loss(logits, bits.expand(3, 2, 3, observables)) for bits in patterns]
    torch.testing.assert_close(coin_loss(logits), torch.stack(each).mean(0))


def test_smoothing_0_changes_no_bit_and_some_changes_the_loss(small, taught):
    batch, network = taught(), small()
    loss = {s: StudentObjective(Terms(labels={"smoothing": s}, final={"weight": 0.0}), None)(network, batch)[0]
            for s in (0.0, 0.1)}  # fmt: skip
    plain = label_loss(network(batch.shots).logits_BKLC, batch.shots.labels_BKLO)[:, -1, 0].mean()
    assert torch.equal(loss[0.0], plain)
    assert loss[0.1] > loss[0.0]
    with pytest.raises(ValueError, match="less than 1"):
        Terms(labels={"smoothing": 1.0})


def lesson(teacher, batch, placebo):
    terms = Terms(temporal=FEATURE | {"placebo": placebo})
    specs = {"temporal": TargetSpec(terms.teacher_signal("temporal"), 4, 2)}
    statistics = measure_targets(teacher, [batch.shots], specs)
    return Lessons(terms, teacher, [FeatureTarget("temporal", statistics["temporal"])]).of(batch).targets["temporal"]


def test_placebo_targets_are_those_of_the_next_shot_or_of_an_untrained_teacher(teacher, taught):
    batch = taught()
    real, shuffled, random = (lesson(teacher, batch, placebo) for placebo in ("none", "shuffled", "random"))
    assert torch.equal(shuffled, real.roll(1, 0))
    assert real.shape == random.shape
    assert (real - random).abs().mean() > 0.1
    assert torch.equal(random, lesson(FrozenTeacher(teacher.network), batch, "random"))  # the same at every call


def test_the_untrained_teacher_is_offered_what_the_trained_one_is(teacher, taught):
    assert teacher.offers_signal("untrained.temporal")
    assert not teacher.offers_signal("untrained.memory")
    answer = teacher.answer(taught().shots, {"temporal", "untrained.temporal"})
    assert set(answer.signals) == {"temporal", "untrained.temporal"}
    assert torch.equal(answer.logits_BKLC, teacher.answer(taught().shots).logits_BKLC)


def test_one_pass_fills_a_cache_with_several_signals_of_one_name(tmp_path, stage1_run):
    run = stage1_run(terms=Terms(temporal=FEATURE))
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    files, asked = [], []
    for paths in (("readout",), ("state", "readout")):
        config = FuseRun(teacher=run.teacher, data=run.data.simulated, fusion=FusionConfig(paths=paths, mode="nll"),
                         fit_shots=256, report_shots=256, training=run.training)  # fmt: skip
        files.append(train_fusion(config, tmp_path / paths[0], teacher=teacher))
    terms = [run.terms, Terms(temporal=FEATURE | {"placebo": "random"})]
    real = teacher.answer
    teacher.answer = lambda shots, want=(): (asked.append(len(shots)), real(shots, want))[1]
    fill_cache(run.data, teacher, tmp_path / "cache", terms, files)
    once = sum(asked)
    assert once <= run.data.cached_shots + 4 * 512 * 2  # and the statistics
    held = {path.parent.name.split("-")[0] for path in tmp_path.glob("cache/signals/*/manifest.json")}
    assert held == {"temporal", "fused"}
    assert len(list(tmp_path.glob("cache/signals/*/manifest.json"))) == 4
    key = cache_key(run.data, teacher)
    for path in files:
        fusion = load_fusion(path, teacher)[0]
        signal = FusedTarget(fusion, teacher.key())
        batch = CachedSource(tmp_path / "cache", key, 32, 1, signals=[signal]).chunk(0)[0]
        live = fusion(batch.shots, real(batch.shots, fusion.wants))
        torch.testing.assert_close(batch.kept["fused"].float(), live, atol=0.01, rtol=0.01)


def test_z_fuse_of_one_path_is_the_teachers_logit_and_its_temperature(tmp_path, stage1_run):
    run = stage1_run()
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    for mode in ("mean", "nll"):
        fusion = FusionConfig(paths=("readout",), mode=mode)
        config = FuseRun(teacher=run.teacher, data=run.data.simulated, fusion=fusion, fit_shots=512, report_shots=256,
                         training=run.training)  # fmt: skip
        fusion = load_fusion(train_fusion(config, tmp_path / mode, teacher=teacher), teacher)[0]
        assert not fusion.probes
        assert (float(fusion.weights_P) == 1.0) == (mode == "mean")


def test_a_student_of_z_fuse_starts_fresh(tmp_path, stage1_run):
    run = stage1_run()
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    sizes = {"fit_shots": 256, "report_shots": 256}
    config = FuseRun(teacher=run.teacher, data=run.data.simulated, training=run.training, **sizes)
    fusion = train_fusion(config, tmp_path / "fuse", teacher=teacher)
    content = run.model_dump(mode="json") | {
        "terms": Terms(final={"weight": 0.0}, fused={"weight": 1.0}).model_dump(mode="json"),
        "fusion": str(fusion),
    }  # fmt: skip
    fused = validated(StudentRun, content, "this run")
    path = train_student(fused, tmp_path / "run", teacher=teacher)
    assert weights_hash(load_network(path)[0]) != weights_hash(load_network(run.teacher)[0])
    assert fused.kind == "fused"
    with pytest.raises(SyndistillError, match="no Student after its baseline or stage 1"):
        train_student(validated(StudentRun, content | {"start_from": str(path)}, "this run"), tmp_path / "no")
    with pytest.raises(SyndistillError, match="belong together"):
        validated(StudentRun, content | {"terms": Terms().model_dump(mode="json")}, "this run")
