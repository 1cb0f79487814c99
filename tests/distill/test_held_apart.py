"""What is measured, averaged, fitted and reported is what it says: each of these was once free to be another thing."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from syndistill.distill import fuse
from syndistill.distill.cache.source import LiveSource, fill_cache, simulated
from syndistill.distill.fuse import (
    PATIENCE,
    FuseRun,
    best_temperature,
    mean_interval,
    nll_B,
    stopped_improving,
    train_fusion,
)
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.objective import Lessons, StudentObjective
from syndistill.distill.signals.fusion import (
    FusedTarget,
    Fusion,
    FusionConfig,
    ProbeObjective,
    StateProbe,
    fit_weights,
    load_fusion,
    verdict_of,
)
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.stage import StageInputs, prepare_stage, stage_statistics
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.models.networks import fresh_network, load_network
from syndistill.models.tensors_file import load_tensors
from syndistill.training import source as training_source
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.source import statistics_shots

from ..reporting import Heard
from .test_terms import FEATURE, only, staged


def test_the_state_probe_reads_the_state_of_each_end_s_own_round(teacher, taught):
    torch.manual_seed(0)
    shots = taught("z", rounds=4).shots
    probe = StateProbe(shots.layout, 8, 8, 1, "two_channel")
    signal = torch.randn(len(shots), 4, 8, 8)
    with torch.no_grad():
        before = probe(shots, signal)
        for r in range(4):
            moved = signal.clone()
            moved[:, r] += 1
            changed_K = (probe(shots, moved) - before).abs().amax((0, 2, 3)) > 1e-6
            assert changed_K.tolist() == [k == r for k in range(4)]


def test_probes_learn_from_the_teacher_and_from_labels(teacher, taught):
    fusion = Fusion(FusionConfig(), teacher.layout, "two_channel", {"transformer": 8, "state": 8})
    shots = taught("z").shots
    loss, values = ProbeObjective(teacher)(fusion, shots)
    answer = teacher.answer(shots, fusion.wants)
    expected = torch.zeros(())
    for name, logits in fusion.probe_logits(shots, answer).items():
        labels = shots.labels_BKLO.float()
        nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        divergence = posterior_divergence(logits, answer.logits_BKLC).mean()
        assert float(nll.detach()) > 0.01 < float(divergence.detach())
        torch.testing.assert_close((values[f"{name}.nll"], values[f"{name}.kl"]), (nll.detach(), divergence.detach()))
        expected = expected + nll + divergence
    torch.testing.assert_close(loss, expected)
    weights = list(fusion.parameters())  # a value without its gradient teaches nothing
    found, wanted = (
        torch.autograd.grad(x, weights, allow_unused=True, materialize_grads=True) for x in (loss, expected)
    )
    torch.testing.assert_close(found, wanted)


@pytest.fixture(scope="module")
def fused(tmp_path_factory, teacher_file, stage1_run):
    """(run, its folder, Teacher) of a fuse stage."""
    folder = tmp_path_factory.mktemp("fuse")
    training = TrainingConfig(
        steps=12, batch_size=32, threads=1, seed=3, optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=2)
    )
    run = FuseRun(teacher=teacher_file(), data=stage1_run().data.simulated, fit_shots=1024, report_shots=1024,
                  check_shots=64, training=training)  # fmt: skip
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("syndistill.training.source.STATISTICS_RATES", 1)  # as in every test
        train_fusion(run, folder, teacher=teacher)
    return run, folder, teacher


def test_z_fuse_and_the_temperature_are_fitted_on_shots_of_their_own(fused):
    run, folder, teacher = fused
    fusion, _ = load_fusion(folder / "fusion.safetensors", teacher)
    report = json.loads((folder / "fuse_report.json").read_text())

    def measured(seed, shots):
        batches = statistics_shots(run.data, seed, shots, "probe")
        answers = [teacher.answer(b, fusion.wants) for b in batches]
        paths = torch.cat([fusion.path_logits(b, a) for b, a in zip(batches, answers, strict=True)], 1)
        return paths, torch.cat([a.logits_BKLC for a in answers]), torch.cat([b.labels_BKLO for b in batches])

    with torch.no_grad():
        fit, final, labels = measured(run.training.seed + 1, run.fit_shots)
        with torch.enable_grad():
            torch.testing.assert_close(fusion.weights_P, fit_weights(fit, labels))
        temperature = best_temperature(final[:, -1, 0], labels[:, -1, 0])
        assert report["calibration_temperature"] == pytest.approx(temperature, rel=1e-4)
        of_ends = best_temperature(final.flatten(0, 2), labels.flatten(0, 2))
        assert report["every_end_and_line"]["calibration_temperature"] == pytest.approx(of_ends, rel=1e-4)
        paths, final, labels = measured(run.training.seed + 2, run.report_shots)
        nll = nll_B(torch.tensordot(fusion.weights_P, paths, 1)[:, -1, 0], labels[:, -1, 0])
        assert report["paths"]["z_fuse"]["nll"]["value"] == pytest.approx(mean_interval(nll).value, rel=1e-5)
        fused, calibrated = (
            nll_B(logits.flatten(0, 2), labels.flatten(0, 2)).mean()
            for logits in (torch.tensordot(fusion.weights_P, paths, 1), final / of_ends)
        )
        said = report["every_end_and_line"]["nll_fused_minus_calibrated"]["value"]
        assert said == pytest.approx(float(fused - calibrated), rel=1e-3, abs=1e-7)
        assert temperature != pytest.approx(best_temperature(final[:, -1, 0], labels[:, -1, 0]), rel=1e-3)
        assert of_ends != pytest.approx(best_temperature(final.flatten(0, 2), labels.flatten(0, 2)), rel=1e-3)


def test_probes_are_the_averaged_ones(fused):
    _, folder, teacher = fused
    fusion, _ = load_fusion(folder / "fusion.safetensors", teacher)
    kept = load_tensors(folder / "state.safetensors")[0]
    of_probes = {n: x for n, x in fusion.state_dict().items() if n.startswith("probes.") and x.is_floating_point()}
    assert of_probes
    assert all(torch.equal(x, kept[f"ema.model.{n}"]) for n, x in of_probes.items())
    assert any(not torch.equal(x, kept[f"weights.model.{n}"]) for n, x in of_probes.items())


def test_probes_stop_when_they_improve_no_more_and_at_the_cap(fused, tmp_path, monkeypatch):
    falling = [{"step": i, "loss": 1 / (i + 1)} for i in range(12)]
    assert not stopped_improving(falling)
    still = [*falling[:4], *[{"step": i, "loss": 0.25} for i in range(PATIENCE)]]
    assert stopped_improving(still)
    assert not stopped_improving(still[:-1])
    run, folder, teacher = fused
    looks = json.loads((folder / "probes.json").read_text())["looks"]
    assert [look["step"] for look in looks] == list(range(1, len(looks) + 1))
    assert PATIENCE < len(looks) < 12
    monkeypatch.setattr("syndistill.distill.fuse._held_out_loss", lambda *_: 0.5)
    heard = Heard()
    train_fusion(run, tmp_path, heard, teacher)
    assert max(step for _, step, _ in heard.counted) == PATIENCE + 2  # a look more than that, and the rate's fall
    assert heard.totals == {"fuse": 12}
    assert not any(math.isnan(value) for _, _, latest in heard.counted for value in latest.values())
    assert not any("still improve" in line for line in heard.said)


def test_a_killed_fuse_stage_ends_in_the_same_bits(fused, tmp_path, monkeypatch):
    run, folder, teacher = fused
    real = Trainer.train_step

    def killed(self, shots):
        if self.step == 3:  # before the probes may have stopped improving
            raise KeyboardInterrupt
        return real(self, shots)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_fusion(run, tmp_path, teacher=teacher)
    train_fusion(run, tmp_path, teacher=teacher)
    expected, found = (load_tensors(f / "fusion.safetensors")[0] for f in (folder, tmp_path))
    assert all(torch.equal(expected[n], found[n]) for n in expected)


def test_a_target_that_decides_as_the_final_logit_has_a_verdict_of_its_own():
    assert [verdict_of(True, a) for a in (0.9998, 0.9989)] == ["the same target", "better"]
    assert verdict_of(False, 0.99) == "not better"


def test_weights_are_not_negative_unless_asked_for():
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(20_000, 1, 1, 1, generator=generator)
    labels = (torch.rand(z.shape, generator=generator) < torch.sigmoid(z)).to(torch.uint8)
    noise = torch.randn(z.shape, generator=generator)
    paths = torch.stack([z + noise, noise])  # the truth is their difference
    free, plain = fit_weights(paths, labels, negative=True), fit_weights(paths, labels)
    assert float(free[1]) == pytest.approx(-1.0, abs=0.1)
    assert float(plain[1]) == 0
    assert float(plain[0]) > 0.3


@pytest.mark.parametrize("name", ["final", "readout", "fused"])
def test_the_temperature_of_each_term_is_that_of_its_loss(teacher, taught, small, name):
    off = {"labels": {"weight": 0.0}, "final": {"weight": 0.0}}
    terms = Terms(**(off | {name: {"weight": 1.0, "temperature": 3.0}}))
    batch, network, targets = taught(), small(), []
    if name == "fused":
        config = FusionConfig(paths=("readout",), mode="fixed", weights=(2.0,))
        targets = [FusedTarget(Fusion(config, teacher.layout, "two_channel", {}), teacher.key())]
    lessons = Lessons(terms, teacher, targets)
    loss, _ = StudentObjective(terms, teacher, lessons)(network, batch)
    own, target = network(batch.shots).logits_BKLC, teacher.logits(batch.shots) * (2 if name == "fused" else 1)
    ends = (slice(None), slice(-1, None), slice(0, 1)) if name == "final" else ()
    expected, at_1 = (posterior_divergence(own[ends], target[ends], t).mean() for t in (3.0, 1.0))
    torch.testing.assert_close(loss, expected)
    assert abs(float((expected - at_1).detach())) > 3e-4


def test_a_scale_counts_the_weights_of_the_main_terms(tmp_path, stage1_run):
    def weight(main):
        terms = Terms(labels={"weight": main}, final={"weight": 0.0}, temporal=FEATURE)
        objective = staged(stage1_run(terms=terms), tmp_path / str(main))[2].objective
        return next(t.weight for t in objective.terms if t.name == "temporal")

    assert weight(0.1) == pytest.approx(0.1 * weight(1.0), rel=1e-4)


def test_statistics_are_of_shots_that_no_training_sees(stage1_run):
    data = stage1_run().data.simulated
    select, train, probe = (statistics_shots(data, 5, 512, role) for role in ("select", "train", "probe"))
    default = statistics_shots(data, 5, 512)
    for i in range(2):
        assert torch.equal(default[i].events_BRS, select[i].events_BRS)
        assert not torch.equal(default[i].events_BRS, train[i].events_BRS)
        assert not torch.equal(default[i].events_BRS, probe[i].events_BRS)


def test_a_stage_measures_its_statistics_on_select_shots(tmp_path, monkeypatch, stage1_run, teacher):
    """Trained live, and where a cache is filled for several runs."""
    roles, source = [], training_source.simulated_source
    monkeypatch.setattr(training_source, "simulated_source", lambda *given, role="train", **said: (
        roles.append(role), source(*given, role=role, **said))[1])
    run = stage1_run(terms=Terms(temporal=FEATURE), cached_shots=0)
    train_student(run, tmp_path / "run")
    assert set(roles) == {"select"}
    roles.clear()
    cached = stage1_run(terms=Terms(temporal=FEATURE))
    fill_cache(cached.data, FrozenTeacher(load_network(cached.teacher)[0]), tmp_path / "cache", [cached.terms], [])
    assert set(roles) == {"select"}


def test_the_student_ships_its_averaged_weights(tmp_path, stage1_run):
    path = train_student(stage1_run(terms=Terms(), cached_shots=0), tmp_path / "run")
    shipped, kept = load_tensors(path)[0], load_tensors(tmp_path / "run" / "state.safetensors")[0]
    assert all(torch.equal(x, kept[f"ema.model.{n}"]) for n, x in shipped.items())
    assert any(not torch.equal(x, kept[f"weights.model.{n}"]) for n, x in shipped.items())


def test_matrices_learn_at_the_matrix_rate(tmp_path, small, taught):
    optimiser = OptimiserConfig(name="muon", learning_rate=1e-3, matrix_rate=0.03, warmup_steps=4, decay_steps=0)
    config = TrainingConfig(steps=8, batch_size=32, threads=1, optimiser=optimiser)
    objective = StudentObjective(Terms(final={"weight": 0.0}), None)
    trainer = Trainer(small(), objective, None, config, tmp_path)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for i, warm in enumerate((0.25, 0.5)):
        trainer.train_step(TaughtShots(taught(seed=i).shots, None, number=i))
        rates = {group["use_muon"]: group["lr"] for group in trainer.optimiser.param_groups}
        assert rates == {True: pytest.approx(0.03 * warm), False: pytest.approx(1e-3 * warm)}
    matrix = trainer.model.gru.weight_hh_l0
    # orthogonalised: a step's size does not depend on the gradient's, but on the rate
    assert float((matrix.detach() - before["gru.weight_hh_l0"]).abs().max()) > 3e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"labels": "revealed", "bases": ("both",)}, "bases x and z"), ({"labels": "exact", "distance": 5}, "distance 3")],
)
def test_labels_that_do_not_exist_are_refused(stage1_run, changes, said):
    data = stage1_run().data
    simulated = data.simulated.model_dump(mode="json") | changes
    with pytest.raises(ValueError, match=said):
        type(data).model_validate(data.model_dump(mode="json") | {"simulated": simulated})


def test_each_purpose_has_shots_of_its_own(fused, tmp_path, monkeypatch):
    run, _, teacher = fused
    asked, roles, shots_of, source = [], [], FuseRun.shots, fuse.simulated_source
    monkeypatch.setattr(FuseRun, "shots", lambda self, seed, n: asked.append((seed, n)) or shots_of(self, seed, n))
    monkeypatch.setattr(fuse, "simulated_source", lambda *a, **k: roles.append(k.get("role")) or source(*a, **k))
    train_fusion(run, tmp_path, teacher=teacher)
    seed = run.training.seed
    wanted = {(seed + 1, run.fit_shots), (seed + 2, run.report_shots), (seed + 3, run.check_shots)}
    assert wanted <= set(asked)
    assert {one for one in asked if one[0] > seed} == wanted
    assert roles == ["probe"]


def test_looks_are_of_averaged_weights(teacher, taught):
    fusion, averaged = (
        Fusion(FusionConfig(), teacher.layout, "two_channel", {"transformer": 8, "state": 8}) for _ in range(2)
    )
    shots, objective = taught("z").shots, ProbeObjective(teacher)
    trainer = SimpleNamespace(model=fusion, ema_state=averaged.state_dict, device="cpu")
    own, mean = (float(objective(one, shots)[0].detach()) for one in (fusion, averaged))
    assert fuse._held_out_loss(trainer, objective, [shots]) == pytest.approx(mean)
    assert own != pytest.approx(mean)


def test_z_fuse_is_a_main_term_of_a_features_share(tmp_path, stage1_run):
    def weight(main):
        run = stage1_run(terms=only(fused={"weight": main}, temporal=FEATURE), fusion="f")
        folder = tmp_path / str(main)
        folder.mkdir()
        teacher = FrozenTeacher(load_network(run.teacher)[0])
        shots = statistics_shots(run.data.simulated, 5)
        fusion = Fusion(FusionConfig(paths=("readout",), mode="mean"), teacher.layout, "two_channel", {})
        statistics = stage_statistics(run.terms, teacher, shots, folder)
        given = StageInputs(run.terms, teacher, statistics, shots, run.training, fusion)
        source = LiveSource(simulated(run.data, 32, 1), run.data.cut_rounds, True)
        objective = prepare_stage(given, fresh_network(run.network, 1), source, folder).objective
        return next(term.weight for term in objective.terms if term.name == "temporal")

    assert weight(0.1) == pytest.approx(0.1 * weight(1.0), rel=1e-4)
