"""Which shots are whose. Seeds: shots of two roles never meet, nor does one with evaluation shots (`stored`).

Each role has 2**56 Stim seeds of its own below 2**62, where `stored.evaluation_seed` begins.
"""

from __future__ import annotations

import numpy as np

from syndistill.errors import SyndistillError

ROLES = {"train": 1, "select": 2, "probe": 3, "ensemble": 4}


def derived_seed(role: str, *keys: int) -> int:
    """A Stim seed of this role, hashed from the keys (a run's seed, a chunk's index, ...)."""
    word = int(np.random.SeedSequence(list(keys)).generate_state(1, np.uint64)[0])
    return ROLES[role] << 56 | word >> 8


def share_of(batch_size: int, share: tuple[int, int]) -> slice:
    """The i-th of n equal parts of a batch, share = (i, n). SyndistillError where it does not divide."""
    part, n_parts = share
    if batch_size % n_parts:
        raise SyndistillError(f"a batch of {batch_size} does not divide among {n_parts} processes")
    size = batch_size // n_parts
    return slice(part * size, (part + 1) * size)
