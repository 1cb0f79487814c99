"""The rows of a plan, put in order: who, with which seed, and what is not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from syndistill.ablation.jobs import (
    OPTIMUM,
    RIVAL,
    TEACHER,
    Job,
    fusion_hash,
    jobs_of,
    parts_of,
    reference_run,
    targets_of,
)
from syndistill.ablation.plan import Target
from syndistill.ablation.rows import ROWS_FILE, Fused, PlanLine, Rows, Score, fusion_name
from syndistill.errors import SyndistillError

Group = tuple[str, str, float]
"""(Student, arm, budget)."""


@dataclass(frozen=True)
class Judged:
    """One Student, or reference, on all cases of one number of rounds, both bases together."""

    scores: tuple[Score, ...]

    @property
    def shots(self) -> int:
        return sum(score.shots for score in self.scores)

    @property
    def ler(self) -> float:
        return sum(score.errors for score in self.scores) / self.shots

    @property
    def log_ler(self) -> float:
        """With half an error where there was none."""
        return math.log(max(0.5, sum(score.errors for score in self.scores)) / self.shots)

    def mean(self, name: str) -> float | None:
        """Over the shots, of nll, kl or us_per_shot."""
        values = [getattr(score, name) for score in self.scores]
        if any(value is None for value in values):
            return None
        return float(sum(v * score.shots for v, score in zip(values, self.scores, strict=True)) / self.shots)

    @property
    def first(self) -> Score:
        return self.scores[0]


class Table:
    """judged: group -> seed -> rounds -> result; references: name -> rounds -> result; fused: by target.

    missing: runs of the plan that have no, or not all, rows, with what was said of their last failure (None where
    nothing failed). foreign: how many rows belong to no run of the plan, and were left out.
    """

    def __init__(self, line: PlanLine, rows: Rows) -> None:
        plan, teachers = line.plan, line.teachers
        self.plan = plan
        self.judged: dict[Group, dict[int, dict[int, Judged]]] = {}
        self.elsewhere: dict[tuple[float, int], dict[Group, dict[int, Judged]]] = {}
        """(error rate, rounds) -> group -> seed -> result, of the rates beside the primary one."""
        self.missing: dict[Job, str | None] = {}
        by_run: dict[str, list[Score]] = {}
        for score in rows.scores.values():
            by_run.setdefault(score.run, []).append(score)
        used: set[str] = set()
        failed = {failure.run: failure.error for failure in rows.failures}
        for job in jobs_of(plan):
            run = line.runs.get(str(job)) or parts_of(plan, job, Path(), teachers)[-1].hash
            used.add(run)
            found = self._by_rounds(by_run.get(run, []), None)
            if found is None:
                self.missing[job] = failed.get(run)
            else:
                group = (job.student, job.arm, job.budget)
                self.judged.setdefault(group, {})[job.seed] = found
                self._note_elsewhere(group, job.seed, by_run[run], None)
        self.fused: dict[Target, Fused] = {}
        for target in targets_of(plan):
            run = line.runs.get(fusion_name(target)) or fusion_hash(plan, target, teachers["teacher"])
            if run in rows.fused:
                self.fused[target] = rows.fused[run]
        self.references: dict[str, dict[int, Judged]] = {}
        for name in (TEACHER, RIVAL, OPTIMUM):
            run = reference_run(name, teachers["teacher"])
            used.add(run)
            most = plan.judging.teacher_shots if name == TEACHER else max(n for _, n in plan.judging.cases)
            found = self._by_rounds(by_run.get(run, []), most)
            if found is not None:
                self.references[name] = found
                self._note_elsewhere(("reference", name, 0.0), 0, by_run[run], most)
        self.foreign = sum(len(scores) for run, scores in by_run.items() if run not in used)
        self._require_same_shots()

    def _by_rounds(self, scores: list[Score], most: int | None) -> dict[int, Judged] | None:
        """None where a case is missing. most: shots of a case that are judged, None for all."""
        of_case = {(score.experiment, score.shots): score for score in scores}
        found: dict[int, list[Score]] = {}
        for experiment, shots in self.plan.experiments():
            score = of_case.get((str(experiment), shots if most is None else min(shots, most)))
            if score is None:
                return None
            if experiment.p != self.plan.primary_rate:
                continue
            found.setdefault(experiment.rounds, []).append(score)
        return {rounds: Judged(tuple(found[rounds])) for rounds in sorted(found)}

    def _note_elsewhere(self, group: Group, seed: int, scores: list[Score], most: int | None) -> None:
        of_case = {(score.experiment, score.shots): score for score in scores}
        parts: dict[tuple[float, int], list[Score]] = {}
        for experiment, shots in self.plan.experiments():
            if experiment.p != self.plan.primary_rate:
                score = of_case[str(experiment), shots if most is None else min(shots, most)]
                parts.setdefault((experiment.p, experiment.rounds), []).append(score)
        for case, found in sorted(parts.items()):
            self.elsewhere.setdefault(case, {}).setdefault(group, {})[seed] = Judged(tuple(found))

    def _require_same_shots(self) -> None:
        """Of Students and references, at every error rate; the Teacher's shots are a part of the others'."""
        at_home = [judged for seeds in self.judged.values() for found in seeds.values() for judged in found.values()]
        at_home += [judged for found in self.references.values() for judged in found.values()]
        groups = [found for of_case in self.elsewhere.values() for found in of_case.values()]
        elsewhere = [judged for found in groups for judged in found.values()]
        hashes: dict[tuple[str, int], set[str]] = {}
        for judged in [*at_home, *elsewhere]:
            for score in judged.scores:
                hashes.setdefault((score.experiment, score.shots), set()).add(score.shots_sha256)
        if different := [experiment for (experiment, _), found in hashes.items() if len(found) > 1]:
            raise SyndistillError(f"the rows of {different[0]} are of different shots; keep those of one set")

    def values(
        self, student: str, budget: float, of: Callable[[Judged], float | None]
    ) -> dict[str, dict[int, float]]:
        """arm -> seed -> value at the plan's primary number of rounds, where there is one."""
        rounds = self.plan.judging.primary_rounds
        found: dict[str, dict[int, float]] = {}
        for (who, arm, at), seeds in self.judged.items():
            if (who, at) == (student, budget):
                values = {seed: of(of_rounds[rounds]) for seed, of_rounds in sorted(seeds.items())}
                found[arm] = {seed: value for seed, value in values.items() if value is not None}
        return found

    def kept(self, judged: Judged) -> float | None:
        """Share of the gain over correlated matching that the best decoder has: the exact optimum where the plan
        judges it, else the Teacher. None where a reference is missing or gains nothing."""
        rounds = self.plan.judging.primary_rounds
        best = self.references.get(OPTIMUM if self.plan.judging.optimum else TEACHER)
        rival = self.references.get(RIVAL)
        if best is None or rival is None or best[rounds].ler >= rival[rounds].ler:
            return None
        return (rival[rounds].ler - judged.ler) / (rival[rounds].ler - best[rounds].ler)

    def flip_rate(self) -> float | None:
        """How often the observable flips at the primary number of rounds: the LER of saying that it never does."""
        for of_rounds in self.references.values():
            bins = [score.reliability for score in of_rounds[self.plan.judging.primary_rounds].scores]
            if all(b is not None for b in bins):
                flips = sum(n * x for b in bins if b for n, x in zip(b.counts, b.observed, strict=True))
                return flips / sum(sum(b.counts) for b in bins if b)
        return None

    def own_answers(self, arms: Iterable[str]) -> dict[str, Fused]:
        """Of these arms those whose z_fuse turned out to be the Teacher's own answer."""
        found = {arm: self.fused.get(self.plan.settings(arm).target) for arm in arms}
        return {arm: fused for arm, fused in found.items() if fused is not None and fused.is_own_answer}

    @property
    def main_student(self) -> str:
        """Whose arms the pictures are of: the first sweep's."""
        return self.plan.sweeps[0].student

    @property
    def main_budget(self) -> float:
        return self.plan.sweeps[0].budget


def read_table(source: Path) -> Table:
    """From a sweep's folder or its rows file. SyndistillError for damaged rows and where there is no plan in them."""
    path = source / ROWS_FILE if source.is_dir() else source
    if not path.is_file():
        raise SyndistillError(f"there are no rows {path}; `syndistill ablate RECIPE --out {source}` makes them")
    rows = Rows(path)
    if rows.plan is None:
        raise SyndistillError(f"{path} names no plan: its first line must be the one `syndistill ablate` writes")
    return Table(rows.plan, rows)
