"""What the table of the road trains: every Student in every arm with every seed, at equal total steps.

Arms: `no_kd` from labels alone on fresh shots; `baseline`; `stage1`; `stage1+2`, half the steps each. The learning
rate falls to 0 over the last three quarters of the steps; in `stage1+2` over all of stage 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from syndistill.circuits.experiment import Experiment
from syndistill.distill.fuse import FUSION_FILE
from syndistill.distill.road import Baseline, Fuse, RoadRun, Stage1, Stage2
from syndistill.distill.run import STUDENT_FILE, StudentRun
from syndistill.distill.student_data import StudentData
from syndistill.distill.terms import LabelTerm
from syndistill.models.networks import preset
from syndistill.recipes.roads import probe_training
from syndistill.recipes.students import fixed_rounds
from syndistill.training.config import OptimiserConfig, Strict, TrainingConfig

Arm = Literal["no_kd", "baseline", "stage1", "stage1+2"]
ARMS: tuple[Arm, ...] = ("no_kd", "baseline", "stage1", "stage1+2")
LABELS = LabelTerm(weight=0.1)


class Job(NamedTuple):
    """One Student's way to its end. steps: all that it takes."""

    student: str
    arm: Arm
    steps: int
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.student / f"{self.arm}-{self.steps}" / f"seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.student} {self.arm}, {self.steps:,} steps, seed {self.seed}"


class Case(NamedTuple):
    """An experiment to be judged on."""

    experiment: Experiment
    shots: int


class Plan(Strict):
    """The table's dials. Students learn from shots like the shipped one's: p in [.001, .006], cut to several rounds.

    The defaults take some 48 minutes on two idle cores, computed from milliseconds of one core (batch 512, 20 k and
    5 k parameters): a step of labels alone 12 and 7, of the baseline 12 and 6, of stage 1 17 and 10, of stage 2 13 and
    8; an answer of the Teacher on 9 rounds 2.0, for the last end alone .9.
    """

    teacher: str
    """A shipped network's name or a path."""
    students: tuple[str, ...] = ("flat-gru-5k", "flat-gru-20k")
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    """A seed fixes first weights and order of the shots; cached shots are the same for all."""
    steps: int = Field(default=9_000, gt=3)
    more_labels: tuple[int, ...] = (4,)
    """Labels alone are also given so many times the steps, to read off how many steps distillation saves."""
    batch_size: int = Field(default=512, gt=0)
    rounds: int = 9
    cut_rounds: tuple[int, ...] = (3, 5, 7, 9)
    cached_shots: int = Field(default=131_072, gt=0)
    probe_steps: int = Field(default=300, gt=0)
    fused_shots: int = Field(default=8_192, gt=0)
    gate_shots: int = Field(default=10_000, gt=0)
    judged: tuple[tuple[int, int], ...] = ((3, 200_000), (9, 100_000))
    """(rounds, shots), in both bases at p = .004."""

    @property
    def cases(self) -> list[Case]:
        """The costly ones first."""
        found = [Case(Experiment(3, r, basis, "si1000", 0.004), n) for r, n in self.judged for basis in ("z", "x")]
        return sorted(found, key=lambda case: -case.shots * case.experiment.rounds)

    @property
    def jobs(self) -> list[Job]:
        """The costly ones first, so that the last ones to end are short."""
        arms: list[tuple[Arm, int]] = [(arm, self.steps) for arm in ARMS]
        arms += [("no_kd", times * self.steps) for times in self.more_labels]
        found = [Job(who, arm, steps, seed) for who in self.students for arm, steps in arms for seed in self.seeds]
        return sorted(found, key=lambda job: (-job.steps, self.students[::-1].index(job.student)))

    def road(self, job: Job) -> RoadRun:
        """The road that a job is part of; what no job asks of it is as good as absent."""
        whole = self._training(job.steps, job.seed, decay=job.steps * 3 // 4)
        stage1, stage2 = whole, whole
        if job.arm == "stage1+2":
            half = job.steps // 2
            stage1 = self._training(half, job.seed, decay=0)
            stage2 = self._training(job.steps - half, job.seed + 1_000, decay=job.steps - half)
        return RoadRun(
            network=preset(job.student, 3),
            teacher=self.teacher,
            data=StudentData(
                simulated=fixed_rounds(self.rounds, ("x", "z"), p_min=0.001, p_max=0.006),
                cached_shots=self.cached_shots,
                cut_rounds=self.cut_rounds,
            ),
            no_kd=whole,
            baseline=Baseline(labels=LABELS, training=whole),
            stage1=Stage1(labels=LABELS, training=stage1),
            fuse=Fuse(
                training=probe_training(self.probe_steps),
                fit_shots=self.fused_shots,
                report_shots=2 * self.fused_shots,
            ),
            stage2=Stage2(labels=LABELS, training=stage2),
        )

    def parts(self, job: Job, out: Path) -> list[tuple[Path, StudentRun]]:
        """Folder and run of each stage of a job, in order; the last one's Student is the job's."""
        road, folder = self.road(job), job.folder(out)
        if job.arm != "stage1+2":
            return [(folder, road.student_run(job.arm, out))]
        fused = {"fusion": str(out / "fuse" / FUSION_FILE)}
        return [
            (folder / "stage1", road.student_run("stage1", folder)),
            (folder / "stage2", road.student_run("stage2", folder).model_copy(update=fused)),
        ]

    def student_file(self, job: Job, out: Path) -> Path:
        return self.parts(job, out)[-1][0] / STUDENT_FILE

    def _training(self, steps: int, seed: int, decay: int) -> TrainingConfig:
        warmup = min(300, steps // 4)
        optimiser = OptimiserConfig(learning_rate=3e-3, warmup_steps=warmup, decay_steps=decay, ema_decay=0.999)
        return TrainingConfig(
            steps=steps, batch_size=self.batch_size, seed=seed, threads=1, log_every=100, optimiser=optimiser
        )


TOY = {
    "steps": 40, "seeds": (1, 2), "students": ("flat-gru-5k",), "more_labels": (2,), "batch_size": 64, "rounds": 3,
    "cut_rounds": (1, 2, 3), "cached_shots": 4_096, "probe_steps": 8, "fused_shots": 512, "gate_shots": 10_000,
    "judged": ((2, 600), (3, 500)),
}  # fmt: skip
"""A Plan of a minute, which shows that the table is made and nothing else."""
