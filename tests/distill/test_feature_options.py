"""Options of a feature term: the gate by cosine, projectors, the losses log4 and gram_shots."""

import math
from dataclasses import replace

import pytest
import torch

from syndistill.distill.objective import CosineGates, gradients_against_main
from syndistill.distill.signals.features import gram, log4, needs_adapter, seeded_adapter
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors

from .test_insides import fitted, knowing_stage, losses_of
from .test_terms import FEATURE, MAIN, only, require_resumed_to_the_bit, staged, student_of


def test_the_cosine_of_gradients_by_hand():
    model = torch.nn.Linear(2, 1, bias=False)
    w = model.weight[0]
    losses = {"labels": w[0] * 2, "final": w[1], "along": 3 * w[0], "across": w[0] - 2 * w[1], "against": -w.sum()}
    found = gradients_against_main(model, losses)  # the main terms': (2, 1)
    assert found["along"].cosine == pytest.approx(2 / math.sqrt(5))
    assert found["along"].share == pytest.approx(3 / math.sqrt(5))
    assert found["across"].cosine == pytest.approx(0, abs=1e-6)
    assert found["against"].cosine == pytest.approx(-3 / math.sqrt(10))
    gates = CosineGates(["along", "against"])
    measured = {name: one.cosine for name, one in found.items()}
    gates.follow(measured, is_first=True)
    assert [gates.of(n) for n in ("along", "against", "other")] == [pytest.approx(2 / math.sqrt(5)), 0.0, 1.0]
    gates.follow({"along": -1.0, "against": 0.8}, is_first=False)  # a quarter of the way
    assert [gates.of(n) for n in ("along", "against")] == [pytest.approx(1.5 / math.sqrt(5)), pytest.approx(0.2)]


def test_a_feature_counts_as_its_gate_says_and_not_at_all_where_gradients_oppose(tmp_path, stage1_run):
    terms = Terms(temporal=FEATURE | {"gate": "cosine", "share": None}, spatial=FEATURE | {"share": None})
    network, _, stage, batch = staged(stage1_run(terms=terms), tmp_path)
    losses = stage.objective.losses(network, batch)[1]
    main = {name: losses[name] for name in ("labels", "final")}
    cosine = gradients_against_main(network, main | {"temporal": losses["temporal"]})["temporal"].cosine

    def loss_with(factor):
        return sum(main.values()) + losses["spatial"] + factor * losses["temporal"]

    first, values = stage.objective(network, replace(batch, number=0))
    torch.testing.assert_close(first.detach(), loss_with(max(0.0, cosine)).detach())
    assert float(values["gate.temporal"]) == pytest.approx(max(0.0, cosine))
    labels, feature = (next(t for t in stage.objective.terms if t.name == n) for n in ("labels", "temporal"))
    for sign in (1, -1):  # a feature that is the main term itself, or its contrary
        alike = replace(feature, loss=lambda *args, sign=sign: sign * labels.loss(*args))
        stage.objective.terms, stage.objective.sources = [labels, alike], {}
        loss, values = stage.objective(network, replace(batch, number=0))
        assert float(values["gate.temporal"]) == pytest.approx(max(0, sign), abs=1e-5)
        torch.testing.assert_close(loss.detach(), (1 + max(0, sign)) * losses["labels"].detach())
        for number in (1, 49):
            stage.objective(network, replace(batch, number=number))
        assert stage.objective.gates.of("temporal") == pytest.approx(float(values["gate.temporal"]), abs=1e-6)
    with pytest.raises(SyndistillError, match="gate of temporal compares with labels"):
        staged(stage1_run(terms=only(temporal=FEATURE | {"gate": "cosine", "share": None})), tmp_path / "alone")


def test_a_gate_is_resumed_to_the_bit_and_does_not_ship(tmp_path, stage1_run, monkeypatch):
    monkeypatch.setattr("syndistill.distill.objective.HELD_EVERY", 3)
    run = stage1_run(terms=Terms(temporal=FEATURE | {"gate": "cosine", "held": True}), steps=8)
    require_resumed_to_the_bit(run, tmp_path, monkeypatch)
    kept = load_tensors(tmp_path / "whole" / "state.safetensors")[0]
    assert 0 <= float(kept["weights.extra.gates.temporal"]) < 1
    assert all(n.startswith("temporal.") for n in load_tensors(tmp_path / "whole" / "adapters.safetensors")[0])


