"""Which shots a Student learns from, and the sources of its batches: fresh ones, or those of a cache.

Simulated shots may be those alone that an earlier Student is not sure of. What a shot teaches depends on its events
alone, so choosing by them changes no target, only which shots come often.
Axes: B shots, R rounds, K ends, S stabilisers, L lines, C logit channels, Q rounds kept, P components.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from syndistill.circuits.layout import Layout
from syndistill.decoders.engine_for import engine_named, way_in
from syndistill.distill.cache.store import (
    MANIFEST,
    CacheKey,
    Shard,
    add_signals,
    announce,
    check_parts,
    folder_of,
    is_of,
    is_written,
    known_statistics,
    matching_manifest,
    require_own,
    unpack_shots,
    write_cache,
)
from syndistill.distill.signals.features import (
    FeatureTarget,
    TargetSpec,
    TargetStatistics,
    measure_targets,
    target_specs,
)
from syndistill.distill.signals.fusion import FusedTarget, load_fusion
from syndistill.distill.signals.teacher import Target, TaughtShots, Teacher, cut, draw_ends
from syndistill.distill.terms import Terms, Where
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, weights_hash
from syndistill.models.tensors_file import load_tensors
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import LOCK_FILE, file_sha256, locked, remove_stale
from syndistill.sampling.recorded_shots import RecordedShots
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import SimulatedSource
from syndistill.training.config import (
    FILES,
    DataConfig,
    Name,
    Number,
    Positive,
    Rounds,
    Seed,
    Strict,
    TrainingConfig,
)
from syndistill.training.distributed import ALONE, World, join_world, wait_for_all
from syndistill.training.source import noise_texts, simulated_source, statistics_shots

CACHE_SEED = 1_000_003  # of a cache's shots; runs that share a cache differ in their own seeds
SHARE_CHUNKS = 4  # half a second each
MANY_SHOTS = 50_000  # from here half a minute of compiling a Teacher has paid


@dataclass(frozen=True)
class _Group:
    """All shots of one basis and number of rounds, packed; signals by their names."""

    basis: str
    rounds: int
    layout: Layout
    tensors: dict[str, torch.Tensor]
    signals: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.tensors["logits"])

    def batch(self, rows: np.ndarray, number: int, rounds: int, every_end: bool) -> TaughtShots:
        """Cut to the experiment of the first `rounds` rounds."""
        shots = unpack_shots(self.tensors, self.layout, self.basis, rounds, rows, every_end)
        ends = slice(0 if every_end else rounds - 1, rounds)
        logits = self.tensors["logits"]
        # A Teacher of final logits alone has one entry, of the last end.
        logits = logits[:, ends] if logits.shape[1] == self.rounds else logits
        signals = {}
        for signal in self.signals:
            kept = ends if signal.every_rounds is None else slice(0, signal.kept(rounds))
            signals[signal.name] = self.tensors[signal.name][:, kept][rows]
        return TaughtShots(shots, logits[rows].float(), signals, number)


class CachedSource:
    """A cache as an endless source of batches: every epoch a new order, fixed by (seed, epoch).

    cut_rounds: when not empty, each batch is cut to an experiment of so many rounds, drawn from it (every
    history of R rounds holds a t-round experiment for each t <= R); only the last end is kept, unless every_end.
    signals: what to read beside the logits. ends: where more are kept, how many a batch (0: all). only_last: only the
    last end was asked.
    """

    batches_per_chunk = 16

    def __init__(
        self,
        folder: Path,
        key: CacheKey,
        batch_size: int,
        seed: int,
        cut_rounds: tuple[int, ...] = (),
        signals: Sequence[Target] = (),
        every_end: bool = False,
        ends: int = 0,
        only_last: bool = False,
    ) -> None:
        self.batch_size, self.seed, self.cut_rounds, self.ends = batch_size, seed, cut_rounds, ends
        self.every_end = every_end or not (cut_rounds or only_last)
        self.groups = _load(folder, key, tuple(signals))
        self.batches_per_epoch = sum(len(g) // batch_size for g in self.groups)
        if self.batches_per_epoch == 0:
            raise SyndistillError(f"{folder} holds fewer shots than one batch of {batch_size}")
        if cut_rounds and any(g.tensors["logits"].shape[1] != g.rounds for g in self.groups):
            raise SyndistillError(
                f"the Teacher behind {folder} gives the last end alone, so its shots cannot be cut to fewer rounds; "
                "set data.cut_rounds=[]"
            )
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    def chunk(self, index: int) -> list[TaughtShots]:
        first = index * self.batches_per_chunk
        return [self._batch(i) for i in range(first, first + self.batches_per_chunk)]

    def _batch(self, number: int) -> TaughtShots:
        epoch, position = divmod(number, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        index, rows = self._epoch[1][position]
        group = self.groups[index]
        rounds = group.rounds
        if self.cut_rounds:
            fitting = [r for r in self.cut_rounds if r <= rounds]
            rounds = int(np.random.default_rng([self.seed, 1, number]).choice(fitting))
        taught = group.batch(rows, number, rounds, self.every_end)
        return draw_ends(taught, self.ends, self.seed) if self.ends else taught

    def _order(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        rng = np.random.default_rng([self.seed, 0, epoch])
        batches = []
        for g, group in enumerate(self.groups):
            rows = rng.permutation(len(group))
            for i in range(len(rows) // self.batch_size):
                batches.append((g, rows[i * self.batch_size : (i + 1) * self.batch_size]))
        return [batches[i] for i in rng.permutation(len(batches))]


def _load(folder: Path, key: CacheKey, signals: tuple[Target, ...]) -> list[_Group]:
    shards = matching_manifest(folder, key).shards
    for shard in shards:
        path = folder / shard.name
        if not path.is_file() or file_sha256(path) != shard.sha256:
            raise SyndistillError(f"cache shard {path} is missing or damaged; delete {folder} and write it anew")
    for signal in signals:
        check_parts(folder, signal, shards)
    kinds: dict[tuple[str, int, int], list[Shard]] = {}
    for shard in shards:
        kinds.setdefault((shard.basis, shard.rounds, shard.distance), []).append(shard)
    return [
        _Group(basis, rounds, Layout(distance), _joined(folder, members, signals), signals)
        for (basis, rounds, distance), members in kinds.items()
    ]


def _joined(folder: Path, shards: list[Shard], signals: tuple[Target, ...]) -> dict[str, torch.Tensor]:
    """The shards' tensors one after the other, filled in as they are read: memory for one copy and one shard."""
    total = sum(shard.shots for shard in shards)
    joined: dict[str, torch.Tensor] = {}
    start = 0
    for shard in shards:
        tensors, _ = load_tensors(folder / shard.name)
        for signal in signals:
            tensors[signal.name] = load_tensors(folder_of(folder, signal) / shard.name)[0]["values"]
        for name, tensor in tensors.items():
            if name not in joined:
                joined[name] = torch.empty((total, *tensor.shape[1:]), dtype=tensor.dtype)
            joined[name][start : start + shard.shots] = tensor
        start += shard.shots
    return joined


