"""Additive attention bias from geometry and from event indicators (Bausch et al. 2024, Methods).

Axes: B shots, S stabilisers, h heads, M layers, F features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.models.blocks import ResidualDense

N_GEOMETRY_FEATURES = 48
N_INDICATORS = 7


def geometry_features(layout: Layout) -> torch.Tensor:
    """float32 (S, S, 48): of a pair both coordinates, signed offset, Manhattan distance, same or other type.

    Coordinates are scaled to [-1, 1]; the seven numbers enter as they are and through sines and cosines of
    three frequencies (the paper says which features, not how they make 48): 4 + 2 + 1 scalars in 1 + 2 * 3
    forms are 49, of which the offset's sum-redundant last is dropped for the type flag.
    """
    cells_S2 = layout.cells_S2 / layout.distance * 2 - 1
    first, second = (np.broadcast_to(a, (len(cells_S2),) * 2 + (2,)) for a in (cells_S2[:, None], cells_S2[None]))
    offset = second - first
    manhattan = np.abs(offset).sum(-1, keepdims=True)
    scalars = np.concatenate([first, second, offset, manhattan], -1)
    waves = [f(np.pi * 2.0**k * scalars / 2) for k in range(3) for f in (np.sin, np.cos)]
    same_type = (layout.is_x_S[:, None] == layout.is_x_S[None])[..., None]
    features = np.concatenate([same_type, scalars, *waves], -1)[..., :N_GEOMETRY_FEATURES]
    return torch.from_numpy(features.astype(np.float32))


class AttentionBias(nn.Module):
    """One scalar per head and layer for each pair of stabilisers.

    The geometric part passes through a residual network and does not depend on the shot; the seven event
    indicators are the products of the pair's events in this and the previous slice (4) and, on the diagonal,
    event now, event before, and both (3). Their linear map is written as a bilinear form of (now, before).
    """

    features_SSF: torch.Tensor

    def __init__(self, layout: Layout, heads: int, layers: int, width: int, residual_layers: int) -> None:
        super().__init__()
        self.heads, self.layers = heads, layers
        self.register_buffer("features_SSF", geometry_features(layout), persistent=False)
        self.embed = nn.Linear(N_GEOMETRY_FEATURES, width)
        self.network = ResidualDense(width, residual_layers)
        self.project = nn.Linear(width, layers * heads)
        self.pairs = nn.Parameter(torch.zeros(layers, heads, 2, 2))
        self.diagonal = nn.Parameter(torch.zeros(layers, heads, 3))

    def static(self) -> torch.Tensor:
        """The geometric part, (M, h, S, S)."""
        bias_SSx: torch.Tensor = self.project(self.network(self.embed(self.features_SSF)))
        s = bias_SSx.shape[0]
        # contiguous: every sum and softmax downstream takes its layout from here
        return bias_SSx.view(s, s, self.layers, self.heads).permute(2, 3, 0, 1).contiguous()

    def forward(
        self, static_MhSS: torch.Tensor, events_BS: torch.Tensor, previous_BS: torch.Tensor
    ) -> torch.Tensor:
        """(M, B, h, S, S): the geometric part plus this slice's indicators."""
        dtype = static_MhSS.dtype
        now, before = events_BS.to(dtype), previous_BS.to(dtype)
        pair_BS2 = torch.stack([now, before], -1)
        left = torch.einsum("bsi,mhij->mbhsj", pair_BS2, self.pairs.to(dtype))
        indicators = torch.einsum("mbhsj,btj->mbhst", left, pair_BS2)
        diagonal_BS3 = torch.stack([now, before, now * before], -1)
        diagonal = torch.einsum("bsi,mhi->mbhs", diagonal_BS3, self.diagonal.to(dtype))
        return static_MhSS[:, None] + indicators + torch.diag_embed(diagonal)
