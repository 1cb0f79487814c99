"""What the Teacher says, written once and read by any number of runs.

A cache is a folder of safetensors shards and a manifest, written last: shots of one basis and one number of
rounds per shard, bits packed, the Teacher's logits of every end and line as float16 (relative step 2^-11,
so at most 0.008 where a logit is below 16). Features as int8 codes and z_fuse lie beside them: each such signal is a
folder of its own, one file to a shard and a manifest written last. So a cache grows: a run that needs a signal which is
not there adds it, and what other runs wrote stays as it is.
Axes: B shots, R rounds, K ends (= R), S stabilisers, L lines, O observables, C logit channels, Q rounds kept,
P components.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from syndistill.circuits.layout import Layout
from syndistill.distill.signals.features import FeatureTarget, TargetSpec, TargetStatistics
from syndistill.distill.signals.teacher import Answer, Target, Teacher
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import file_sha256, foreign_files, read_sealed, write_sealed
from syndistill.sampling.shots import Shots, concatenate
from syndistill.sampling.stream import BatchSource
from syndistill.training.config import Strict
from syndistill.training.distributed import ALONE, World, wait_for_all

MANIFEST = "manifest.json"
BEGUN = "begun.json"
"""The key of a cache that is being written."""
FORMAT = 1
STATISTICS = "statistics.safetensors"
SIGNALS = "signals"
SHOTS_PER_CALL = 128  # a forward that fits the cache: of 9 rounds 1.6 ms a shot, 2.3 with 512 (d=3)


class CacheKey(Strict):
    """What a cache was made from; a run that wants anything else refuses it."""

    teacher: str
    """`Teacher.key`."""
    shots: dict[str, Any]
    """Configuration of the source of shots, seed and number of chunks included."""
    circuits: str
    """Hash of the noisy circuits behind the shots."""


class Shard(Strict):
    """A file of shots of one basis and number of rounds, and the hash of its bytes."""

    name: str = Field(pattern=r"^[\w-][\w.-]*$")
    sha256: str
    basis: str
    rounds: int = Field(gt=0)
    shots: int = Field(gt=0)
    distance: int = Field(gt=0)


class Chunk(Strict):
    """The shards of one chunk of shots."""

    shards: list[Shard]


class Manifest(Strict):
    """A finished cache."""

    format: int
    key: CacheKey
    shards: list[Shard]


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise SyndistillError(f"{folder} holds no finished cache (no {MANIFEST}); write it first")
    manifest: Manifest = read_sealed(path, f"delete {folder} and write it anew", Manifest)
    if manifest.format != FORMAT:
        raise SyndistillError(f"{path} is of format {manifest.format}, this version reads {FORMAT}; write it anew")
    return manifest


def begun_key(folder: Path) -> CacheKey | None:
    """Of a cache that was begun; None where there is none."""
    path = folder / BEGUN
    if not path.exists():
        return None
    key: CacheKey = read_sealed(path, f"delete {folder} and write it anew", CacheKey)
    return key


def is_of(folder: Path, key: CacheKey) -> bool:
    """Whether the folder holds a cache of this key, finished or being written."""
    if (folder / MANIFEST).is_file():
        return read_manifest(folder).key == key
    return begun_key(folder) == key


def matching_manifest(folder: Path, key: CacheKey) -> Manifest:
    """SyndistillError for a cache that was made from anything else than the key says."""
    manifest = read_manifest(folder)
    if wrong := [what for what in CacheKey.model_fields if getattr(manifest.key, what) != getattr(key, what)]:
        raise SyndistillError(
            f"the cache {folder} was made from another {' and another '.join(wrong)} than this run's; "
            "point the run at its own cache or write a new one"
        )
    return manifest


def pack_shots(shots: Shots) -> dict[str, torch.Tensor]:
    """uint8 tensors "events", "last" and "labels" of shots with all ends; float16 "posterior" where they have it."""
    assert shots.labels_BKLO is not None
    bits = {"events": shots.events_BRS, "last": shots.last_BKS, "labels": shots.labels_BKLO}
    packed = {k: torch.from_numpy(np.packbits(v.flatten(1).numpy(), axis=1)) for k, v in bits.items()}
    return packed if shots.posterior_BKLP is None else packed | {"posterior": shots.posterior_BKLP.half()}


def unpack_shots(
    tensors: dict[str, torch.Tensor],
    layout: Layout,
    basis: str,
    rounds: int,
    rows: np.ndarray | slice = slice(None),
    every_end: bool = True,
) -> Shots:
    """The chosen shots, of their first `rounds` rounds; without every_end the last of these is the only end."""
    s, n_lines, observables = layout.n_stabilisers, layout.n_lines, 2 if basis == "both" else 1

    def bits(name: str, *shape: int) -> torch.Tensor:
        flat = np.unpackbits(tensors[name].numpy()[rows], axis=1, count=rounds * int(np.prod(shape)))
        return torch.from_numpy(flat).view(-1, rounds, *shape)

    first = 0 if every_end else rounds - 1
    posterior = tensors["posterior"][:, first:rounds][rows].float() if "posterior" in tensors else None
    return Shots(
        layout,
        basis,
        bits("events", s),
        bits("last", s)[:, first:],
        bits("labels", n_lines, observables)[:, first:],
        tuple(range(first + 1, rounds + 1)),
        posterior,
    )


def bytes_per_shot(rounds: int, layout: Layout, channels: int) -> int:
    """Of packed shots and the float16 logits of every end and line, on disk and in memory."""
    bits = 2 * rounds * layout.n_stabilisers + rounds * layout.n_lines * max(1, channels // 2)
    return -(-bits // 8) + 2 * rounds * layout.n_lines * channels


class _Part(Strict):
    """A signal's file to one shard: the shard's name, its hash, and the part's own."""

    name: str = Field(pattern=r"^[\w-][\w.-]*$")
    of: str
    sha256: str


