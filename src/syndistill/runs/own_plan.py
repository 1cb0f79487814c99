"""What a Student of a user's own files learns from, and how: the runs of one folder, before their steps are known.

The nearest shipped networks are where it begins. Labels are not drawn where they can be computed from the errors of the
user's own files: exact ones at distance 3, revealed ones at distance 5. Those say more than any Teacher's answers, for
less time (docs/own-circuit.md), so a Teacher is asked only where one is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from syndistill.distill.cache.source import Recorded, StudentData, Unsure
from syndistill.distill.signals.ensemble import EnsembleTeacher, teacher_named
from syndistill.distill.signals.teacher import FrozenTeacher, Teacher
from syndistill.distill.student import StudentRun, check_goes_on
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.files.network_file import members_in, network_path, read_header, shipped_names
from syndistill.models.gru import LocalGru
from syndistill.models.networks import load_network
from syndistill.sampling.exact_labels import EXACT_DISTANCE
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import RecordingProperties
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
from syndistill.training.run import TeacherRun

TUNED = "tuned"
"""As the Teacher of the Student's run: the one that its folder tunes."""
LONGEST = 25
"""Rounds that a Student learns from where none are named; up to here labels say something at usual rates."""
PART = 13
"""Most rounds of a part of a longer experiment, for a Student that keeps a frame: it is told where a part begins."""
STARTS = {3: [(0, "student-d3-frame")], 5: [(0, "student-d5"), (6, "student-d5-frame")]}
"""By distance, from how many rounds on which shipped Student goes on best."""
MOST_REVEALED = 15
"""Rounds up to which a Student that keeps a frame learns from revealed labels, which cost as much as their rounds do:
what it learns of a round holds for those after."""
MANY_SHOTS = 10_000
"""Of a recording: fewer are too few to say when to stop (docs/own-circuit.md)."""
DEV_SHARE, EPOCHS, LOOKS = 5, 3, 10
"""Of recorded shots that are learned: a fifth says when to stop, at so many looks; the others come at most so often."""


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
    learn_shots: Number | None = None
    """Of recordings: after the models the first so many shots of each are learned, a fifth of them kept apart to say
    when to stop; all is judged on the others. None: half of the shortest, where each has MANY_SHOTS or more, else
    none."""
    changes: tuple[str, ...] = ()

    def learned(self) -> int:
        """How many shots of each recording are learned. SyndistillError where that leaves none to judge on."""
        if not all(Path(file).is_dir() for file in self.files):
            if self.learn_shots:
                raise SyndistillError(
                    "--learn-shots is of recordings alone; simulated shots of a file have labels for nothing"
                )
            return 0
        there = {file: RecordingProperties.load(file).n_shots for file in self.files}
        fewest = min(there, key=lambda file: there[file])
        if self.learn_shots is None:
            return there[fewest] // 2 if there[fewest] >= MANY_SHOTS else 0
        if self.learn_shots >= there[fewest]:
            raise SyndistillError(
                f"--learn-shots {self.learn_shots} leaves none of {fewest} to judge on, which has {there[fewest]}; "
                "give fewer"
            )
        return self.learn_shots


class OwnRun(Strict):
    """Everything that the folder's trainings depend on."""

    kind: Literal["own"] = "own"
    teacher: TeacherRun | None
    student: StudentRun
    chip: StudentRun | None = None
    """Recorded shots as labels, from where the Student's run ends; until then its start stands there."""

    @property
    def seen(self) -> int:
        """Of each recording so many first shots are learned from or looked at."""
        of = None if self.chip is None else self.chip.data.recorded
        return 0 if of is None else of.shots + of.dev_shots


def run_of(asked: Asked, own: OwnNoise) -> OwnRun:
    """With the user's changes. SyndistillError for files and options that don't fit together."""
    run = with_changes(_models_run(asked, own), [change for change in asked.changes if not _is_of_chip(change)])
    of_chip = [change for change in asked.changes if _is_of_chip(change)]
    if not (learned := asked.learned()):
        if of_chip:
            raise SyndistillError(
                f"--set {of_chip[0]}: no recorded shots are learned; give --learn-shots, or leave it out"
            )
        return run
    run = run.model_copy(update={"chip": _chip(asked.files, learned, own, run.student)})
    return with_changes(run, of_chip)


