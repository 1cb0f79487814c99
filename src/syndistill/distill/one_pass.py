"""The Teacher asked once for everything that several runs will read from one cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syndistill.distill.cache_signals import CachedSignal, feature_signal, fused_signal, known_statistics
from syndistill.distill.fusion import load_fusion
from syndistill.distill.manifest import MANIFEST, is_of, matching_manifest
from syndistill.distill.statistics import TargetStatistics, measure_targets, target_specs
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
    fusion: Path | None,
    progress: Count | None,
    say: Say,
) -> None:
    """Write what runs of these terms need, and z_fuse where a fusion's file is given, in one pass of the Teacher.

    Of two terms of one name that ask for different reductions the first is written here; a run adds the other.
    """
    signals: dict[str, CachedSignal] = {}
    for each in terms:
        known = cached_statistics(each, data, teacher, cache)
        lacking = {name: spec for name, spec in target_specs(each).items() if name not in known | signals}
        if lacking:
            known |= measure_targets(teacher, statistics_shots(data.simulated, data.cache_seed), lacking)
        signals = {name: feature_signal(name, statistics) for name, statistics in known.items()} | signals
    if fusion is not None:
        signals["fused"] = fused_signal(load_fusion(fusion, teacher)[0], teacher.key())
    complete_cache(data, teacher, cache, list(signals.values()), progress, say)


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
