"""The DPT head and its bins, step by step in numpy; convolutions and layouts of the released files against JAX."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from dpt_layouts import CHANNELS, OUT, WIDTH, Tree, as_torch, flax_tree, tokens, write_zip

from benchmark.heads.depth_bins import depth_of_scores
from benchmark.heads.dpt import DPT
from benchmark.heads.dpt_weights import load_dpt

# ------------------------------------------------------------------- the reference: numpy, and JAX for convolutions


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | float = 0.0, stride: int = 1) -> np.ndarray:
    """[B, H, W, C] through a [k, k, in, out] kernel, padded by k // 2."""
    pad = kernel.shape[0] // 2
    out = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (stride, stride),
        [(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",  # a GPU's default would round to 10 bits
    )
    return np.asarray(out) + bias


def transposed(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """flax.linen.ConvTranspose: jax.lax.conv_transpose with padding SAME, kernel [k, k, in, out]."""
    out = jax.lax.conv_transpose(
        jnp.asarray(x), jnp.asarray(kernel), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )  # fmt: skip
    return np.asarray(out) + bias


def line(old: int, new: int, corners: bool) -> np.ndarray:
    """[new, old]: the weights of linear interpolation along one axis."""
    weights = np.zeros((new, old))
    for i in range(new):
        at = i * (old - 1) / (new - 1) if corners else min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = min(int(at), old - 1)
        high = min(low + 1, old - 1)
        weights[i, low] += 1 - (at - low)
        weights[i, high] += at - low
    return weights


def bilinear(x: np.ndarray, height: int, width: int, corners: bool) -> np.ndarray:
    return np.einsum("hi,wj,bijc->bhwc", line(x.shape[1], height, corners), line(x.shape[2], width, corners), x)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def readout(tree: Tree, i: int, cls: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """[B, h, w, D]: each patch beside the CLS, a linear layer, GELU."""
    both = np.concatenate([patches, np.broadcast_to(cls[:, None, None], patches.shape)], -1)
    name = f"decoder/dpt/reassemble_blocks/readout_projects_{i}"
    return gelu_tanh(both @ tree[f"{name}/kernel"] + tree[f"{name}/bias"])


def reassembled(tree: Tree, i: int, cls: np.ndarray, patches: np.ndarray) -> np.ndarray:
    base = "decoder/dpt/reassemble_blocks/"
    narrow = f"{base}out_projection_{i}"
    x = conv(readout(tree, i, cls, patches), tree[f"{narrow}/kernel"], tree[f"{narrow}/bias"])
    if i == 2:
        return x
    kernel, bias = tree[f"{base}resize_layers_{i}/kernel"], tree[f"{base}resize_layers_{i}/bias"]
    return conv(x, kernel, bias, 2) if i == 3 else transposed(x, kernel, bias, (4, 2)[i])


def reference(tree: Tree, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """[B, 8h', 8w', out]."""
    maps = [
        conv(reassembled(tree, i, cls, patches), tree[f"decoder/dpt/convs_{i}/kernel"])
        for i, (cls, patches) in enumerate(layers)
    ]

    def unit(block: int, number: int, x: np.ndarray) -> np.ndarray:
        name = f"decoder/dpt/fusion_blocks_{block}/PreActResidualConvUnit_{number}"
        y = conv(np.maximum(x, 0), tree[f"{name}/conv1/kernel"])
        return x + conv(np.maximum(y, 0), tree[f"{name}/conv2/kernel"])

    x = unit(0, 0, maps[3])
    for block in range(4):
        if block:
            skip = maps[3 - block]
            if skip.shape != x.shape:
                skip = bilinear(skip, x.shape[1], x.shape[2], False)
            x = unit(block, 1, x + unit(block, 0, skip))
        x = bilinear(x, 2 * x.shape[1], 2 * x.shape[2], True)
        name = f"decoder/dpt/fusion_blocks_{block}/Conv_0"
        x = conv(x, tree[f"{name}/kernel"], tree[f"{name}/bias"])
    x = conv(x, tree["decoder/dpt/project/kernel"], tree["decoder/dpt/project/bias"])
    head = next(k for k in tree if k.startswith("decoder/pixel") and k.endswith("kernel")).removesuffix("kernel")
    return x @ tree[f"{head}kernel"] + tree[f"{head}bias"]


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    """found [B, C, H, W] beside expected [B, H, W, C]."""
    assert found.permute(0, 2, 3, 1).detach().numpy() == pytest.approx(expected, rel=1e-4, abs=2e-5)


def test_readout_and_each_scale_equal_the_step_by_step_computation(tmp_path):
    tree, layers = flax_tree(), tokens(3, 4)
    head = load_dpt(write_zip(tmp_path / "head.zip", tree), WIDTH, OUT)
    sizes = [(12, 16), (6, 8), (3, 4), (2, 2)]
    for i, (cls, patches) in enumerate(as_torch(layers)):
        found = head.reassemble(i, cls, patches)
        assert found.shape == (2, WIDTH >> (3 - i), *sizes[i])
        close(found, reassembled(tree, i, *layers[i]))


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)], ids=["even", "odd", "one patch"])
def test_the_whole_head_equals_the_step_by_step_computation(tmp_path, size):
    tree, layers = flax_tree(), tokens(*size)
    head = load_dpt(write_zip(tmp_path / "head.zip", tree), WIDTH, OUT)
    found = head(as_torch(layers))
    assert found.shape == (2, OUT, *(8 * (n + n % 2) for n in size))
    close(found, reference(tree, layers))


def test_bins_equal_the_step_by_step_computation():
    scores = np.random.default_rng(0).normal(size=(2, 256, 3, 4)).astype(np.float32)
    for low, high, floor in ((0.001, 10.0, 0.1), (0.001, 10.0, 0.001), (0.001, 1.0, 0.1)):
        share = np.maximum(scores.astype(float), 0) + floor
        share /= share.sum(1, keepdims=True)
        centres = low + (high - low) * np.arange(256) / 255
        expected = (share * centres[:, None, None]).sum(1)
        found = depth_of_scores(torch.from_numpy(scores), low, high, floor)
        assert found.shape == (2, 1, 3, 4)
        assert found[:, 0].numpy() == pytest.approx(expected, rel=1e-5)


def test_an_even_spread_gives_the_middle_and_a_single_bin_its_depth():
    assert float(depth_of_scores(torch.zeros(1, 256, 1, 1), 0.001, 10.0, 0.1)) == pytest.approx(5.0005, rel=1e-5)
    one = torch.full((1, 256, 1, 1), -1.0)
    one[0, 255] = 1e9
    assert float(depth_of_scores(one, 0.001, 10.0, 0.1)) == pytest.approx(10.0, rel=1e-5)


def test_a_fresh_head_has_the_shapes_of_the_released_ones():
    """Key for key: 8·4 + … arrays, and 256 channels by default."""
    head = DPT(WIDTH, OUT, CHANNELS)
    assert sum(p.numel() for p in head.parameters()) == sum(v.size for v in flax_tree().values())
    assert DPT(768, 256).project.weight.shape == (256, 256, 3, 3)
