"""The linear depth head as its authors write it: where its scores lie after up-sampling, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.heads.depth_bins import LinearDense, depth_of_scores


def layers(width: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(2, width, generator=draw), torch.randn(2, width, 4, 5, generator=draw)) for _ in "ab"]


def test_scores_lie_at_the_middles_of_their_pixels():
    """Two patches, 0 and 1, by four: pixel i lies at (i + 0.5) / 4 − 0.5 of the patches, and never outside of them."""
    head = LinearDense(1, 1, up=4, with_cls=False, batch_norm=False)
    raised = head.raised(torch.tensor([[[[0.0, 1.0]]]]))
    assert raised.shape == (1, 1, 4, 8)
    np.testing.assert_allclose(raised[0, 0, 0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-6)


@pytest.mark.parametrize("up", [1, 4])
@pytest.mark.parametrize("with_cls", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_head_is_a_linear_map_of_the_last_layers_raised_tokens(up: int, with_cls: bool, batch_norm: bool):
    torch.manual_seed(0)
    head = LinearDense(3, 7, up, with_cls, batch_norm).train()
    cls, patches = layers()[-1]
    tokens = torch.cat([patches, cls[:, :, None, None].expand(2, 3, 4, 5)], 1) if with_cls else patches
    raised = torch.nn.Upsample(scale_factor=up, mode="bilinear")(tokens)
    if batch_norm:
        mean, var = raised.mean((0, 2, 3), keepdim=True), raised.var((0, 2, 3), keepdim=True, correction=0)
        raised = (raised - mean) / torch.sqrt(var + 1e-5)
    weight, bias = (value.detach() for value in head.head.parameters())
    expected = torch.einsum("bchw,nc->bnhw", raised, weight[:, :, 0, 0]) + bias[:, None, None]
    torch.testing.assert_close(head(layers()), expected, atol=1e-5, rtol=1e-5)


def test_depth_is_the_mean_of_evenly_spaced_bins_by_scores_made_positive():
    scores = torch.tensor([-1.0, 0.4, 0.9]).view(1, 3, 1, 1)  # with the floor: 0.1, 0.5, 1.0; depths 1, 3, 5
    assert float(depth_of_scores(scores, 1, 5, 0.1)) == pytest.approx((0.1 * 1 + 0.5 * 3 + 1.0 * 5) / 1.6, rel=1e-6)
