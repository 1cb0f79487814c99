"""The rows of the road's table: one Student, or one reference, on one experiment; and how they are made.

Axes: B shots.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from syndistill.decoders.contract import Decoder, decisions
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.torch_engine import network_decoder
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.road import is_finished
from syndistill.distill.run import STUDENT_FILE, student_hashes, train_student
from syndistill.distill.targets import FrozenTeacher
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.recipes.road_plan import Case, Job, Plan
from syndistill.safe_files import first_fault
from syndistill.safe_lines import SealedLines
from syndistill.sampling.stored import StoredShots, evaluation_seed
from syndistill.statistics.calibration import log_odds, nll
from syndistill.training.config import Strict

SEED = 27_182  # of the judged shots
TEACHER, RIVAL = "teacher", "pymatching-correlated"
REFERENCE = "reference"


class Score(Strict):
    """student: a preset, or "reference"; arm: of the plan, or which reference. kl: to the Teacher, nats per shot."""

    student: str
    arm: str
    steps: int
    seed: int
    experiment: str
    shots: int
    shots_sha256: str
    errors: int
    nll: float | None
    kl: float | None
    parameters: int | None
    decoder_id: str
    teacher: str

    @property
    def key(self) -> tuple[str, str, int, int, str, int]:
        """Who was judged on what."""
        return (self.student, self.arm, self.steps, self.seed, self.experiment, self.shots)

    @property
    def ler(self) -> float:
        return self.errors / self.shots


def key_of(job: Job, case: Case) -> tuple[str, str, int, int, str, int]:
    """`Score.key` before the score exists."""
    return (job.student, job.arm, job.steps, job.seed, str(case.experiment), case.shots)


class ScoresFile:
    """Scores, one JSON object a line, all of one Teacher. SyndistillError for a damaged or repeated line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[tuple[str, str, int, int, str, int], Score] = {}
        self._lines = SealedLines(path, "delete it, its run is then judged again")
        self._catch_up()
        if len(teachers := {score.teacher for score in self.scores.values()}) > 1:
            raise SyndistillError(f"{path} has rows of {len(teachers)} Teachers: keep those of one")

    def _catch_up(self) -> None:
        for number, content in self._lines.new():
            try:
                score = Score.model_validate(content)
            except ValidationError as error:
                raise self._lines.damaged(number, first_fault(error)) from None
            if score.key in self.scores:
                raise SyndistillError(f"{self.path} line {number} repeats an earlier line: delete one of the two")
            self.scores[score.key] = score

    def require_teacher(self, teacher: str) -> None:
        if foreign := [score for score in self.scores.values() if score.teacher != teacher]:
            raise SyndistillError(
                f"{self.path} has rows of the Teacher {foreign[0].teacher[:12]}, this is {teacher[:12]}: take another "
                "rows file"
            )

    def append(self, scores: Iterable[Score]) -> None:
        """In one write, flushed to the disk."""
        with self._lines.held():
            self._catch_up()
            new = [score for score in scores if score.key not in self.scores]
            self._lines.append(score.model_dump() for score in new)
            self.scores |= {score.key: score for score in new}


@lru_cache(maxsize=8)
def judged_shots(case: Case) -> StoredShots:
    """The same for every decoder and process."""
    return StoredShots.sample(case.experiment.circuit(), case.shots, evaluation_seed(SEED, 0, case.shots))


def judge_references(plan: Plan, case: Case, out: Path) -> list[Score]:
    """The Teacher, whose answers are kept in `out` for every Student's divergence, and its rival."""
    torch.set_num_threads(1)
    shots, teacher = judged_shots(case), FrozenTeacher(load_network(plan.teacher)[0])
    assert shots.circuit is not None
    found = []
    for name in (TEACHER, RIVAL):
        if name == TEACHER:
            decoder: Decoder = network_decoder(teacher.network, shots.circuit or shots.dem, name, {})
        else:
            decoder = build_decoder(name, shots.dem)
        p_B = decoder.decode(shots)[:, 0]
        if name == TEACHER:
            said = {"shots": shots.sha256, "teacher": teacher.key()}
            save_tensors(answers_file(case, out), {"p_B": torch.from_numpy(p_B)}, said)
        job = Job(REFERENCE, name, 0, 0)  # type: ignore[arg-type]  # no arm of the plan
        found.append(_score(job, case, decoder, p_B, None, teacher.key()))
    return found


def answers_file(case: Case, out: Path) -> Path:
    e = case.experiment
    return out / "answers" / f"{e.basis}-r{e.rounds}-{case.shots}.safetensors"


def has_answers(case: Case, out: Path, teacher: str) -> bool:
    """Whether the Teacher's answers to these shots are there."""
    path = answers_file(case, out)
    return path.is_file() and load_tensors(path)[1] == {"shots": judged_shots(case).sha256, "teacher": teacher}


def do_job(plan: Plan, job: Job, out: Path) -> list[Score]:
    """Train what is not trained yet, on one thread, and judge its end on every case."""
    torch.set_num_threads(1)
    teacher = FrozenTeacher(load_network(plan.teacher)[0])
    for folder, run in plan.parts(job, out):
        if not is_finished(folder, STUDENT_FILE, run, student_hashes(run, teacher), lambda _: None):
            train_student(run, folder, out / "cache", teacher=teacher)
    student, _ = load_network(str(plan.student_file(job, out)))
    scores = []
    for case in plan.cases:
        shots = judged_shots(case)
        tensors, said = load_tensors(answers_file(case, out))
        if said != {"shots": shots.sha256, "teacher": teacher.key()}:
            raise SyndistillError(f"{answers_file(case, out)} are answers to other shots; delete it")
        decoder = network_decoder(student, shots.circuit or shots.dem, str(job), {})
        p_B = decoder.decode(shots)[:, 0]
        scores.append(_score(job, case, decoder, p_B, mean_divergence(p_B, tensors["p_B"].numpy()), teacher.key()))
    return scores


def mean_divergence(student_B: NDArray[np.float64], teacher_B: NDArray[np.float64]) -> float:
    """KL of the Teacher's posterior to the Student's, nats per shot, from probabilities of a flip."""
    student_B1, teacher_B1 = (torch.from_numpy(log_odds(p))[:, None] for p in (student_B, teacher_B))
    return float(posterior_divergence(student_B1, teacher_B1).double().mean())


def _score(
    job: Job, case: Case, decoder: Decoder, p_B: NDArray[np.float64], kl: float | None, teacher: str
) -> Score:
    shots = judged_shots(case)
    labels_B = shots.observables()[:, 0]
    return Score(
        student=job.student,
        arm=job.arm,
        steps=job.steps,
        seed=job.seed,
        experiment=str(case.experiment),
        shots=shots.n_shots,
        shots_sha256=shots.sha256,
        errors=int((decisions(p_B) != labels_B).sum()),
        nll=nll(p_B, labels_B) if decoder.gives_probabilities else None,
        kl=kl,
        parameters=decoder.n_parameters,
        decoder_id=decoder.content_id,
        teacher=teacher,
    )
