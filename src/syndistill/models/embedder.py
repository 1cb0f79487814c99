"""Stabiliser embedder: events and measurements of a slice to vectors.

Both inputs are bits, so each stabiliser can only see five things: four pairs of bits, or nothing. The
network is evaluated on those once per call and looked up afterwards; the result is the same.
Axes: S stabilisers, V = 5 input values, D width; * any leading axes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from syndistill.models.blocks import ResidualDense

N_VALUES = 5  # event + 2 * measurement, or 4 for undefined


class StabiliserEmbedder(nn.Module):
    """One linear map per input channel, summed, plus an embedding of the stabiliser's index, then a residual net.

    `undefined_D` stands for what a slice does not define: in the first round the off-basis stabilisers, in
    the last slice likewise (the paper's one learned vector for all off-basis ones).
    """

    def __init__(self, n_stabilisers: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.event_D = nn.Parameter(torch.randn(width) * 0.5)
        self.measurement_D = nn.Parameter(torch.randn(width) * 0.5)
        self.undefined_D = nn.Parameter(torch.randn(width) * 0.5)
        self.index_SD = nn.Parameter(torch.randn(n_stabilisers, width) * 0.5)
        self.network = ResidualDense(width, layers)

    def table_SVD(self) -> torch.Tensor:
        """What each stabiliser's embedding is for each of its five possible inputs."""
        defined = [e * self.event_D + m * self.measurement_D for m in (0.0, 1.0) for e in (0.0, 1.0)]
        inputs_VD = torch.stack([*defined, self.undefined_D])
        table: torch.Tensor = self.network(self.index_SD[:, None] + inputs_VD)
        return table


def look_up(
    table_SVD: torch.Tensor, events: torch.Tensor, parity: torch.Tensor, defined_S: torch.Tensor
) -> torch.Tensor:
    """Embeddings (*, S, D) of events and running parities (uint8, (*, S)); defined_S bool (S,)."""
    n_stabilisers, _, width = table_SVD.shape
    value = torch.where(defined_S, events.long() + 2 * parity.long(), N_VALUES - 1)
    rows = value + N_VALUES * torch.arange(n_stabilisers, device=value.device)
    return F.embedding(rows, table_SVD.reshape(-1, width))
