"""The Teacher gate: refuses what matching beats and what is not calibrated, on shots of its own."""

import json

import numpy as np
import pytest
import torch
from scipy.special import expit

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.optimal import OptimalDecoder
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.teacher import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.evaluation import gate
from syndistill.evaluation.gate import GateReport, GateResult, judge_teacher, judge_tuning
from syndistill.models.networks import build, load_network, weights_hash
from syndistill.sampling.own_files import own_noise
from syndistill.sampling.stored import dem_of_circuit
from syndistill.statistics.calibration import log_odds

from ..circuits.test_memory_model import generated
from ..reporting import Heard

GOOD = GateResult(
    experiment="e", shots=1000, teacher_ler=0.04, matching_ler=0.05, only_teacher_wrong=10, only_matching_wrong=30,
    p_value=0.001, best_temperature=1.0, nll=0.1, ece=0.01,
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    return build("teacher-tiny", 3)


class Sharpened(OptimalDecoder):
    """The exact posterior with its log-odds times `factor`: the same decisions, another confidence."""

    def __init__(self, dem, factor):
        super().__init__(dem)
        self.name = "Teacher"
        self.factor = factor

    def _probabilities(self, shots):
        return np.asarray(expit(log_odds(super()._probabilities(shots)) * self.factor))


def judged_as(monkeypatch, network, factor):
    """The gate's report of a network that answers with the (sharpened) optimum; 2 rounds, so that it is quick."""
    dem = dem_of_circuit(Experiment(3, 2, "z", "si1000", 0.006).circuit())
    monkeypatch.setattr(gate, "NetworkDecoder", lambda *_: Sharpened(dem, factor))
    return judge_teacher(FrozenTeacher(network), p=0.006, rounds=(2,), bases=("z",), shots=20_000)


def test_the_optimum_passes(monkeypatch, fresh):
    """At p = .006 matching makes some 20 % more errors than the optimum: p < .05 fails at 6 standard deviations."""
    report = judged_as(monkeypatch, fresh, 1.0)
    (result,) = report.results
    assert report.passed
    assert report.faults == []
    assert report.teacher == weights_hash(fresh)
    assert result.teacher_ler < result.matching_ler
    assert result.only_matching_wrong - result.only_teacher_wrong == round(
        20_000 * (result.matching_ler - result.teacher_ler)
    )
    assert 0.9 < result.best_temperature < 1.1


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_right_decisions_with_wrong_confidence_are_refused(monkeypatch, fresh, factor):
    report = judged_as(monkeypatch, fresh, factor)
    assert not report.passed
    (fault,) = report.faults
    assert "best temperature" in fault
    assert report.results[0].best_temperature == pytest.approx(factor, rel=0.1)


def test_an_untrained_network_is_refused(fresh):
    heard = Heard()
    report = judge_teacher(FrozenTeacher(fresh), rounds=(1, 2), shots=500, reporter=heard)
    assert [result.experiment for result in report.results] == [
        f"d=3,rounds={r},basis={basis},noise=si1000,p=0.004" for basis in ("x", "z") for r in (1, 2)
    ]
    assert not report.passed
    assert sum("plain matching" in fault for fault in report.faults) == 4
    assert heard.totals == {"gate: shots": 4 * 2 * 500}
    assert heard.counted[-1][1] == 4 * 2 * 500
    assert judge_teacher(FrozenTeacher(fresh), rounds=(1, 2), shots=500) == report


def test_joint4_is_judged_on_two_observables():
    torch.manual_seed(0)
    report = judge_teacher(FrozenTeacher(build("teacher-tiny", 3, "joint4")), rounds=(2,), shots=500)
    assert [result.experiment for result in report.results] == ["d=3,rounds=2,basis=both,noise=si1000,p=0.004"]
    with pytest.raises(SyndistillError, match="joint4"):
        judge_teacher(FrozenTeacher(build("teacher-tiny", 3, "joint4")), bases=("z",), rounds=(2,), shots=500)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"best_temperature": 0.79}, "temperature"),
        ({"best_temperature": 1.26}, "temperature"),
        ({"p_value": 0.06}, "matching"),
        ({"only_teacher_wrong": 30, "p_value": 0.01}, "matching"),
    ],
)
def test_each_condition_alone_refuses(changes, said):
    report = GateReport(teacher="t", results=(GOOD, GOOD.model_copy(update=changes)))
    assert report.passed == (said is None)
    assert all(said in fault for fault in report.faults)
    assert len(report.faults) == (said is not None)


def test_the_report_is_kept_and_its_verdict_made_anew(tmp_path):
    report = GateReport(teacher="t", results=(GOOD, GOOD.model_copy(update={"best_temperature": 2.0})))
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(report.to_json()))
    assert json.loads(path.read_text())["passed"] is False
    assert GateReport.load(path) == report
    path.write_text(json.dumps(report.to_json() | {"passed": True}))
    assert not GateReport.load(path).passed
    for damaged in ("", "[]", "{}", path.read_text()[:-9]):
        path.write_text(damaged)
        with pytest.raises(SyndistillError, match="damaged"):
            GateReport.load(path)


def test_an_ensemble_is_judged_as_the_mean_of_its_members():
    """Beside the Teacher and the exact posterior the Student is nearer to the truth than alone."""
    alone, together = (
        judge_teacher(teacher_named(name), rounds=(3,), bases=("z",), shots=4000)
        for name in ("student-d3", "student-d3,teacher-d3,exact")
    )
    assert alone.teacher != together.teacher
    assert alone.results[0].matching_ler == together.results[0].matching_ler
    assert together.results[0].nll < alone.results[0].nll


@pytest.mark.parametrize("distance", [3, 5])
def test_a_tuned_teacher_is_kept_only_where_it_is_shown_to_be_better(tmp_path, distance):
    file = tmp_path / "mine.stim"
    file.write_text(str(generated("z", 3, distance)))
    own = own_noise([str(file)])
    untrained = build("flat-gru-5k", distance)
    good, bad = FrozenTeacher(load_network(f"student-d{distance}")[0]), FrozenTeacher(untrained)
    up, down = (judge_tuning(*pair, own, shots=4_000) for pair in ((bad, good), (good, bad)))
    assert (up.better, down.better) == (True, False)
    assert (up.before, up.after) == (down.after, down.before)
    assert up.after < up.before
    assert (up.best is not None) == (distance == 3)
    assert distance == 5 or up.best <= up.after
    # of other shots than the gate's
    assert judge_tuning(bad, good, own, shots=4_000, seed=1) != up
