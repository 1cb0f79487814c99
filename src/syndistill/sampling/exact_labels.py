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
from syndistill.sampling.exact_posterior import Block, SliceChain, hadamard, slice_chain
from syndistill.sampling.own_noise import Memory, placed_model
from syndistill.sampling.shots import Shots, with_posterior

_AT_A_TIME = 256
"""Shots, so that a message and a block's matrices stay in cache."""
_LIKELY = 1e-7
"""Of the likeliest pattern: what is below is rounding."""
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
        self._transformed: dict[tuple[int, torch.dtype], torch.Tensor] = {}  # by id: `known` keeps the tables
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

    def posterior(
        self,
        events_BRS: torch.Tensor,
        last_BKS: torch.Tensor,
        told_every: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """P(pattern of the experiment's observables), float32 (B, K, P), for ends 1..R.

        told_every: if not 0, what it is for somebody who is told the logical frame after so many rounds, again and
        again (see `_tell`); for one observable. dtype: that it is computed in. A probability is a difference: float32
        leaves an error of 1e-6, enough to learn from, but not for the logit of a shot that is sure.
        """
        seen_BR, last_BK = _patterns(events_BRS), _patterns(last_BKS)
        parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(seen_BR), _AT_A_TIME)]
        means_BKC = torch.cat([self._means(seen_BR[part], last_BK[part], told_every, dtype) for part in parts])
        hadamard_CC = torch.from_numpy(hadamard(means_BKC.shape[-1])).to(dtype)
        return (means_BKC @ hadamard_CC / len(hadamard_CC)).clamp(0, 1).float()

    def _means(
        self, seen_BR: torch.Tensor, last_BK: torch.Tensor, told_every: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """The mean of every product of signs of observables, (B, K, C).

        The messages of `exact_posterior`, transformed over the observables: errors that flip one turn its sign, so that
        each product has a message of its own, moved on by a matrix of its own.
        """
        longest, ends = self.tables(seen_BR.shape[1]), []
        n_products = longest[0].shape[1] // longest[0].shape[0]
        start_CBM = torch.zeros(n_products, len(seen_BR), longest[0].shape[0], dtype=dtype)
        start_CBM[:, :, 0] = 1.0
        messages = {0: start_CBM}
        for t in range(seen_BR.shape[1]):
            if told_every and t and t % told_every == 0:
                _tell(messages, t)
            tables = self.tables(t + 1)
            common = next((n for n, table in enumerate(tables) if table is not longest[n]), t)
            missing_CBM = ended_CBM = _missing(messages[t], seen_BR[:, t])
            if common < t:
                message_CBM = messages[common]
                for n in range(common, t):
                    message_CBM = _missing(message_CBM, seen_BR[:, n]) @ self._matrices(tables[n], dtype)
                ended_CBM = _missing(message_CBM, seen_BR[:, t])
            ends.append(_closed(ended_CBM, self._matrices(tables[t], dtype), last_BK[:, t]))
            next_CBM = missing_CBM @ self._matrices(longest[t], dtype)
            messages[t + 1] = next_CBM / next_CBM[0].sum(-1)[None, :, None]
            messages.pop(t - _SHORT, None)  # no end goes back so far
        return torch.stack(ends, dim=1)

    def _matrices(self, table: NDArray[np.float32], dtype: torch.dtype) -> torch.Tensor:
        """(C, M, M) of a block's table (M, P M)."""
        found = self._transformed.get((id(table), dtype))
        if found is None:
            m = len(table)
            table_MPM = torch.from_numpy(table).to(dtype).view(m, -1, m)
            signs_CP = torch.from_numpy(hadamard(table_MPM.shape[1])).to(dtype)
            found = torch.einsum("cp,mpn->cmn", signs_CP, table_MPM).contiguous()
            self._transformed[id(table), dtype] = found
        return found


def _tell(messages: dict[int, torch.Tensor], t: int) -> None:
    """Makes the frame known in all messages, as far as the errors before slice t have settled it.

    A message holds P(pattern) and, of one observable, the mean of its sign over P, E(pattern). |E| / P of the pattern
    where it is largest is how surely the frame is known. Multiplying E by a number is what knowing more of the frame
    does, and that one makes it 1 there and at most 1 elsewhere.
    """
    chance_BM, mean_BM = messages[t]
    likely_BM = chance_BM > _LIKELY * chance_BM.max(-1, keepdim=True).values
    known_B = torch.where(likely_BM, mean_BM.abs() / chance_BM.clamp_min(1e-30), 0.0).max(-1).values
    for message_CBM in messages.values():
        message_CBM[1] /= known_B.clamp_min(1e-20)[:, None]


def _missing(message_CBM: torch.Tensor, seen_B: torch.Tensor) -> torch.Tensor:
    """The message by what the next block has to flip in this slice, for what was seen there."""
    missing_BM = torch.arange(message_CBM.shape[-1]) ^ seen_B[:, None]
    return message_CBM.gather(2, missing_BM.expand(message_CBM.shape))


def _closed(missing_CBM: torch.Tensor, matrices_CMM: torch.Tensor, last_B: torch.Tensor) -> torch.Tensor:
    """The means (B, C) from the columns of the last block that were seen."""
    seen_U, which_B = last_B.unique(return_inverse=True)
    ended_CBU = missing_CBM @ matrices_CMM[:, :, seen_U]
    ended_CB = ended_CBU.gather(2, which_B[None, :, None].expand(len(ended_CBU), -1, 1))[..., 0]
    return (ended_CB / ended_CB[0]).T


def with_exact_labels(
    shots: Shots, experiment: Memory, told_every: int = 0, dtype: torch.dtype = torch.float32
) -> Shots:
    """The same shots, simulated from this experiment with all ends, with `posterior_BKLP`; told_every, dtype: of
    `ExactEnds.posterior`."""
    if shots.labels_BKLO is None or shots.ends != tuple(range(1, experiment.rounds + 1)):
        raise SyndistillError("exact labels need simulated shots with the labels of every end")
    exact = _exact_ends(replace(experiment, rounds=min(experiment.rounds, _SHORT)))
    posterior_BKP = exact.posterior(shots.events_BRS, shots.last_BKS, told_every, dtype)
    return with_posterior(shots, posterior_BKP, exact.lines)


@lru_cache(maxsize=256)
def _exact_ends(experiment: Memory) -> ExactEnds:
    return ExactEnds(experiment)


def _patterns(bits: torch.Tensor) -> torch.Tensor:
    return (bits.long() << torch.arange(bits.shape[-1])).sum(-1)
