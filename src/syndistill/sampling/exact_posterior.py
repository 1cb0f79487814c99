"""The exact posterior of a small code over any number of rounds: a message passed from slice to slice.

Errors of a memory experiment touch detectors of one slice or of two neighbouring ones.  All that the past tells the
future is therefore P(past events, pattern flipped so far in the next slice, observables flipped so far): 2^(S + O)
numbers, 512 at d=3 for one observable.  A step multiplies them by the joint distribution of one block of errors.

That one is the distribution of a sum (XOR) of independent random bit patterns, a convolution over bit vectors, from two
Walsh-Hadamard transforms.  Put log(1 - 2 p_i) at index mask_i of a zero vector w of length 2^n; with H the transform
the characters are chi = exp((sum(w) - H w) / 2), and P = H chi / 2^n.

Legend: B shots, T slices, N detectors, K joint observable patterns (2^O), M patterns of one slice (2^S).
Detector `bit` i is bit i of a slice's pattern, observable j is bit j of an observable pattern.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import flips
from syndistill.errors import SyndistillError

_LEVELS = 4  # butterfly levels per pass over memory, done as one 16 x 16 matrix product
_CHUNK = 1 << 16  # values handled at a time, so that the temporary stays in cache
_LOG_OF_ZERO = -1e3  # stands for log(1 - 2 p) at p = 1/2: exp(-1e3) is 0, and no inf - inf arises


def walsh_hadamard(values: NDArray[np.float64]) -> None:
    """Replaces values, contiguous float64 of length 2^n, by H values, H_ij = (-1)^popcount(i & j), in place."""
    n = values.size.bit_length() - 1
    if values.ndim != 1 or values.size != 1 << n or values.dtype != np.float64 or not values.flags.c_contiguous:
        raise ValueError(f"not a contiguous float64 vector of length 2^n: {values.dtype} {values.shape}")
    for low in range(0, n, _LEVELS):
        side = 1 << min(_LEVELS, n - low)
        blocks = values.reshape(-1, side, 1 << low)
        kernel = hadamard(side)
        outer, _, inner = blocks.shape
        columns = min(inner, max(1, _CHUNK // side))
        rows = max(1, _CHUNK // (side * columns))
        for o in range(0, outer, rows):
            for i in range(0, inner, columns):
                tile = blocks[o : o + rows, :, i : i + columns]
                if inner == 1:  # one large product in place of many with a single column
                    tile[:, :, 0] = tile[:, :, 0] @ kernel
                else:
                    tile[...] = kernel @ tile


def hadamard(side: int) -> NDArray[np.float64]:
    """H (side, side) of `walsh_hadamard`, side a power of two."""
    matrix: NDArray[np.float64] = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def xor_distribution(mechanisms: Iterable[tuple[int, float]], n_bits: int) -> NDArray[np.float64]:
    """P(XOR of the masks that fired), float64 (2^n_bits,), for independent mechanisms (mask, probability).

    Probabilities below the rounding noise of the transform, 2.2e-16 of the largest, are lifted to it.
    """
    table = np.zeros(1 << n_bits)
    certain = 0  # a mechanism of p > 1/2 is a certain flip followed by one of 1 - p
    for mask, p in mechanisms:
        if p > 0.5:
            certain ^= mask
            p = 1.0 - p
        table[mask] += np.log1p(-2.0 * p) if p < 0.5 else _LOG_OF_ZERO
    total = table.sum()
    walsh_hadamard(table)
    np.subtract(total, table, out=table)
    table *= 0.5
    np.exp(table, out=table)
    walsh_hadamard(table)
    table *= 2.0**-n_bits
    if certain:
        table = table[np.arange(table.size) ^ certain]
    np.maximum(table, np.finfo(np.float64).eps * table.max(), out=table)
    table /= table.sum()
    return table


MAX_SLICE_BITS = 10
"""Detectors of one slice: a block's table has 2^(2 * 10 + O) entries. d=3 has 8; d=5 would have 24."""

_AT_A_TIME = 2048  # shots a message is held for, to stay in cache

Block = tuple[tuple[int, float], ...]
"""Mechanisms (mask, probability), sorted; mask = slice k's bits | slice k+1's << S | observables << 2 S."""