def test_projectors_are_what_their_names_say():
    x = torch.randn(5, 2, 8, 6)
    torch.manual_seed(0)
    for n_out in (4, 6, 9):
        adapter = seeded_adapter("spatial", 1, (8, 6), (8, n_out), ("x", "z"), "orthogonal")
        weight = adapter.maps["x"].turn.weight
        small = weight @ weight.T if n_out <= 6 else weight.T @ weight
        torch.testing.assert_close(small, torch.eye(min(6, n_out)), rtol=0, atol=1e-5)
        with torch.no_grad():
            adapter.maps["x"].log_scale += math.log(3)
        torch.testing.assert_close(adapter(x, "x"), 3 * adapter(x, "z"))
        (adapter(x, "x") ** 2).sum().backward()
        assert adapter.maps["z"].log_scale.grad is None
        assert adapter.maps["x"].log_scale.grad > 0
    ensemble = seeded_adapter("spatial", 1, (8, 6), (8, 4), projector="ensemble").maps["every"]
    weights = torch.stack([member.weight for member in ensemble.members])
    assert len({float(w[0, 0].detach()) for w in weights}) == 3
    torch.testing.assert_close(ensemble(x), x @ weights.mean(0).T)


@pytest.mark.parametrize(("projector", "loss"), [("orthogonal", "normalised_mse"), ("ensemble", "normalised_mse"),
                                                 ("linear", "log4")])  # fmt: skip
def test_a_state_that_is_a_turned_one_of_the_teachers_reaches_it(tmp_path, projector, loss):
    network, stage, batches = knowing_stage(
        tmp_path / "s", "local_gru", True, False, alike=False, loss=loss, projector=projector
    )
    before = losses_of(network, stage, batches)
    fitted(network, stage, batches)
    after = losses_of(network, stage, batches)
    for basis in "xz":
        if loss == "log4":
            assert after[basis] < before[basis] - 8
        else:  # orthogonal: up to the standardisation, which is no turn
            assert after[basis] < (0.5 if projector == "orthogonal" else 0.04) < before[basis], (before, after)


def test_fourth_powers_by_hand():
    x, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    # fourth powers (1, 0), (16, 256), mean 68.25, over the square of the mean variance 3.5
    assert float(log4(x, target, torch.tensor([2.0, 5.0]))) == pytest.approx(math.log(68.25 / 3.5**2), rel=1e-6)


def test_gram_of_shots_compares_shots_in_each_round(tmp_path, stage1_run):
    shapes = [((6,), (4,)), ((6,), (8, 4)), ((8, 6), (4,)), ((8, 6), (8, 4))]
    assert not any(needs_adapter("gram_shots", *pair) for pair in shapes)
    for family in ("flat_gru", "local_gru"):
        terms = only(temporal=FEATURE | {"share": None, "loss": "gram_shots", "every_rounds": 1})
        network, _, stage, batch = staged(stage1_run(family, terms=terms), tmp_path / family)
        assert not stage.adapters
        loss, _ = stage.objective(network, batch)
        loss.backward()
        outputs = network(batch.shots, ["temporal"])
        target = stage.objective.lessons.of(batch).targets["temporal"]
        by_round = []
        for q in range(target.shape[1]):
            grams = []
            for side in (outputs.signals["temporal"], target):
                flat = side[:, q].flatten(1) - side[:, q].flatten(1).mean(0)
                grams.append(flat @ flat.T)
            by_round.append((grams[0] / grams[0].norm() - grams[1] / grams[1].norm()).square().sum())
        torch.testing.assert_close(loss, torch.stack(by_round).mean(), rtol=1e-4, atol=1e-6)
    turned = torch.linalg.qr(torch.randn(16, 16))[0]
    x = torch.randn(3, 20, 16)
    assert float(gram(x, 5 * x @ turned)) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="leave projector out"):
        Terms(temporal=FEATURE | {"loss": "gram_shots", "projector": "ensemble"})


def test_options_of_a_term_of_weight_0_change_no_bit(tmp_path, stage1_run):
    off = {"weight": 0.0, "gate": "cosine", "projector": "orthogonal", "directions": "answer", "loss": "log4"}
    for name, terms in (("off", Terms()), ("zero", Terms(spatial=off, temporal=off))):
        train_student(stage1_run("local_gru", terms=terms, cached_shots=0), tmp_path / name)
    expected, found = (student_of(tmp_path / name) for name in ("off", "zero"))
    assert all(torch.equal(expected[n], found[n]) for n in expected)


def test_a_gate_sees_the_main_terms_as_they_weigh(tmp_path, stage1_run):
    terms = Terms(temporal=FEATURE | {"gate": "cosine", "share": None}, **MAIN)
    network, _, stage, batch = staged(stage1_run(terms=terms), tmp_path)
    losses, objective = stage.objective.losses(network, batch)[1], stage.objective
    labels, final, feature = objective.terms
    objective.terms, objective.sources = [labels, final, replace(feature, loss=labels.loss)], {}

    def cosine(weights):
        main = {name: weight * losses[name] for name, weight in weights.items()}
        return gradients_against_main(network, main | {"temporal": losses["labels"]})["temporal"].cosine

    found = cosine({name: term["weight"] for name, term in MAIN.items()})
    _, values = objective(network, replace(batch, number=0))
    assert float(values["gate.temporal"]) == pytest.approx(found, abs=1e-5)
    assert abs(found - cosine(dict.fromkeys(MAIN, 1.0))) > 1e-3 < found
