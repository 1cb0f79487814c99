"""Line readout: from the state of all stabilisers to one answer per line.

Axes: B shots, S stabilisers, D width, W readout width, L lines, C logit channels; N any number of (shot, end) pairs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.models.blocks import ResidualDense
from syndistill.models.grid import StabiliserGrid, pool_lines

BASIS_INDEX = {"x": 0, "z": 1}


class LineReadout(nn.Module):
    """Scatter, 2x2 convolution of stride 1 without padding, project, pool along lines, residual net, logit.

    A stride of 2 would lose boundary stabilisers. One network serves both bases through a basis embedding.
    """

    def __init__(
        self, layout: Layout, width: int, readout_width: int, layers: int, max_rounds: int, output: str
    ) -> None:
        super().__init__()
        self.output = output
        self.max_rounds = max_rounds
        self.grid = StabiliserGrid(layout, width)
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv2d(width, width, 2)
        self.project = nn.Linear(width, readout_width)
        self.rounds = nn.Embedding(max_rounds, readout_width)
        self.basis = nn.Embedding(2, readout_width)
        nn.init.normal_(self.rounds.weight, std=0.1)
        nn.init.normal_(self.basis.weight, std=0.1)
        joint = output == "joint4"
        self.merge = nn.Linear(2 * readout_width, readout_width) if joint else None
        self.network = ResidualDense(readout_width, layers)
        self.logit = nn.Linear(readout_width, 4 if joint else 1)

    def multiply_adds(self) -> int:
        """Of one shot of one basis (of both for joint4)."""
        d, width, out = self.grid.side - 1, self.convolution.in_channels, self.project.out_features
        a_line = 2 * len(self.network.norms) * out**2 + out * self.logit.out_features
        if self.merge is not None:
            a_line += 2 * out**2
        return d**2 * (4 * width**2 + width * out) + d * a_line

    def forward(
        self, x_BSD: torch.Tensor, rounds_done_B: torch.Tensor, basis: str, frame: str | None = None
    ) -> torch.Tensor:
        """logits_BLC. rounds_done_B: int64 (B,), how many rounds were measured. frame: the basis whose lines
        are to be read, where it is another (turned shots)."""
        data_BDHW = torch.nn.functional.gelu(self.convolution(self.grid.scatter(self.norm(x_BSD))))
        data_BWHW = self.project(data_BDHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        round_B1W = self.rounds((rounds_done_B - 1).clamp(max=self.max_rounds - 1))[:, None]
        pooled = [
            pool_lines(data_BWHW, lines) + round_B1W + self.basis.weight[BASIS_INDEX[b]]
            for b, lines in zip(_bases(basis), _bases(frame or basis), strict=True)
        ]
        if self.merge is not None:
            pooled = [self.merge(torch.cat(pooled, -1))]
        return torch.cat([self.logit(self.network(p)) for p in pooled], -1)


def agreed(logits_NLC: torch.Tensor, parity_NS: torch.Tensor, layout: Layout, basis: str) -> torch.Tensor:
    """One answer for all lines: the mean of their logits, each turned to the first line's label and back.

    parity_NS: uint8, final stabiliser values (running XOR up to the last slice). float32 (N, L, C).
    """
    logits_NLC = logits_NLC.float()
    matrix_SLO = _line_matrices(layout, basis).to(logits_NLC.device)
    flipped_NLO = torch.einsum("ns,slo->nlo", parity_NS.float(), matrix_SLO) % 2
    if logits_NLC.shape[-1] == 4:  # class 2 x + z of I, X, Z, Y: flips permute the classes, and again undo it
        pattern_NL = (2 * flipped_NLO[..., 0] + flipped_NLO[..., 1]).long()
        turned_NLC = pattern_NL[..., None] ^ torch.arange(4, device=logits_NLC.device)
        mean_NLC = logits_NLC.gather(-1, turned_NLC).mean(1, keepdim=True).expand_as(logits_NLC)
        return mean_NLC.gather(-1, turned_NLC)
    sign_NLC = 1 - 2 * flipped_NLO
    return sign_NLC * (sign_NLC * logits_NLC).mean(1, keepdim=True)


@lru_cache(maxsize=64)
def _line_matrices(layout: Layout, basis: str) -> torch.Tensor:
    """float32 (S, L, O): `Layout.line_matrix` of each basis; kept, since every streamed readout asks for it."""
    return torch.from_numpy(np.stack([layout.line_matrix(b) for b in _bases(basis)], -1)).float()


def _bases(basis: str) -> tuple[str, ...]:
    return ("x", "z") if basis == "both" else (basis,)
