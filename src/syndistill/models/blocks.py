"""Blocks of the AlphaQubit reproduction (Bausch et al., Nature 2024, Methods), pre-norm throughout.

Axes: B shots, S stabilisers, D width, C convolution channels, h heads, K key size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.models.grid import PreparedConvolution, StabiliserConvolution

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

    def __init__(
        self, layout: Layout, width: int, heads: int, key_size: int, widening: int, channels: int
    ) -> None:
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
