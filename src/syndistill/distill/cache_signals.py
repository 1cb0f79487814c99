"""What a cache of the Teacher's logits can hold beside them: features as int8 codes, and z_fuse.

Each signal is a folder of its own beside the shots' shards, one file to a shard and a manifest written last. So a cache
grows: a run that needs a signal which is not there adds it, and what other runs wrote stays as it is.
Axes: B shots, Q rounds kept, K ends, S stabilisers, L lines, C logit channels, P components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from syndistill.circuits.layout import Layout
from syndistill.distill.fusion import Fusion
from syndistill.distill.manifest import Shard
from syndistill.distill.statistics import TargetSpec, TargetStatistics
from syndistill.distill.teacher import Answer
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.safe_files import file_sha256, read_sealed, write_sealed
from syndistill.sampling.shots import Shots
from syndistill.training.config import Strict

MANIFEST = "manifest.json"
STATISTICS = "statistics.safetensors"
SIGNALS = "signals"
FORMAT = 1


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


@dataclass(frozen=True, eq=False)
class CachedSignal:
    """A signal to keep. name: as in `TaughtShots.signals`; content: what it was made with, by hash; wants: what the
    Teacher is asked for; encode: to the tensor kept; every_rounds: which rounds it is of, None for one entry per end.
    """

    name: str
    content: str
    wants: frozenset[str]
    encode: Callable[[Shots, Answer], torch.Tensor]
    every_rounds: int | None
    statistics: TargetStatistics | None = None

    @property
    def key(self) -> str:
        """Of its folder: a cache may hold several signals of one name."""
        return f"{self.name}-{self.content[:12]}"

    def folder(self, cache: Path) -> Path:
        return cache / SIGNALS / self.key

    def kept(self, rounds: int) -> int:
        """How many entries along the second axis an experiment of so many rounds has."""
        return rounds if self.every_rounds is None else -(-rounds // self.every_rounds)

    def bytes_per_shot(self, rounds: int, layout: Layout, channels: int) -> int:
        if self.statistics is None:
            return 2 * rounds * layout.n_lines * channels
        return self.kept(rounds) * layout.n_stabilisers * len(self.statistics.range_P)


def feature_signal(name: str, statistics: TargetStatistics) -> CachedSignal:
    signal = statistics.spec.signal

    def encode(shots: Shots, answer: Answer) -> torch.Tensor:
        return statistics.encode(statistics.target(answer.signals[signal], shots.basis))

    return CachedSignal(
        name, statistics.sha256, frozenset({signal}), encode, statistics.spec.every_rounds, statistics
    )


def fused_signal(fusion: Fusion, teacher: str) -> CachedSignal:
    @torch.no_grad()
    def encode(shots: Shots, answer: Answer) -> torch.Tensor:
        return fusion(shots, answer).half()

    return CachedSignal("fused", fusion.key(teacher), fusion.wants, encode, None)


def is_written(cache: Path, signal: CachedSignal) -> bool:
    return (signal.folder(cache) / MANIFEST).is_file()


def begin(cache: Path, signal: CachedSignal) -> None:
    """The statistics, before the first code: a later run measures none that the cache knows."""
    path = signal.folder(cache) / STATISTICS
    if signal.statistics is not None and not path.exists():
        signal.statistics.save(path)


def known_statistics(cache: Path, name: str, spec: TargetSpec) -> TargetStatistics | None:
    """Of a signal that the cache holds, or was begun to hold, made to this spec."""
    for path in sorted(cache.glob(f"{SIGNALS}/{name}-*/{STATISTICS}")):
        found = TargetStatistics.load(path)
        if found.spec == spec and path.parent.name == f"{name}-{found.sha256[:12]}":
            return found
    return None


def write_part(cache: Path, shard: str, signal: CachedSignal, tensor: torch.Tensor) -> None:
    save_tensors(signal.folder(cache) / shard, {"values": tensor}, {"content": signal.content})


def finish(cache: Path, signal: CachedSignal, shards: list[Shard]) -> None:
    """The manifest, once every shard has its part; an earlier call's parts may be damaged, so all are read."""
    folder = signal.folder(cache)
    for shard in shards:
        values = _part(folder / shard.name, signal, shard)
    manifest = _Manifest(
        format=FORMAT,
        signal=signal.name,
        content=signal.content,
        every_rounds=signal.every_rounds,
        shape=list(values.shape[2:]),
        dtype=str(values.dtype).removeprefix("torch."),
        parts=[_Part(name=s.name, of=s.sha256, sha256=file_sha256(folder / s.name)) for s in shards],
        asked=None if signal.statistics is None else signal.statistics.spec._asdict(),
        variance_held=None if signal.statistics is None else signal.statistics.held,
    )
    write_sealed(folder / MANIFEST, manifest.model_dump())


def _part(path: Path, signal: CachedSignal, shard: Shard) -> torch.Tensor:
    tensors, said = load_tensors(path)
    if said.get("content") != signal.content or len(tensors.get("values", ())) != shard.shots:
        raise SyndistillError(f"cache part {path} is of another signal or other shots; delete it, it is written anew")
    return tensors["values"]


def check_parts(cache: Path, signal: CachedSignal, shards: list[Shard]) -> None:
    """SyndistillError for a signal that is not there whole, damaged, or of other shots."""
    folder = signal.folder(cache)
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
    if signal.statistics is not None and TargetStatistics.load(folder / STATISTICS).sha256 != signal.content:
        raise SyndistillError(f"{folder / STATISTICS} is not what the codes were made with; {remedy}")
    for name, part in parts.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != part.sha256:
            raise SyndistillError(f"cache part {folder / name} is missing or damaged; {remedy}")
