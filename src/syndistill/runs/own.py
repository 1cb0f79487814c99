"""A Student for a circuit, an error model or a chip of one's own: tune, gate, distil, judge; one folder, one command.

The nearest shipped networks are where it begins. Labels are not drawn where they can be computed from the errors of the
user's own files: exact ones at distance 3, revealed ones at distance 5. Those say more than any Teacher's answers, for
less time (docs/own-circuit.md), so a Teacher is asked only where one is named.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from rich.table import Table

from syndistill.distill.cache.source import Recorded, StudentData, Unsure
from syndistill.distill.road import is_finished
from syndistill.distill.signals.ensemble import EnsembleTeacher, teacher_named
from syndistill.distill.signals.teacher import FrozenTeacher, Teacher
from syndistill.distill.student import STUDENT_FILE, StudentRun, check_goes_on, student_hashes, train_student
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.gate import judge_tuning
from syndistill.files.network_file import members_in, network_path, read_header, shipped_names
from syndistill.models.gru import LocalGru
from syndistill.models.networks import load_network, weights_hash
from syndistill.reporter import SILENT, Bar, Reporter
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
from syndistill.safe_files import foreign_files, read_sealed, replacing, write_sealed
from syndistill.sampling.exact_labels import EXACT_DISTANCE
from syndistill.sampling.own_files import own_noise
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import RecordingProperties, find_recordings
from syndistill.training.changes import validated, with_change
from syndistill.training.config import (
    Curriculum,
    DataConfig,
    Name,
    Number,
    OptimiserConfig,
    Positive,
    Precision,
    RoundsPhase,
    Strict,
    TrainingConfig,
)
from syndistill.training.run import TEACHER_FILE, TeacherRun, train_teacher
from syndistill.training.source import statistics_shots

OWN_FILE = "own.json"
TUNED = "tuned"
"""As the Teacher of the Student's run: the one that this folder tunes."""
MINUTES = {3: 10.0, 5: 45.0}
TEACHER_SHARE = 0.5
"""Of the minutes, where a Teacher is named: it is tuned, and asked, for half of them."""
LONGEST = 25
"""Rounds that a Student learns from where none are named; up to here labels say something at usual rates."""
PART = 13
"""Most rounds of a part of a longer experiment, for a Student that keeps a frame: it is told where a part begins."""
STARTS = {3: [(0, "student-d3-frame")], 5: [(0, "student-d5"), (6, "student-d5-frame")]}
"""By distance, from how many rounds on which shipped Student goes on best."""
MOST_REVEALED = 15
"""Rounds up to which a Student that keeps a frame learns from revealed labels, which cost as much as their rounds do:
what it learns of a round holds for those after."""
DEV_SHARE, EPOCHS, LOOKS = 5, 3, 24  # of recorded shots that are learned
PICK = 1  # of the select shots that say which Teacher stays; the gate judges it on others
PROBE = (16, 48)  # steps: the first chunk of shots pays for models and tables


class Asked(Strict):
    """What a user asks for."""

    files: tuple[Name, ...]
    model: Literal["circuit", "pij", "rl"] = "circuit"
    """Of recordings: of the noisy circuit, or one that was fitted to data (pij in Sycamore's, rl in Willow's). A model
    of pairs that was fitted to shots (pij) knows no errors of three and four detectors: good to decode by, poor to draw
    from (docs/own-circuit.md)."""
    minutes: float | None = None
    """Of training, all in all; None: MINUTES of the distance."""
    rounds: tuple[Positive, ...] = ()
    """Empty: as many as the files have, at most LONGEST."""
    factors: tuple[float, float] = (0.8, 1.25)
    """The noise is that of the files times a factor between these: a worse day, and a better one."""
    student: Name | None = None
    """A saved or shipped network to begin from; None: that of STARTS."""
    teacher: Name | None = None
    """One to tune and to learn from beside the labels; a list of several is asked as it is; None: labels alone."""
    shots: Positive = 200_000
    """To be judged on, of each file; of recordings all."""
    learn_shots: Number = 0
    """Of recordings: after the models the first so many shots of each are learned, a fifth of them kept apart to say
    when to stop; all is judged on the others."""
    changes: tuple[str, ...] = ()


