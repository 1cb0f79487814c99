"""A network of one distance as the beginning of another, or of one that reads X experiments turned.

Axes: S stabilisers, D width.
"""

from __future__ import annotations

import numpy as np
import torch

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork


def can_begin(source: DecoderNetwork, target: DecoderNetwork) -> bool:
    """Whether `source` is the same network as `target` but for its distance, for not being turned yet, and for whether
    its lines agree, which takes no weight."""
    free = {"distance": target.config.distance}
    if getattr(target.config, "turn_x", False):
        free["turn_x"] = True
    if hasattr(target.config, "agree_lines"):
        free["agree_lines"] = target.config.agree_lines
    return bool(source.config.model_copy(update=free) == target.config)


def carried_over(source: DecoderNetwork, target: DecoderNetwork) -> dict[str, torch.Tensor]:
    """A state dict for `target` from the weights of `source`, the same network at another distance or not turned.

    Weights of equal shape are copied; what is learned per stabiliser (first axis S) is taken from the stabiliser of
    `source` that lies alike; what tells turned shots apart begins at 0 if `source` has none. SyndistillError where
    none of these is so: a flat network has weights of the whole syndrome.
    """
    nearest_S = torch.from_numpy(alike(target.layout, source.layout))
    known = source.state_dict()
    carried = {}
    for name, value in target.state_dict().items():
        found = known.get(name)
        if found is not None and found.shape == value.shape:
            carried[name] = found
        elif found is None and name == "turned_D":
            carried[name] = torch.zeros_like(value)
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
