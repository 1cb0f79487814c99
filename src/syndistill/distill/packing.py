"""Shots as packed bits, eight to a byte, a row of bytes per shot.

Axes: B shots, R rounds, K ends (= R), S stabilisers, L lines, O observables.
"""

from __future__ import annotations

import numpy as np
import torch

from syndistill.circuits.layout import Layout
from syndistill.sampling.shots import Shots


def pack_shots(shots: Shots) -> dict[str, torch.Tensor]:
    """uint8 tensors "events", "last" and "labels" of shots with all ends; float16 "posterior" where they have it."""
    assert shots.labels_BKLO is not None
    bits = {"events": shots.events_BRS, "last": shots.last_BKS, "labels": shots.labels_BKLO}
    packed = {k: torch.from_numpy(np.packbits(v.flatten(1).numpy(), axis=1)) for k, v in bits.items()}
    return packed if shots.posterior_BKLP is None else packed | {"posterior": shots.posterior_BKLP.half()}


def unpack_shots(
    tensors: dict[str, torch.Tensor],
    layout: Layout,
    basis: str,
    rounds: int,
    rows: np.ndarray | slice = slice(None),
    every_end: bool = True,
) -> Shots:
    """The chosen shots, of their first `rounds` rounds; without every_end the last of these is the only end."""
    s, n_lines, observables = layout.n_stabilisers, layout.n_lines, 2 if basis == "both" else 1

    def bits(name: str, *shape: int) -> torch.Tensor:
        flat = np.unpackbits(tensors[name].numpy()[rows], axis=1, count=rounds * int(np.prod(shape)))
        return torch.from_numpy(flat).view(-1, rounds, *shape)

    first = 0 if every_end else rounds - 1
    posterior = tensors["posterior"][:, first:rounds][rows].float() if "posterior" in tensors else None
    return Shots(
        layout,
        basis,
        bits("events", s),
        bits("last", s)[:, first:],
        bits("labels", n_lines, observables)[:, first:],
        tuple(range(first + 1, rounds + 1)),
        posterior,
    )


def bytes_per_shot(rounds: int, layout: Layout, channels: int) -> int:
    """Of packed shots and the float16 logits of every end and line, on disk and in memory."""
    bits = 2 * rounds * layout.n_stabilisers + rounds * layout.n_lines * max(1, channels // 2)
    return -(-bits // 8) + 2 * rounds * layout.n_lines * channels
