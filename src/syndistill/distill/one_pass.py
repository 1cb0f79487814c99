"""The Teacher asked once for everything that several runs will read from one cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syndistill.distill.cache_signals import feature_signal, fused_signal, known_statistics
from syndistill.distill.fusion import load_fusion
from syndistill.distill.manifest import MANIFEST, is_of, matching_manifest
from syndistill.distill.statistics import TargetSpec, TargetStatistics, measure_targets, target_specs
from syndistill.distill.student_data import (
    Count,
    Say,
    StudentData,
    cache_key,
    complete_cache,
    statistics_shots,
)
from syndistill.distill.teacher import Teacher
from syndistill.distill.terms import Terms


def fill_cache(
    data: StudentData,
    teacher: Teacher,
    cache: Path,
    terms: Sequence[Terms],
    fusions: Sequence[Path],
    progress: Count | None,
    say: Say,
) -> None:
    """Write what runs of these terms need, and z_fuse of each fusion's file, in one pass of the Teacher."""
    measured: dict[tuple[str, TargetSpec], TargetStatistics] = {}
    for each in terms:
        specs = target_specs(each)
        known = cached_statistics(each, data, teacher, cache)
        lacking = {name: spec for name, spec in specs.items() if name not in known and (name, spec) not in measured}
        if lacking:
            known |= measure_targets(teacher, statistics_shots(data.simulated, data.cache_seed), lacking)
        measured |= {(name, specs[name]): statistics for name, statistics in known.items()}
    signals = [feature_signal(name, statistics) for (name, _), statistics in measured.items()]
    signals += [fused_signal(load_fusion(path, teacher)[0], teacher.key()) for path in fusions]
    complete_cache(data, teacher, cache, signals, progress, say)


def cached_statistics(
    terms: Terms, data: StudentData, teacher: Teacher, cache: Path
) -> dict[str, TargetStatistics]:
    """Of the feature terms that are on, those that the cache knows; they depend on its key and the term alone."""
    if not data.cached_shots or not is_of(cache, cache_key(data, teacher)):
        return {}
    found = {name: known_statistics(cache, name, spec) for name, spec in target_specs(terms).items()}
    return {name: statistics for name, statistics in found.items() if statistics is not None}


def check_cache(data: StudentData, teacher: Teacher, cache: Path) -> None:
    """SyndistillError for a finished cache of anything else, before a run that would read it much later begins."""
    if data.cached_shots and (cache / MANIFEST).is_file():
        matching_manifest(cache, cache_key(data, teacher))
