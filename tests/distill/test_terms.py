"""The terms of stage 1: what they reach, what they weigh, and that weight 0 is not there."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from syndistill.distill.cache.source import LiveSource, simulated
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.objective import StudentObjective, gradient_shares
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.distill.stage import BATCHES, StageInputs, measure_gate, prepare_stage, stage_statistics
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.networks import FAMILIES, fresh_network, load_network, weights_hash
from syndistill.models.tensors_file import load_tensors
from syndistill.safe_files import unsealed
from syndistill.training.loop import Trainer
from syndistill.training.source import statistics_shots

FEATURE = {"weight": 1.0, "components": 4}


def staged(run, folder):
    """(network, teacher, stage, a batch) of a run that asks the Teacher live."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    network = fresh_network(run.network, 1)
    shots = statistics_shots(run.data.simulated, 5)
    statistics = stage_statistics(run.terms, teacher, shots, folder)
    source = LiveSource(simulated(run.data, 32, 1), run.data.cut_rounds, run.terms.needs_every_end)
    stage = prepare_stage(StageInputs(run.terms, teacher, statistics, shots, run.training), network, source, folder)
    return network, teacher, stage, source.chunk(0)[0]


def only(**terms):
    return Terms(**({"labels": {"weight": 0.0}, "final": {"weight": 0.0}} | terms))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "loss"),
    [("readout", ""), ("spatial", "normalised_mse"), ("temporal", "normalised_mse"), ("spatial", "gram"),
     ("temporal", "cosine")],
)  # fmt: skip
def test_each_term_reaches_the_student_and_never_the_teacher(tmp_path, stage1_run, family, name, loss):
    if name == "readout":
        terms = only(readout={"weight": 1.0})
    else:
        terms = only(**{name: FEATURE | {"share": None, "loss": loss}})
    network, teacher, stage, batch = staged(stage1_run(family, terms=terms), tmp_path)
    before = copy.deepcopy(teacher.network.state_dict())
    value, values = stage.objective(network, batch)
    value.backward()
    assert set(values) == {"ler_last", name}
    assert float(value.detach()) > 0
    reached = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(reached) > 2
    assert any(part in n for n in reached for part in ("decide", "line_readout", "project")) == (name == "readout")
    assert all(p.grad is None for p in teacher.network.parameters())
    assert all(torch.equal(before[n], x) for n, x in teacher.network.state_dict().items())


def test_spatial_and_temporal_have_other_targets(tmp_path, stage1_run):
    _, _, stage, batch = staged(stage1_run(), tmp_path)
    lesson = stage.objective.lessons.of(batch)
    assert lesson.targets["spatial"].shape == lesson.targets["temporal"].shape
    assert (lesson.targets["spatial"] - lesson.targets["temporal"]).abs().mean() > 0.1
    assert stage.sources == {"spatial": "temporal", "temporal": "temporal"}  # a flat Student has one inside
    _, _, of_layers, _ = staged(stage1_run("transformer"), tmp_path / "layers")
    assert of_layers.sources == {"spatial": "spatial", "temporal": "temporal"}
    with pytest.raises(SyndistillError, match="no layers inside a round"):
        staged(stage1_run(terms=Terms(spatial=FEATURE | {"student_layer": 0})), tmp_path / "layer")


def student_of(folder):
    return load_network(folder / "student.safetensors")[0].state_dict()


@pytest.mark.parametrize("cached_shots", [0, 4096])
def test_terms_of_weight_0_leave_the_baseline_bit_for_bit(tmp_path, stage1_run, cached_shots):
    off = {"weight": 0.0, "components": 3, "loss": "cosine"}
    baseline = stage1_run(terms=Terms(), cached_shots=cached_shots)
    zero = stage1_run(
        terms=Terms(readout={"weight": 0.0, "gated": True}, spatial=off, temporal=off), cached_shots=cached_shots
    )
    train_student(baseline, tmp_path / "baseline", tmp_path / "cache")
    train_student(zero, tmp_path / "zero", tmp_path / "cache")
    expected, found = student_of(tmp_path / "baseline"), student_of(tmp_path / "zero")
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    assert not (tmp_path / "cache" / "signals").exists()
    assert {p.name for p in (tmp_path / "zero").iterdir()} == {p.name for p in (tmp_path / "baseline").iterdir()}
    # and one that is on does change them
    on = stage1_run(terms=Terms(temporal=FEATURE), cached_shots=cached_shots)
    train_student(on, tmp_path / "on", tmp_path / "cache")
    assert any(not torch.equal(expected[n], x) for n, x in student_of(tmp_path / "on").items())