class OwnRun(Strict):
    """Everything that the folder's trainings depend on."""

    kind: Literal["own"] = "own"
    teacher: TeacherRun | None
    student: StudentRun
    chip: StudentRun | None = None
    """Recorded shots as labels, from where the Student's run ends."""


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
    run = _with_changes(_run_of(asked, own), asked.changes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyndistillError(f"--out {folder} can't be made ({error.strerror}); choose another place") from None
    minutes = asked.minutes or MINUTES.get(own.distance, max(MINUTES.values()))
    if not any(change.startswith("student.training.steps=") for change in asked.changes):
        run = _with_steps(run, own, minutes, asked.changes, reporter)
    write_sealed(path, said | {"run": run.model_dump(mode="json")})
    return run


def _check_same(found: Mapping[str, Any], said: Mapping[str, Any], folder: Path) -> None:
    """SyndistillError that names what is not as it was."""
    before = found.get("asked")
    known = {"learn_shots": 0} | dict(before if isinstance(before, Mapping) else {})  # earlier versions don't say it
    other = [f"{key} {known.get(key)}" for key, value in said["asked"].items() if known.get(key) != value]
    if other:
        raise SyndistillError(
            f"{folder} holds a run of other files or options ({'; '.join(other)}); give the same, or another --out"
        )
    if found.get("noise") != said["noise"]:
        raise SyndistillError(
            f"{folder} holds a run of other files or options (the files' noise has changed since); choose another --out"
        )


def _with_changes(run: OwnRun, changes: Sequence[str]) -> OwnRun:
    content = run.model_dump(mode="json")
    for change in changes:
        content = with_change(content, change)
    changed: OwnRun = validated(OwnRun, content, "the run")
    return changed


def _run_of(asked: Asked, own: OwnNoise) -> OwnRun:
    start = asked.student or _start(own.distance, max(_rounds(asked, own, LONGEST)))
    network, _ = load_network(start)
    if network.config.distance != own.distance:
        raise SyndistillError(f"{start} is of distance {network.config.distance}, the files are of {own.distance}")
    try:
        data = _data(asked, own, network.keeps_frame)
        # Before minutes are spent: a Student goes on with its own Teacher, tuned or not.
        teacher = None if asked.teacher is None else teacher_named(asked.teacher, data=data)
        check_goes_on(start, asked.teacher or "", teacher)
        tuned = asked.teacher is not None and not _is_list(asked.teacher)
        # A local GRU's rounds are compiled within seconds, and then take half the time; a transformer's take minutes.
        compiled = isinstance(network, LocalGru) and network.compile_if_possible()
        student = StudentRun(
            network=network.config,
            teacher=TUNED if tuned else asked.teacher or _teacher_behind(start, own.distance),
            teacher_precision=_precision(teacher),
            data=StudentData(simulated=data, unsure=None if tuned else _unsure(start, data)),
            terms=_terms(teacher),
            start_from=start,
            training=_training(steps=1_000, learning_rate=1.5e-3, matrix_rate=0.01, compiled=compiled),
        )
        chip = _chip(asked, own, student) if asked.learn_shots else None
        return OwnRun(teacher=_tuning(str(asked.teacher), data) if tuned else None, student=student, chip=chip)
    except ValidationError as error:
        raise SyndistillError(f"the run: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _chip(asked: Asked, own: OwnNoise, student: StudentRun) -> StudentRun:
    """The recordings' first shots as labels, EPOCHS times over or until the development shots say stop."""
    if not all(Path(file).is_dir() for file in asked.files):
        raise SyndistillError("--learn-shots is of recordings alone; simulated shots of a file have labels for nothing")
    for file in asked.files:  # before minutes are spent
        if asked.learn_shots >= (there := RecordingProperties.load(file).n_shots):
            raise SyndistillError(
                f"--learn-shots {asked.learn_shots} leaves none of {file} to judge on, which has {there}; give fewer"
            )
    dev = asked.learn_shots // DEV_SHARE
    fit = asked.learn_shots - dev
    batch = min(student.training.batch_size, fit)
    simulated = student.data.simulated.model_copy(
        update={
            "labels": "sampled",
            "part_rounds": None,
            "tell_frame": False,
            "curriculum": Curriculum(
                p_min=1.0, p_max=1.0, tilt=0.0, n_rates=2, rounds=(RoundsPhase(from_shots=0, rounds=own.rounds),)
            ),
        }
    )
    steps = max(1, fit // batch * len(asked.files) * EPOCHS)
    looks = {"dev_shots": dev, "dev_every": max(1, steps // LOOKS), "patience": LOOKS // 3}
    data = StudentData(simulated=simulated, recorded=Recorded(folders=asked.files, shots=fit, **looks), ends=0)
    training = _training(steps, learning_rate=3e-4, matrix_rate=2e-3, compiled=student.training.compile)
    return StudentRun(
        network=student.network,
        teacher=_teacher_behind(str(student.start_from), own.distance),
        data=data,
        terms=Terms(labels=LabelTerm(), final=FinalTerm(weight=0.0)),
        training=training.model_copy(update={"batch_size": batch}),
    )


def _start(distance: int, longest: int) -> str:
    fitting = [name for least, name in STARTS.get(distance, []) if longest >= least]
    return fitting[-1] if fitting else _shipped("student", distance)


def _unsure(start: str, data: DataConfig) -> Unsure | None:
    """Revealed labels of a shot take half a millisecond and more, where the Student answers in a thirtieth of it: label
    what it is not sure of. Exact and drawn labels cost less than a step of training does."""
    return Unsure(network=start, below=2.0) if data.labels == "revealed" else None


def _is_list(teacher: str) -> bool:
    """Several decoders as one Teacher: nothing is tuned."""
    return len(members_in(teacher)) > 1


def _precision(teacher: Teacher | None) -> Precision:
    """bf16 halves a transformer's time; the compiled rounds of a local GRU are of float32."""
    members = teacher.members if isinstance(teacher, EnsembleTeacher) else [teacher]
    networks = [member.network for member in members if isinstance(member, FrozenTeacher)]
    return "fp32" if networks and all(isinstance(network, LocalGru) for network in networks) else "bf16"


def _terms(teacher: Teacher | None) -> Terms:
    """None: labels alone."""
    labels = LabelTerm(weight=1.0 if teacher is None else 0.3, where="every")
    return Terms(labels=labels, final=FinalTerm(weight=0.0 if teacher is None else 1.0, where="every"))


def _tuning(name: str, data: DataConfig) -> TeacherRun:
    """The paper's fine-tuning: a small rate, and a draw towards the weights that it begins from."""
    config = load_network(name)[0].config
    training = _training(steps=200, learning_rate=2e-4, matrix_rate=2e-3)
    return TeacherRun(
        network=config,
        data=data.model_copy(update={"ends": 2}),
        start_from=name,
        training=training.model_copy(update={"precision": "bf16"}),
    )


def _training(steps: int, learning_rate: float, matrix_rate: float, compiled: bool = False) -> TrainingConfig:
    return TrainingConfig(
        compile=compiled,
        steps=steps,
        batch_size=256,
        seed=1,
        threads=1,
        checkpoint_minutes=1.0,
        optimiser=OptimiserConfig(
            name="muon", learning_rate=learning_rate, matrix_rate=matrix_rate, warmup_steps=min(100, steps // 10),
            decay_steps=steps * 9 // 10, ema_decay=0.998,
        ),
    )  # fmt: skip


def _data(asked: Asked, own: OwnNoise, keeps_frame: bool) -> DataConfig:
    labels: dict[int, Literal["exact", "revealed"]] = {EXACT_DISTANCE: "exact", 5: "revealed"}
    costly = keeps_frame and labels.get(own.distance) == "revealed"
    rounds = _rounds(asked, own, MOST_REVEALED if costly else LONGEST)
    told: dict[str, Any] = {}
    # Every end of shorter ones is one of the longest; a Teacher answers whole experiments.
    if keeps_frame and asked.teacher is None and own.distance == EXACT_DISTANCE and max(rounds) > PART:
        n_parts = -(-max(rounds) // PART)
        part = max(rounds) // n_parts
        rounds, told = (n_parts * part,), {"part_rounds": part, "tell_frame": True}
    low, high = asked.factors
    return DataConfig(
        distance=own.distance,
        noise="files",
        files=asked.files,
        model=asked.model,
        bases=own.bases,  # type: ignore[arg-type]
        labels=labels.get(own.distance, "sampled"),
        **told,
        curriculum=Curriculum(
            p_min=low, p_max=high, tilt=0.0, n_rates=9, rounds=(RoundsPhase(from_shots=0, rounds=rounds),)
        ),
    )


def _rounds(asked: Asked, own: OwnNoise, most: int) -> tuple[int, ...]:
    """Those asked for, or all that the files have up to so many."""
    return asked.rounds or tuple(r for r in own.rounds if 1 < r <= most) or (min(max(own.rounds), most),)


def _shipped(kind: str, distance: int) -> str:
    name = f"{kind}-d{distance}"
    if name not in shipped_names():
        raise SyndistillError(
            f"no {kind} of distance {distance} is shipped ({', '.join(shipped_names())}); name one with --{kind}"
        )
    return name


def _teacher_behind(student: str, distance: int) -> str:
    """The name of the Teacher of a Student that learns from labels alone: it says whose Student this is."""
    said = read_header(student).metadata.get("run")
    name = said.get("teacher") if isinstance(said, Mapping) else None
    return name if isinstance(name, str) and network_path(name) is not None else _shipped("teacher", distance)


class _Clock(Bar):
    """The time at steps of a probe."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def to(self, done: int, values: Mapping[str, float] | None = None) -> None:
        super().to(done)
        self.at[done] = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of one step."""
        first, last = PROBE
        return (self.at[last] - self.at[first]) / (last - first)


class _Watching(Reporter):
    def __init__(self) -> None:
        self.clock = _Clock()

    def bar(self, name: str, total: int, shots: int = 0) -> Bar:
        return self.clock


def _with_steps(run: OwnRun, own: OwnNoise, minutes: float, changes: Sequence[str], reporter: Reporter) -> OwnRun:
    """As many steps as fit into the minutes, by a probe of each training."""
    reporter.say(f"measuring how many steps fit into {minutes:g} minutes; where it compiles first, that takes minutes")
    share = 1.0 - TEACHER_SHARE if run.teacher is not None else 1.0
    with tempfile.TemporaryDirectory() as there:
        teacher = run.teacher
        if teacher is not None:
            watch = _Watching()
            train_teacher(_short(teacher), Path(there) / "teacher", watch)
            teacher = _long(teacher, TEACHER_SHARE / 2 * minutes * 60 / watch.clock.seconds)
        watch = _Watching()
        probed = run.student
        if run.teacher is not None:  # it is not tuned yet, and will be asked before the first step
            untaught = {"terms": _terms(None), "teacher": _shipped("teacher", own.distance)}
            probed = probed.model_copy(update=untaught)
        train_student(_short(probed), Path(there) / "student", None, watch)
        student = _long(run.student, share * minutes * 60 / watch.clock.seconds)
    if teacher is not None:
        asking = TEACHER_SHARE / 2 * minutes * 60
        shots = round(asking / _seconds_to_ask(run.student.data.simulated, teacher))
        student = student.model_copy(
            update={"data": student.data.model_copy(update={"cached_shots": max(4_096, shots)})}
        )
    return _with_changes(OwnRun(teacher=teacher, student=student), changes)


def _seconds_to_ask(data: DataConfig, teacher: TeacherRun) -> float:
    """Of one shot."""
    frozen = teacher_named(str(teacher.start_from), "bf16")
    batch = statistics_shots(data, 0, 512)[0]
    frozen.logits(batch.take(slice(0, 64)))
    began = time.monotonic()
    frozen.logits(batch)
    return (time.monotonic() - began) / len(batch)


def _short(run: Any) -> Any:
    training = run.training.model_copy(update={"steps": PROBE[1], "checkpoint_minutes": 60.0, "log_every": 16})
    return run.model_copy(update={"training": training})


def _long(run: Any, steps: float) -> Any:
    n, before = max(100, round(steps)), run.training.optimiser
    optimiser = before.model_copy(update={"warmup_steps": min(100, n // 10), "decay_steps": n * 9 // 10})
    return run.model_copy(update={"training": run.training.model_copy(update={"steps": n, "optimiser": optimiser})})


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
    if run.chip is not None:
        names.append(str(folder / "student" / STUDENT_FILE))
    names = [*dict.fromkeys(names), str(folder / STUDENT_FILE)]
    if own.distance == EXACT_DISTANCE:
        names.append(OPTIMUM)
    return judge(asked.files, names, asked.model, asked.shots, folder, reporter, asked.learn_shots)


def _same(one: str, other: str) -> bool:
    """Whether two files are of one network: a tuned Teacher that was not better is the one before."""
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