class Unsure(Strict):
    """Which shots are kept."""

    network: Name
    """Whose answers say it: a shipped network's name or a path; with :int8 behind it, three times faster where the
    processor can, and of nearly the same shots."""
    below: float = Field(default=4.0, gt=0, le=100)
    """Every shot whose logit of the last end is below this in size; at 4 one of 55 calls is wrong."""
    others: float = Field(default=0.05, ge=0, le=1)
    """This share of all others, drawn by lot, so that what is sure stays so."""

    def key(self) -> dict[str, object]:
        """What a cache was chosen by: weights in place of a name."""
        return self.model_dump(mode="json") | {"network": self.chooser_hash()}

    def chooser_hash(self) -> str:
        """Of the network's weights, with the way it runs where that is asked for."""
        network, way = way_in(self.network)
        return weights_hash(load_network(network)[0]) + (f":{way}" if way else "")


class UnsureShots:
    """Says which shots are kept. SyndistillError for a network of another distance."""

    def __init__(self, unsure: Unsure, distance: int) -> None:
        self.unsure = unsure
        self.engine = engine_named(unsure.network)
        if self.engine.layout.distance != distance:
            raise SyndistillError(
                f"data.unsure.network {unsure.network} is of distance {self.engine.layout.distance}, the shots of "
                f"{distance}; name one of theirs"
            )

    def __call__(self, shots: Shots, rng: np.random.Generator) -> torch.Tensor:
        stream = self.engine.stream(shots.basis, len(shots))
        stream.push(np.ascontiguousarray(shots.events_BRS.transpose(0, 1).numpy()))
        logits_BO = torch.from_numpy(stream.logits(shots.last_BKS[:, -1].numpy()))
        by_lot_B = torch.from_numpy(rng.random(len(shots)) < self.unsure.others)
        return by_lot_B | (logits_BO.abs().amin(-1) < self.unsure.below)


