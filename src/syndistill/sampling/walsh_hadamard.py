"""The distribution of a sum (XOR) of independent random bit patterns, from two Walsh-Hadamard transforms.

It is a convolution over bit vectors.  Put log(1 - 2 p_i) at index mask_i of a zero vector w of length 2^n; with H the
Walsh-Hadamard transform the characters are chi = exp((sum(w) - H w) / 2), and P = H chi / 2^n.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

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
        kernel = _hadamard(side)
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


def _hadamard(side: int) -> NDArray[np.float64]:
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