def test_adding_a_signal_changes_no_other_weight(tmp_path, stage1_run):
    alone = staged(stage1_run(terms=Terms(temporal=FEATURE)), tmp_path / "alone")[2]
    both = staged(stage1_run(terms=Terms(temporal=FEATURE, spatial=FEATURE)), tmp_path / "both")[2]
    read = staged(stage1_run(terms=Terms(temporal=FEATURE, readout={"weight": 5.0})), tmp_path / "read")[2]
    weight = {t.name: t.weight for t in alone.objective.terms}
    assert weight["temporal"] != 1.0
    assert {t.name: t.weight for t in both.objective.terms}.items() >= weight.items()
    # with readout the ends before the last are there too, in one larger product: the last bits may differ
    for term in read.objective.terms:
        assert term.weight == pytest.approx(weight.get(term.name, 5.0), rel=1e-4)
    one, other = (stage.adapters["temporal"].maps["x"].weight for stage in (alone, both))
    assert torch.equal(one, other)


def test_a_share_is_the_share_of_the_gradient(tmp_path, stage1_run):
    run = stage1_run(terms=Terms(temporal=FEATURE | {"share": 0.3}, spatial=FEATURE | {"share": 0.1, "weight": 2.0}))
    network, _, stage, _ = staged(run, tmp_path)
    objective = stage.objective
    sums = {"temporal": 0.0, "spatial": 0.0}
    source = LiveSource(simulated(run.data, 32, 1), run.data.cut_rounds, run.terms.needs_every_end)
    for taught in source.chunk(0)[:BATCHES]:  # those that the scales were measured on
        _, losses = objective.losses(network, taught)
        shares = gradient_shares(network, {t.name: t.weight * losses[t.name] for t in objective.terms})
        sums = {name: total + float(shares[name]) / BATCHES for name, total in sums.items()}
    assert sums["temporal"] == pytest.approx(0.3, rel=1e-3)
    assert sums["spatial"] == pytest.approx(0.2, rel=1e-3)  # share times weight
    kept = json.loads((tmp_path / "weights.json").read_text())
    assert kept["scales"].keys() == {"temporal", "spatial"}
    changed = (tmp_path / "weights.json").read_text().replace('"scales"', '"scaled"')
    (tmp_path / "weights.json").write_text(changed)
    with pytest.raises(SyndistillError, match="not what its sha256 says"):
        staged(run, tmp_path)
    # what is kept is used again, not measured again
    (tmp_path / "weights.json").write_text(json.dumps(unsealed(kept) | {"scales": {"temporal": 7.0, "spatial": 8.0}}))
    weights = {t.name: t.weight for t in staged(run, tmp_path)[2].objective.terms}
    assert (weights["temporal"], weights["spatial"]) == (7.0, 16.0)
    (tmp_path / "weights.json").write_text("{")
    with pytest.raises(SyndistillError, match=r"weights.json is damaged"):
        staged(run, tmp_path)
    with pytest.raises(SyndistillError, match="which all have weight 0"):
        staged(stage1_run(terms=only(temporal=FEATURE)), tmp_path / "alone")


def test_a_fading_weight_is_a_function_of_the_step(tmp_path, stage1_run):
    _, _, stage, _ = staged(stage1_run(terms=Terms(temporal=FEATURE | {"fade_steps": 4, "share": None})), tmp_path)
    (term,) = [t for t in stage.objective.terms if t.name == "temporal"]
    assert [term.weight_at(step) for step in (0, 1, 3, 4, 9)] == [1.0, 0.75, 0.25, 0.0, 0.0]


def test_features_fade_over_a_share_of_the_steps_and_then_cost_nothing(tmp_path, stage1_run):
    terms = Terms(temporal=FEATURE | {"fade": 0.5, "share": None})
    network, teacher, stage, batch = staged(stage1_run(terms=terms, steps=8), tmp_path)
    (term,) = [t for t in stage.objective.terms if t.name == "temporal"]
    assert [term.weight_at(step) for step in (0, 1, 3, 4, 9)] == [1.0, 0.75, 0.25, 0.0, 0.0]
    losses = stage.objective.losses(network, batch)[1]
    asked, answer = [], teacher.answer
    teacher.answer = lambda shots, want=(): (asked.append(set(want)), answer(shots, want))[1]
    for number, weight in ((1, 0.75), (4, 0.0)):
        asked.clear()
        loss, values = stage.objective(network, replace(batch, number=number))
        expected = losses["labels"] + losses["final"] + weight * losses["temporal"]
        torch.testing.assert_close(loss.detach(), expected.detach())
        assert asked == [{"temporal"} if weight else set()]
        assert ("temporal" in values) == (weight > 0)
    with pytest.raises(ValueError, match="give one of them"):
        Terms(temporal=FEATURE | {"fade": 0.5, "fade_steps": 3})
    with pytest.raises(SyndistillError, match="every term fades"):
        staged(stage1_run(terms=only(temporal=FEATURE | {"fade": 0.5, "share": None}), steps=8), tmp_path / "all")


