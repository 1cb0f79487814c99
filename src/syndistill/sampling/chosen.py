"""Shots drawn until enough of them are chosen to be learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots

Chosen = Callable[[Shots], torch.Tensor]
"""bool (B,): which of these shots are to be labelled, by their last end."""
BlockT = TypeVar("BlockT")
BARREN = 1000
"""Blocks in a row of which no shot was chosen, after which none is to be expected."""


def until_chosen(
    n_shots: int, blocks: Iterable[BlockT], chosen: Callable[[BlockT], torch.Tensor]
) -> Iterator[tuple[BlockT, NDArray[np.int64]]]:
    """Blocks of drawn shots, each with which of its shots count, until n_shots do.

    blocks: endless. SyndistillError where `BARREN` of them in a row hold none.
    """
    found = barren = 0
    for block in blocks:
        at = np.flatnonzero(chosen(block).numpy())[: n_shots - found]
        found += len(at)
        barren = 0 if len(at) else barren + 1
        if barren == BARREN:
            raise SyndistillError(
                f"of {BARREN:,} blocks of shots none was chosen; choose less strictly (data.unsure: raise below or "
                "others)"
            )
        yield block, at
        if found == n_shots:
            return
