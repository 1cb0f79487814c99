"""Between the list of stabilisers and the (d+1) x (d+1) grid, and from there to lines.

Axes: B shots, S stabilisers, D width, H and W grid rows and columns, L lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from syndistill.circuits.layout import Layout


class StabiliserGrid(nn.Module):
    """Scatter (B, S, D) to (B, D, H, W) in channels-last memory with a learned vector in empty cells, and back."""

    to_grid: torch.Tensor
    to_list: torch.Tensor

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.side = layout.distance + 1
        cells_S = layout.cells_S2[:, 0] * self.side + layout.cells_S2[:, 1]
        to_grid = np.full(self.side**2, layout.n_stabilisers)
        to_grid[cells_S] = np.arange(layout.n_stabilisers)
        self.register_buffer("to_grid", torch.from_numpy(to_grid), persistent=False)
        self.register_buffer("to_list", torch.from_numpy(cells_S), persistent=False)
        self.padding_D = nn.Parameter(torch.randn(width) * 0.02)

    def scatter(self, x_BSD: torch.Tensor) -> torch.Tensor:
        batch, _, width = x_BSD.shape
        padding = self.padding_D.to(x_BSD.dtype).expand(batch, 1, width)
        grid = torch.cat([x_BSD, padding], 1).index_select(1, self.to_grid)
        return grid.view(batch, self.side, self.side, width).permute(0, 3, 1, 2)

    def gather(self, grid_BDHW: torch.Tensor) -> torch.Tensor:
        flat = grid_BDHW.permute(0, 2, 3, 1).flatten(1, 2)
        return flat.index_select(1, self.to_list)


class ConvolutionMatrix(NamedTuple):
    """A convolution of all stabilisers as one affine map: (S*D, S*C) and (S*C,)."""

    weight: torch.Tensor
    offset: torch.Tensor


class StabiliserConvolution(nn.Module):
    """A 3x3 convolution on the grid, read and written at the stabilisers only: (B, S, D) -> (B, S, C).

    Empty cells hold a learned vector; cells beyond the grid are zero.
    """

    taps_SS: torch.Tensor
    empty_SE: torch.Tensor
    MAX_MATRIX_DISTANCE = 5  # beyond, the matrix is mostly zeros and a real convolution is cheaper

    def __init__(self, layout: Layout, width: int, channels: int, dilation: int) -> None:
        super().__init__()
        self.grid = StabiliserGrid(layout, width)
        self.convolution = nn.Conv2d(width, channels, 3, padding=dilation, dilation=dilation)
        self.as_matrix = layout.distance <= self.MAX_MATRIX_DISTANCE
        cells_S2 = layout.cells_S2
        side = layout.distance + 1
        everywhere = np.array([(r, c) for r in range(side) for c in range(side)])
        full = {tuple(cell) for cell in cells_S2}
        empty_E2 = np.array([cell for cell in everywhere if tuple(cell) not in full])
        self.register_buffer("taps_SS", _taps(cells_S2, cells_S2, dilation), persistent=False)
        self.register_buffer("empty_SE", _taps(empty_E2, cells_S2, dilation), persistent=False)

    def matrix(self) -> ConvolutionMatrix | None:
        if not self.as_matrix:
            return None
        kernel_CDhw = self.convolution.weight
        channels, width = kernel_CDhw.shape[:2]
        taps_kDC = kernel_CDhw.flatten(2).permute(2, 1, 0)
        taps_kDC = torch.cat([taps_kDC, taps_kDC.new_zeros(1, width, channels)])  # tap 9: too far apart
        n = self.taps_SS.shape[0]
        weight = taps_kDC[self.taps_SS].permute(0, 2, 1, 3).reshape(n * width, n * channels)
        from_padding_kC = self.grid.padding_D @ taps_kDC
        assert self.convolution.bias is not None
        offset_SC = from_padding_kC[self.empty_SE].sum(0) + self.convolution.bias
        return ConvolutionMatrix(weight, offset_SC.flatten())

    def multiply_adds(self) -> int:
        """Of one shot, on the way that `forward` takes."""
        channels, width = self.convolution.weight.shape[:2]
        n = self.taps_SS.shape[0]
        pairs = n * n if self.as_matrix else 9 * self.grid.side**2
        return pairs * width * channels

    def forward(self, x_BSD: torch.Tensor, matrix: ConvolutionMatrix | None) -> torch.Tensor:
        if matrix is None:
            return self.grid.gather(self.convolution(self.grid.scatter(x_BSD)))
        y = torch.addmm(matrix.offset.to(matrix.weight.dtype), x_BSD.flatten(1), matrix.weight)
        return y.view(len(x_BSD), x_BSD.shape[1], -1)


def _taps(sources_A2: np.ndarray, targets_S2: np.ndarray, dilation: int) -> torch.Tensor:
    """int64 (A, S): which of the nine kernel taps carries source to target, 9 for none."""
    delta = sources_A2[:, None] - targets_S2[None]
    near = (np.abs(delta) <= dilation).all(-1) & (delta % dilation == 0).all(-1)
    step = delta // dilation + 1
    return torch.from_numpy(np.where(near, step[..., 0] * 3 + step[..., 1], 9))


def pool_lines(data_BDHW: torch.Tensor, basis: str) -> torch.Tensor:
    """Mean over the data qubits of each line of `basis` (x: rows, z: columns): (B, L, D)."""
    return data_BDHW.mean(3 if basis == "x" else 2).transpose(1, 2)
