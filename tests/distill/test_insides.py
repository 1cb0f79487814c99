"""A Student whose state holds what the Teacher's does reaches it, whatever way round either of them looks at a shot."""

from dataclasses import replace

import pytest
import torch

from syndistill.distill.cache.source import LiveSource, simulated
from syndistill.distill.signals.features import state_orders
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots
from syndistill.distill.stage import StageInputs, prepare_stage, stage_statistics
from syndistill.distill.terms import Terms
from syndistill.files.families import dials_of
from syndistill.models.contract import Outputs
from syndistill.models.networks import build, fresh_network
from syndistill.training.source import statistics_shots

from .conftest import SIZES, STUDENT_SIZES, stage1_run

WIDTH, STABILISERS, ROUNDS = SIZES["transformer"]["width"], 8, 3


def teacher_of(turned):
    torch.manual_seed(7)
    network = build(dials_of({"family": "transformer", "distance": 3, "turn_x": turned, **SIZES["transformer"]}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    teacher = FrozenTeacher(network)
    ask, known = teacher.answer, {}

    def answer(shots, want=()):
        """Asked often, about a few batches."""
        key = (id(shots), *sorted(want))
        known.setdefault(key, (shots, ask(shots, want)))
        return known[key][1]

    teacher.answer = answer
    return teacher


class Knowing:
    """Stands for a Student's forward: its state is the Teacher's, mapped and moved by a table, in its own order.

    maps: by basis; a map may be one for both. Everything else is the Student's own.
    """

    def __init__(self, network, teacher, maps):
        self.plain, self.teacher, self.maps = network.forward, teacher, maps
        self.known = {}
        self.orders = state_orders(network, ("x", "z"))
        self.flat = network.config.family == "flat_gru"
        self.tables = {b: 5 * torch.randn(ROUNDS, STABILISERS, WIDTH) for b in "xz"}

    def __call__(self, shots, want_signals=()):
        if id(shots) not in self.known:
            self.known[id(shots)] = self._asked(shots)
        logits_BKLC, state = self.known[id(shots)]
        return Outputs(logits_BKLC, None, dict.fromkeys(want_signals, state))

    @torch.no_grad()
    def _asked(self, shots):
        x = self.teacher.answer(shots, ["temporal"]).signals["temporal"]
        if self.flat and shots.basis in self.orders:
            x = x[:, :, self.orders[shots.basis]]
        x = x + self.tables[shots.basis][: x.shape[1]]
        return self.plain(shots).logits_BKLC, (x.flatten(2) if self.flat else x) @ self.maps[shots.basis]


def knowing_network(family, turned, teacher, alike):
    """A Student whose state is a turned one of the Teacher's, in each basis another way or (alike) in both the same."""
    config = dials_of({"family": family, "distance": 3, **STUDENT_SIZES[family], "turn_x": turned})
    network = fresh_network(config, 1)
    torch.manual_seed(5)
    size = WIDTH * (STABILISERS if family == "flat_gru" else 1)
    maps = {b: torch.linalg.qr(torch.randn(size, size))[0] for b in "xz"}
    object.__setattr__(network, "forward", Knowing(network, teacher, dict.fromkeys("xz", maps["z"]) if alike else maps))
    return network


def knowing_stage(folder, family, student_turned, teacher_turned, alike, loss="normalised_mse", projector="linear"):
    """(objective, its adapter, a batch of each basis)."""
    folder.mkdir(parents=True)
    teacher = teacher_of(teacher_turned)
    feature = {"weight": 1.0, "share": None, "components": WIDTH, "every_rounds": 1, "loss": loss,
               "projector": projector}  # fmt: skip
    terms = Terms(labels={"weight": 0.0}, final={"weight": 0.0}, temporal=feature)
    run = stage1_run("given", family, terms=terms)
    network = knowing_network(family, student_turned, teacher, alike)
    shots = statistics_shots(run.data.simulated, 5, 512)
    statistics = stage_statistics(terms, teacher, shots, folder)
    source = LiveSource(simulated(run.data, 32, 1), ())
    stage = prepare_stage(StageInputs(terms, teacher, statistics, shots, run.training), network, source, folder)
    batches = {b.basis: TaughtShots(b.take(slice(0, 256)), None, number=1) for b in shots}
    return network, stage, batches


def fitted(network, stage, batches):
    """The loss on each basis after the adapter alone has learned from these batches."""
    optimiser = torch.optim.LBFGS(stage.adapters["temporal"].parameters(), max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = sum(stage.objective(network, batch)[0] for batch in batches.values())
        loss.backward()
        return loss

    optimiser.step(closure)


def losses_of(network, stage, batches):
    return {basis: float(stage.objective(network, batch)[0].detach()) for basis, batch in batches.items()}


SLOW = pytest.mark.slow("the other way round of a Teacher, fitted for each family")


@pytest.mark.parametrize(
    ("family", "student_turned", "alike", "teacher_turned"),
    [("flat_gru", True, False, False), ("flat_gru", False, False, True), ("local_gru", True, False, True),
     ("local_gru", False, True, False),
     pytest.param("flat_gru", True, False, True, marks=SLOW),
     pytest.param("flat_gru", False, False, False, marks=SLOW),
     pytest.param("local_gru", True, False, False, marks=SLOW),
     pytest.param("local_gru", False, True, True, marks=SLOW)],
)  # fmt: skip
def test_a_state_that_is_a_linear_map_of_the_teachers_reaches_it(
    tmp_path, family, student_turned, alike, teacher_turned
):
    network, stage, batches = knowing_stage(tmp_path / "s", family, student_turned, teacher_turned, alike)
    before = losses_of(network, stage, batches)
    fitted(network, stage, batches)
    after = losses_of(network, stage, batches)
    assert set(after) == {"x", "z"}
    assert all(after[basis] < 0.04 < 0.5 < before[basis] for basis in "xz"), after


@pytest.mark.parametrize("teacher_turned", [False, True])
def test_targets_are_in_the_students_frame(tmp_path, teacher_turned):
    """What a flat, turned Student of one map learns in Z holds in X."""
    network, stage, batches = knowing_stage(tmp_path / "s", "flat_gru", True, teacher_turned, alike=True)
    fitted(network, stage, {"z": batches["z"]})
    maps = stage.adapters["temporal"].maps
    maps["x"].load_state_dict(maps["z"].state_dict())
    after = losses_of(network, stage, batches)
    assert max(after.values()) < 0.15, after


def test_rounds_are_compared_with_their_own(tmp_path):
    """A Student that is one round late does not reach the target."""
    network, stage, batches = knowing_stage(tmp_path / "s", "local_gru", False, False, alike=True)
    fitted(network, stage, batches)
    on_time = losses_of(network, stage, batches)
    known = network.forward

    def late(shots, want_signals=()):
        outputs = known(shots, want_signals)
        return replace(outputs, signals={n: x.roll(1, 1) for n, x in outputs.signals.items()})

    object.__setattr__(network, "forward", late)
    fitted(network, stage, batches)
    assert all(losses_of(network, stage, batches)[basis] > 5 * on_time[basis] + 0.1 for basis in "xz")


def test_every_second_round_of_the_student_is_held_against_every_second_of_the_target(tmp_path, stage1_run):
    terms = Terms(temporal={"weight": 1.0, "components": 4, "every_rounds": 2, "share": None})
    run = stage1_run(terms=terms)
    teacher, network = teacher_of(False), fresh_network(run.network, 1)
    shots = statistics_shots(run.data.simulated, 5)
    statistics = stage_statistics(terms, teacher, shots, tmp_path)
    source = LiveSource(simulated(run.data, 32, 1), ())
    stage = prepare_stage(StageInputs(terms, teacher, statistics, shots, run.training), network, source, tmp_path)
    plain = network.forward
    moved = {1: 0, 0: 0, 2: 0}
    batch = source.chunk(0)[0]
    expected = stage.objective.losses(network, batch)[1]["temporal"].detach()
    for changed in moved:

        def other(shots, want_signals=(), changed=changed):
            outputs = plain(shots, want_signals)
            noise = torch.randn(outputs.signals["temporal"][:, 0].shape, generator=torch.Generator().manual_seed(0))
            signal = outputs.signals["temporal"].clone()
            signal[:, changed] += noise
            return replace(outputs, signals={"temporal": signal})

        network.forward = other
        moved[changed] = abs(float(stage.objective.losses(network, batch)[1]["temporal"].detach() - expected))
    assert moved[1] == 0  # the second round is not looked at
    assert moved[0] > 1e-3
    assert moved[2] > 1e-3