class UnsureSource:
    """The unsure shots of each batch of a source; batches without any are left out."""

    def __init__(self, source: SimulatedSource, unsure: Unsure) -> None:
        self.source = source
        self.batches_per_chunk = source.batches_per_chunk
        self.is_kept = UnsureShots(unsure, source.distance)

    def chunk(self, index: int) -> Sequence[Shots]:
        rng = np.random.default_rng([self.source.seed, 3, index])
        kept = []
        for shots in self.source.chunk(index):
            chosen_B = self.is_kept(shots, rng)
            if chosen_B.any():
                kept.append(shots.take(chosen_B))
        return kept

    def share(self, n_chunks: int) -> float:
        """Of the simulated shots of a few chunks, how many are kept."""
        kept = sum(len(shots) for index in range(n_chunks) for shots in self.chunk(index))
        return kept / (n_chunks * self.batches_per_chunk * self.source.batch_size)


class Recorded(Strict):
    """Shots of recordings, in the layout of published ones, in place of simulated ones."""

    folders: tuple[Name, ...] = Field(min_length=1, max_length=10_000)
    """Of one patch or several, of any numbers of rounds; they take turns, a batch is of one."""
    shots: Positive
    """The first so many of each, over and over."""
    dev_shots: Number = 0
    """So many after those of each are not learned from: the Student's averaged weights are judged on them, by NLL,
    before the first step and from then on every `dev_every` steps, and the best are saved."""
    dev_every: Positive = 25
    patience: Number = 8
    """Looks at the development shots without a new best after which the run ends; 0: all steps are taken."""

    @model_validator(mode="before")
    @classmethod
    def _of_one(cls, content: Any) -> Any:
        """Runs of earlier versions name one recording: `folder`."""
        if isinstance(content, dict) and "folder" in content and "folders" not in content:
            return {key: value for key, value in content.items() if key != "folder"} | {"folders": (content["folder"],)}
        return content

    @model_validator(mode="after")
    def _each_once(self) -> Recorded:
        if len(set(self.folders)) < len(self.folders):
            raise ValueError("folders names a recording twice; name each once")
        return self


class StudentData(Strict):
    """Which shots a Student learns from."""

    simulated: DataConfig
    cached_shots: Number = 0
    """So many shots, asked of the Teacher once and kept; 0: fresh shots, the Teacher asked live."""
    cut_rounds: tuple[Rounds, ...] = Field(default=(), max_length=1000)
    """Each batch becomes an experiment of one of these numbers of rounds; terms of the last end look at its end (empty:
    batches stay as they are)."""
    ends: int = Field(default=2, ge=0, le=10_000)
    """How many ends of each batch the terms of every end look at: the last one and others drawn, for each is a readout
    to pay for; 0: all."""
    cache_seed: Seed = CACHE_SEED
    cached_ends: Where = "every"
    """last: the Teacher is asked for the last end alone, at little more than half the price."""
    unsure: Unsure | None = None
    """Only the shots that a Student is not sure of: of the cached_shots those that are asked and kept, of fresh ones
    those that are labelled and learned from, so that a batch is full of them."""
    recorded: Recorded | None = None
    """The Student learns from these alone, the Teacher asked live; `simulated` says what they are like: statistics and
    the gate are of such shots."""

    @model_validator(mode="after")
    def _consistent(self) -> StudentData:
        if not self.cached_shots and self.cached_ends == "last":
            raise ValueError("cached_ends is about cached shots; set cached_shots above 0")
        if self.recorded and (self.cached_shots or self.cut_rounds or self.unsure):
            raise ValueError(
                "recorded shots are asked live, have one end and are all used; set cached_shots=0 and cut_rounds=[], "
                "and leave unsure out"
            )
        if self.simulated.part_rounds is not None and (self.cut_rounds or self.cached_shots or self.unsure):
            raise ValueError(
                "parts of long experiments are fresh and whole; leave cut_rounds, cached_shots and unsure out"
            )
        if self.cut_rounds and self.cached_ends == "last":
            raise ValueError("cut_rounds needs the Teacher's answers of every end; leave cached_ends as it is")
        shortest = min(r for phase in self.simulated.curriculum.rounds for r in phase.rounds)
        if self.cut_rounds and not 0 < min(self.cut_rounds) <= shortest:
            raise ValueError(f"cut_rounds {self.cut_rounds} must begin at 1 to {shortest}, the fewest rounds simulated")
        return self


