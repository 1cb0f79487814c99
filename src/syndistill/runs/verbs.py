"""The verbs of the command line as functions of Python: from names and files to finished folders and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import stim

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.subject import Subject
from syndistill.runs.choose import chosen_distillation, chosen_run
from syndistill.runs.gated import distil_gated
from syndistill.training import run as training


def train_teacher(what: str, out: str | Path, settings: Sequence[str] = ()) -> Path:
    """Train a Teacher, or go on: a recipe's name, a run.json or a .py file, with "key.path=value" settings changed.

    Returns the saved network's path. SyndistillError for what is unknown or does not fit.
    """
    return training.train_teacher(chosen_run(training.TeacherRun, what, settings), Path(out))


def distill_student(what: str, out: str | Path, settings: Sequence[str] = (), accept_any_teacher: bool = False) -> Path:
    """Distil a Student, or walk a road, behind the Teacher's gate; names and settings as for `train_teacher`.

    Returns the path of the result: the Student alone, or a road's list. SyndistillError also for a Teacher that the
    gate refuses.
    """
    return distil_gated(chosen_distillation(what, settings), Path(out), accept_any_teacher=accept_any_teacher)


def evaluate(decoders: Sequence[str], on: stim.Circuit | str | Path, shots: int, seed: int = 0) -> Comparison:
    """Judge decoders, by name or path, on the same shots: rows with intervals, and exact paired tests.

    on: a circuit, a .stim or .dem file, or an experiment as "d=3,rounds=9,basis=z,noise=si1000,p=0.004".
    SyndistillError for what can't be read, and for a decoder that can't serve.
    """
    if isinstance(on, stim.Circuit):
        subject = Subject.of_circuit(on, "circuit")
    elif str(on).endswith((".stim", ".dem")):
        subject = Subject.from_file(on)
    else:
        subject = Subject.from_experiment(str(on))
    return subject.compare(decoders, shots, seed)
