"""The exact posterior of every line after every round: labels without the luck of the draw, for d=3.

A sampled label is a coin thrown with this posterior's odds; learning from the odds has the same minimum and less
noise (Rao-Blackwell). Nothing beyond the error model is used that a sampled label does not use too.

Axes: B shots, R rounds, K ends, S stabilisers, L lines, O observables, P joint observable patterns (2^O).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.sampling.exact_posterior import Block, SliceChain, slice_chain
from syndistill.sampling.own_noise import Memory, placed_model
from syndistill.sampling.shots import Shots, with_posterior

_AT_A_TIME = 512
_SHORT = 6


class ExactEnds:
    """Exact posteriors of a simulated experiment after each of its rounds, for any number of rounds.

    The blocks of a t-round experiment are those of any other but for the first and the last few. Where rounds are
    alike, chains of up to _SHORT rounds give every longer one; and all ends share the messages of the rounds before.
    """

    def __init__(self, experiment: Memory) -> None:
        if experiment.distance != 3:
            raise SyndistillError(
                f"exact labels: distance {experiment.distance} has too many patterns a slice; they exist for distance 3"
            )
        known: dict[Block, NDArray[np.float32]] = {}
        self.experiment, self.known = experiment, known
        self.chains = {t: self._chain(t) for t in range(1, min(experiment.rounds, _SHORT) + 1)}
        blocks = self.chains[_SHORT].tables if _SHORT in self.chains else ()
        self.alike = bool(blocks) and blocks[2] is blocks[3] and blocks[2] is blocks[4]
        self.lines = tuple(line or 0 for line in placed_model(replace(experiment, rounds=1))[1].lines)

    def tables(self, rounds: int) -> tuple[NDArray[np.float32], ...]:
        """The blocks of the experiment of so many rounds."""
        if rounds > _SHORT and self.alike:
            blocks = self.chains[_SHORT].tables
            return blocks[:2] + (blocks[2],) * (rounds - _SHORT) + blocks[2:]
        if rounds not in self.chains:
            self.chains[rounds] = self._chain(rounds)
        return self.chains[rounds].tables

    def _chain(self, rounds: int) -> SliceChain:
        dem, placed = placed_model(replace(self.experiment, rounds=rounds))
        return slice_chain(dem, placed.slice_N, placed.stabiliser_N, placed.layout.n_stabilisers, self.known)

    def posterior(self, events_BRS: torch.Tensor, last_BKS: torch.Tensor) -> NDArray[np.float32]:
        """P(pattern of the experiment's observables), float32 (B, K, P), for ends 1..R."""
        seen_BR, last_BK = _patterns(events_BRS), _patterns(last_BKS)
        parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(seen_BR), _AT_A_TIME)]
        return np.concatenate([self._some(seen_BR[part], last_BK[part]) for part in parts])

    def _some(self, seen_BR: NDArray[np.int64], last_BK: NDArray[np.int64]) -> NDArray[np.float32]:
        chain, longest = self.chains[1], self.tables(seen_BR.shape[1])
        messages, ends = {0: chain.start(len(seen_BR))}, []
        for t in range(seen_BR.shape[1]):
            tables = self.tables(t + 1)
            common = next((n for n, table in enumerate(tables) if table is not longest[n]), t)
            message = messages[common]
            for n in range(common, t):
                message = chain.step(message, seen_BR[:, n], tables[n])
            ends.append(chain.last_step(message, seen_BR[:, t], tables[t], last_BK[:, t]))
            messages[t + 1] = chain.step(messages[t], seen_BR[:, t], longest[t])
            messages.pop(t - _SHORT, None)  # no end goes back so far
        return np.stack(ends, axis=1).astype(np.float32)


def with_exact_labels(shots: Shots, experiment: Memory) -> Shots:
    """The same shots, simulated from this experiment with all ends, with `posterior_BKLP`."""
    if shots.labels_BKLO is None or shots.ends != tuple(range(1, experiment.rounds + 1)):
        raise SyndistillError("exact labels need simulated shots with the labels of every end")
    exact = _exact_ends(replace(experiment, rounds=min(experiment.rounds, _SHORT)))
    posterior_BKP = torch.from_numpy(exact.posterior(shots.events_BRS, shots.last_BKS))
    return with_posterior(shots, posterior_BKP, exact.lines)


@lru_cache(maxsize=256)
def _exact_ends(experiment: Memory) -> ExactEnds:
    return ExactEnds(experiment)


def _patterns(bits: torch.Tensor) -> NDArray[np.int64]:
    weights = 1 << torch.arange(bits.shape[-1])
    return np.asarray((bits.long() * weights).sum(-1).numpy())
