"""How many steps of a run fit into a user's minutes: a probe of each training says it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.student import StudentRun, train_student
from syndistill.reporter import Bar, Reporter
from syndistill.runs.own_plan import LOOKS, OwnRun, shipped, terms_of
from syndistill.training.config import DataConfig
from syndistill.training.run import TeacherRun, train_teacher
from syndistill.training.source import statistics_shots

MINUTES = {3: 10.0, 5: 45.0}
"""By distance, where none are named."""
TEACHER_SHARE = 0.5
"""Of the minutes, where a Teacher is named: it is tuned, and asked, for half of them."""
CHIP_SHARE = 0.25
"""At most, where recorded shots are learned."""
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


def with_steps(run: OwnRun, distance: int, minutes: float | None, reporter: Reporter) -> OwnRun:
    """As many steps as fit into the minutes (None: MINUTES), by a probe of each training."""
    minutes = minutes or MINUTES.get(distance, max(MINUTES.values()))
    reporter.say(f"measuring how many steps fit into {minutes:g} minutes; where it compiles first, that takes minutes")
    share = 1.0 - (TEACHER_SHARE if run.teacher else 0.0) - (CHIP_SHARE if run.chip else 0.0)
    chip = run.chip
    with tempfile.TemporaryDirectory() as there:
        teacher = run.teacher
        if teacher is not None:
            watch = _Watching()
            train_teacher(_short(teacher), Path(there) / "teacher", watch)
            teacher = _long(teacher, TEACHER_SHARE / 2 * minutes * 60 / watch.clock.seconds)
        watch = _Watching()
        probed = run.student
        if run.teacher is not None:  # it is not tuned yet, and will be asked before the first step
            untaught = {"terms": terms_of(None), "teacher": shipped("teacher", distance)}
            probed = probed.model_copy(update=untaught)
        train_student(_short(probed), Path(there) / "student", None, watch)
        student = _long(run.student, share * minutes * 60 / watch.clock.seconds)
        if chip is not None:
            watch = _Watching()
            train_student(_short(_without_looks(chip, run.student.start_from)), Path(there) / "chip", None, watch)
            chip = _fitted(chip, CHIP_SHARE * minutes * 60 / watch.clock.seconds)
    if teacher is not None:
        asking = TEACHER_SHARE / 2 * minutes * 60
        shots = round(asking / _seconds_to_ask(run.student.data.simulated, teacher))
        student = student.model_copy(
            update={"data": student.data.model_copy(update={"cached_shots": max(4_096, shots)})}
        )
    return OwnRun(teacher=teacher, student=student, chip=chip)


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


def _without_looks(chip: StudentRun, start: str | None) -> StudentRun:
    assert chip.data.recorded is not None
    recorded = chip.data.recorded.model_copy(update={"dev_shots": 0})
    return chip.model_copy(
        update={"start_from": start, "data": chip.data.model_copy(update={"recorded": recorded})}
    )


def _fitted(chip: StudentRun, most: float) -> StudentRun:
    """No more steps than fit beside the looks at the development shots."""
    recorded = chip.data.recorded
    assert recorded is not None
    # A look costs a third of what a step on as many shots does.
    looked = LOOKS * recorded.dev_shots * len(recorded.folders) / chip.training.batch_size / 3
    if chip.training.steps <= most - looked:
        return chip
    fitted: StudentRun = _long(chip, most - looked)
    recorded = recorded.model_copy(update={"dev_every": max(1, fitted.training.steps // LOOKS)})
    return fitted.model_copy(update={"data": chip.data.model_copy(update={"recorded": recorded})})


def _long(run: Any, steps: float) -> Any:
    n, before = max(100, round(steps)), run.training.optimiser
    optimiser = before.model_copy(update={"warmup_steps": min(100, n // 10), "decay_steps": n * 9 // 10})
    return run.model_copy(update={"training": run.training.model_copy(update={"steps": n, "optimiser": optimiser})})