class _Manifest(Strict):
    """Of one signal."""

    format: int
    signal: str
    content: str
    every_rounds: int | None
    shape: list[int]
    dtype: str
    parts: list[_Part]
    asked: dict[str, str | int] | None = None
    variance_held: float | None = None


def folder_of(cache: Path, signal: Target) -> Path:
    """A cache may hold several of one name."""
    return cache / SIGNALS / signal.key


def _statistics_of(signal: Target) -> TargetStatistics | None:
    return signal.statistics if isinstance(signal, FeatureTarget) else None


def is_written(cache: Path, signal: Target) -> bool:
    return (folder_of(cache, signal) / MANIFEST).is_file()


def begin_signal(cache: Path, signal: Target) -> None:
    """The statistics, before the first code: a later run measures none that the cache knows."""
    path = folder_of(cache, signal) / STATISTICS
    statistics = _statistics_of(signal)
    if statistics is not None and not path.exists():
        statistics.save(path)


def known_statistics(cache: Path, name: str, spec: TargetSpec) -> TargetStatistics | None:
    """Of a signal that the cache holds, or was begun to hold, made to this spec."""
    for path in sorted(cache.glob(f"{SIGNALS}/{name}-*/{STATISTICS}")):
        found = TargetStatistics.load(path)
        if found.spec == spec and path.parent.name == f"{name}-{found.sha256[:12]}":
            return found
    return None


def write_part(cache: Path, shard: str, signal: Target, tensor: torch.Tensor) -> None:
    save_tensors(folder_of(cache, signal) / shard, {"values": tensor}, {"content": signal.content})


def finish_signal(cache: Path, signal: Target, shards: list[Shard]) -> None:
    """The manifest, once every shard has its part; an earlier call's parts may be damaged, so all are read."""
    folder = folder_of(cache, signal)
    for shard in shards:
        values = _part(folder / shard.name, signal, shard)
    statistics = _statistics_of(signal)
    manifest = _Manifest(
        format=FORMAT,
        signal=signal.name,
        content=signal.content,
        every_rounds=signal.every_rounds,
        shape=list(values.shape[2:]),
        dtype=str(values.dtype).removeprefix("torch."),
        parts=[_Part(name=s.name, of=s.sha256, sha256=file_sha256(folder / s.name)) for s in shards],
        asked=None if statistics is None else statistics.spec._asdict(),
        variance_held=None if statistics is None else statistics.held,
    )
    write_sealed(folder / MANIFEST, manifest.model_dump())


