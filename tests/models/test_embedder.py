"""The looked-up embedding is the network's answer to each stabiliser's own bits."""

import torch

from syndistill.models.blocks import StabiliserEmbedder, look_up


def test_lookup_is_direct_evaluation():
    torch.manual_seed(0)
    embedder = StabiliserEmbedder(8, 6)
    events_BRS = torch.randint(0, 2, (5, 3, 8), dtype=torch.uint8)
    parity_BRS = torch.randint(0, 2, (5, 3, 8), dtype=torch.uint8)
    defined_S = torch.arange(8) % 3 != 0
    looked_up = look_up(embedder.table_SVD(), events_BRS, parity_BRS, defined_S)
    bits = events_BRS[..., None] * embedder.event_D + parity_BRS[..., None] * embedder.measurement_D
    inputs = torch.where(defined_S[:, None], bits, embedder.undefined_D)
    direct = embedder.network(embedder.index_SD + inputs)
    torch.testing.assert_close(looked_up, direct)
    grads = [
        torch.autograd.grad(x.square().sum(), list(embedder.parameters())) for x in (looked_up, direct)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
