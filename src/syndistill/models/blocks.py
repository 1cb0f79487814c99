"""Blocks that the networks are built of: the grid of stabilisers, residual and attention layers (Bausch et al., Nature
2024, Methods; pre-norm throughout), the embedder of a slice, the readout of lines.

Axes: B shots, S stabilisers, D width, H and W grid rows and columns, C convolution channels, h heads, K key size, V = 5
input values of a stabiliser, L lines; of the readout W its width, C logit channels; N any number of (shot, end) pairs,
* any leading axes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from syndistill.circuits.layout import Layout, answered


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

    weight: at distance 3 one matrix `(S*D, S*C)` of all stabilisers, else the nine taps (9, D, C).
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


# Dilations of the three convolutions of a layer by distance; 7 and above share the last entry.
DILATIONS = {3: (1, 1, 1), 5: (1, 1, 2), 7: (1, 2, 4)}


class ResidualDense(nn.Module):
    """x + W2 gelu(W1 norm(x)), `layers` times, all of one width."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.ins = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, w_in, w_out in zip(self.norms, self.ins, self.outs, strict=True):
            x = x + w_out(F.gelu(w_in(norm(x))))
        return x


class BiasedAttention(nn.Module):
    """Multi-head attention over stabilisers with an additive bias per head."""

    def __init__(self, width: int, heads: int, key_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * key_size)
        self.out = nn.Linear(heads * key_size, width)

    def forward(self, x_BSD: torch.Tensor, bias_BhSS: torch.Tensor | None) -> torch.Tensor:
        b, s, _ = x_BSD.shape
        qkv = self.qkv(self.norm(x_BSD)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        qkv = qkv.contiguous()  # one copy here instead of three inside the products
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias_BhSS)
        return x_BSD + self.out(mixed.transpose(1, 2).reshape(b, s, -1))


class GatedDense(nn.Module):
    """D -> 5D, split in halves a and b, gelu(a) * b, back to D (2.5D -> D)."""

    def __init__(self, width: int, widening: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, widening * width)
        self.out = nn.Linear(widening * width // 2, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.widen(self.norm(x)).chunk(2, -1)
        return x + self.out(F.gelu(a) * b)


class GridConvolutions(nn.Module):
    """Three times [norm, dilated 3x3 convolution D -> C on the grid, gelu, 1x1 back to D, add].

    Empty cells hold a learned padding vector in all three convolutions.
    """

    def __init__(self, layout: Layout, width: int, channels: int) -> None:
        super().__init__()
        dilations = DILATIONS[min(layout.distance, 7)]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in dilations)
        self.convs = nn.ModuleList(StabiliserConvolution(layout, width, channels, dilation) for dilation in dilations)
        self.outs = nn.ModuleList(nn.Linear(channels, width) for _ in dilations)

    def prepared(self) -> list[PreparedConvolution]:
        """To be made once per forward and handed to every round."""
        return [conv.prepared() for conv in self._typed_convs()]

    def multiply_adds(self) -> int:
        """Of one shot."""
        convs = self._typed_convs()
        n, (channels, width) = convs[0].taps_SS.shape[0], convs[0].convolution.weight.shape[:2]
        return sum(conv.multiply_adds() for conv in convs) + len(convs) * n * channels * width

    def _typed_convs(self) -> list[StabiliserConvolution]:
        return list(self.convs)  # type: ignore[arg-type]

    def forward(self, x_BSD: torch.Tensor, prepared: list[PreparedConvolution]) -> torch.Tensor:
        for norm, conv, out, of_conv in zip(self.norms, self.convs, self.outs, prepared, strict=True):
            x_BSD = x_BSD + out(F.gelu(conv(norm(x_BSD), of_conv)))
        return x_BSD


