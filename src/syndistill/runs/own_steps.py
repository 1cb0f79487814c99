"""How many steps of a run fit into a user's minutes: a probe of each training says it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.student import StudentRun, train_student
from syndistill.reporter import Bar, Reporter
from syndistill.runs.own_plan import LOOKS, OwnRun, lasting, shipped, steps_set, terms_of
from syndistill.training.config import DataConfig
from syndistill.training.run import TeacherRun, train_teacher
from syndistill.training.source import statistics_shots

MINUTES = {3: 10.0, 5: 45.0}
"""By distance, where none are named."""
TEACHER_SHARE = 0.5
"""Of the minutes, where a Teacher is named: it is tuned, and asked, for half of them."""
CHIP_SHARE = 0.25
"""At most, where recorded shots are learned."""
LEAST = 100  # steps of a Teacher's or Student's training, however few the minutes
PROBE = (16, 48)  # steps: the first chunk of shots pays for models and tables


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


def with_steps(
    run: OwnRun, distance: int, minutes: float | None, changes: Sequence[str], reporter: Reporter
) -> OwnRun:
    """As many steps as fit into the minutes (None: MINUTES), by a probe of each training whose number of steps is none
    of the changes. The Student has what the others leave."""
    seconds = 60 * (minutes or MINUTES.get(distance, max(MINUTES.values())))
    teacher, student, chip = run.teacher, run.student, run.chip
    probed = [part for part in ("chip", "student") if getattr(run, part) and not steps_set(changes, part)]
    if not probed:
        return run
    reporter.say(
        f"measuring how many steps fit into {seconds / 60:g} minutes; where it compiles first, that takes minutes"
    )
    left = seconds
    with tempfile.TemporaryDirectory() as there:
        if teacher is not None and "student" in probed:
            left -= TEACHER_SHARE * seconds
            tuning = TEACHER_SHARE / 2 * seconds
            a_step = _seconds_of(partial(train_teacher, _short(teacher), Path(there) / "teacher"))
            teacher = lasting(teacher, max(LEAST, round(tuning / a_step)))
            asked = max(4_096, round(tuning / _seconds_to_ask(student.data.simulated, teacher)))
            student = student.model_copy(update={"data": student.data.model_copy(update={"cached_shots": asked})})
        if chip is not None and "chip" in probed:
            a_step = _seconds_of(partial(train_student, _short(_without_looks(chip)), Path(there) / "chip", None))
            chip = _fitted(chip, CHIP_SHARE * seconds / a_step)
            left -= (chip.training.steps + _looking(chip)) * a_step
        if "student" in probed:
            untaught = student
            if teacher is not None:  # it is not tuned yet, and will be asked before the first step
                data = student.data.model_copy(update={"cached_shots": run.student.data.cached_shots})
                said = {"terms": terms_of(None), "teacher": shipped("teacher", distance), "data": data}
                untaught = student.model_copy(update=said)
            a_step = _seconds_of(partial(train_student, _short(untaught), Path(there) / "student", None))
            student = lasting(student, max(LEAST, round(left / a_step)))
    return OwnRun(teacher=teacher, student=student, chip=chip)


def _seconds_of(train: Callable[[Reporter], object]) -> float:
    """Of a step."""
    watch = _Watching()
    train(watch)
    return watch.clock.seconds


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


def _without_looks(chip: StudentRun) -> StudentRun:
    assert chip.data.recorded is not None
    recorded = chip.data.recorded.model_copy(update={"dev_shots": 0})
    return chip.model_copy(update={"data": chip.data.model_copy(update={"recorded": recorded})})


def _looking(chip: StudentRun) -> float:
    """The looks at the development shots, in steps: at most one on as many shots, since what looks is not compiled."""
    of = chip.data.recorded
    assert of is not None
    return (LOOKS + 1) * of.dev_shots * len(of.folders) / chip.training.batch_size


def _fitted(chip: StudentRun, most: float) -> StudentRun:
    """No more steps than fit beside the looks."""
    fitted: StudentRun = lasting(chip, max(1, min(chip.training.steps, round(most - _looking(chip)))))
    return fitted