def _part(path: Path, signal: Target, shard: Shard) -> torch.Tensor:
    tensors, said = load_tensors(path)
    if said.get("content") != signal.content or len(tensors.get("values", ())) != shard.shots:
        raise SyndistillError(f"cache part {path} is of another signal or other shots; delete it, it is written anew")
    return tensors["values"]


def check_parts(cache: Path, signal: Target, shards: list[Shard]) -> None:
    """SyndistillError for a signal that is not there whole, damaged, or of other shots."""
    folder = folder_of(cache, signal)
    if not is_written(cache, signal):
        held = sorted(path.parent.name for path in cache.glob(f"{SIGNALS}/*/{MANIFEST}"))
        raise SyndistillError(
            f"the cache {cache} holds no {signal.name} of this run's Teacher and settings ({signal.content[:12]}); it "
            f"holds {', '.join(held) or 'logits only'}; let the run add it"
        )
    remedy = f"delete {folder}, it is then written anew"
    manifest: _Manifest = read_sealed(folder / MANIFEST, remedy, _Manifest)
    parts = {part.name: part for part in manifest.parts}
    of_these = [shard.name in parts and parts[shard.name].of == shard.sha256 for shard in shards]
    if (manifest.format, manifest.content) != (FORMAT, signal.content) or not all(of_these):
        raise SyndistillError(f"{folder} is of other shots or another content than its name says; {remedy}")
    if _statistics_of(signal) is not None and TargetStatistics.load(folder / STATISTICS).sha256 != signal.content:
        raise SyndistillError(f"{folder / STATISTICS} is not what the codes were made with; {remedy}")
    for name, part in parts.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != part.sha256:
            raise SyndistillError(f"cache part {folder / name} is missing or damaged; {remedy}")


def write_cache(
    folder: Path,
    key: CacheKey,
    teacher: Teacher,
    source: BatchSource[Shots],
    n_chunks: int,
    reporter: Reporter = SILENT,
    signals: Sequence[Target] = (),
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
            begin_signal(folder, signal)
    wait_for_all(world)
    bar = reporter.bar("Teacher's answers", n_chunks)
    for index in range(world.rank, n_chunks, world.size):
        if _chunk_entry(folder, index).exists():
            _read_chunk(folder, index)
        else:
            _write_chunk(folder, index, _by_kind(source.chunk(index)), teacher, signals, only_last)
        bar.to(index + 1)
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
    signals: Sequence[Target],
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
    shots: Shots, teacher: Teacher, signals: Sequence[Target], only_last: bool = False
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
            kept[signal.key].append(signal.encode(signal.of(part, answer)))
    return torch.cat(logits), {name: torch.cat(parts) for name, parts in kept.items()}


def add_signals(
    folder: Path,
    teacher: Teacher,
    signals: Sequence[Target],
    reporter: Reporter = SILENT,
    world: World = ALONE,
) -> None:
    """Complete the signals that the finished cache does not hold yet, in one pass. Goes on where a kill stopped."""
    lacking = [signal for signal in signals if not is_written(folder, signal)]
    if not lacking:
        return
    wait_for_all(world)  # all have seen what is lacking
    if world.is_first:
        for signal in lacking:
            begin_signal(folder, signal)
    wait_for_all(world)
    shards = read_manifest(folder).shards
    bar = reporter.bar("Teacher's answers", len(shards))
    for done in range(world.rank, len(shards), world.size):
        shard, name = shards[done], shards[done].name
        missing = [signal for signal in lacking if not (folder_of(folder, signal) / name).is_file()]
        if missing:
            tensors, _ = load_tensors(folder / name)
            shots = unpack_shots(tensors, Layout(shard.distance), shard.basis, shard.rounds)
            _, kept = _ask(shots, teacher, missing)
            for signal in missing:
                write_part(folder, name, signal, kept[signal.key])
        bar.to(done + 1)
    wait_for_all(world)
    if world.is_first:
        for signal in lacking:
            finish_signal(folder, signal, shards)
    wait_for_all(world)


def announce(
    n_shots: int, rounds: int, layout: Layout, channels: int, folder: Path, signals: Sequence[Target] = ()
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
