"""Endless fresh shots for training, made ahead by a thread of their own: of named noise, or of a user's own memories.

Batch number i is a function of (source, i) alone, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.sampling.chosen import Chosen, until_chosen
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.own_noise import Memory, OwnMemory, OwnNoise, simulate_own
from syndistill.sampling.revealed_labels import revealed_shots
from syndistill.sampling.seeds import derived_seed, share_of
from syndistill.sampling.shots import Shots, concatenate, simulate

BatchT = TypeVar("BatchT", covariant=True)
Labels = Literal["sampled", "exact", "revealed"]


class BatchSource(Protocol[BatchT]):
    """Anything that can make a chunk of batches by its number."""

    @property
    def batches_per_chunk(self) -> int: ...

    def chunk(self, index: int) -> Sequence[BatchT]: ...


class Schedule(Protocol):
    """What to sample when `shots_seen` shots have been seen: (rounds, error rates)."""

    def draw(self, shots_seen: int, rng: np.random.Generator) -> tuple[int, list[float]]: ...

    def draw_rates(self, shots_seen: int, rounds: int, rng: np.random.Generator) -> list[float]: ...


class Chooser(Protocol):
    """Says which shots are learned from: bool (B,), by their last end, and by lot."""

    def __call__(self, shots: Shots, rng: np.random.Generator) -> torch.Tensor: ...


class SimulatedSource:
    """Chunks of batches: one number of rounds a chunk, bases in turn, several error rates mixed in each batch.

    ends: at how many ends a chunk is taught, see DataConfig; end_spacing: at its last one and at every so many rounds
    before it, `ends` of them at most. share: (i, n), to make of every batch the i-th of n parts alone, since labels
    can cost much. told_every: of exact labels, see `sampling.exact_labels`. chooser: batches are of the shots that it
    chooses, and only these are labelled; None: all.
    """

    def __init__(
        self,
        distance: int,
        noise: str | OwnNoise,
        bases: tuple[str, ...],
        schedule: Schedule,
        batch_size: int,
        seed: int,
        batches_per_chunk: int = 16,
        role: str = "train",
        labels: Labels = "sampled",
        ends: int = 0,
        end_spacing: int = 0,
        share: tuple[int, int] = (0, 1),
        told_every: int = 0,
        chooser: Chooser | None = None,
    ) -> None:
        self.distance, self.noise, self.bases, self.schedule = distance, noise, bases, schedule
        self.batch_size, self.seed, self.role = batch_size, seed, role
        self.batches_per_chunk, self.labels = batches_per_chunk, labels
        self.ends, self.end_spacing, self.told_every = ends, end_spacing, told_every
        self.chooser = chooser
        self._mine = share_of(batch_size, share)

    def chunk(self, index: int) -> list[Shots]:
        rng = np.random.default_rng([self.seed, index])
        shots_seen = index * self.batches_per_chunk * self.batch_size
        rounds, rates = self.schedule.draw(shots_seen, rng)
        # Revealed labels cost as much as their ends do, simulated ones come with all.
        ends = self._ends(rounds, rng) if self.labels == "revealed" else ()
        n_shots = -(-self.batches_per_chunk // len(self.bases)) * self.batch_size
        per_basis = [
            self._mixed((index, b), n_shots, basis, rounds, rates, rng, ends) for b, basis in enumerate(self.bases)
        ]
        if self.labels != "revealed" and (self.end_spacing or 0 < self.ends < rounds):
            kept = [end - 1 for end in self._ends(rounds, rng)]
            per_basis = [shots.at_ends(kept) for shots in per_basis]
        return [
            per_basis[i % len(self.bases)].take(self._slice(i // len(self.bases)))
            for i in range(self.batches_per_chunk)
        ]

    def _ends(self, rounds: int, rng: np.random.Generator) -> tuple[int, ...]:
        if self.end_spacing:
            return tuple(range(rounds, 0, -self.end_spacing))[: self.ends or None][::-1]
        if not 0 < self.ends < rounds:
            return tuple(range(1, rounds + 1))
        return (*sorted(1 + k for k in rng.choice(rounds - 1, self.ends - 1, replace=False).tolist()), rounds)

    def _slice(self, position: int) -> slice:
        size = self._mine.stop - self._mine.start
        return slice(position * size, (position + 1) * size)

    def _mixed(
        self,
        keys: tuple[int, ...],
        n_shots: int,
        basis: str,
        rounds: int,
        rates: list[float],
        rng: np.random.Generator,
        ends: tuple[int, ...],
    ) -> Shots:
        """Shots of all the rates in a drawn order; keys: what is drawn by, beside the seed."""
        patch = 0
        if isinstance(self.noise, OwnNoise):
            rates = [1.0, *rates[1:]]  # as the files are, among every batch
            if len(self.noise.patches) > 1:  # each in its turn
                patch = int(rng.integers(len(self.noise.patches)))
        n_each = -(-n_shots // len(rates))
        order_N = rng.permutation(n_each * len(rates))[:n_shots]
        mine_N = order_N.reshape(-1, self.batch_size)[:, self._mine].ravel()
        parts = []
        for r, p in enumerate(rates):
            seed = derived_seed(self.role, self.seed, *keys, r)
            memory = self._memory(rounds, basis, p, patch + r)
            kept_N = np.sort(mine_N[mine_N // n_each == r]) - r * n_each
            if len(kept_N):
                parts.append(self._drawn(memory, n_each, seed, ends, kept_N))
        return concatenate(parts).take(torch.from_numpy(np.argsort(np.argsort(mine_N))))

    def _memory(self, rounds: int, basis: str, p: float, turn: int) -> Memory:
        if isinstance(self.noise, OwnNoise):
            return self.noise.memory(basis, rounds, p, turn % len(self.noise.patches))
        return Experiment(self.distance, rounds, basis, self.noise, p)

    def _drawn(self, memory: Memory, n_shots: int, seed: int, ends: tuple[int, ...], kept_N: np.ndarray) -> Shots:
        """Of n_shots drawn with this seed, or chosen of those, the ones of `kept_N` (increasing), labelled."""
        chosen = None
        if self.chooser is not None:
            chosen = partial(self.chooser, rng=np.random.default_rng([seed, 3]))
        if self.labels == "revealed":
            return revealed_shots(memory, n_shots, seed, ends, kept_N, chosen)
        every = _simulated(memory, n_shots, seed) if chosen is None else self._chosen(memory, n_shots, seed, chosen)
        shots = every.take(torch.from_numpy(kept_N))
        return with_exact_labels(shots, memory, self.told_every) if self.labels == "exact" else shots

    def _chosen(self, memory: Memory, n_shots: int, seed: int, chosen: Chosen) -> Shots:
        blocks = (_simulated(memory, n_shots, derived_seed(self.role, seed, block)) for block in count())
        found = until_chosen(n_shots, blocks, chosen)
        return concatenate([shots.take(torch.from_numpy(at)) for shots, at in found])


def _simulated(memory: Memory, n_shots: int, seed: int) -> Shots:
    return simulate_own(memory, n_shots, seed) if isinstance(memory, OwnMemory) else simulate(memory, n_shots, seed)


class ShotStream(Generic[BatchT]):
    """Iterates over batches from `first_batch` on; a thread keeps two chunks ready. Close it when done."""

    def __init__(self, source: BatchSource[BatchT], first_batch: int = 0) -> None:
        self._source = source
        self._queue: queue.Queue[Sequence[BatchT] | BaseException] = queue.Queue(2)
        self._stop = threading.Event()
        self._skip = first_batch % source.batches_per_chunk
        self._thread = threading.Thread(
            target=self._work, args=(first_batch // source.batches_per_chunk,), daemon=True, name="shot-stream"
        )
        self._thread.start()

    def _work(self, index: int) -> None:
        while not self._stop.is_set():
            try:
                item: Sequence[BatchT] | BaseException = self._source.chunk(index)
            except BaseException as error:  # handed to the consumer, who raises it
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
            index += 1

    def __iter__(self) -> Iterator[BatchT]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            batches, self._skip = item[self._skip :], 0
            yield from batches

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
