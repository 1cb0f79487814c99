"""The bilinear form of the event indicators is the seven products of the paper."""

import itertools

import torch

from syndistill.circuits.layout import Layout
from syndistill.models.transformer import AttentionBias, geometry_features


def test_indicators_are_the_products_of_the_pair():
    torch.manual_seed(0)
    bias = AttentionBias(Layout(3), heads=2, layers=3, width=8, residual_layers=1)
    torch.nn.init.normal_(bias.pairs)
    torch.nn.init.normal_(bias.diagonal)
    now_BS, before_BS = torch.randint(0, 2, (2, 4, 8), dtype=torch.uint8)
    with torch.no_grad():
        static = bias.static()
        found = bias(static, now_BS, before_BS) - static[:, None]
        bits = torch.stack([now_BS, before_BS], -1).float()
        for b, s, t in itertools.product(range(4), range(8), range(8)):
            expected = sum(
                bias.pairs[:, :, i, j] * bits[b, s, i] * bits[b, t, j] for i in range(2) for j in range(2)
            )
            if s == t:
                now, before = bits[b, s]
                expected = expected + bias.diagonal @ torch.stack([now, before, now * before])
            torch.testing.assert_close(found[:, b, :, s, t], expected, rtol=1e-4, atol=1e-5)


def test_geometry_tells_pairs_apart():
    features_SSF = geometry_features(Layout(5))
    assert features_SSF.shape == (24, 24, 48)
    assert len(torch.unique(features_SSF.flatten(0, 1), dim=0)) == 24 * 24
    assert (features_SSF.std((0, 1)) > 0).all()
