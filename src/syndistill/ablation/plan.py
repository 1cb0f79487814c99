"""A plan: arms as small changes, who runs them how often, and questions with the contrast named for each beforehand.

A plan is data. It says nothing of folders or machines (`jobs`, `runner`) or of results (`report`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from syndistill.circuits.experiment import Experiment
from syndistill.distill.cache.source import StudentData
from syndistill.distill.fuse import FitShots, ReportShots
from syndistill.distill.signals.fusion import DEFAULT_PATHS, FusionPath
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.files.families import Dials, OutputForm, dials_of
from syndistill.models.networks import PRESETS, preset
from syndistill.sampling.stream import Labels
from syndistill.training.changes import changed, validated
from syndistill.training.config import (
    DEVICES,
    BatchSize,
    Name,
    OptimiserConfig,
    Positive,
    Precision,
    Rounds,
    Seed,
    Strict,
)

PlanSeed = Annotated[int, Field(ge=0, lt=1 << 61)]
"""Two of them, added up, are a seed still."""
Budget = Annotated[float, Field(gt=0, le=1000)]
ContrastWeight = Annotated[float, Field(ge=-1000, le=1000)]
Block = Literal["signals", "stages", "controls"]
Target = Literal["none", "final", "calibrated", "mean", "nll", "per_shot"]
FORMAT: Literal[1] = 1

LEAST_SEEDS = 3
"""With two a 95 % t interval is 9 standard deviations wide to each side: it says nothing."""


class Settings(Strict):
    """All that an arm may change; the dotted keys of `Arm.change` are of here."""

    asks: Literal["teacher", "oracle"] = "teacher"
    """Who answers: the plan's Teacher, or the exact posterior of every end."""
    start: Literal["scratch", "stage1", "baseline"] = "scratch"
    """stage1: the first half of the steps is stage 1 (`Plan.stage1`), the second half has these terms; baseline: the
    first half has the terms of the plan's base."""
    start_from: Name | None = None
    """A Student to begin from, shipped or a path, in place of fresh weights; a run knows it by its weights."""
    target: Target = "none"
    """What the fused term learns, at every end and line: the Teacher's own logits, the same with the temperature of
    the least NLL, or z_fuse with equal weights, with those of the least NLL, or with a gate's for each shot."""
    seed_shift: PlanSeed = 0
    """Added to the seed of first weights and order of shots: another draw of the same thing."""
    steps_factor: float = Field(default=1.0, gt=0, le=1000)
    terms: Terms = Terms()
    data: StudentData
    batch_size: BatchSize = 256
    precision: Precision = "fp32"
    device: str = Field(default="cpu", pattern=DEVICES)
    """Where Students are trained; they are judged on the CPU."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """Its warm-up and decay steps are made from the steps of a run: see `jobs`."""

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (self.target == "none") == bool(self.terms.fused.weight):
            raise ValueError("target and terms.fused.weight belong together; set both or none")
        if self.start != "scratch" and self.target == "none":
            raise ValueError(f"start={self.start} needs a target for the second half")
        return self


class Arm(Strict):
    """One way to train, as what differs from another one. name: for tables and files."""

    name: str = Field(pattern=r"^[a-z0-9+-]+$")
    block: Block
    says: str
    """What it learns from, in words for a table."""
    differs_from: str | None = None
    """An earlier arm; None: the plan's base."""
    change: dict[str, Any] = Field(default_factory=dict)


class Question(Strict):
    """A question and its contrasts: a contrast is {arm: weight}, of log LER; weights add up to 0.

    {"a": 1, "b": -1} asks what a has over b. The primary one is tested as it is, all others of the plan's questions to
    the same Student by Holm.
    """

    name: str
    text: str
    student: str | None = None
    """Whom it is asked of; None: the first sweep's."""
    budget: Budget = 1.0
    primary: dict[str, ContrastWeight]
    others: dict[str, dict[str, ContrastWeight]] = Field(default_factory=dict)
    """By what they say."""
    withdrawn: str = ""
    """Why what the rows say to this question does not hold; it then stands in the place of the answer."""

    @property
    def contrasts(self) -> list[dict[str, float]]:
        return [self.primary, *self.others.values()]


class Sweep(Strict):
    """Arms to be run with every seed of the plan, or with others: one Student, one budget. Empty: all."""

    student: str
    budget: Budget
    arms: tuple[str, ...] = ()
    seeds: tuple[PlanSeed, ...] = ()


class Probing(Strict):
    """How z_fuse is made, and its probes are trained."""

    paths: tuple[FusionPath, ...] = Field(default=DEFAULT_PATHS, min_length=1)
    labels: Labels = "sampled"
    """That the probes learn from."""
    steps: Positive = 300
    fit_shots: FitShots = 8_192
    report_shots: ReportShots = 8_192


class Judging(Strict):
    """What everything is judged on: cases in all bases, at each error rate."""

    cases: tuple[tuple[Rounds, Positive], ...] = Field(min_length=1)
    """(rounds, shots of each basis)."""
    primary_rounds: Rounds
    """Whose LER, of both bases together, contrasts are of."""
    teacher_shots: Positive
    """The Teacher answers the first so many shots of each case; Students' KL is of these."""
    optimum: bool
    """Whether the exact optimum is judged too (distance 3)."""
    rates: tuple[Annotated[float, Field(gt=0, le=0.1)], ...] = ()
    """Error rates judged; empty: the largest one that is trained on. Questions are of the last one."""
    seed: Seed = 27_182

    @model_validator(mode="after")
    def _consistent(self) -> Judging:
        rounds = [r for r, _ in self.cases]
        if len(set(rounds)) != len(rounds) or self.primary_rounds not in rounds:
            raise ValueError(f"cases must have each number of rounds once, and primary_rounds={self.primary_rounds}")
        return self


