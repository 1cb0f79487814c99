"""Students and references on the judged shots, as rows: an error is a shot with any observable decided wrongly; NLL, KL
and reliability are of each observable by itself. Axes: B shots, O observables.
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from syndistill.ablation.jobs import OPTIMUM, RIVAL, TEACHER, Job, Part, reference_run
from syndistill.ablation.plan import Plan
from syndistill.ablation.rows import REFERENCE, Reliability, Score
from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import Decoder, MoreRoundsThanTrained, decisions
from syndistill.decoders.engine_for import engine_for
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import on_circuit
from syndistill.distill.losses import posterior_divergence
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.teacher import Teacher
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.stored import StoredShots, evaluation_seed
from syndistill.statistics.calibration import log_odds, nll, reliability
from syndistill.training.config import DataConfig, Precision

_WARM_UP_SHOTS = 256


@lru_cache(maxsize=16)
def judged_shots(experiment: Experiment, shots: int, seed: int) -> StoredShots:
    """The same for every decoder and process."""
    return StoredShots.sample(experiment.circuit(), shots, evaluation_seed(seed, 0, shots))


def references_of(plan: Plan) -> list[str]:
    return [TEACHER, RIVAL, *([OPTIMUM] if plan.judging.optimum else [])]


def reference_shots(plan: Plan, name: str, shots: int) -> int:
    """How many of a case's shots a reference is judged on: the Teacher is slow."""
    return min(shots, plan.judging.teacher_shots) if name == TEACHER else shots


def judge_reference(
    plan: Plan, name: str, experiment: Experiment, shots: int, out: Path, teacher_key: str
) -> list[Score]:
    """The Teacher's answers are kept in `out`, for every Student's divergence."""
    stored = judged_shots(experiment, shots, plan.judging.seed).take(0, reference_shots(plan, name, shots))
    if name == TEACHER:
        decoder = Subject.of_circuit(experiment.circuit(), str(experiment)).decoder(plan.teacher)
    else:
        decoder = build_decoder(name, stored.dem)
    p_BO, seconds = _decoded(decoder, stored)
    if name == TEACHER:
        said = {"shots": stored.sha256, "teacher": teacher_key}
        save_tensors(answers_file(out, experiment), {"p_BO": torch.from_numpy(p_BO)}, said)
    who = _who(reference_run(name, teacher_key), Job(REFERENCE, name, 0.0, 0), 0, 0, 0.0)
    return [_score(who, experiment, stored, decoder, p_BO, seconds, None)]


def answers_file(out: Path, experiment: Experiment) -> Path:
    return out / "answers" / f"{experiment.basis}-r{experiment.rounds}-p{experiment.p:g}.safetensors"


def has_answers(plan: Plan, experiment: Experiment, shots: int, out: Path, teacher_key: str) -> bool:
    """Whether the Teacher's answers to these very shots are there."""
    path = answers_file(out, experiment)
    if not path.is_file():
        return False
    stored = judged_shots(experiment, shots, plan.judging.seed).take(0, reference_shots(plan, TEACHER, shots))
    return load_tensors(path)[1] == {"shots": stored.sha256, "teacher": teacher_key}


def judge_student(
    plan: Plan, job: Job, part: Part, steps: int, shots_seen: int, seconds: float, out: Path, teacher_key: str
) -> list[Score]:
    """A finished job's Student on every case, by the engine that runs it fastest here."""
    who = _who(part.hash, job, steps, shots_seen, seconds)
    engine = engine_for(part.student_file)
    found = []
    for experiment, shots in plan.experiments():
        stored = judged_shots(experiment, shots, plan.judging.seed)
        assert stored.circuit is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MoreRoundsThanTrained)  # a plan may judge what lies beyond, and says so
            decoder = on_circuit(engine, stored.circuit)
        p_BO, decoding = _decoded(decoder, stored)
        tensors, said = load_tensors(answers_file(out, experiment))
        if said["teacher"] != teacher_key:
            raise SyndistillError(f"{answers_file(out, experiment)} are answers of another Teacher; delete it")
        found.append(_score(who, experiment, stored, decoder, p_BO, decoding, tensors["p_BO"].numpy()))
    return found


def _who(run: str, job: Job, steps: int, shots_seen: int, seconds: float) -> dict[str, Any]:
    trained = {"steps": steps, "shots_seen": shots_seen, "train_seconds": round(seconds, 2)}
    return {"run": run, **job._asdict(), **trained}


def _decoded(decoder: Decoder, stored: StoredShots) -> tuple[NDArray[np.float64], float]:
    """Probabilities (B, O), and the seconds that they took."""
    decoder.decode(stored.take(0, min(_WARM_UP_SHOTS, stored.n_shots)))
    began = time.perf_counter()
    p_BO = decoder.decode(stored)
    return p_BO, time.perf_counter() - began


def _score(
    who: dict[str, Any],
    experiment: Experiment,
    stored: StoredShots,
    decoder: Decoder,
    p_BO: NDArray[np.float64],
    seconds: float,
    teacher_BO: NDArray[np.float64] | None,
) -> Score:
    labels_BO = stored.observables()
    bins = reliability(p_BO, labels_BO) if decoder.gives_probabilities else None
    return Score(
        **who,
        experiment=str(experiment),
        rounds=experiment.rounds,
        shots=stored.n_shots,
        shots_sha256=stored.sha256,
        errors=int((decisions(p_BO) != labels_BO).any(1).sum()),
        nll=nll(p_BO, labels_BO) if decoder.gives_probabilities else None,
        kl=None if teacher_BO is None else mean_divergence(
            p_BO[: len(teacher_BO)].ravel(), teacher_BO.ravel()
        ),
        kl_shots=0 if teacher_BO is None else len(teacher_BO),
        reliability=None if bins is None else Reliability(
            counts=tuple(bins.counts_G.tolist()), predicted=tuple(bins.predicted_G.tolist()),
            observed=tuple(bins.observed_G.tolist()),
        ),
        us_per_shot=1e6 * seconds / stored.n_shots,
        parameters=decoder.n_parameters,
        decoder_id=decoder.content_id,
    )  # fmt: skip


def teacher_of(plan: Plan) -> Teacher:
    return _teacher(plan.teacher, plan.teacher_precision, plan.base.data.simulated)


@lru_cache(maxsize=2)
def _teacher(name: str, precision: Precision, data: DataConfig) -> Teacher:
    return teacher_named(name, precision, data)


def mean_divergence(student_B: NDArray[np.float64], teacher_B: NDArray[np.float64]) -> float:
    """KL of the Teacher's posterior to the Student's, nats per shot, from probabilities of a flip."""
    student_B1, teacher_B1 = (torch.from_numpy(log_odds(p))[:, None] for p in (student_B, teacher_B))
    return float(posterior_divergence(student_B1, teacher_B1).double().mean())
