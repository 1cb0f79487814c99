"""What a sweep leaves: one JSON object a line, of which the report is made and nothing else.

A line is the plan, the score of one Student or reference on one case, what one fused target turned out to be, or a
failed attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from syndistill.ablation.plan import FORMAT, Plan, Target
from syndistill.distill.signals.fusion import SAME
from syndistill.errors import SyndistillError
from syndistill.safe_files import first_fault
from syndistill.safe_lines import SealedLines
from syndistill.training.config import Strict
from syndistill.training.run_folder import versions

REFERENCE = "reference"
ROWS_FILE = "rows.jsonl"


class PlanLine(Strict):
    """The plan that the lines below are of, until another one."""

    format: Literal[1] = FORMAT
    kind: Literal["plan"] = "plan"
    plan: Plan
    teachers: dict[str, str]
    """Key of each who answers."""
    runs: dict[str, str] = Field(default_factory=dict)
    """Hash of each run by its job's name, and of each fusion by `fusion_name`, so that a later version, whose
    configurations have more dials, still knows these rows; empty in files of the first sweeps: hashes are then
    computed."""
    versions: dict[str, str] = Field(default_factory=versions)


class Reliability(Strict):
    """Bins of equal mass over the probability of a flip: shots, mean probability, share that flipped."""

    counts: tuple[int, ...]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]


class _OfRun(Strict):
    """Whose row it is. run: hash of the configuration that was trained."""

    run: str
    student: str
    arm: str
    budget: float
    seed: int


class Score(_OfRun):
    """One decoder on one case. student: a preset, or "reference", whose name is then in arm.

    nll: nats per shot. kl: of the Teacher's posterior to the
    Student's, nats per shot, on kl_shots of the shots. steps, shots_seen: of the whole training.
    """

    format: Literal[1] = FORMAT
    kind: Literal["score"] = "score"
    experiment: str
    rounds: int
    shots: int = Field(gt=0)
    shots_sha256: str
    errors: int = Field(ge=0)
    nll: float | None
    kl: float | None
    kl_shots: int
    reliability: Reliability | None
    us_per_shot: float
    parameters: int | None
    steps: int
    shots_seen: int
    train_seconds: float
    decoder_id: str

    @model_validator(mode="after")
    def _possible(self) -> Score:
        numbers = [self.nll, self.kl, self.us_per_shot, self.train_seconds]
        if self.errors > self.shots or not all(np.isfinite(x) for x in numbers if x is not None):
            raise ValueError("impossible counts, or a number that is not finite")
        counted = self.shots if self.reliability is None else sum(self.reliability.counts)
        if counted not in (self.shots, 2 * self.shots):  # of one observable or of two
            raise ValueError(f"{self.shots} shots, but {counted} in the bins")
        return self

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.run, self.experiment, self.shots)

    @property
    def ler(self) -> float:
        return self.errors / self.shots


class Fused(Strict):
    """What the fuse stage found of a target. run: hash of its configuration and the Teacher.

    weights, lers: by path. agreement: of its decisions with the Teacher's own, a share of shots. nll: of z_fuse minus
    that of the calibrated logit at every end and line, nats, (low, high) of 95 %. steps: that the probes took.
    """

    format: Literal[1] = FORMAT
    kind: Literal["fused"] = "fused"
    run: str
    target: Target
    verdict: str
    weights: dict[str, float]
    lers: dict[str, float]
    agreement: float = Field(ge=0, le=1)
    nll: tuple[float, float]
    steps: int = Field(ge=0)
    still_improving: bool
    """Whether the probes were stopped while they still learned."""

    @property
    def is_own_answer(self) -> bool:
        """Whether a Student that learns this learns the Teacher's own answer, though other paths were asked too."""
        return len(self.weights) > 1 and self.verdict == SAME


def fusion_name(target: Target) -> str:
    return f"z_fuse {target}"


class Failure(_OfRun):
    """An attempt that raised, or whose process died."""

    format: Literal[1] = FORMAT
    kind: Literal["failure"] = "failure"
    attempt: int
    error: str


Row = Score | Fused
"""What a task finds."""
Line = Annotated[PlanLine | Row | Failure, Field(discriminator="kind")]
_LINE: TypeAdapter[PlanLine | Row | Failure] = TypeAdapter(Line)


class Rows:
    """A file of rows, read and checked as a whole; several processes may append to it.

    SyndistillError with the line's number for a line that is damaged, repeated or of another version. mend: cut off
    what a kill left of a last line; else it is only left out.
    """

    def __init__(self, path: Path, mend: bool = False) -> None:
        self.path = path
        self.plan: PlanLine | None = None
        self.scores: dict[tuple[str, str, int], Score] = {}
        self.fused: dict[str, Fused] = {}
        """By run."""
        self.failures: list[Failure] = []
        self._lines = SealedLines(path, "delete it, `syndistill ablate` then makes its row again")
        with self._lines.held() if mend else nullcontext():
            self._catch_up()

    def _catch_up(self) -> None:
        """Take over what the file holds and this object does not."""
        for number, content in self._lines.new():
            if content.get("format") != FORMAT:
                raise SyndistillError(
                    f"{self.path} line {number} is of format {content.get('format')}, this version reads {FORMAT}: use "
                    "the version that wrote it, or another file of rows"
                )
            try:
                line = _LINE.validate_python(content)
            except ValidationError as error:
                raise self._lines.damaged(number, first_fault(error)) from None
            self._remember(line, number)

    def _remember(self, line: PlanLine | Row | Failure, number: int) -> None:
        if isinstance(line, PlanLine):
            self.plan = line
        elif isinstance(line, Failure):
            self.failures.append(line)
        elif self._holds(line):
            raise SyndistillError(f"{self.path} line {number} repeats an earlier line: delete one of the two")
        elif isinstance(line, Fused):
            self.fused[line.run] = line
        else:
            self.scores[line.key] = line

    def _holds(self, row: Row) -> bool:
        return row.run in self.fused if isinstance(row, Fused) else row.key in self.scores

    def append(self, lines: Iterable[PlanLine | Row | Failure]) -> None:
        """In one write, flushed to the disk; rows that are there already are left out."""
        with self._lines.held():
            self._catch_up()
            new = [line for line in lines if isinstance(line, PlanLine | Failure) or not self._holds(line)]
            self._lines.append(line.model_dump(mode="json") for line in new)
            for line in new:
                self._remember(line, 0)

    def has(self, run: str, cases: Sequence[tuple[str, int]]) -> bool:
        """Whether every (experiment, shots) of a run is there."""
        return all((run, *case) in self.scores for case in cases)
