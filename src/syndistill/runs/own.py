"""A Student for a circuit, an error model or a chip of one's own: tune, gate, distil, judge; one folder, one call."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from syndistill.distill.cache.source import recorded
from syndistill.distill.road import is_finished
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.student import STUDENT_FILE, StudentRun, student_hashes, train_student
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.gate import judge_tuning
from syndistill.files.network_file import network_path
from syndistill.models.networks import load_network, weights_hash
from syndistill.reporter import SILENT, Reporter
from syndistill.runs.gated import distil_gated
from syndistill.runs.own_judged import (
    OPTIMUM,
    REFERENCES,
    RESULT_FILE,
    ROWS_FILE,
    judge,
    tables,
    verdict,
    write_report,
)
from syndistill.runs.own_plan import TUNED, Asked, OwnRun, run_of, with_changes
from syndistill.runs.own_steps import with_steps
from syndistill.safe_files import foreign_files, read_sealed, replacing, write_sealed
from syndistill.sampling.exact_labels import EXACT_DISTANCE
from syndistill.sampling.own_files import own_noise
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import find_recordings
from syndistill.training.changes import validated
from syndistill.training.run import TEACHER_FILE, TeacherRun, train_teacher

OWN_FILE = "own.json"
PICK = 1  # of the select shots that say which Teacher stays; the gate judges it on others


class Found(NamedTuple):
    """The Student's path, by file what was judged, and what of it is to be shown."""

    student: Path
    judged: dict[str, Comparison]
    tables: list[Table]
    verdict: str


def distil_own(asked: Asked, folder: Path, reporter: Reporter = SILENT, accept_any_teacher: bool = False) -> Found:
    """Walk the road, or go on where `folder` stands. SyndistillError for bad files and options, before anything is
    written, and for a Teacher that the gate refuses."""
    own = own_noise(asked.files, asked.model)
    run = _planned(asked, own, folder, reporter)
    if run.teacher is not None:
        _tune(run.teacher, own, folder, reporter)
    student = _with_teacher(run.student, folder)
    if not is_finished(folder / "student", STUDENT_FILE, student, _hashes(student), reporter):
        distil_gated(student, folder / "student", accept_any_teacher=accept_any_teacher, reporter=reporter)
    made = folder / "student" / STUDENT_FILE
    if run.chip is not None:
        chip = run.chip.model_copy(update={"start_from": str(made)})
        made = folder / "chip" / STUDENT_FILE
        if not is_finished(folder / "chip", STUDENT_FILE, chip, _hashes(chip), reporter):
            train_student(chip, folder / "chip", reporter=reporter)
    result = folder / STUDENT_FILE
    with replacing(result) as beside:
        shutil.copyfile(made, beside)
    if (folder / RESULT_FILE).exists():
        reporter.say(f"{folder} is finished; delete {ROWS_FILE} there to judge again")
    judged = _judged(asked, own, run, folder, reporter)
    shown, said = tables(judged, own), verdict(judged, str(result), str(run.student.start_from))
    write_report(judged, shown, said, folder)
    return Found(result, judged, shown, said)


def _hashes(run: StudentRun) -> dict[str, str]:
    return student_hashes(run, teacher_named(run.teacher, run.teacher_precision, run.data.simulated))


