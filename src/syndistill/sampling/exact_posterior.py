"""The exact posterior of a small code over any number of rounds: a message passed from slice to slice.

Errors of a memory experiment touch detectors of one slice or of two neighbouring ones.  All that the past tells the
future is therefore P(past events, pattern flipped so far in the next slice, observables flipped so far): 2^(S + O)
numbers, 512 at d=3 for one observable.  A step multiplies them by the joint distribution of one block of errors.

Observables only add up (XOR), so that a Hadamard transform over them turns the one message into 2^O smaller ones, each
of the mean of one product of their signs and moved by a matrix of its own: 2^O times less work.  But a probability is
then a difference: in float64 one of 1e-9 has a relative error of 4e-6 after 25 rounds, one of 1e-13 of 1e-3.  Without
the transform and in float32 it is below 1e-5 whatever the probability.  Errors of the blocks come on top.

A block's distribution is that of a sum (XOR) of independent random bit patterns, a convolution over bit vectors, from
two Walsh-Hadamard transforms.  Put log(1 - 2 p_i) at index mask_i of a zero vector w of length 2^n; with H the
transform the characters are chi = exp((sum(w) - H w) / 2), and P = H chi / 2^n.

Legend: B shots, T slices, N detectors, K joint observable patterns (2^O), M patterns of one slice (2^S), C messages of
W numbers each: one of K * M, or transformed K of M (J = W / M).
Detector `bit` i is bit i of a slice's pattern, observable j is bit j of an observable pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

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
"""Detectors of one slice: a block's distribution has 2^(2 * 10 + O) entries. d=3 has 8; d=5 would have 24."""

_AT_A_TIME = 256  # shots a message is held for, to stay in cache

Floats = NDArray[np.float32] | NDArray[np.float64]
Precision = Literal["float32", "float64"]
Product = Callable[[Floats, Floats], Floats]

Block = tuple[tuple[int, float], ...]
"""Mechanisms (mask, probability), sorted; mask = slice k's bits | slice k+1's << S | observables << 2 S."""


@dataclass(frozen=True, eq=False)
class SliceChain:
    """The blocks of one error model as matrices; equal blocks share one.

    blocks[t]: (C, W, W), from the pattern missing in slice t (last axis) to the one flipped in slice t + 1, with the
    observables unless these are transformed, of the errors whose first slice is t. The last block also has the errors
    that touch the last slice alone.
    """

    slice_bits: int
    blocks: tuple[Floats, ...]

    def start(self, n_shots: int) -> Floats:
        """The message before slice 0, (C, B, W): nothing flipped yet."""
        c, w, _ = self.blocks[0].shape
        message_CBW = np.zeros((c, n_shots, w), self.blocks[0].dtype)
        message_CBW[:, :, 0] = 1.0
        return message_CBW

    def close(self, missing_CBW: Floats, block_CWW: Floats, seen_B: NDArray[np.int64]) -> NDArray[np.float64]:
        """(B, K), P(observable pattern | everything seen) or, transformed, the mean of every product of signs; from
        what the last block has to flip and the pattern of the last slice."""
        c, w, _ = block_CWW.shape
        block_CJMW = block_CWW.reshape(c, -1, 1 << self.slice_bits, w)
        weights = [np.einsum("cbw,cbw->bc", missing_CBW, rows_CMW[:, seen_B]) for rows_CMW in block_CJMW.swapaxes(0, 1)]
        weight_BK = np.concatenate(weights, axis=1).astype(np.float64)
        return weight_BK / (weight_BK[:, :1] if c > 1 else weight_BK.sum(axis=1, keepdims=True))

    def posterior(self, seen_BT: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(observable pattern | events), float64 (B, K), from the pattern of every slice; not if transformed."""
        out_BK = np.zeros((len(seen_BT), self.blocks[0].shape[1] >> self.slice_bits))
        for start in range(0, len(seen_BT), _AT_A_TIME):
            seen = seen_BT[start : start + _AT_A_TIME]
            message_CBW = self.start(len(seen))
            for t, block_CWW in enumerate(self.blocks[:-1]):
                message_CBW = moved(missing(message_CBW, seen[:, t]), block_CWW)
            last_B = seen[:, -1] if seen.shape[1] > 1 else np.zeros(len(seen), np.int64)
            missing_CBW = missing(message_CBW, seen[:, len(self.blocks) - 1])
            out_BK[start : start + _AT_A_TIME] = self.close(missing_CBW, self.blocks[-1], last_B)
        return out_BK


def missing(message_CBW: Floats, seen_B: NDArray[np.int64]) -> Floats:
    """The message by what the next block has to flip in this slice, for what was seen there."""
    c, b, w = message_CBW.shape
    index_BW = (np.arange(w) ^ seen_B[:, None]) + w * np.arange(b)[:, None]
    return message_CBW.reshape(c, -1).take(index_BW, axis=1)


def moved(missing_CBW: Floats, block_CWW: Floats, product: Product = np.matmul) -> Floats:
    """The next slice's message, normalised."""
    message_CBW = product(missing_CBW, block_CWW.swapaxes(1, 2))
    message_CBW /= message_CBW[0].sum(axis=1)[:, None]
    return message_CBW


def slice_chain(
    dem: stim.DetectorErrorModel,
    slice_N: NDArray[np.int64],
    bit_N: NDArray[np.int64],
    slice_bits: int,
    known: dict[Block, Floats] | None = None,
    transformed: Precision | None = None,
) -> SliceChain:
    """The chain of an error model, each detector being bit `bit_N` (below `slice_bits`) of slice `slice_N`.

    `known` shares matrices between chains. transformed: over the observables, in this precision; not: in float32.
    Raises SyndistillError for slices of more than MAX_SLICE_BITS detectors, and for an error that spans more than two
    neighbouring slices.
    """
    known = {} if known is None else known
    n_slices = int(slice_N.max()) + 1
    if slice_bits > MAX_SLICE_BITS:
        raise SyndistillError(
            f"optimal: a slice has {slice_bits} detectors, the exact posterior over many rounds takes "
            f"{MAX_SLICE_BITS} (d=3 has 8): take a smaller code"
        )
    blocks = []
    for block in _blocks(dem, slice_N, bit_N, n_slices, slice_bits):
        if block not in known:
            known[block] = _matrices(block, slice_bits, dem.num_observables, transformed)
        blocks.append(known[block])
    return SliceChain(slice_bits, tuple(blocks))


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


def _matrices(block: Block, slice_bits: int, n_observables: int, transformed: Precision | None) -> Floats:
    m, k = 1 << slice_bits, 1 << n_observables
    joint_KMM = xor_distribution(block, 2 * slice_bits + n_observables).reshape(k, m, m)  # observables, upper, lower
    if transformed:
        return np.tensordot(hadamard(k), joint_KMM, 1).astype(transformed)
    flipped_KK = np.arange(k)[:, None] ^ np.arange(k)
    return joint_KMM.astype(np.float32)[flipped_KK].transpose(0, 2, 1, 3).reshape(1, k * m, k * m)
