"""What the Teacher says, written once and read by any number of runs.

A cache is a folder of safetensors shards and a manifest, written last: shots of one basis and one number of
rounds per shard, bits packed, the Teacher's logits of every end and line as float16 (relative step 2^-11,
so at most 0.008 where a logit is below 16). Features and z_fuse lie beside them (`cache_signals`).
Axes: B shots, R rounds, K ends (= R), S stabilisers, L lines, C logit channels.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.cache_signals import CachedSignal, begin, finish, is_written, write_part
from syndistill.distill.cached_source import CachedSource
from syndistill.distill.manifest import (
    BEGUN,
    FORMAT,
    MANIFEST,
    CacheKey,
    Chunk,
    Manifest,
    Shard,
    begun_key,
    read_manifest,
)
from syndistill.distill.packing import bytes_per_shot, pack_shots, unpack_shots
from syndistill.distill.targets import cut
from syndistill.distill.teacher import Answer, Teacher
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.safe_files import file_sha256, foreign_files, read_sealed, write_sealed
from syndistill.sampling.shots import Shots, concatenate
from syndistill.sampling.stream import BatchSource
from syndistill.training.distributed import ALONE, World, wait_for_all

__all__ = ["CacheKey", "CachedSource", "add_signals", "announce", "cut", "read_manifest", "teacher_key", "write_cache"]

SHOTS_PER_CALL = 128  # a forward that fits the cache: of 9 rounds 1.6 ms a shot, 2.3 with 512 (d=3)

Progress = Callable[[int, int], None]


def write_cache(
    folder: Path,
    key: CacheKey,
    teacher: Teacher,
    source: BatchSource[Shots],
    n_chunks: int,
    progress: Progress | None = None,
    signals: Sequence[CachedSignal] = (),
    only_last: bool = False,
    world: World = ALONE,
) -> None:
    """Ask the Teacher about `n_chunks` chunks of the source. Goes on where a killed call stopped.

    signals: kept beside, from the same calls; `add_signals` completes them. only_last: of the last end. world: each of
    its processes asks about chunks of its own. Raises SyndistillError when the folder holds a cache of something else,
    or can't be written; what is whole then stays, and nobody takes it for a cache.
    """
    if world.is_first:
        _begin(folder, key)
        for signal in signals:
            begin(folder, signal)
    wait_for_all(world)
    for index in range(world.rank, n_chunks, world.size):
        if _chunk_entry(folder, index).exists():
            _read_chunk(folder, index)
        else:
            _write_chunk(folder, index, _by_kind(source.chunk(index)), teacher, signals, only_last)
        if progress is not None:
            progress(index + 1, n_chunks)
    wait_for_all(world)
    if world.is_first:
        shards = [shard for index in range(n_chunks) for shard in _read_chunk(folder, index).shards]
        write_sealed(folder / MANIFEST, Manifest(format=FORMAT, key=key, shards=shards).model_dump())
        (folder / BEGUN).unlink(missing_ok=True)
    wait_for_all(world)


def _begin(folder: Path, key: CacheKey) -> None:
    begun = begun_key(folder)
    if begun is None:
        require_own(folder)
        write_sealed(folder / BEGUN, key.model_dump())
    elif begun != key:
        raise SyndistillError(f"{folder} holds a half-written cache of something else; delete it or name another")


def require_own(folder: Path) -> None:
    """SyndistillError for a folder of other files: nothing is written there."""
    if not (folder / BEGUN).exists() and not (folder / MANIFEST).exists() and foreign_files(folder):
        raise SyndistillError(f"{folder} is not empty and no cache; name another folder")


def _by_kind(batches: Sequence[Shots]) -> dict[str, Shots]:
    kinds: dict[str, list[Shots]] = {}
    for shots in batches:
        kinds.setdefault(f"{shots.basis}-r{shots.rounds}", []).append(shots)
    return {kind: concatenate(parts) for kind, parts in kinds.items()}


def _chunk_entry(folder: Path, index: int) -> Path:
    """Written when all shards of a chunk are."""
    return folder / f"chunk-{index:05}.json"


def _read_chunk(folder: Path, index: int) -> Chunk:
    path = _chunk_entry(folder, index)
    chunk: Chunk = read_sealed(path, "delete it, the Teacher is then asked about its shots again", Chunk)
    return chunk


def _write_chunk(
    folder: Path,
    index: int,
    kinds: dict[str, Shots],
    teacher: Teacher,
    signals: Sequence[CachedSignal],
    only_last: bool,
) -> None:
    written = []
    for kind, shots in kinds.items():
        name = f"shard-{index:05}-{kind}.safetensors"
        logits, kept = _ask(shots, teacher, signals, only_last)
        save_tensors(folder / name, pack_shots(shots) | {"logits": logits}, {"kind": kind})
        for signal in signals:
            write_part(folder, name, signal, kept[signal.key])
        written.append(
            Shard(
                name=name,
                sha256=file_sha256(folder / name),
                basis=shots.basis,
                rounds=shots.rounds,
                shots=len(shots),
                distance=shots.layout.distance,
            )
        )
    write_sealed(_chunk_entry(folder, index), Chunk(shards=written).model_dump())


def _ask(
    shots: Shots, teacher: Teacher, signals: Sequence[CachedSignal], only_last: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """float16 logits, and each signal as it is kept, by its key."""
    wants = frozenset[str]().union(*(signal.wants for signal in signals))
    logits: list[torch.Tensor] = []
    kept: dict[str, list[torch.Tensor]] = {signal.key: [] for signal in signals}
    for start in range(0, len(shots), SHOTS_PER_CALL):
        part = shots.take(slice(start, start + SHOTS_PER_CALL))
        answer: Answer = teacher.answer(part.only_last_end() if only_last else part, wants)
        logits.append(answer.logits_BKLC.half())
        for signal in signals:
            kept[signal.key].append(signal.encode(part, answer))
    return torch.cat(logits), {name: torch.cat(parts) for name, parts in kept.items()}


def add_signals(
    folder: Path,
    teacher: Teacher,
    signals: Sequence[CachedSignal],
    progress: Progress | None = None,
    world: World = ALONE,
) -> None:
    """Complete the signals that the finished cache does not hold yet, in one pass. Goes on where a kill stopped."""
    lacking = [signal for signal in signals if not is_written(folder, signal)]
    if not lacking:
        return
    wait_for_all(world)  # all have seen what is lacking
    if world.is_first:
        for signal in lacking:
            begin(folder, signal)
    wait_for_all(world)
    shards = read_manifest(folder).shards
    for done in range(world.rank, len(shards), world.size):
        shard, name = shards[done], shards[done].name
        missing = [signal for signal in lacking if not (signal.folder(folder) / name).is_file()]
        if missing:
            tensors, _ = load_tensors(folder / name)
            shots = unpack_shots(tensors, Layout(shard.distance), shard.basis, shard.rounds)
            _, kept = _ask(shots, teacher, missing)
            for signal in missing:
                write_part(folder, name, signal, kept[signal.key])
        if progress is not None:
            progress(done + 1, len(shards))
    wait_for_all(world)
    if world.is_first:
        for signal in lacking:
            finish(folder, signal, shards)
    wait_for_all(world)


def announce(
    n_shots: int, rounds: int, layout: Layout, channels: int, folder: Path, signals: Sequence[CachedSignal] = ()
) -> str:
    """One line on what is going to be written; SyndistillError when disk or memory have no room for it.

    signals: those to be written; the logits are counted when the folder holds no cache yet.
    """
    size: dict[str, int] = {}
    if not (folder / MANIFEST).is_file():
        size["shots and logits"] = n_shots * bytes_per_shot(rounds, layout, channels)
    for signal in signals:
        size[signal.name] = size.get(signal.name, 0) + n_shots * signal.bytes_per_shot(rounds, layout, channels)
    total = sum(size.values())
    parent = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if total > 0.9 * free:
        raise SyndistillError(
            f"the cache needs {total / 1e9:.1f} GB, {parent} has {free / 1e9:.1f} GB free; lower data.cached_shots, "
            "the terms' components, or name another --cache"
        )
    memory = _available_memory()
    if memory is not None and total > 0.8 * memory:
        raise SyndistillError(
            f"the cache takes {total / 1e9:.1f} GB of memory when read, {memory / 1e9:.1f} GB are available; lower "
            "data.cached_shots or the terms' components"
        )
    parts = f" ({', '.join(f'{name} {part / 1e6:.0f}' for name, part in size.items())})" if len(size) > 1 else ""
    return f"cache of about {n_shots:,} shots: {total / 1e6:.0f} MB on disk{parts}, as much in memory when read"


def _available_memory() -> int | None:
    """Bytes, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def teacher_key(teacher: Teacher) -> str:
    return teacher.key()
