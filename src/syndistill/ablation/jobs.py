"""From a plan to runs: every Student's whole configuration, and the hash by which its rows are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from syndistill.ablation.plan import FORMAT, Plan, Settings, Target
from syndistill.distill.fuse import FuseRun, probe_training
from syndistill.distill.signals.fusion import FUSION_FILE, FusionConfig
from syndistill.distill.student import STUDENT_FILE, StudentRun
from syndistill.distill.terms import Terms
from syndistill.models.networks import load_network, weights_hash
from syndistill.safe_files import json_sha256
from syndistill.sampling.recorded_shots import RecordedShots
from syndistill.training.config import FILES, Strict, TrainingConfig

SECOND_HALF = 1_000
"""Added to the seed of a second half: another order of the shots."""
FUSIONS: dict[Target, FusionConfig] = {
    # One path: z_fuse is the Teacher's logit times one weight, which is 1, or 1/T fitted at every end and line.
    "final": FusionConfig(paths=("readout",), mode="mean"),
    "calibrated": FusionConfig(paths=("readout",), mode="nll"),
    "mean": FusionConfig(mode="mean"),
    "nll": FusionConfig(mode="nll"),
    "per_shot": FusionConfig(mode="per_shot"),
}
LATER_DIALS = ("frame_memory", "events_alone", "agree_after")
"""Of a network, younger than the first rows: at 0 they leave a run's hash as it was."""
LATER_OPTIONS = ("start_decay", "fall_steps", "fall_factor")
"""Of an optimiser, younger than the first rows: at their defaults they leave a fusion's hash as it was."""

RIVAL, OPTIMUM, TEACHER = "pymatching-correlated", "optimal", "teacher"
"""The references that Students are judged beside."""


class Job(NamedTuple):
    """One Student's training to its end, and its judgement."""

    student: str
    arm: str
    budget: float
    seed: int

    def __str__(self) -> str:
        return f"{self.student} {self.arm} at {self.budget:g}x, seed {self.seed}"


class Part(NamedTuple):
    """One training of a job: what, where, and the hash of its configuration."""

    run: StudentRun
    folder: Path
    hash: str

    @property
    def student_file(self) -> Path:
        return self.folder / STUDENT_FILE


def jobs_of(plan: Plan) -> list[Job]:
    """In the order in which they are to be run, each once; the seeds of an arm together."""
    found: dict[Job, None] = {}
    for sweep in plan.sweeps:
        for arm in sweep.arms or [arm.name for arm in plan.arms]:
            for seed in sweep.seeds or plan.seeds:
                found[Job(sweep.student, arm, sweep.budget, seed)] = None
    return list(found)