def shots_in(data: StudentData | DataConfig) -> DataConfig:
    """What a run's simulated shots are like, whatever its kind."""
    return data.simulated if isinstance(data, StudentData) else data


class LiveSource:
    """Fresh shots, the Teacher to be asked by the objective."""

    def __init__(
        self,
        source: SimulatedSource | RecordedShots,
        cut_rounds: tuple[int, ...],
        every_end: bool = False,
        ends: int = 0,
    ) -> None:
        self.source, self.cut_rounds, self.every_end, self.ends = source, cut_rounds, every_end, ends
        self.batches_per_chunk = source.batches_per_chunk

    def chunk(self, index: int) -> list[TaughtShots]:
        rng = np.random.default_rng([self.source.seed, 1, index])
        first = index * self.batches_per_chunk
        taught = [TaughtShots(shots, None, number=first + i) for i, shots in enumerate(self.source.chunk(index))]
        if self.cut_rounds:
            drawn = [int(rng.choice([r for r in self.cut_rounds if r <= t.shots.rounds])) for t in taught]
            taught = [cut(t, rounds, self.every_end) for t, rounds in zip(taught, drawn, strict=True)]
        return [draw_ends(t, self.ends, self.source.seed) for t in taught] if self.ends else taught


def simulated(
    data: StudentData, batch_size: int, seed: int, ends: int = 0, share: tuple[int, int] = (0, 1)
) -> SimulatedSource:
    """ends: of revealed labels, which cost as much as their ends do, the last one and drawn ones, so many in all; 0:
    every end. share: (i, n), to make the i-th of n parts of every batch alone."""
    ends = ends if data.simulated.labels == "revealed" and not data.cut_rounds else 0
    # Of cached shots `UnsureSource` chooses, after they are simulated.
    chooser = UnsureShots(data.unsure, data.simulated.distance) if data.unsure and not data.cached_shots else None
    return simulated_source(data.simulated, batch_size, seed, ends=ends, end_spacing=0, share=share, chooser=chooser)


def recorded(data: StudentData, batch_size: int, seed: int) -> RecordedShots:
    """SyndistillError where they are not what `data.simulated` says."""
    assert data.recorded is not None
    of = data.recorded
    source = RecordedShots(of.folders, of.shots, batch_size, seed, of.dev_shots)
    like = data.simulated
    rounds = {r for phase in like.curriculum.rounds for r in phase.rounds}
    for folder, placement in zip(of.folders, source.placements, strict=True):
        is_like = placement.layout.distance == like.distance and placement.basis in like.bases
        if not is_like or placement.rounds not in rounds:
            raise SyndistillError(
                f"{folder} is of distance {placement.layout.distance}, basis {placement.basis} and "
                f"{placement.rounds} rounds, data.simulated says nothing of such shots; give it these"
            )
    return source


def cached_source(
    data: StudentData,
    training: TrainingConfig,
    teacher: Teacher,
    folder: Path,
    signals: Sequence[Target],
    every_end: bool,
    reporter: Reporter,
) -> CachedSource:
    """The cache in `folder`, written or completed first where it has to be."""
    complete_cache(data, teacher, folder, signals, reporter, join_world(torch.device(training.device)))
    key, ends = cache_key(data, teacher), data.ends if every_end else 0
    return CachedSource(
        folder, key, training.batch_size, training.seed, data.cut_rounds, signals, every_end, ends,
        only_last=data.cached_ends == "last",
    )  # fmt: skip


def complete_cache(
    data: StudentData,
    teacher: Teacher,
    folder: Path,
    signals: Sequence[Target],
    reporter: Reporter,
    world: World = ALONE,
) -> None:
    """Write the cache, or what of these signals it lacks; what it will take is said first.

    While another process writes to it, this one waits, and then goes on from what is there.
    """
    key = cache_key(data, teacher)
    if world.size == 1 and (folder / MANIFEST).is_file() and all(is_written(folder, signal) for signal in signals):
        matching_manifest(folder, key)
        return
    with _alone(folder, reporter) if world.is_first else nullcontext():
        wait_for_all(world)
        _complete(data, teacher, key, folder, signals, reporter, world)


