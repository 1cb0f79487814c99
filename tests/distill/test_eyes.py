"""Through the Teacher's own eyes: its frozen readout on the Student's state."""


import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.cache.source import LiveSource, simulated
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.signals.teacher import FrozenTeacher, PosteriorTeacher, TaughtShots
from syndistill.distill.stage import StageInputs, prepare_stage, stage_statistics
from syndistill.distill.student import train_student
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build, fresh_network, load_network, weights_hash
from syndistill.models.tensors_file import load_tensors
from syndistill.training.source import statistics_shots

from .conftest import SIZES, STUDENT_SIZES, stage1_run
from .test_insides import knowing_network, teacher_of
from .test_terms import staged

EYES = Terms(labels={"weight": 0.0}, final={"weight": 0.0}, eyes={"weight": 1.0, "where": "every"})


@pytest.mark.parametrize("family", ["transformer", "local_gru", "flat_gru"])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_the_answer_from_its_own_states_is_the_teachers(taught, family, basis):
    torch.manual_seed(3)
    turned = {"turn_x": True}
    sizes = SIZES["transformer"] if family == "transformer" else STUDENT_SIZES[family]
    teacher = FrozenTeacher(build(dials_of({"family": family, "distance": 3, **sizes, **turned})))
    shots = taught(basis, rounds=3, n_shots=8).shots.at_ends([0, 2])
    answer = teacher.answer(shots, ["temporal"])
    states = answer.signals["temporal"][:, [0, 2]].requires_grad_(True)
    found = teacher.answer_from(shots, states)
    torch.testing.assert_close(found, answer.logits_BKLC, rtol=1e-4, atol=1e-5)
    assert float((teacher.answer_from(shots, states.detach().roll(1, 1)) - found.detach()).abs().max()) > 1e-5
    found.sum().backward()
    assert float(states.grad.abs().sum()) > 0
    assert all(p.grad is None for p in teacher.network.parameters())


@pytest.mark.parametrize(
    ("family", "turned", "alike"), [("local_gru", True, False), ("flat_gru", True, False), ("local_gru", False, True)]
)
def test_a_state_that_is_a_linear_map_of_the_teachers_is_seen_as_it(tmp_path, family, turned, alike):
    teacher = teacher_of(True)
    run = stage1_run("given", family, terms=EYES)
    network = knowing_network(family, turned, teacher, alike)
    shots = statistics_shots(run.data.simulated, 5, 1024)
    statistics = stage_statistics(EYES, teacher, shots, tmp_path)
    source = LiveSource(simulated(run.data, 32, 1), ())
    stage = prepare_stage(StageInputs(EYES, teacher, statistics, shots, run.training), network, source, tmp_path)
    assert set(stage.adapters["eyes"].maps) == ({"every"} if alike else {"x", "z"})
    batches = [TaughtShots(b.take(slice(0, 128)), None, number=1) for b in shots[:2]]
    before = [float(stage.objective(network, b)[0].detach()) for b in batches]
    optimiser = torch.optim.LBFGS(stage.adapters["eyes"].parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = sum(stage.objective(network, batch)[0] for batch in batches)
        loss.backward()
        return loss

    optimiser.step(closure)
    after = [float(stage.objective(network, b)[0].detach()) for b in batches]
    assert all(a < 0.1 * b for a, b in zip(after, before, strict=True)), (before, after)
    # and not of another shot
    other = batches[0].shots.take(torch.arange(128).roll(1))
    seen = stage.objective.losses(network, batches[0])[0].signals["temporal"]
    eyes = stage.objective.terms[0].loss.__closure__[0].cell_contents
    wrong = eyes(seen, other, teacher.logits(other))
    assert float(wrong.detach()) > 3 * after[0]


@pytest.mark.parametrize("cached_shots", [0, 4096])
def test_a_stage_leaves_the_teacher_and_ships_the_student_alone(tmp_path, stage1_run, cached_shots):
    terms = Terms(eyes={"weight": 1.0, "temperature": 2.0})
    run = stage1_run("local_gru", terms=terms, cached_shots=cached_shots)
    teacher = FrozenTeacher(load_network(run.teacher)[0])
    before = weights_hash(teacher.network)
    path = train_student(run, tmp_path / "run", teacher=teacher)
    assert weights_hash(teacher.network) == before
    assert load_tensors(path)[0].keys() == fresh_network(run.network, 0).state_dict().keys()
    adapters = load_tensors(tmp_path / "run" / "adapters.safetensors")[0]
    assert {name.split(".")[0] for name in adapters} == {"eyes"}
    off = stage1_run("local_gru", terms=Terms(), cached_shots=cached_shots)
    zero = stage1_run("local_gru", terms=Terms(eyes={"weight": 0.0, "where": "every"}), cached_shots=cached_shots)
    states = [load_network(train_student(r, tmp_path / n, tmp_path / "cache"))[0].state_dict()
              for r, n in ((off, "off"), (zero, "zero"))]  # fmt: skip
    assert all(torch.equal(states[0][n], x) for n, x in states[1].items())
    assert any(not torch.equal(states[0][n], x) for n, x in load_network(path)[0].state_dict().items())


def test_its_temperature_is_that_of_its_loss(tmp_path, stage1_run, monkeypatch):
    terms = Terms(**(EYES.model_dump() | {"eyes": {"weight": 1.0, "where": "every", "temperature": 3.0}}))
    network, teacher, stage, batch = staged(stage1_run("local_gru", terms=terms), tmp_path)
    seen = []
    real = teacher.answer_from
    monkeypatch.setattr(teacher, "answer_from", lambda *given: seen.append(5 * real(*given)) or seen[-1])
    loss, _ = stage.objective(network, batch)
    pair = seen[-1][:, :, 0], teacher.logits(batch.shots)[:, :, 0]
    expected, at_1 = (posterior_divergence(*pair, t).mean() for t in (3.0, 1.0))
    torch.testing.assert_close(loss, expected)
    assert abs(float((expected - at_1).detach())) > 1e-4


def test_a_teacher_without_a_readout_of_ones_own_is_refused_by_name(tmp_path, stage1_run):
    black_box = PosteriorTeacher(lambda shots: torch.zeros(len(shots), 1), "k", Layout(3))
    with pytest.raises(SyndistillError, match="needs the signal answer_from"):
        train_student(stage1_run(terms=Terms(eyes={"weight": 1.0})), tmp_path / "no", teacher=black_box)
