"""A network as the beginning of another: of another distance, of one that reads X experiments turned, a narrow GRU as
that of a wider one, which answers as it did before its first step, a GRU as that of one with a frame memory, a local
GRU as that of one that reads events alone, or whose lines agree.

Axes: G gates, T places of a neighbourhood, D states (of a stabiliser in a local GRU), S stabilisers, W readout width,
Q corners of a qubit, I bits.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.gru import FlatGru, LocalGru

JOINT_ALONE = ("line_readout.merge.", "line_readout.logit.")
"""Weights of a joint transformer that one of two channels lacks, or has in another shape."""


def can_begin(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether `source` is the same network as `target` but for its distance, for not being turned yet, and for whether
    its lines agree, which takes no weight, and for answering with two channels where `target` answers jointly."""
    if type(source.config) is not type(target.config):
        return False
    free: dict[str, Any] = {"distance": target.config.distance}
    if getattr(target.config, "turn_x", False):
        free["turn_x"] = True
    if hasattr(target.config, "agree_lines"):
        free["agree_lines"] = target.config.agree_lines
    if target.config.output == "joint4":
        free["output"] = "joint4"
    return bool(replace(source.config, **free) == target.config)


def carried_over(source: DecoderNetwork, target: DecoderNetwork) -> dict[str, torch.Tensor]:
    """A state dict for `target` from the weights of `source`, the same network at another distance or not turned.

    Weights of equal shape are copied; what is learned per stabiliser (first axis S) is taken from the stabiliser of
    `source` that lies alike; what tells turned shots apart begins at 0 if `source` has none; what makes one joint
    answer of two channels' begins fresh. SyndistillError where none of these is so: a flat network has weights of the
    whole syndrome.
    """
    becomes_joint = target.config.output == "joint4" and source.config.output != "joint4"
    nearest_S = torch.from_numpy(alike(target.layout, source.layout))
    known = source.state_dict()
    carried = {}
    for name, value in target.state_dict().items():
        found = known.get(name)
        if found is not None and found.shape == value.shape:
            carried[name] = found
        elif found is None and name == "turned_D":
            carried[name] = torch.zeros_like(value)
        elif becomes_joint and name.startswith(JOINT_ALONE):
            carried[name] = value
        elif found is not None and found.shape == (source.layout.n_stabilisers, *value.shape[1:]):
            carried[name] = found[nearest_S]
        else:
            raise SyndistillError(
                f"weight {name} of distance {source.layout.distance} does not carry over to distance "
                f"{target.layout.distance}; a {target.config.family} network needs a start of its own distance"
            )
    return carried


def alike(layout: Layout, of: Layout) -> np.ndarray:
    """For each stabiliser of `layout` the one of `of` with the same type and border that lies nearest, int64 (S,)."""
    border_S, border_O = _border(layout), _border(of)
    place_S2, place_O2 = layout.cells_S2 / layout.distance, of.cells_S2 / of.distance
    differ_SO = (layout.is_x_S[:, None] != of.is_x_S) | (border_S[:, None] != border_O).any(-1)
    return (np.abs(place_S2[:, None] - place_O2).sum(-1) + 10 * differ_SO).argmin(1)


def _border(layout: Layout) -> np.ndarray:
    """int64 (S, 2): -1, 0 or 1 for the first row (column), inside, the last."""
    return (layout.cells_S2 == layout.distance).astype(int) - (layout.cells_S2 == 0)


def can_widen(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether both are GRUs of one family, `target` of wider states and else the same."""
    narrow: Any = source.config
    wide: Any = target.config
    one_family = any(isinstance(source, f) and isinstance(target, f) for f in (FlatGru, LocalGru))
    return one_family and narrow.width < wide.width and replace(narrow, width=wide.width) == wide


def widened(source: DecoderNetwork, target: DecoderNetwork) -> dict[str, torch.Tensor]:
    """A state dict for `target`: the states that are new hear with the fresh weights of `target`, and nothing that was
    there before hears them yet (Net2Net's idea, Chen et al. 2016, with zeros instead of halves)."""
    narrow, wide = source.config.width, target.config.width
    known = source.state_dict()
    return {name: _widened(name, known[name], fresh, narrow, wide) for name, fresh in target.state_dict().items()}


def _widened(name: str, old: torch.Tensor, fresh: torch.Tensor, narrow: int, wide: int) -> torch.Tensor:
    if old.shape == fresh.shape:
        return old
    if ".recurrent." in name or name == "gru.weight_hh_l0":  # (G D, T D); T = 1 in a flat GRU
        new = fresh.clone().view(3, wide, -1, wide)
        new[:, :narrow, :, narrow:] = 0
        new[:, :narrow, :, :narrow] = old.view(3, narrow, -1, narrow)
    elif ".inputs." in name or name.startswith("gru."):  # (G D, T I), and a flat GRU's biases, (G D)
        new = fresh.clone().view(3, wide, -1)
        new[:, :narrow] = old.view(3, narrow, -1)
    elif name.startswith("project.") or name == "decide.0.weight":  # (W, Q (D + I)); Q = 1 in a flat GRU
        corners = 4 if name.startswith("project.") else 1
        new = torch.zeros_like(fresh).view(len(fresh), corners, -1)
        of_old = old.view(len(old), corners, -1)
        new[..., :narrow], new[..., wide:] = of_old[..., :narrow], of_old[..., narrow:]
    else:  # (..., D): biases, first states; what reads new states does not hear them
        reads = name.startswith(("next_events.", "frame_weight.", "frames."))
        new = torch.zeros_like(fresh) if reads else fresh.clone()
        new[..., :narrow] = old
    return new.view_as(fresh)


def can_gain_frame(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether `target` is `source` with a frame memory, with lines whose frames agree, or with both."""
    if type(source) is not type(target) or not target.keeps_frame:
        return False
    before, after = ((n.keeps_frame, getattr(n.config, "agree_after", 0)) for n in (source, target))
    gained: dict[str, Any] = {"frame_memory": after[0]} if not before[0] else {}
    gained |= {"agree_after": after[1]} if not before[1] and after[1] else {}
    return bool(gained) and bool(replace(source.config, **gained) == target.config)


def with_frame(source: DecoderNetwork, target: DecoderNetwork) -> dict[str, torch.Tensor]:
    """A state dict for `target`: the weights of `source`, and fresh ones for what it does with frames beyond it."""
    return target.state_dict() | source.state_dict()


def forgets_parities(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether both are local GRUs, and `target` reads events alone where `source` reads parities too."""
    both = isinstance(source, LocalGru) and isinstance(target, LocalGru)
    return both and target.config.events_alone and not source.config.events_alone


def of_events_alone(source: LocalGru) -> LocalGru:
    """The same weights, but for those of parities. It answers otherwise."""
    network = copy.deepcopy(source)
    network.config = replace(source.config, events_alone=True)
    network.forget_parities()
    return network