class Plan(Strict):
    """Everything that an ablation depends on."""

    name: str
    title: str
    teacher: Name
    """A shipped network's name or a path."""
    teacher_precision: Precision = "fp32"
    output: OutputForm = "two_channel"
    """Of the Teacher and all Students; joint4 learns from basis "both" alone."""
    students: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Networks of one's own, for sweeps to name beside the presets: family and dials, without distance and output."""
    seeds: tuple[PlanSeed, ...]
    steps: int = Field(gt=7, le=1_000_000_000)
    """Of a run at budget 1."""
    base: Settings
    stage1: Terms
    """What the first half of a run that starts from stage 1 learns from."""
    arms: tuple[Arm, ...] = Field(min_length=1)
    sweeps: tuple[Sweep, ...] = Field(min_length=1)
    """In the order in which they are run: what answers the primary questions first."""
    questions: tuple[Question, ...]
    saving: tuple[str, str] | tuple[()] = ()
    """(with, without): arms whose LER over budgets gives the shots that distillation saves; (): it is not asked."""
    probing: Probing = Probing()
    judging: Judging
    margin: float = Field(default=0.03, gt=0, lt=1)
    """A ratio of LERs within 1 +- this is called no effect."""
    gate_shots: Positive = 10_000
    corrections: tuple[str, ...] = ()
    """What was found wrong, or left unsaid, after the rows were made: stands above everything in the report."""

    @field_validator("seeds")
    @classmethod
    def _enough_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"a seed comes twice in {seeds}")
        if len(seeds) < LEAST_SEEDS:
            raise ValueError(f"{len(seeds)} seeds are too few for an interval; give {LEAST_SEEDS} or more")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        names = [arm.name for arm in self.arms]
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise ValueError(f"the arm {twice[0]} comes twice")
        for i, arm in enumerate(self.arms):
            if arm.differs_from is not None and arm.differs_from not in names[:i]:
                raise ValueError(f"the arm {arm.name} differs from {arm.differs_from}, which is no earlier arm")
            self.settings(arm.name)
        for sweep in self.sweeps:
            _require_known(sweep.arms, names, "sweeps.arms")
            _require_known([sweep.student], [*self.students, *PRESETS], "sweeps.student")
            self.network(sweep.student)
        for question in self.questions:
            if question.student is not None:
                where = f"the question {question.name}: student"
                _require_known([question.student], [s.student for s in self.sweeps], where)
            for contrast in question.contrasts:
                _require_known(contrast, names, f"the question {question.name}")
                if abs(sum(contrast.values())) > 1e-9 or not contrast:
                    raise ValueError(f"a contrast of {question.name} does not add up to 0: {contrast}")
        _require_known(self.saving, names, "saving")
        if len(set(self._simulated)) != 1:
            raise ValueError("all arms must learn from shots of one kind; data.simulated differs")
        curriculum = self.base.data.simulated.curriculum
        if self.oracle and curriculum.p_min != curriculum.p_max:
            raise ValueError("the oracle needs one error rate, p_min = p_max; or leave arms out that ask it")
        if self.output == "joint4" and set(self.base.data.simulated.bases) != {"both"}:
            raise ValueError('output joint4 learns from two observables: set base.data.simulated.bases=["both"]')
        return self

    @property
    def _simulated(self) -> list[str]:
        """But for the labels."""
        return [self.settings(arm.name).data.simulated.model_dump_json(exclude={"labels"}) for arm in self.arms]

    def asked_student(self, question: Question) -> str:
        return self.sweeps[0].student if question.student is None else question.student

    @property
    def rates(self) -> tuple[float, ...]:
        return self.judging.rates or (self.base.data.simulated.curriculum.p_max,)

    @property
    def primary_rate(self) -> float:
        return self.rates[-1]

    def network(self, student: str) -> Dials:
        """Whole, of a preset or of one of the plan's own."""
        distance = self.base.data.simulated.distance
        if student in self.students:
            return dials_of(self.students[student] | {"distance": distance, "output": self.output})
        return preset(student, distance, self.output)

    @property
    def oracle(self) -> bool:
        """Whether an arm that is run asks it."""
        run = {name for sweep in self.sweeps for name in sweep.arms or [arm.name for arm in self.arms]}
        return any(self.settings(name).asks == "oracle" for name in run)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def settings(self, name: str) -> Settings:
        """All dials of an arm."""
        arm = self.arm(name)
        content = (self.base if arm.differs_from is None else self.settings(arm.differs_from)).model_dump(mode="json")
        for key, value in arm.change.items():
            content = changed(content, key.split("."), value, f"arm {name}, {key}")
        try:
            return Settings.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "settings"
            raise SyndistillError(f"arm {name}: {key}: {first['msg']}") from None

    def experiments(self) -> list[tuple[Experiment, int]]:
        """(what is judged, shots), the costly ones first."""
        sim = self.base.data.simulated
        found = [
            (Experiment(sim.distance, rounds, basis, sim.noise, p), shots)
            for rounds, shots in self.judging.cases
            for basis in sim.bases
            for p in self.rates
        ]
        return sorted(found, key=lambda case: -case[0].rounds * case[1])


def _require_known(names: Sequence[str] | dict[str, float], known: list[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names {name!r}, which is unknown{did_you_mean(name, known)}")


def plan_from(content: dict[str, Any], where: str) -> Plan:
    """A plan from untrusted content; SyndistillError in one line for what does not fit."""
    plan: Plan = validated(Plan, content, where)
    return plan


LABELS, FINAL = LabelTerm(weight=0.1), FinalTerm(weight=1.0)