def shares_of(stage, network, batch):
    """Of the terms with the weights that they have now, by hand."""
    losses = stage.objective.losses(network, batch)[1]
    weights = {term.name: stage.objective._weight(term, batch.number) for term in stage.objective.terms}
    return gradient_shares(network, {name: weights[name] * losses[name] for name in weights})


def test_a_held_share_follows_the_gradients_and_one_that_is_not_stays(tmp_path, stage1_run):
    for held in (True, False):
        terms = Terms(temporal=FEATURE | {"share": 0.3, "held": held}, spatial=FEATURE | {"share": 0.1})
        network, _, stage, batch = staged(stage1_run(terms=terms), tmp_path / str(held))
        first = shares_of(stage, network, batch)["temporal"]
        with torch.no_grad():  # another network: other gradients
            for parameter in network.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        moved = shares_of(stage, network, batch)["temporal"]
        assert abs(math.log(moved / first)) > 0.1
        for number in (1, 49):
            stage.objective(network, replace(batch, number=number))
        assert shares_of(stage, network, batch)["temporal"] == pytest.approx(moved)
        for k in range(1, 40):
            stage.objective(network, replace(batch, number=50 * k))
        assert shares_of(stage, network, batch)["temporal"] == pytest.approx(0.3 if held else moved, rel=1e-3)
    with pytest.raises(ValueError, match="held keeps a share"):
        Terms(temporal=FEATURE | {"held": True, "share": None})


def test_a_held_share_goes_a_quarter_of_the_way_a_time(tmp_path, stage1_run):
    network, _, stage, batch = staged(stage1_run(terms=Terms(temporal=FEATURE | {"held": True})), tmp_path)
    stage.objective.held.temporal += math.log(16)
    stage.objective(network, replace(batch, number=50))
    measured = shares_of(stage, network, batch)["temporal"] / 0.2
    stage.objective.held.temporal -= math.log(measured)  # what was measured in this batch alone
    exact = stage.objective.held.scale("temporal")
    stage.objective.held.temporal += math.log(16)
    stage.objective(network, replace(batch, number=100))
    assert stage.objective.held.scale("temporal") == pytest.approx(exact * 16**0.75, rel=1e-3)


def require_resumed_to_the_bit(run, folder, monkeypatch):
    """Killed before its sixth step and gone on with, a run ends as in `folder`/whole, which is made too."""
    train_student(run, folder / "whole", folder / "cache")
    real = Trainer.train_step

    def killed(self, shots):
        if self.step == 5:
            self.save()
            raise KeyboardInterrupt
        return real(self, shots)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_student(run, folder / "killed", folder / "cache")
    train_student(run, folder / "killed", folder / "cache")
    expected, found = (student_of(folder / name) for name in ("whole", "killed"))
    assert all(torch.equal(expected[n], found[n]) for n in expected)


def test_a_held_share_is_resumed_to_the_bit_and_does_not_ship(tmp_path, stage1_run, monkeypatch):
    monkeypatch.setattr("syndistill.distill.objective.HELD_EVERY", 3)
    terms = Terms(temporal=FEATURE | {"held": True})
    require_resumed_to_the_bit(stage1_run(terms=terms, steps=8), tmp_path, monkeypatch)
    kept = load_tensors(tmp_path / "whole" / "state.safetensors")[0]
    assert "weights.extra.held.temporal" in kept
    assert set(load_tensors(tmp_path / "whole" / "adapters.safetensors")[0]) == {
        "temporal.maps.x.weight", "temporal.maps.z.weight"
    }  # fmt: skip


