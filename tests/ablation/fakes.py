"""Rows of a plan whose truth is known."""

import math

import numpy as np

from syndistill.ablation.jobs import OPTIMUM, RIVAL, TEACHER, jobs_of, parts_of, reference_run
from syndistill.ablation.rows import REFERENCE, PlanLine, Reliability, Rows, Score

TEACHERS = {"teacher": "t", "oracle": "o"}
LERS = {TEACHER: 0.062, RIVAL: 0.075, OPTIMUM: 0.06}


def fake_rows(path, plan, true_log_ler, spread=0.01, noise=0.0, left_out=()):
    """true_log_ler: (arm, budget) -> log LER at the primary rounds; spread: between seeds, common to all arms of one;
    noise: of each run. left_out: (arm, seed) pairs without rows."""
    rng = np.random.default_rng(1)
    rows = Rows(path)
    lines = [PlanLine(plan=plan, teachers=TEACHERS)]
    of_seed = {seed: spread * rng.normal() for seed in sorted({job.seed for job in jobs_of(plan)})}
    for job in jobs_of(plan):
        part = parts_of(plan, job, path.parent, TEACHERS)[-1]
        ler = math.exp(true_log_ler(job.arm, job.budget) + of_seed[job.seed] + noise * rng.normal())
        if (job.arm, job.seed) not in left_out:
            steps = round(plan.steps * job.budget)
            lines += _scores(plan, part.hash, job._asdict(), ler, steps, 20_000 if "20k" in job.student else 5_000)
    for name, ler in LERS.items():
        who = {"student": REFERENCE, "arm": name, "budget": 0.0, "seed": 0}
        lines += _scores(plan, reference_run(name, "t"), who, ler, 0, 170_000 if name == TEACHER else None)
    rows.append(lines)
    return rows


def _scores(plan, run, who, ler, steps, parameters):
    found = []
    for experiment, shots in plan.experiments():
        shots = min(shots, plan.judging.teacher_shots) if who["arm"] == TEACHER else shots
        here = ler * experiment.rounds / plan.judging.primary_rounds
        bins = Reliability(counts=(shots // 2, shots // 2), predicted=(0.02, 0.5), observed=(0.03, 0.45))
        found.append(
            Score(
                run=run, **who, experiment=str(experiment), rounds=experiment.rounds, shots=shots, shots_sha256="x",
                errors=round(here * shots), nll=2 * here, kl=0.1 * here, kl_shots=shots, reliability=bins,
                us_per_shot=1.0 if parameters else 5.0, parameters=parameters, steps=steps,
                shots_seen=steps * plan.base.batch_size, train_seconds=10.0, decoder_id=run,
            )
        )  # fmt: skip
    return found