@dataclass(frozen=True, eq=False)
class SliceChain:
    """The blocks of one error model as tables; equal blocks share one.

    tables[t]: float32 (M, K * M), P(pattern in slice t; observables, pattern in slice t + 1) of the errors whose
    first slice is t. The last block also has the errors that touch the last slice alone.
    """

    n_slices: int
    n_observables: int
    slice_bits: int
    tables: tuple[NDArray[np.float32], ...]

    def start(self, n_shots: int) -> NDArray[np.float32]:
        """The message before slice 0, (B, K, M): nothing flipped yet."""
        message_BKM = np.zeros((n_shots, 1 << self.n_observables, 1 << self.slice_bits), np.float32)
        message_BKM[:, 0, 0] = 1.0
        return message_BKM

    def step(
        self, message_BKM: NDArray[np.float32], seen_B: NDArray[np.int64], table: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The next slice's message, normalised, given the pattern seen in this one."""
        b, k, m = message_BKM.shape
        lower_BKM = _missing(message_BKM, seen_B)
        product = (lower_BKM.reshape(b * k, m) @ table).reshape(b, k, k, m)
        following = np.zeros_like(message_BKM)
        for before in range(k):
            for flipped in range(k):
                following[:, before ^ flipped] += product[:, before, flipped]
        following /= following.sum(axis=(1, 2), keepdims=True)
        return following

    def close(self, message_BKM: NDArray[np.float32], seen_B: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(observable pattern | everything seen), (B, K), from the last slice's message and pattern."""
        weight_BK = np.take_along_axis(message_BKM, seen_B[:, None, None], axis=2)[:, :, 0].astype(np.float64)
        return weight_BK / weight_BK.sum(axis=1, keepdims=True)

    def posterior(self, seen_BT: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(observable pattern | events), float64 (B, K), from the pattern of every slice.

        Computed in float32 without subtractions: relative error about 1e-6.
        """
        out_BK = np.zeros((len(seen_BT), 1 << self.n_observables))
        for start in range(0, len(seen_BT), _AT_A_TIME):
            seen = seen_BT[start : start + _AT_A_TIME]
            message = self.start(len(seen))
            for t, table in enumerate(self.tables):
                message = self.step(message, seen[:, t], table)
            last = seen[:, -1] if self.n_slices > 1 else np.zeros(len(seen), np.int64)
            out_BK[start : start + _AT_A_TIME] = self.close(message, last)
        return out_BK


def _missing(message_BKM: NDArray[np.float32], seen_B: NDArray[np.int64]) -> NDArray[np.float32]:
    """The message by what the next block has to flip in this slice, for what was seen there."""
    missing_BM = np.arange(message_BKM.shape[2]) ^ seen_B[:, None]
    return np.take_along_axis(message_BKM, missing_BM[:, None, :], axis=2)


def slice_chain(
    dem: stim.DetectorErrorModel,
    slice_N: NDArray[np.int64],
    bit_N: NDArray[np.int64],
    slice_bits: int,
    known: dict[Block, NDArray[np.float32]] | None = None,
) -> SliceChain:
    """The chain of an error model, each detector being bit `bit_N` (below `slice_bits`) of slice `slice_N`.

    `known` shares tables between chains. Raises SyndistillError for slices of more than MAX_SLICE_BITS detectors, and
    for an error that spans more than two neighbouring slices.
    """
    known = {} if known is None else known
    n_slices = int(slice_N.max()) + 1
    if slice_bits > MAX_SLICE_BITS:
        raise SyndistillError(
            f"optimal: a slice has {slice_bits} detectors, the exact posterior over many rounds takes "
            f"{MAX_SLICE_BITS} (d=3 has 8): take a smaller code"
        )
    tables = []
    for block in _blocks(dem, slice_N, bit_N, n_slices, slice_bits):
        if block not in known:
            known[block] = _table(block, slice_bits, dem.num_observables)
        tables.append(known[block])
    return SliceChain(n_slices, dem.num_observables, slice_bits, tuple(tables))


def _blocks(
    dem: stim.DetectorErrorModel,
    slice_N: NDArray[np.int64],
    bit_N: NDArray[np.int64],
    n_slices: int,
    slice_bits: int,
) -> list[Block]:
    blocks: list[dict[int, float]] = [{} for _ in range(max(1, n_slices - 1))]
    for p, detectors, observables in flips(dem):
        slices = {int(slice_N[n]) for n in detectors} or {0}
        first = min(min(slices), len(blocks) - 1)
        if max(slices) > first + 1:
            raise SyndistillError(
                f"optimal: an error of detectors {sorted(detectors)} spans slices {sorted(slices)}; the exact "
                "posterior over many rounds needs errors of neighbouring slices"
            )
        mask = observables << 2 * slice_bits
        for n in detectors:
            mask |= 1 << int(bit_N[n]) + slice_bits * (int(slice_N[n]) - first)
        before = blocks[first].get(mask, 0.0)
        blocks[first][mask] = p * (1 - before) + before * (1 - p)
    # 9 digits: the same errors of two rounds must give the same key
    return [tuple(sorted((mask, float(f"{p:.9g}")) for mask, p in block.items())) for block in blocks]


def _table(block: Block, slice_bits: int, n_observables: int) -> NDArray[np.float32]:
    m, k = 1 << slice_bits, 1 << n_observables
    joint = xor_distribution(block, 2 * slice_bits + n_observables).reshape(k, m, m)  # observables, upper, lower
    return np.ascontiguousarray(joint.transpose(2, 0, 1).reshape(m, k * m).astype(np.float32))