def _is_of_chip(change: str) -> bool:
    return change.strip().startswith("chip.")


def steps_set(changes: Sequence[str], part: str) -> bool:
    """Whether the user says how many steps that part takes."""
    return any(change.strip().startswith(f"{part}.training.steps=") for change in changes)


def with_changes(run: OwnRun, changes: Sequence[str]) -> OwnRun:
    """What follows from a number of steps follows from a changed one too; more special changes have the last word."""
    changed = _changed(run, changes)
    if changed.chip is None or not steps_set(changes, "chip"):
        return changed
    return _changed(changed.model_copy(update={"chip": lasting(changed.chip, changed.chip.training.steps)}), changes)


def _changed(run: OwnRun, changes: Sequence[str]) -> OwnRun:
    content = run.model_dump(mode="json")
    for change in changes:
        content = with_change(content, change)
    changed: OwnRun = validated(OwnRun, content, "the run")
    return changed


def lasting(run: Any, steps: int) -> Any:
    """The same training with that many steps: the rate's rise and fall, and the looks at development shots, with it."""
    before = run.training.optimiser
    optimiser = before.model_copy(update={"warmup_steps": min(100, steps // 10), "decay_steps": steps * 9 // 10})
    changed = {"training": run.training.model_copy(update={"steps": steps, "optimiser": optimiser})}
    recorded = run.data.recorded if isinstance(run, StudentRun) else None
    if recorded is not None:
        recorded = recorded.model_copy(update={"dev_every": max(1, steps // LOOKS)})
        changed["data"] = run.data.model_copy(update={"recorded": recorded})
    return run.model_copy(update=changed)


def _models_run(asked: Asked, own: OwnNoise) -> OwnRun:
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
            terms=terms_of(teacher),
            start_from=start,
            training=_training(steps=1_000, learning_rate=1.5e-3, matrix_rate=0.01, compiled=compiled),
        )
        return OwnRun(teacher=_tuning(str(asked.teacher), data) if tuned else None, student=student)
    except ValidationError as error:
        raise SyndistillError(f"the run: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _chip(files: tuple[str, ...], learned: int, own: OwnNoise, student: StudentRun) -> StudentRun:
    """The recordings' first shots as labels, EPOCHS times over or until the development shots say stop."""
    dev = learned // DEV_SHARE
    fit = learned - dev
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
    shots = Recorded(folders=files, shots=fit, dev_shots=dev, patience=LOOKS // 2)
    own_training = student.training
    same = {key: getattr(own_training, key) for key in ("device", "precision", "threads", "seed")}
    training = _training(1, learning_rate=1.5e-4, matrix_rate=1e-3, compiled=own_training.compile)
    tuned = student.teacher == TUNED
    run = StudentRun(
        network=student.network,
        teacher=_teacher_behind(str(student.start_from), own.distance) if tuned else student.teacher,
        data=StudentData(simulated=simulated, recorded=shots, ends=0),
        terms=Terms(labels=LabelTerm(), final=FinalTerm(weight=0.0)),
        start_from=student.start_from,
        training=training.model_copy(update={"batch_size": batch, **same}),
    )
    lasts: StudentRun = lasting(run, max(1, fit // batch * len(files) * EPOCHS))
    return lasts


def _start(distance: int, longest: int) -> str:
    fitting = [name for least, name in STARTS.get(distance, []) if longest >= least]
    return fitting[-1] if fitting else shipped("student", distance)


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


def terms_of(teacher: Teacher | None) -> Terms:
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


def shipped(kind: str, distance: int) -> str:
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
    return name if isinstance(name, str) and network_path(name) is not None else shipped("teacher", distance)
