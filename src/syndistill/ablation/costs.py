"""What a plan takes, before it is begun: from milliseconds of one core that was half busy with other work, so that an
idle one takes about half.

Measured at d=3 with 3 or 5 rounds, Teacher of 370 k parameters. A rough guide: other sizes are scaled by multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from syndistill.ablation.jobs import Job, jobs_of, parts_of, targets_of
from syndistill.ablation.plan import Plan
from syndistill.ablation.rows import Rows
from syndistill.distill.student import StudentRun
from syndistill.models.networks import build

STEP_MS = {256: 9.0, 512: 12.8}
"""Of a flat GRU of 20 k parameters, by batch size."""
FEATURES, MUON = 1.35, 1.6
"""Times that, with feature terms; with Muon."""
STEP_AT_20K, LEAST_SHARE = 17_000.0, 0.6
"""Multiply-adds a round of that Student, and the share of a step that no smaller one saves."""
TEACHER_MS = {"answer": 2.4, "fit": 2.4}
JUDGE_S = 6.0
"""Of one Student: starting, reading the cache, decoding."""


class Cost(NamedTuple):
    """runs: trainings to be done; minutes: of one core."""

    runs: int
    preparation_minutes: float
    minutes: float

    def __str__(self) -> str:
        return (
            f"{self.runs} runs to do, about {self.preparation_minutes + self.minutes:.0f} minutes of one core "
            f"({self.preparation_minutes:.0f} of them for the Teacher's answers), by as many workers as there are"
        )


def cost_of(plan: Plan, out: Path, rows: Rows, keys: Mapping[str, str]) -> Cost:
    """Of what the rows lack."""
    cases = [(str(experiment), shots) for experiment, shots in plan.experiments()]
    seen: set[str] = set()
    seconds, runs = 0.0, 0
    sizes: dict[str, float] = {}
    for job in jobs_of(plan):
        parts = parts_of(plan, job, out, keys)
        if rows.has(parts[-1].hash, cases):
            continue
        runs += 1
        seconds += JUDGE_S
        for part in parts:
            if part.hash not in seen and not part.student_file.exists():
                seen.add(part.hash)
                seconds += part.run.training.steps * _step_ms(part.run, job, sizes) / 1e3
    return Cost(runs, _preparation(plan, out) / 60 if runs else 0.0, seconds / 60)


def _step_ms(run: StudentRun, job: Job, sizes: dict[str, float]) -> float:
    if job.student not in sizes:
        network = build(run.network)
        sizes[job.student] = network.multiply_adds(5) / STEP_AT_20K
    batch = run.training.batch_size
    nearest = min(STEP_MS, key=lambda size: abs(size - batch))
    whole = STEP_MS[nearest] * max(1.0, batch / nearest) * (FEATURES if run.terms.features else 1.0)
    whole *= MUON if run.training.optimiser.name == "muon" else 1.0
    return whole * (LEAST_SHARE + (1 - LEAST_SHARE) * sizes[job.student])


def _preparation(plan: Plan, out: Path) -> float:
    probing, ms = plan.probing, TEACHER_MS["answer"] / 1e3
    targets = [target for target in targets_of(plan) if not (out / "fuse" / target / "fusion.safetensors").exists()]
    probes = sum(probing.steps * 256 for target in targets if target in ("mean", "nll"))
    shots = probes + len(targets) * (probing.fit_shots + probing.report_shots)
    if not (out / "cache" / "teacher" / "manifest.json").exists():
        shots += round(1.4 * plan.base.data.cached_shots)
    if not (out / "answers").exists():
        shots += len(plan.experiments()) * plan.judging.teacher_shots + 4 * plan.gate_shots
    return shots * ms