def _planned(asked: Asked, own: OwnNoise, folder: Path, reporter: Reporter) -> OwnRun:
    """The folder's run: what it holds, or a new one, whose steps are measured."""
    path = folder / OWN_FILE
    said = {"asked": asked.model_dump(mode="json"), "noise": own.sha256}
    if path.exists():
        found = read_sealed(path, "take a fresh --out")
        _check_same(found, said, folder)
        return validated(OwnRun, found.get("run"), f"{path} is of another version")
    if folder.exists() and foreign_files(folder):
        raise SyndistillError(f"{folder} is not empty and holds no {OWN_FILE}; choose another --out")
    run = run_of(asked, own)
    if run.chip is not None:  # before minutes are spent: are there so many shots, and like these?
        recorded(run.chip.data, run.chip.training.batch_size, run.chip.training.seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyndistillError(f"--out {folder} can't be made ({error.strerror}); choose another place") from None
    run = with_changes(with_steps(run, own.distance, asked.minutes, asked.changes, reporter), asked.changes)
    write_sealed(path, said | {"run": run.model_dump(mode="json")})
    return run


def _check_same(found: Mapping[str, Any], said: Mapping[str, Any], folder: Path) -> None:
    """SyndistillError that names what is not as it was."""
    before = found.get("asked")
    known = before if isinstance(before, Mapping) else {}
    other = [f"{key} {known.get(key)}" for key, value in said["asked"].items() if known.get(key) != value]
    if other:
        raise SyndistillError(
            f"{folder} holds a run of other files or options ({'; '.join(other)}); give the same, or another --out"
        )
    if found.get("noise") != said["noise"]:
        raise SyndistillError(
            f"{folder} holds a run of other files or options (the files' noise has changed since); choose another --out"
        )


def _tune(run: TeacherRun, own: OwnNoise, folder: Path, reporter: Reporter) -> None:
    """Tune a Teacher; where it is not shown to be better on select shots, paired, keep the one before."""
    kept = folder / TEACHER_FILE
    if kept.exists():
        return
    tuned = folder / "teacher" / TEACHER_FILE
    if not tuned.exists():
        train_teacher(run, folder / "teacher", reporter)
    before = str(run.start_from)
    found = judge_tuning(teacher_named(before), teacher_named(str(tuned)), own, seed=PICK, reporter=reporter)
    verdict = "is better and kept" if found.better else "is not shown to be better; the one before stays"
    above = "" if found.best is None else f"; the optimum errs on {found.best:.4f}"
    reporter.say(
        f"the tuned Teacher {verdict}: LER {found.after:.4f} against {found.before:.4f} on select shots "
        f"(p = {found.p_value:.2g}){above}"
    )
    with replacing(kept) as beside:
        shutil.copyfile(tuned if found.better else str(network_path(before)), beside)


def _with_teacher(run: StudentRun, folder: Path) -> StudentRun:
    return run.model_copy(update={"teacher": str(folder / TEACHER_FILE)}) if run.teacher == TUNED else run


def _judged(asked: Asked, own: OwnNoise, run: OwnRun, folder: Path, reporter: Reporter) -> dict[str, Comparison]:
    """Everything that is of interest beside the Student, on fresh shots of each file or on the recorded ones."""
    names = [*REFERENCES, str(run.student.start_from)]
    if run.teacher is not None:
        before, after = str(run.teacher.start_from), str(folder / TEACHER_FILE)
        names += [before] if _same(before, after) else [before, after]
    elif asked.teacher is not None:
        names.append(asked.teacher)
    before, after = str(folder / "student" / STUDENT_FILE), str(folder / STUDENT_FILE)
    if run.chip is not None and not _same(before, after):
        names.append(before)
    names = [*dict.fromkeys(names), str(folder / STUDENT_FILE)]
    if own.distance == EXACT_DISTANCE:
        names.append(OPTIMUM)
    return judge(asked.files, names, asked.model, asked.shots, folder, reporter, run.seen)


def _same(one: str, other: str) -> bool:
    """Whether two files are of one network: what a training did not make better is what it began from."""
    return weights_hash(load_network(one)[0]) == weights_hash(load_network(other)[0])


def recordings_of(
    folders: Sequence[str], distance: int | None = None, center: tuple[float, float] | None = None
) -> tuple[str, ...]:
    """The folders of a chip's patches of one distance, all of their numbers of rounds, in folders of recordings or
    among them; of one patch where its centre is named. SyndistillError where there are several distances, or none.
    """
    found = [one for folder in folders for one in find_recordings(folder, distance)]
    kept = [one for one in found if center is None or tuple(one.center) == tuple(center)]
    distances = sorted({one.distance for one in kept})
    if len(distances) != 1:
        said = " or ".join(f"--distance {d}" for d in distances) or "a --center that there is"
        raise SyndistillError(f"these recordings are of {len(distances)} distances, a Student is of one: give {said}")
    return tuple(str(one.folder) for one in kept)
