"""What else can be a path of the fusion, what its probes learn from, and weights for each shot."""

import json
from pathlib import Path

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.distill import fuse
from syndistill.distill.cache.store import folder_of
from syndistill.distill.fuse import FuseRun, nll_B, train_fusion
from syndistill.distill.losses import posterior_logits
from syndistill.distill.signals.fusion import (
    FusedTarget,
    Fusion,
    FusionConfig,
    PathGate,
    ProbeObjective,
    StateProbe,
    exact_label_loss,
    fit_gate,
    fit_weights,
    load_fusion,
)
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, save_network
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.shots import simulate
from syndistill.training.objective import posterior_loss

from .test_fusion import fuse_run


def doubtful(n, seed):
    """Two paths, one of them right in each shot and noise in the other, and which it is shows in their sizes."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, 1, 1, 1, generator=generator)
    labels = (torch.rand(z.shape, generator=generator) < torch.sigmoid(z)).to(torch.uint8)
    noise = torch.randn(z.shape, generator=generator)
    first = torch.rand(z.shape, generator=generator) < 0.5
    wrong = 12 * noise.sign() + noise
    return torch.stack([torch.where(first, z, wrong), torch.where(first, wrong, z)]), labels


def test_a_gate_finds_for_each_shot_what_no_fixed_weights_can():
    paths, labels = doubtful(3_000, 0)
    weights = fit_weights(paths, labels)
    torch.manual_seed(0)
    gate = PathGate(2, "two_channel")
    gate.begin_at(weights)
    torch.testing.assert_close(gate(paths).detach(), torch.tensordot(weights, paths, 1), rtol=1e-4, atol=1e-3)
    fit_gate(gate, paths, labels, seed=1)
    fresh, truth = doubtful(3_000, 1)
    with torch.no_grad():
        nll = {name: float(exact_label_loss(x, truth).mean())
               for name, x in (("gate", gate(fresh)), ("fixed", torch.tensordot(weights, fresh, 1)))}  # fmt: skip
        assert nll["gate"] < 0.9 * nll["fixed"], nll
        torch.testing.assert_close(gate(-fresh), -gate(fresh))  # a line whose label is turned


def test_a_gate_that_finds_nothing_stays_where_it_began():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 400, 1, 1, 4, generator=generator)
    labels = torch.randint(0, 2, (400, 1, 1, 2), generator=generator).to(torch.uint8)
    gate = PathGate(1, "joint4")
    gate.begin_at(torch.ones(1))
    before = exact_label_loss(gate(z).detach()[300:], labels[300:]).mean()
    fit_gate(gate, z, labels, seed=0)
    assert gate(z).shape == (400, 1, 1, 4)
    assert float(exact_label_loss(gate(z).detach()[300:], labels[300:]).mean() - before) < 0.5


def test_a_state_probe_of_several_rounds_reads_them_and_no_others():
    torch.manual_seed(0)
    shots = simulate(Experiment(3, 4, "z", "si1000", 0.01), 16, 1)
    probe = StateProbe(shots.layout, 8, 8, 1, "two_channel", before=1)
    signal = torch.randn(16, 4, 8, 8)
    with torch.no_grad():
        plain = probe(shots, signal)
        for r in range(4):
            moved = signal.clone()
            moved[:, r] += 1
            changed_K = (probe(shots, moved) - plain).abs().amax((0, 2, 3)) > 1e-6
            assert changed_K.tolist() == [k in (r, r + 1) for k in range(4)]


def test_probes_learn_from_the_labels_that_their_shots_carry(teacher_file, taught):
    teacher = FrozenTeacher(load_network(teacher_file())[0])
    torch.manual_seed(0)
    fusion = Fusion(FusionConfig(paths=("state", "readout")), teacher.layout, "two_channel", {"state": 8})
    shots = taught("z", rounds=2).shots
    exact = with_exact_labels(shots, Experiment(3, 2, "z", "si1000", 0.01))
    (_, drawn), (_, known) = (ProbeObjective(teacher)(fusion, s) for s in (shots, exact))
    logits = fusion.probe_logits(shots, teacher.answer(shots, fusion.wants))["state"]
    torch.testing.assert_close(known["state.nll"], posterior_loss(logits, exact.posterior_BKLP).mean().detach())
    assert float(known["state.nll"]) != pytest.approx(float(drawn["state.nll"]), rel=1e-4)


def test_an_exact_posterior_is_read_as_logits(taught):
    shots = taught("z", rounds=2, n_shots=64).shots
    exact = with_exact_labels(shots, Experiment(3, 2, "z", "si1000", 0.01))
    z = posterior_logits(exact, "two_channel")
    torch.testing.assert_close(torch.sigmoid(z[..., 0]), exact.posterior_BKLP[..., 1], rtol=1e-4, atol=1e-6)
    with pytest.raises(SyndistillError, match="carry no exact posterior"):
        posterior_logits(shots, "two_channel")


@pytest.fixture(scope="module")
def many(tmp_path_factory, teacher_file):
    """A fusion of every kind of path, per shot: (run, folder, Teacher, the member's file)."""
    folder = tmp_path_factory.mktemp("many")
    member = teacher_file(seed=8)
    paths = ("transformer.0", "transformer.1", "state.1", "readout", f"network:{member}", "exact")
    content = fuse_run(teacher_file()).model_dump(mode="json")
    content["fusion"] |= {"paths": paths, "mode": "per_shot"}
    content["data"]["labels"] = "exact"
    run = FuseRun.model_validate(content)
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("syndistill.training.source.STATISTICS_RATES", 1)
        train_fusion(run, folder, teacher=teacher)
    return run, folder, teacher, member


def test_every_kind_of_path_is_fused_and_reported(many):
    run, folder, teacher, member = many
    fusion, said = load_fusion(folder / "fusion.safetensors", teacher)
    report = json.loads((folder / "fuse_report.json").read_text())
    rows = report["paths"]
    assert set(rows) == {"transformer.0", "transformer.1", "state.1", f"network:{member}", "exact", "final",
                         "calibrated final", "z_fuse"}  # fmt: skip
    assert said["verdict"] == report["verdict"]
    assert report["mode"] == "per_shot"
    assert rows["exact"]["nll"]["value"] < rows["final"]["nll"]["value"]
    assert report["better"]  # the limit is among the paths
    assert rows["exact"]["nll"]["value"] < rows["calibrated final"]["nll"]["low"]
    batch = run.shots(run.training.seed + 2, run.report_shots)
    with torch.no_grad():
        fused, other = [], []
        for shots in batch:
            answer = teacher.answer(shots, fusion.wants)
            found = fusion(shots, answer)[:, -1, 0]
            fused.append(nll_B(found, shots.labels_BKLO[:, -1, 0]))
            logits = fusion.path_logits(shots, answer)
            other.append(logits[4])
            torch.testing.assert_close(other[-1], FrozenTeacher(load_network(member)[0]).logits(shots))
    assert rows["z_fuse"]["nll"]["value"] == pytest.approx(float(torch.cat(fused).mean()), rel=1e-4)


def test_a_member_is_known_by_its_weights(many, small, teacher_file, tmp_path):
    _, folder, teacher, member = many
    fusion, _ = load_fusion(folder / "fusion.safetensors", teacher)
    assert not any(n.startswith("members") for n in fusion.state_dict())
    key = fusion.key("t")
    fusion.members[f"network:{member}"] = teacher
    assert fusion.key("t") != key
    own = tmp_path / "m.safetensors"
    own.write_bytes(Path(member).read_bytes())
    config = FusionConfig(paths=("readout", f"network:{own}"), mode="mean")
    here = train_fusion(fuse_run(teacher_file(), fusion=config), tmp_path / "fuse", teacher=teacher)
    own.write_bytes(Path(teacher_file()).read_bytes())
    with pytest.raises(SyndistillError, match="fused with other weights"):
        load_fusion(here, teacher)
    save_network(tmp_path / "joint.safetensors", small("transformer", "joint4"), {})
    joint = FusionConfig(paths=("readout", f"network:{tmp_path / 'joint.safetensors'}"))
    with pytest.raises(SyndistillError, match="output joint4, the Teacher of 3 and two_channel"):
        train_fusion(fuse_run(teacher_file(), fusion=joint), tmp_path / "no", teacher=teacher)
    assert not (tmp_path / "no").exists()


def test_wrong_paths_are_refused(teacher_file):
    for path in ("states", "state.0", "transformer.x", "network:"):
        with pytest.raises(ValueError, match="pattern"):
            FusionConfig(paths=(path,))
    with pytest.raises(ValueError, match=r"set data.labels=exact"):
        fuse_run(teacher_file(), fusion=FusionConfig(paths=("readout", "exact")))


def test_a_student_learns_from_a_fusion_with_another_network(tmp_path, teacher_file, stage1_run):
    config = FusionConfig(paths=("readout", f"network:{teacher_file(seed=8)}"), mode="per_shot")
    teacher = FrozenTeacher(load_network(teacher_file())[0])
    path = train_fusion(fuse_run(teacher_file(), fusion=config), tmp_path / "fuse", teacher=teacher)
    content = stage1_run().model_dump(mode="json") | {
        "terms": Terms(final={"weight": 0.0}, fused={"weight": 1.0}).model_dump(mode="json"),
        "fusion": str(path),
    }  # fmt: skip
    run = type(stage1_run()).model_validate(content)
    assert train_student(run, tmp_path / "run", tmp_path / "cache", teacher=teacher).is_file()
    fusion, _ = load_fusion(path, teacher)
    assert folder_of(tmp_path / "cache", FusedTarget(fusion, teacher.key())).is_dir()


def test_the_gate_of_each_shot_is_fitted_on_fit_shots(tmp_path, teacher_file, monkeypatch):
    seen, real = [], fuse.fit_gate
    monkeypatch.setattr(fuse, "fit_gate", lambda *given: (seen.append(given), real(*given))[1])
    run = fuse_run(teacher_file(), fusion=FusionConfig(mode="per_shot"))
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    fusion, _ = load_fusion(train_fusion(run, tmp_path, teacher=teacher), teacher)
    batches = run.shots(run.training.seed + 1, run.fit_shots)
    with torch.no_grad():
        paths = torch.cat([fusion.path_logits(b, teacher.answer(b, fusion.wants)) for b in batches], 1)
    ((_, logits, labels, _),) = seen
    torch.testing.assert_close(logits, paths)
    assert torch.equal(labels, torch.cat([b.labels_BKLO for b in batches]))
