"""Batches from a cache, for training.

Axes: B shots, R rounds, K ends, S stabilisers, L lines, C logit channels, Q rounds kept, P components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from syndistill.circuits.layout import Layout
from syndistill.distill.cache_signals import CachedSignal, check_parts
from syndistill.distill.manifest import CacheKey, Shard, matching_manifest
from syndistill.distill.packing import unpack_shots
from syndistill.distill.targets import TaughtShots, draw_ends
from syndistill.errors import SyndistillError
from syndistill.models.tensors_file import load_tensors
from syndistill.safe_files import file_sha256


@dataclass(frozen=True)
class _Group:
    """All shots of one basis and number of rounds, packed; signals by their names."""

    basis: str
    rounds: int
    layout: Layout
    tensors: dict[str, torch.Tensor]
    signals: tuple[CachedSignal, ...]

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
        signals: Sequence[CachedSignal] = (),
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


def _load(folder: Path, key: CacheKey, signals: tuple[CachedSignal, ...]) -> list[_Group]:
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


def _joined(
    folder: Path, shards: list[Shard], signals: tuple[CachedSignal, ...]
) -> dict[str, torch.Tensor]:
    """The shards' tensors one after the other, filled in as they are read: memory for one copy and one shard."""
    total = sum(shard.shots for shard in shards)
    joined: dict[str, torch.Tensor] = {}
    start = 0
    for shard in shards:
        tensors, _ = load_tensors(folder / shard.name)
        for signal in signals:
            tensors[signal.name] = load_tensors(signal.folder(folder) / shard.name)[0]["values"]
        for name, tensor in tensors.items():
            if name not in joined:
                joined[name] = torch.empty((total, *tensor.shape[1:]), dtype=tensor.dtype)
            joined[name][start : start + shard.shots] = tensor
        start += shard.shots
    return joined
