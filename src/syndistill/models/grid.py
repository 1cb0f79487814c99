"""Between the list of stabilisers and the (d+1) x (d+1) grid, and from there to lines.

Axes: B shots, S stabilisers, D width, H and W grid rows and columns, L lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class PreparedConvolution(NamedTuple):
    """What a convolution makes of its weights once per call.

    weight: at distance 3 one matrix (S*D, S*C) of all stabilisers, else the nine taps (9, D, C).
    offset_SC: bias and what empty cells contribute.
    """

    weight: torch.Tensor
    offset_SC: torch.Tensor


class StabiliserConvolution(nn.Module):
    """A 3x3 convolution on the grid, read and written at the stabilisers only: (B, S, D) -> (B, S, C).

    Empty cells hold a learned vector; cells beyond the grid are zero.
    """

    taps_SS: torch.Tensor
    empty_SE: torch.Tensor
    sources_S9: torch.Tensor
    targets_S9: torch.Tensor
    MAX_MATRIX_DISTANCE = 3  # beyond, the matrix is mostly zeros and gathering neighbours is cheaper

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
        taps_SS = _taps(cells_S2, cells_S2, dilation)
        self.register_buffer("taps_SS", taps_SS, persistent=False)
        self.register_buffer("empty_SE", _taps(empty_E2, cells_S2, dilation), persistent=False)
        self.register_buffer("sources_S9", _partners(taps_SS.T), persistent=False)
        self.register_buffer("targets_S9", _partners(taps_SS), persistent=False)

    def prepared(self) -> PreparedConvolution:
        kernel_CDhw = self.convolution.weight
        channels, width = kernel_CDhw.shape[:2]
        taps_kDC = kernel_CDhw.flatten(2).permute(2, 1, 0)
        padded_kDC = torch.cat([taps_kDC, taps_kDC.new_zeros(1, width, channels)])  # tap 9: too far apart
        from_padding_kC = self.grid.padding_D @ padded_kDC
        assert self.convolution.bias is not None
        offset_SC = from_padding_kC[self.empty_SE].sum(0) + self.convolution.bias
        if not self.as_matrix:
            return PreparedConvolution(taps_kDC, offset_SC)
        n = self.taps_SS.shape[0]
        weight = padded_kDC[self.taps_SS].permute(0, 2, 1, 3).reshape(n * width, n * channels)
        return PreparedConvolution(weight, offset_SC)

    def multiply_adds(self) -> int:
        """Of one shot, on the way that `forward` takes."""
        channels, width = self.convolution.weight.shape[:2]
        n = self.taps_SS.shape[0]
        return n * (n if self.as_matrix else 9) * width * channels

    def forward(self, x_BSD: torch.Tensor, prepared: PreparedConvolution) -> torch.Tensor:
        weight, offset_SC = prepared
        if self.as_matrix:
            y = torch.addmm(offset_SC.flatten().to(weight.dtype), x_BSD.flatten(1), weight)
            return y.view(len(x_BSD), x_BSD.shape[1], -1)
        device = x_BSD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BSD.dtype
        y_BSC: torch.Tensor = _NineTaps.apply(x_BSD.to(dtype), weight.to(dtype), self.sources_S9, self.targets_S9)
        return y_BSC + offset_SC.to(dtype)


class _NineTaps(torch.autograd.Function):
    """y_s = sum over k of x_source(s, k) @ taps_k. PyTorch's own gradient of a gather is a slow scatter; this
    one is a gather again, of the targets of each source."""

    @staticmethod
    def forward(
        ctx: Any, x_BSD: torch.Tensor, taps_kDC: torch.Tensor, sources_S9: torch.Tensor, targets_S9: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x_BSD, taps_kDC, targets_S9)
        y = _gather(x_BSD, sources_S9) @ taps_kDC.flatten(0, 1)
        return y.view(*x_BSD.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_BSD, taps_kDC, targets_S9 = ctx.saved_tensors
        from_targets = _gather(gradients[0], targets_S9)
        of_x = from_targets @ taps_kDC.transpose(1, 2).flatten(0, 1)
        of_taps = x_BSD.flatten(0, 1).T @ from_targets
        return of_x.view_as(x_BSD), of_taps.view(x_BSD.shape[2], len(taps_kDC), -1).transpose(0, 1), None, None


def _gather(x_BSD: torch.Tensor, partners_S9: torch.Tensor) -> torch.Tensor:
    """(B * S, 9 * D): the nine partners of each stabiliser side by side, zeros for missing ones."""
    b, s, width = x_BSD.shape
    found = x_BSD[:, partners_S9.clamp(max=s - 1)]
    return torch.where((partners_S9 < s)[..., None], found, 0.0).view(b * s, 9 * width)


def _partners(taps_AS: torch.Tensor) -> torch.Tensor:
    """int64 (A, 9): for each row and kernel tap the column that the tap reaches, S for none."""
    is_tap_A9S = taps_AS[:, None] == torch.arange(9)[:, None]
    return torch.where(is_tap_A9S.any(-1), is_tap_A9S.int().argmax(-1), taps_AS.shape[1])


def _taps(sources_A2: np.ndarray, targets_S2: np.ndarray, dilation: int) -> torch.Tensor:
    """int64 (A, S): which of the nine kernel taps carries source to target, 9 for none."""
    delta = sources_A2[:, None] - targets_S2[None]
    near = (np.abs(delta) <= dilation).all(-1) & (delta % dilation == 0).all(-1)
    step = delta // dilation + 1
    return torch.from_numpy(np.where(near, step[..., 0] * 3 + step[..., 1], 9))


def pool_lines(data_BDHW: torch.Tensor, basis: str) -> torch.Tensor:
    """Mean over the data qubits of each line of `basis` (x: rows, z: columns): (B, L, D)."""
    return data_BDHW.mean(3 if basis == "x" else 2).transpose(1, 2)