def test_the_gate_weighs_ends_by_what_the_teacher_knows(taught):
    class Doubtful:
        """Certain of the truth after round 1, half way after round 2, ignorant after round 3."""

        def logits(self, shots):
            sure = 2 * shots.labels_BKLO.float() - 1
            return sure * torch.tensor([30.0, 1.0, 0.0])[:, None, None]

    shots = taught(rounds=3, n_shots=4000).shots
    gate = measure_gate(Doubtful(), [shots])
    p_K = shots.labels_BKLO.double().mean((0, 3)).numpy()  # (K, L)
    entropy = [sum(-x * math.log(x) - (1 - x) * math.log(1 - x) for x in lines) / 3 for lines in p_K]
    gain = [max(0.0, entropy[0]), max(0.0, entropy[1] - math.log(1 + math.exp(-1))), 0.0]
    mean = sum(gain) / 3
    assert gate == {k + 1: pytest.approx(g / mean, rel=1e-4) for k, g in enumerate(gain)}


def test_a_gated_readout_is_the_weighted_mean(tmp_path, stage1_run):
    run = stage1_run(terms=only(readout={"weight": 1.0, "gated": True}))
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    network = fresh_network(run.network, 1)
    batch = LiveSource(simulated(run.data, 32, 1), ()).chunk(0)[0]
    gate = {1: 0.0, 2: 0.5, 3: 2.5}
    loss, _ = StudentObjective(run.terms, teacher, gate=gate)(network, batch)
    kl_BKL = posterior_divergence(network(batch.shots).logits_BKLC, teacher.logits(batch.shots))
    expected = (0.5 * kl_BKL[:, 1].mean() + 2.5 * kl_BKL[:, 2].mean()) / 3
    torch.testing.assert_close(loss, expected)
    with pytest.raises(SyndistillError, match="needs the gate's weights"):
        StudentObjective(run.terms, teacher)


def test_only_the_student_ships(tmp_path, stage1_run):
    run = stage1_run()
    path = train_student(run, tmp_path / "run", tmp_path / "cache")
    shipped, metadata = load_tensors(path)
    fresh = fresh_network(run.network, 0)
    assert shipped.keys() == fresh.state_dict().keys()
    assert metadata["metadata"]["run"] == run.model_dump(mode="json")
    adapters, said = load_tensors(tmp_path / "run" / "adapters.safetensors")
    assert {n.split(".")[0] for n in adapters} == {"spatial", "temporal"}
    assert said["sources"] == {"spatial": "temporal", "temporal": "temporal"}
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = {"labels", "final", "readout", "spatial", "temporal"}
    assert names | {f"share.{name}" for name in names} <= logged[-1].keys()
    assert weights_hash(load_network(path)[0]) != weights_hash(fresh)


@pytest.mark.parametrize("more", [{"share": None}, {}, {"held": True}, {"gate": "cosine"}])
def test_every_kind_of_weight_fades(tmp_path, stage1_run, more):
    terms = Terms(temporal=FEATURE | {"fade": 0.5} | more)
    objective = staged(stage1_run(terms=terms, steps=8), tmp_path)[2].objective
    term = next(t for t in objective.terms if t.name == "temporal")
    weights = [objective._weight(term, step) for step in (0, 1, 3, 4, 9)]
    assert [w / weights[0] for w in weights] == pytest.approx([1.0, 0.75, 0.25, 0.0, 0.0])


MAIN = {"labels": {"weight": 0.3}, "final": {"weight": 2.0}}
"""Main terms that do not weigh alike: a share that forgets one weight is another share."""


def test_a_share_is_of_the_main_terms_as_they_weigh(tmp_path, stage1_run):
    run = stage1_run(terms=Terms(temporal=FEATURE | {"share": 0.3}, **MAIN))
    network, _, stage, _ = staged(run, tmp_path)
    source = LiveSource(simulated(run.data, 32, 1), run.data.cut_rounds, run.terms.needs_every_end)
    shares = [shares_of(stage, network, taught)["temporal"] for taught in source.chunk(0)[:BATCHES]]
    assert sum(shares) / BATCHES == pytest.approx(0.3, rel=1e-3)


def test_a_held_share_is_of_the_main_terms_as_they_weigh(tmp_path, stage1_run):
    terms = Terms(temporal=FEATURE | {"share": 0.3, "held": True}, **MAIN)
    network, _, stage, batch = staged(stage1_run(terms=terms), tmp_path)
    for k in range(1, 40):
        stage.objective(network, replace(batch, number=50 * k))
    assert shares_of(stage, network, batch)["temporal"] == pytest.approx(0.3, rel=1e-3)


def test_adapters_are_the_averaged_ones(tmp_path, stage1_run):
    train_student(stage1_run(cached_shots=0), tmp_path)
    adapters, kept = (load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("adapters", "state"))
    assert adapters
    assert all(torch.equal(x, kept[f"ema.extra.{name}"]) for name, x in adapters.items())
    assert any(not torch.equal(x, kept[f"weights.extra.{name}"]) for name, x in adapters.items())
