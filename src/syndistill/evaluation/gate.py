"""The Teacher gate: nothing is learned from a Teacher that is worse than what it should replace (its
Students would be better than it, and its posterior is no target).

A Teacher passes when, on shots of its own that neither training nor reports use, it is significantly better than plain
matching in every experiment, and its logits need no rescaling to be believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import stim
from pydantic import BaseModel, ConfigDict, ValidationError

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import Placement, place_experiment
from syndistill.decoders.contract import Decoder
from syndistill.decoders.ensemble import EnsembleDecoder
from syndistill.decoders.matching import MatchingDecoder
from syndistill.decoders.network import NetworkDecoder
from syndistill.decoders.optimal import OptimalDecoder
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.torch_engine import TorchEngine
from syndistill.distill.signals.ensemble import CarriedPosterior, EnsembleTeacher
from syndistill.distill.signals.reference import ReferenceTeacher
from syndistill.distill.signals.teacher import FrozenTeacher, Teacher
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import compare_recorded
from syndistill.reporter import SILENT, Bar, Reporter
from syndistill.safe_files import first_fault, read_sealed
from syndistill.sampling.exact_labels import EXACT_DISTANCE
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.seeds import derived_seed
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.rates import mcnemar

SHOTS, SEED = 20_000, 0
ROUNDS = (3, 9)
P = 0.004
SIGNIFICANCE = 0.05
TEMPERATURES = (0.8, 1.25)

_FROZEN = ConfigDict(extra="forbid", frozen=True)


class GateResult(BaseModel):
    """Teacher and plain matching on the same shots of one experiment. p_value: exact McNemar, one-sided."""

    model_config = _FROZEN
    experiment: str
    shots: int
    teacher_ler: float
    matching_ler: float
    rival: str = "plain matching"
    only_teacher_wrong: int
    only_matching_wrong: int
    p_value: float
    best_temperature: float
    nll: float
    ece: float

    @property
    def faults(self) -> list[str]:
        """Why this experiment refuses the Teacher; empty when it does not."""
        found = []
        if self.only_teacher_wrong >= self.only_matching_wrong or self.p_value >= SIGNIFICANCE:
            found.append(
                f"LER {self.teacher_ler:.4f} is not better than {self.rival}'s {self.matching_ler:.4f} "
                f"(p = {self.p_value:.2g})"
            )
        low, high = TEMPERATURES
        if not low <= self.best_temperature <= high:
            found.append(f"best temperature {self.best_temperature:.2f} is outside [{low}, {high}]")
        return found


class GateReport(BaseModel):
    """What the gate found of one Teacher, known by its key."""

    model_config = _FROZEN
    format: Literal[1] = 1
    teacher: str
    results: tuple[GateResult, ...]
    judged_on: str = ""
    """What was asked for, as a hash: the same question is not asked twice."""

    @property
    def faults(self) -> list[str]:
        return [f"{result.experiment}: {fault}" for result in self.results for fault in result.faults]

    @property
    def passed(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """As saved beside the run that asked: the counts, and the verdict that follows from them."""
        return {"passed": self.passed, "faults": self.faults, **self.model_dump(mode="json")}

    @classmethod
    def load(cls, path: Path) -> GateReport:
        """Reads what `to_json` gave; the verdict is made anew from the counts. SyndistillError if it is damaged."""
        remedy = "delete it, the Teacher is then judged again"
        content = read_sealed(path, remedy)
        try:
            return cls.model_validate({k: v for k, v in content.items() if k not in ("passed", "faults")})
        except ValidationError as error:
            raise SyndistillError(f"{path} is damaged ({first_fault(error)}); {remedy}") from None


def judge_teacher(
    teacher: Teacher,
    *,
    noise: str = "si1000",
    p: float = P,
    rounds: tuple[int, ...] = ROUNDS,
    bases: tuple[str, ...] | None = None,
    shots: int = SHOTS,
    reporter: Reporter = SILENT,
) -> GateReport:
    """Judge a Teacher on `shots` paired shots of each basis and number of rounds; 20 s of the default on two cores.

    bases: default x and z, or "both" (shots that track two observables) for a joint4 Teacher. Seeds are of the role
    "select". Raises SyndistillError for bases that the Teacher cannot decode.
    """
    chosen = bases or (("both",) if teacher.output == "joint4" else ("x", "z"))
    experiments = [
        Experiment(teacher.layout.distance, r, basis, noise, p) for basis in chosen for r in sorted(set(rounds))
    ]
    bar = reporter.bar("gate: shots", 2 * shots * len(experiments))
    results = tuple(_judge(teacher, experiment, shots, bar) for experiment in experiments)
    return GateReport(teacher=teacher.key(), results=results)


def _judge(teacher: Teacher, experiment: Experiment, shots: int, bar: Bar) -> GateResult:
    bases = {"x": 0, "z": 1, "both": 2}
    circuit = experiment.circuit()
    stim_seed = derived_seed("select", SEED, experiment.distance, experiment.rounds, bases[experiment.basis])
    stored = StoredShots.sample(circuit, shots, stim_seed)
    judged = decoder_of(teacher, place_experiment(experiment), stored.dem)
    return _result(str(experiment), stored, judged, MatchingDecoder(stored.dem), "plain matching", bar)


def judge_on_files(
    teacher: Teacher, own: OwnNoise, *, shots: int = SHOTS, seed: int = SEED, reporter: Reporter = SILENT
) -> GateReport:
    """Judge a Teacher on own noise, against correlated matching on that very noise: of each patch and basis the longest
    file. seed: of the select shots."""
    files = _longest(own)
    bar = reporter.bar("gate: shots", 2 * shots * len(files))
    results = []
    for (_, basis, rounds), dem, placement, stored in _on_select_shots(own, files, shots, seed):
        rival = MatchingDecoder(dem, correlated=True)
        label = f"{rounds} rounds of the files, read as basis {basis}"
        results.append(_result(label, stored, decoder_of(teacher, placement, dem), rival, "correlated matching", bar))
    return GateReport(teacher=teacher.key(), results=tuple(results))


class Tuned(NamedTuple):
    """A Teacher before and after it was tuned, on the same select shots of all files together. best: the LER of the
    exact optimum, None where that is out of reach. p_value: that it is better, exact McNemar, one-sided."""

    before: float
    after: float
    best: float | None
    p_value: float

    @property
    def better(self) -> bool:
        return self.p_value < SIGNIFICANCE


def judge_tuning(
    before: Teacher, after: Teacher, own: OwnNoise, *, shots: int = SHOTS, seed: int = SEED, reporter: Reporter = SILENT
) -> Tuned:
    """Of each patch and basis the longest file, as `judge_on_files`."""
    files, exact = _longest(own), own.distance == EXACT_DISTANCE
    bar = reporter.bar("tuned Teacher: shots", (3 if exact else 2) * shots * len(files))
    errors, alone = Counter[str](), Counter[str]()
    for _, dem, placement, stored in _on_select_shots(own, files, shots, seed):
        judged = [decoder_of(before, placement, dem, "before"), decoder_of(after, placement, dem, "after")]
        found = compare_recorded([*judged, *([OptimalDecoder(dem)] if exact else [])], [stored], bar=bar)
        errors.update({row.decoder: row.errors for row in found.rows})
        pair = found.pair("after", "before")
        assert pair is not None
        alone.update(after=pair.only_a_wrong, before=pair.only_b_wrong)
    of_before, of_after, *of_best = (n / shots / len(files) for n in errors.values())
    p_value = mcnemar(alone["after"], alone["before"], "less")
    return Tuned(of_before, of_after, of_best[0] if of_best else None, p_value)


def _longest(own: OwnNoise) -> list[tuple[int, str, int]]:
    """(patch, basis, rounds)."""
    return [(k, b, max(models[b])) for k, models in enumerate(own.patches) for b in sorted(models)]


def _on_select_shots(
    own: OwnNoise, files: list[tuple[int, str, int]], shots: int, seed: int
) -> Iterator[tuple[tuple[int, str, int], stim.DetectorErrorModel, Placement, StoredShots]]:
    for k, file in enumerate(files):
        dem, placement = own.dems[file]
        yield file, dem, placement, StoredShots.sample(dem, shots, derived_seed("select", seed, k, file[2]))


def _result(label: str, stored: StoredShots, judged: Decoder, against: Decoder, rival: str, bar: Bar) -> GateResult:
    found = compare_recorded([judged, against], [stored], bar=bar, experiment=label)
    (of_teacher, matching), (pair,) = found.rows, found.pairs
    temperature, nll, ece = of_teacher.best_temperature, of_teacher.nll, of_teacher.ece
    assert temperature is not None
    assert nll is not None
    assert ece is not None
    return GateResult(
        experiment=label,
        shots=stored.n_shots,
        rival=rival,
        teacher_ler=of_teacher.ler,
        matching_ler=matching.ler,
        only_teacher_wrong=pair.only_a_wrong,
        only_matching_wrong=pair.only_b_wrong,
        p_value=mcnemar(pair.only_a_wrong, pair.only_b_wrong, "less"),
        best_temperature=temperature,
        nll=nll,
        ece=ece,
    )


def decoder_of(
    teacher: Teacher, placement: Placement, dem: stim.DetectorErrorModel, name: str = "Teacher"
) -> Decoder:
    """A Teacher made of networks, the exact posterior and references, as a decoder of an experiment's shots."""
    if isinstance(teacher, EnsembleTeacher):
        return EnsembleDecoder([decoder_of(member, placement, dem) for member in teacher.members], name)
    if isinstance(teacher, FrozenTeacher):
        return NetworkDecoder(TorchEngine(teacher.network), placement, name)
    if isinstance(teacher, CarriedPosterior):
        return OptimalDecoder(dem)
    if isinstance(teacher, ReferenceTeacher):
        return build_decoder(teacher.name, dem)
    raise SyndistillError(f"a {type(teacher).__name__} is no decoder; judge a network or an ensemble of them")
