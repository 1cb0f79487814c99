"""The exact posterior of every line after every round: labels without the luck of the draw, for d=3.

A sampled label is a coin thrown with this posterior's odds; learning from the odds has the same minimum and less
noise (Rao-Blackwell). Nothing beyond the error model is used that a sampled label does not use too.

Axes: B shots, R rounds, K ends, S stabilisers, L lines, O observables, P joint observable patterns (2^O), C products of
observables (2^O), M patterns of one slice (2^S), U of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.sampling.exact_posterior import (
    Block,
    Floats,
    Precision,
    SliceChain,
    hadamard,
    missing,
    moved,
    slice_chain,
)
from syndistill.sampling.own_noise import Memory, placed_model
from syndistill.sampling.shots import Shots, with_posterior

EXACT_DISTANCE = 3
"""Where the exact posterior is within reach, and so the optimum known."""
_AT_A_TIME = 256
"""Shots, so that a message and a block's matrices stay in cache."""
_LIKELY = 1e-7
"""Of the likeliest pattern: what is below is rounding."""
_SHORT = 6


class ExactEnds:
    """Exact posteriors of a simulated experiment after each of its rounds, for any number of rounds.

    The blocks of a t-round experiment are those of any other but for the first and the last few. Where rounds are
    alike, chains of up to _SHORT rounds give every longer one; and all ends share the messages of the rounds before.

    Chains are transformed: half the work at one observable, a quarter at two. dtype: float32 leaves an error of 1e-6,
    enough to learn from, but not for the logit of a shot that is sure.
    """

    def __init__(self, experiment: Memory, dtype: Precision = "float32") -> None:
        if experiment.distance != EXACT_DISTANCE:
            raise SyndistillError(
                f"exact labels: distance {experiment.distance} has too many patterns a slice; they exist for distance "
                f"{EXACT_DISTANCE}"
            )
        known: dict[Block, Floats] = {}
        self.experiment, self.dtype, self.known = experiment, dtype, known
        self.chains = {t: self._chain(t) for t in range(1, min(experiment.rounds, _SHORT) + 1)}
        blocks = self.chains[_SHORT].blocks if _SHORT in self.chains else ()
        self.alike = bool(blocks) and blocks[2] is blocks[3] and blocks[2] is blocks[4]
        self.lines = tuple(line or 0 for line in placed_model(replace(experiment, rounds=1))[1].lines)

    def chain(self, rounds: int) -> SliceChain:
        """Of the experiment of so many rounds."""
        if rounds > _SHORT and self.alike:
            short = self.chains[_SHORT]
            repeated = (short.blocks[2],) * (rounds - _SHORT)
            return replace(short, blocks=short.blocks[:2] + repeated + short.blocks[2:])
        if rounds not in self.chains:
            self.chains[rounds] = self._chain(rounds)
        return self.chains[rounds]

    def _chain(self, rounds: int) -> SliceChain:
        dem, placed = placed_model(replace(self.experiment, rounds=rounds))
        bits = placed.layout.n_stabilisers
        return slice_chain(dem, placed.slice_N, placed.stabiliser_N, bits, self.known, self.dtype)

    def posterior(self, events_BRS: torch.Tensor, last_BKS: torch.Tensor, told_every: int = 0) -> torch.Tensor:
        """P(pattern of the experiment's observables), float32 (B, K, P), for ends 1..R.

        told_every: if not 0, what it is for somebody who is told the logical frame after so many rounds, again and
        again (see `_tell`); for one observable.
        """
        seen_BR, last_BK = _patterns(events_BRS), _patterns(last_BKS)
        parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(seen_BR), _AT_A_TIME)]
        means = [torch.from_numpy(self._means(seen_BR[part], last_BK[part], told_every)) for part in parts]
        hadamard_CC = torch.from_numpy(hadamard(means[0].shape[-1]))
        return (torch.cat(means) @ hadamard_CC / len(hadamard_CC)).clamp(0, 1).float()

    def _means(self, seen_BR: NDArray[np.int64], last_BK: NDArray[np.int64], told_every: int) -> NDArray[np.float64]:
        """The mean of every product of signs of observables, (B, K, C)."""
        longest, ends = self.chain(seen_BR.shape[1]), []
        messages = {0: longest.start(len(seen_BR))}
        for t, block_CMM in enumerate(longest.blocks):
            if told_every and t and t % told_every == 0:
                _tell(messages, t)
            chain = self.chain(t + 1)
            common = next((n for n, block in enumerate(chain.blocks) if block is not longest.blocks[n]), t)
            missing_CBM = ended_CBM = missing(messages[t], seen_BR[:, t])
            if common < t:
                message_CBM = messages[common]
                for n in range(common, t):
                    message_CBM = moved(missing(message_CBM, seen_BR[:, n]), chain.blocks[n], _product)
                ended_CBM = missing(message_CBM, seen_BR[:, t])
            ends.append(chain.close(ended_CBM, chain.blocks[t], last_BK[:, t]))
            messages[t + 1] = moved(missing_CBM, block_CMM, _product)
            messages.pop(t - _SHORT, None)  # no end goes back so far
        return np.stack(ends, axis=1)


def _tell(messages: dict[int, Floats], t: int) -> None:
    """Makes the frame known in all messages, as far as the errors before slice t have settled it.

    A message holds P(pattern) and, of one observable, the mean of its sign over P, E(pattern). |E| / P of the pattern
    where it is largest is how surely the frame is known. Multiplying E by a number is what knowing more of the frame
    does, and that one makes it 1 there and at most 1 elsewhere.
    """
    chance_BM, mean_BM = messages[t]
    likely_BM = chance_BM > _LIKELY * chance_BM.max(axis=1, keepdims=True)
    known_B = np.where(likely_BM, np.abs(mean_BM) / np.maximum(chance_BM, 1e-30), 0.0).max(axis=1)
    for message_CBM in messages.values():
        message_CBM[1] /= np.maximum(known_B, 1e-20)[:, None]


def _product(one: Floats, other: Floats) -> Floats:
    """PyTorch's, since it keeps to the threads that a training allows it; NumPy's takes every core."""
    return (torch.from_numpy(one) @ torch.from_numpy(other)).numpy()


def with_exact_labels(shots: Shots, experiment: Memory, told_every: int = 0, dtype: Precision = "float32") -> Shots:
    """The same shots, simulated from this experiment with all ends, with `posterior_BKLP`; told_every: of
    `ExactEnds.posterior`, dtype: of `ExactEnds`."""
    if shots.labels_BKLO is None or shots.ends != tuple(range(1, experiment.rounds + 1)):
        raise SyndistillError("exact labels need simulated shots with the labels of every end")
    exact = _exact_ends(replace(experiment, rounds=min(experiment.rounds, _SHORT)), dtype)
    posterior_BKP = exact.posterior(shots.events_BRS, shots.last_BKS, told_every)
    return with_posterior(shots, posterior_BKP, exact.lines)


@lru_cache(maxsize=256)
def _exact_ends(experiment: Memory, dtype: Precision) -> ExactEnds:
    return ExactEnds(experiment, dtype)


def _patterns(bits: torch.Tensor) -> NDArray[np.int64]:
    return (bits.long() << torch.arange(bits.shape[-1])).sum(-1).numpy()
