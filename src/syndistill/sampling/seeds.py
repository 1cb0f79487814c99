"""Which seeds are for what: training, selection and probe shots never meet, nor evaluation shots (`stored`).

Each role has 2**56 Stim seeds of its own below 2**62, where `stored.evaluation_seed` begins.
"""

from __future__ import annotations

import numpy as np

_ROLES = {"train": 1, "select": 2, "probe": 3}


def derived_seed(role: str, *keys: int) -> int:
    """A Stim seed of this role, hashed from the keys (a run's seed, a chunk's index, ...)."""
    word = int(np.random.SeedSequence(list(keys)).generate_state(1, np.uint64)[0])
    return _ROLES[role] << 56 | word >> 8