def parts_of(plan: Plan, job: Job, out: Path, teachers: Mapping[str, str]) -> list[Part]:
    """A job's trainings in order; the last one's Student is the job's.

    teachers: key of each who answers ("teacher", "oracle"). Halves of equal configuration are one training, whatever
    the arm: they share a folder.
    """
    settings = plan.settings(job.arm)
    steps = round(plan.steps * job.budget * settings.steps_factor)
    seed = job.seed + settings.seed_shift
    if settings.start == "scratch":
        training = _training(settings, steps, seed, decay=steps * 3 // 4)
        return [_part(plan, job, settings.terms, training, settings.target, out, teachers, None)]
    first = _training(settings, steps // 2, seed, decay=0)
    second = _training(settings, steps - steps // 2, seed + SECOND_HALF, decay=steps - steps // 2)
    terms = first_half(plan, settings)
    half = _part(plan, job, terms, first, "none", out, teachers, None)
    return [half, _part(plan, job, settings.terms, second, settings.target, out, teachers, half)]


def first_half(plan: Plan, settings: Settings) -> Terms:
    """What an arm of two halves learns from in the first."""
    return plan.stage1 if settings.start == "stage1" else plan.base.terms


def fuse_run(plan: Plan, target: Target) -> FuseRun:
    probing, fusion = plan.probing, FUSIONS[target]
    if len(fusion.paths) > 1:  # the others are the Teacher's own logit
        fusion = fusion.model_copy(update={"paths": probing.paths})
    return FuseRun(
        teacher=plan.teacher,
        data=plan.base.data.simulated.model_copy(update={"labels": probing.labels}),
        fusion=fusion,
        fit_shots=probing.fit_shots,
        report_shots=probing.report_shots,
        training=probe_training(probing.steps).model_copy(update={"threads": 1}),
    )


def fusion_hash(plan: Plan, target: Target, teacher_key: str) -> str:
    """Of everything that a fused target depends on."""
    return json_sha256({"fusion": _fusion_content(fuse_run(plan, target)), "teacher": teacher_key})


def fusion_folder(out: Path, target: Target) -> Path:
    return out / "fuse" / target


def cache_folder(out: Path, asked: str, labels: str = "sampled") -> Path:
    """labels: of the shots; those of another kind are other shots."""
    return out / "cache" / (asked if labels == "sampled" else f"{asked}-{labels}")


def targets_of(plan: Plan) -> list[Target]:
    """Those that some arm of a sweep learns."""
    asked = {plan.settings(arm).target for arm in {job.arm for job in jobs_of(plan)}}
    return [target for target in FUSIONS if target in asked]


def _part(
    plan: Plan,
    job: Job,
    terms: Terms,
    training: TrainingConfig,
    target: Target,
    out: Path,
    teachers: Mapping[str, str],
    earlier: Part | None,
) -> Part:
    settings = plan.settings(job.arm)
    run = StudentRun(
        network=plan.network(job.student),
        teacher_precision=plan.teacher_precision if settings.asks == "teacher" else "fp32",
        teacher=plan.teacher if settings.asks == "teacher" else "oracle",
        data=settings.data,
        terms=terms,
        training=training,
        start_from=str(earlier.student_file) if earlier else settings.start_from,
        fusion=str(fusion_folder(out, target) / FUSION_FILE) if target != "none" else None,
    )
    # Only what is no default: an option that comes later leaves the hash of every run without it, and its rows, as is.
    unsaid = {"kind"} if run.kind == "baseline" else set()
    content = run.model_dump(mode="json", exclude_defaults=True, exclude=unsaid) | {
        "format": FORMAT,
        "network": {name: dial for name, dial in asdict(run.network).items() if dial or name not in LATER_DIALS},
        "teacher": teachers[settings.asks],
        "start_from": earlier.hash if earlier else _content_of(settings.start_from),
        "fusion": _fusion_content(fuse_run(plan, target)) if target != "none" else None,
    }
    if (own := settings.data.recorded) is not None:  # shots are known by content, not by where they lie
        content["data"] |= {"recorded": _shots_of(own.folders, own.shots)}
    digest = json_sha256(content)
    return Part(run, out / "runs" / digest[:16], digest)


def _content_of(name: str | None) -> str | None:
    """The hash of a network's weights."""
    return None if name is None else _weights_of(name)


@lru_cache(maxsize=16)
def _weights_of(name: str) -> str:
    return weights_hash(load_network(name)[0])


@lru_cache(maxsize=16)
def _shots_of(folders: tuple[str, ...], n_shots: int) -> str:
    return RecordedShots(folders, n_shots, n_shots, 0).sha256


def _fusion_content(run: FuseRun) -> dict[str, Any]:
    """With the weights of other networks among its paths."""
    optimiser = run.training.optimiser
    same = {name for name in LATER_OPTIONS if getattr(optimiser, name) == type(optimiser).model_fields[name].default}
    left_out: dict[str, Any] = {"teacher": True, "training": {"optimiser": same, "doubling_steps": True}}
    of_data: dict[str, Any] = {"part_rounds": True, "tell_frame": True}  # which the fuse stage refuses
    of_data |= {"files": True, "model": True} if run.data.noise != FILES else {}
    of_data |= {"curriculum": {"informative"}} if run.data.curriculum.informative is None else {}
    left_out["data"] = of_data
    content = run.model_dump(mode="json", exclude=left_out)
    members = {path: _weights_of(name) for path, name in run.fusion.networks.items()}
    return content | ({"networks": members} if members else {})


def _training(settings: Settings, steps: int, seed: int, decay: int) -> TrainingConfig:
    optimiser = settings.optimiser.model_copy(update={"warmup_steps": min(300, steps // 4), "decay_steps": decay})
    return TrainingConfig(
        steps=steps,
        batch_size=settings.batch_size,
        seed=seed,
        threads=1,
        precision=settings.precision,
        device=settings.device,
        log_every=max(1, min(100, steps // 4)),
        optimiser=optimiser,
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested settings."""
    if isinstance(value, Strict):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def reference_run(name: str, teacher_key: str) -> str:
    """Stands for the hash of a run in a reference's rows."""
    return json_sha256({"reference": name} | ({"teacher": teacher_key} if name == TEACHER else {}))
