"""A narrow local GRU as the beginning of a wider one, which answers as it did before its first step.

Axes: G gates, T places of a neighbourhood, D states of a stabiliser, S stabilisers, W readout width, I bits.
"""

from __future__ import annotations

import torch

from syndistill.files.families import BITS, PLACES
from syndistill.models.contract import DecoderNetwork
from syndistill.models.local_gru import LocalGru


def can_widen(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether both are local GRUs, `target` of wider states and else the same."""
    if not (isinstance(source, LocalGru) and isinstance(target, LocalGru)):
        return False
    width = target.config.width
    return source.config.width < width and source.config.model_copy(update={"width": width}) == target.config


def widened(source: DecoderNetwork, target: DecoderNetwork) -> dict[str, torch.Tensor]:
    """A state dict for `target`: the states that are new hear with the fresh weights of `target`, and nothing that was
    there before hears them yet (Net2Net's idea, Chen et al. 2016, with zeros instead of halves)."""
    narrow, wide = source.config.width, target.config.width
    known = source.state_dict()
    return {name: _widened(name, known[name], fresh, narrow, wide) for name, fresh in target.state_dict().items()}


def _widened(name: str, old: torch.Tensor, fresh: torch.Tensor, narrow: int, wide: int) -> torch.Tensor:
    if ".recurrent." in name:  # (G D, T D)
        new = fresh.clone().view(3, wide, PLACES, wide)
        new[:, :narrow, :, narrow:] = 0
        new[:, :narrow, :, :narrow] = old.view(3, narrow, PLACES, narrow)
    elif ".inputs." in name:  # (G D, T I)
        new = fresh.clone().view(3, wide, -1)
        new[:, :narrow] = old.view(3, narrow, -1)
    elif name.startswith("project.") and name.endswith("weight"):  # (W, 4 (D + I))
        new = torch.zeros_like(fresh).view(len(fresh), 4, wide + BITS)
        of_states, of_bits = old.view(len(old), 4, narrow + BITS).split([narrow, BITS], -1)
        new[..., :narrow], new[..., wide:] = of_states, of_bits
    elif old.shape == fresh.shape:
        return old
    else:  # (..., D): biases, first states; what reads new states does not hear them
        new = torch.zeros_like(fresh) if name.startswith("next_events.") else fresh.clone()
        new[..., :narrow] = old
    return new.view_as(fresh)