class SyndromeTransformerLayer(nn.Module):
    """Attention, gated dense, scattered convolutions."""

    def __init__(self, layout: Layout, width: int, heads: int, key_size: int, widening: int, channels: int) -> None:
        super().__init__()
        self.attention = BiasedAttention(width, heads, key_size)
        self.dense = GatedDense(width, widening)
        self.convolutions = GridConvolutions(layout, width, channels)

    def forward(
        self, x_BSD: torch.Tensor, bias_BhSS: torch.Tensor | None, prepared: list[PreparedConvolution]
    ) -> torch.Tensor:
        return self.convolutions(self.attended(x_BSD, bias_BhSS), prepared)

    def attended(self, x_BSD: torch.Tensor, bias_BhSS: torch.Tensor | None) -> torch.Tensor:
        """The first two parts: attention and gated dense."""
        mixed: torch.Tensor = self.dense(self.attention(x_BSD, bias_BhSS))
        return mixed


N_VALUES = 5  # event + 2 * measurement, or 4 for undefined


class StabiliserEmbedder(nn.Module):
    """One linear map per input channel, summed, plus an embedding of the stabiliser's index, then a residual net.

    Both inputs are bits, so each stabiliser can only see five things: four pairs of bits, or nothing. The network is
    evaluated on those once per call and looked up afterwards; the result is the same.

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
    """Embeddings `(*, S, D)` of events and running parities (uint8, `(*, S)`); defined_S bool (S,)."""
    n_stabilisers, _, width = table_SVD.shape
    value = torch.where(defined_S, events.long() + 2 * parity.long(), N_VALUES - 1)
    rows = value + N_VALUES * torch.arange(n_stabilisers, device=value.device)
    return F.embedding(rows, table_SVD.reshape(-1, width))


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
        self, x_BSD: torch.Tensor, rounds_done_B: torch.Tensor, basis: str, read_as: str | None = None
    ) -> torch.Tensor:
        """logits_BLC. rounds_done_B: int64 (B,), how many rounds were measured. read_as: the basis whose lines
        are to be read, where it is another (turned shots)."""
        data_BDHW = torch.nn.functional.gelu(self.convolution(self.grid.scatter(self.norm(x_BSD))))
        data_BWHW = self.project(data_BDHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        round_B1W = self.rounds((rounds_done_B - 1).clamp(max=self.max_rounds - 1))[:, None]
        pooled = [
            pool_lines(data_BWHW, lines) + round_B1W + self.basis.weight[BASIS_INDEX[b]]
            for b, lines in zip(answered(basis), answered(read_as or basis), strict=True)
        ]
        if self.merge is not None:
            pooled = [self.merge(torch.cat(pooled, -1))]
        return torch.cat([self.logit(self.network(p)) for p in pooled], -1)


def agreed(logits_NLC: torch.Tensor, parity_NS: torch.Tensor, layout: Layout, basis: str) -> torch.Tensor:
    """One answer for all lines: the mean of their logits, each turned to the first line's label and back.

    parity_NS: uint8, final stabiliser values (running XOR up to the last slice). float32 (N, L, C).
    """
    logits_NLC = logits_NLC.float()
    matrix_SLO = line_matrices(layout, basis).to(logits_NLC.device)
    flipped_NLO = torch.einsum("ns,slo->nlo", parity_NS.float(), matrix_SLO) % 2
    if logits_NLC.shape[-1] == 4:  # class 2 x + z of I, X, Z, Y: flips permute the classes, and again undo it
        pattern_NL = (2 * flipped_NLO[..., 0] + flipped_NLO[..., 1]).long()
        turned_NLC = pattern_NL[..., None] ^ torch.arange(4, device=logits_NLC.device)
        mean_NLC = logits_NLC.gather(-1, turned_NLC).mean(1, keepdim=True).expand_as(logits_NLC)
        return mean_NLC.gather(-1, turned_NLC)
    sign_NLC = 1 - 2 * flipped_NLO
    return sign_NLC * (sign_NLC * logits_NLC).mean(1, keepdim=True)


@lru_cache(maxsize=64)
def line_matrices(layout: Layout, basis: str) -> torch.Tensor:
    """float32 (S, L, O): `Layout.line_matrix` of each basis; kept, since every streamed readout asks for it."""
    return torch.from_numpy(np.stack([layout.line_matrix(b) for b in answered(basis)], -1)).float()


@lru_cache(maxsize=64)
def strip_matrix(layout: Layout, basis: str) -> torch.Tensor:
    """float32 (S, L - 1): `Layout.strip_matrix` of basis x or z, kept likewise."""
    return torch.from_numpy(layout.strip_matrix(basis)).float()