@contextmanager
def _alone(folder: Path, reporter: Reporter) -> Iterator[None]:
    require_own(folder)  # before a lock is written there
    with locked(folder / LOCK_FILE, f"the cache {folder}", wait=-1, reporter=reporter):
        remove_stale(folder)
        yield


def _complete(
    data: StudentData,
    teacher: Teacher,
    key: CacheKey,
    folder: Path,
    signals: Sequence[Target],
    reporter: Reporter,
    world: World,
) -> None:
    fresh = simulated(data, 256, data.cache_seed)
    n_chunks = -(-data.cached_shots // (fresh.batches_per_chunk * fresh.batch_size))
    lacking = [signal for signal in signals if not is_written(folder, signal)]
    begun = (folder / MANIFEST).is_file()
    if not begun or lacking:
        source = fresh if data.unsure is None else UnsureSource(fresh, data.unsure)
        shots = n_chunks * fresh.batches_per_chunk * fresh.batch_size
        if isinstance(source, UnsureSource):
            shots = round(shots * source.share(min(n_chunks, SHARE_CHUNKS)))
        longest = data.simulated.curriculum.longest
        reporter.say(announce(shots, longest, teacher.layout, _channels(data, teacher), folder, lacking))
        if not begun:
            if data.cached_shots >= MANY_SHOTS:
                teacher.prepare_for_many()
            write_cache(folder, key, teacher, source, n_chunks, reporter, lacking, data.cached_ends == "last", world)
    matching_manifest(folder, key)
    add_signals(folder, teacher, lacking, reporter if begun else SILENT, world)


def _channels(data: StudentData, teacher: Teacher) -> int:
    if teacher.output == "joint4":
        return 4
    return 2 if "both" in data.simulated.bases else 1


def cache_key(data: StudentData, teacher: Teacher) -> CacheKey:
    """What a cache for these shots must have been made from."""
    said = data.simulated.model_dump(mode="json", exclude_none=True)  # so that caches from before an option are known
    left_out = set() if data.simulated.noise == FILES else {"files", "model"}
    left_out |= set() if data.simulated.tell_frame else {"tell_frame"}
    said = {key: value for key, value in said.items() if key not in left_out}
    wanted: dict[str, Any] = {"simulated": said, "shots": data.cached_shots, "seed": data.cache_seed}
    if data.unsure is not None:
        wanted["unsure"] = data.unsure.key()
    if data.cached_ends == "last":
        wanted["ends"] = "last"
    digest = hashlib.sha256("\n".join(noise_texts(data.simulated)).encode()).hexdigest()
    return CacheKey(teacher=teacher.key(), shots=wanted, circuits=digest)


def fill_cache(
    data: StudentData,
    teacher: Teacher,
    cache: Path,
    terms: Sequence[Terms],
    fusions: Sequence[Path],
    reporter: Reporter = SILENT,
) -> None:
    """Write what runs of these terms need, and z_fuse of each fusion's file, in one pass of the Teacher."""
    measured: dict[tuple[str, TargetSpec], TargetStatistics] = {}
    for each in terms:
        specs = target_specs(each)
        known = cached_statistics(each, data, teacher, cache)
        lacking = {name: spec for name, spec in specs.items() if name not in known and (name, spec) not in measured}
        if lacking:
            shots = statistics_shots(data.simulated, data.cache_seed, labels=teacher.labels)
            known |= measure_targets(teacher, shots, lacking)
        measured |= {(name, specs[name]): statistics for name, statistics in known.items()}
    signals: list[Target] = [FeatureTarget(name, statistics) for (name, _), statistics in measured.items()]
    signals += [FusedTarget(load_fusion(path, teacher)[0], teacher.key()) for path in fusions]
    complete_cache(data, teacher, cache, signals, reporter)


def cached_statistics(terms: Terms, data: StudentData, teacher: Teacher, cache: Path) -> dict[str, TargetStatistics]:
    """Of the feature terms that are on, those that the cache knows; they depend on its key and the term alone."""
    if not data.cached_shots or not is_of(cache, cache_key(data, teacher)):
        return {}
    found = {name: known_statistics(cache, name, spec) for name, spec in target_specs(terms).items()}
    return {name: statistics for name, statistics in found.items() if statistics is not None}


def check_cache(data: StudentData, teacher: Teacher, cache: Path) -> None:
    """SyndistillError for a finished cache of anything else, before a run that would read it much later begins."""
    if data.cached_shots and (cache / MANIFEST).is_file():
        matching_manifest(cache, cache_key(data, teacher))
