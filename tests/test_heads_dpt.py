"""The DPT head's layers for each depth, and the released files: every layout, every way in which they can be wrong."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from dpt_layouts import OUT, WIDTH, as_torch, flax_tree, tokens, write_zip

from benchmark.errors import WeightsError
from benchmark.heads.depth_bins import LinearDense
from benchmark.heads.dpt import DPT, Fusion, Residual, quarters
from benchmark.heads.dpt_weights import load_dpt


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (27, (6, 13, 20, 26)), (40, (9, 19, 29, 39)), (6, (1, 2, 4, 5)),
     (4, (0, 1, 2, 3))],
)  # fmt: skip
def test_the_four_blocks_of_each_depth(depth, blocks):
    assert quarters(depth) == blocks


@pytest.mark.parametrize("head", ["pixel_segmentation", "pixel_depth_classif", "pixel_normals"])
def test_heads_of_the_three_tasks_are_read(tmp_path, head):
    loaded = load_dpt(write_zip(tmp_path / "h.zip", flax_tree(head=head)), WIDTH, OUT)
    assert loaded(as_torch(tokens(2, 2))).shape == (2, OUT, 16, 16) and not loaded.training


def test_npz_and_the_authors_torch_layout_give_the_same_head(tmp_path):
    tree: dict[str, Any] = flax_tree()
    layers = as_torch(tokens(3, 2))
    expected = load_dpt(write_zip(tmp_path / "h.zip", tree), WIDTH, OUT)(layers)
    np.savez(tmp_path / "h.npz", **tree)
    assert torch.equal(load_dpt(tmp_path / "h.npz", WIDTH, OUT)(layers), expected)
    bare = {k.removeprefix("decoder/"): v for k, v in tree.items()}
    assert torch.equal(load_dpt(write_zip(tmp_path / "bare.zip", bare), WIDTH, OUT)(layers), expected)
    for prefix in ("dpt.", ""):
        theirs = {prefix + k if not k.startswith("head") else k: v for k, v in torch_layout(tree).items()}
        theirs["bin_centers"] = np.linspace(0.001, 10, 256)
        assert torch.equal(load_dpt(write_zip(tmp_path / "t.zip", theirs), WIDTH, OUT)(layers), expected)


def torch_layout(tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the authors' conversion script writes: torch's layout, transposed convolutions not turned."""
    out = {}
    for key, value in tree.items():
        parts = key.split("/")[1:]
        if parts[0] == "dpt":
            parts = parts[1:]
        leaf = {"kernel": "weight", "bias": "bias"}[parts.pop()]
        if parts[0] == "reassemble_blocks":
            name, _, number = parts[1].rpartition("_")
            plural = {"out_projection": "out_projections", "readout_projects": "readout_projects"}.get(name, name)
            new = f"reassemble.{plural}.{number}.{leaf}"
        elif parts[0].startswith("convs_"):
            new = f"convs.{parts[0][-1]}.{leaf}"
        elif parts[0].startswith("fusion"):
            block = parts[0][-1]
            if parts[1] == "Conv_0":
                new = f"fusion_blocks.{block}.out_conv.{leaf}"
            else:
                unit = "main_unit" if block == "0" or parts[1].endswith("1") else "residual_unit"
                new = f"fusion_blocks.{block}.{unit}.{parts[2]}.{leaf}"
        else:
            new = {"project": "project"}.get(parts[0], "head") + f".{leaf}"
        if value.ndim == 4:
            value = value.transpose(
                (2, 3, 0, 1) if "resize_layers_0" in key or "resize_layers_1" in key else (3, 2, 0, 1)
            )
        out[new] = value.T if value.ndim == 2 else value
    return out


def test_a_missing_array_is_named(tmp_path):
    tree = flax_tree()
    del tree["decoder/dpt/fusion_blocks_2/PreActResidualConvUnit_1/conv2/kernel"]
    path = write_zip(tmp_path / "h.zip", tree)
    with pytest.raises(WeightsError, match=r"h.zip: has no decoder/dpt/fusion_blocks_2/PreAct.*_1/conv2/kernel"):
        load_dpt(path, WIDTH, OUT)


def test_a_head_of_another_encoder_or_task_is_refused(tmp_path):
    path = write_zip(tmp_path / "h.zip", flax_tree())
    with pytest.raises(WeightsError, match=r"h.zip: decoder/dpt/.* an encoder of width 24 .*the same size and task"):
        load_dpt(path, 24, OUT)
    with pytest.raises(WeightsError, match=r"decoder/pixel_depth_classif/kernel is \[8, 5\].* need \[3, 8\]"):
        load_dpt(path, WIDTH, 3)


def test_a_key_that_belongs_nowhere_is_refused(tmp_path):
    path = write_zip(tmp_path / "h.zip", {**flax_tree(), "decoder/dpt/convs_4/kernel": np.zeros((3, 3, 2, 2))})
    with pytest.raises(WeightsError, match="decoder/dpt/convs_4/kernel belongs to no part"):
        load_dpt(path, WIDTH, OUT)


def test_files_that_are_no_heads_are_refused(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}]), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "pickle.zip", "w") as archive:
        archive.writestr("decoder/dpt/project/bias.npy", buffer.getvalue())
    for name, words in (
        ("text.zip", "cannot be read as a zip"),
        ("empty.zip", "holds no .npy file"),
        ("pickle.zip", "decoder/dpt/project/bias.npy: cannot be read"),
        ("absent.zip", "No such file"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_dpt(tmp_path / name, WIDTH, OUT)
    with pytest.raises(WeightsError, match="has no decoder/dpt/project/bias"):
        load_dpt(write_zip(tmp_path / "other.zip", {"decoder/other": np.zeros(3)}), WIDTH, OUT)


def test_every_parameter_of_a_head_learns():
    head = DPT(WIDTH, OUT, 8)
    torch.autograd.backward(head(as_torch(tokens(2, 3))).square().mean())
    assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())


def test_a_linear_head_commutes_with_up_sampling_and_sees_the_cls():
    cls, patches = torch.randn(2, 4), torch.randn(2, 4, 3, 5)
    torch.manual_seed(0)
    head = LinearDense(4, 3, 4, True, False)
    found = head([(cls, patches)])
    weight, bias = head.head.weight[:, :, 0, 0], head.head.bias
    assert bias is not None
    both = torch.cat([patches, cls[:, :, None, None].expand_as(patches)], 1)
    features = torch.nn.functional.interpolate(both, scale_factor=4, mode="bilinear")  # as DINOv2: features first
    expected = torch.einsum("oc,bchw->bohw", weight, features) + bias[:, None, None]
    assert found.shape == (2, 3, 12, 20) and torch.allclose(found, expected, atol=1e-5)


def test_a_readout_mixes_each_patch_with_the_cls_and_keeps_its_place():
    """Of 2 × 3 patches: a linear layer on both side by side, GELU by its tanh form, and another layer."""
    torch.manual_seed(0)
    head, cls, patches = DPT(8, 3, 4), torch.randn(2, 8), torch.randn(2, 8, 2, 3)
    mix, narrow = (dict(part[2].named_parameters()) for part in (head.readout, head.narrow))
    for b, i, j in ((0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 0)):
        inner = mix["weight"] @ torch.cat([patches[b, :, i, j], cls[b]]) + mix["bias"]
        gelu = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
        expected = narrow["weight"][:, :, 0, 0] @ gelu + narrow["bias"]
        torch.testing.assert_close(head.reassemble(2, cls, patches)[b, :, i, j], expected)
    shapes = [tuple(head.reassemble(i, cls, patches).shape) for i in range(4)]
    assert shapes == [(2, 1, 8, 12), (2, 2, 4, 6), (2, 4, 2, 3), (2, 8, 1, 2)]


def test_a_fusion_adds_the_skip_and_doubles_with_corners_aligned():
    """With units that add nothing and a layer that changes nothing."""
    fusion = Fusion(2, skip=True)
    for parameter in fusion.parameters():
        parameter.data.zero_()
    fusion.out.weight.data[:, :, 0, 0] = torch.eye(2)
    x, skip = torch.randn(1, 2, 2, 2), torch.randn(1, 2, 2, 2)
    raised, both = fusion(x, skip), x + skip
    assert raised.shape == (1, 2, 4, 4)
    torch.testing.assert_close(raised[..., [0, -1], :][..., [0, -1]], both)
    torch.testing.assert_close(raised[..., 0, 1], both[..., 0, 0] * 2 / 3 + both[..., 0, 1] / 3)
    torch.testing.assert_close(fusion(x)[..., 0, 0], x[..., 0, 0])
    flat = fusion(x, skip[..., :1, :])  # of an odd grid: one row where there are two
    torch.testing.assert_close(flat[..., [0, -1], :][..., [0, -1]], x + skip[..., :1, :])


def test_a_residual_unit_is_two_convolutions_after_relu_beside_what_it_is_given():
    torch.manual_seed(0)
    unit, x = Residual(3), torch.randn(1, 3, 4, 5)
    first, second = (getattr(unit, name).weight for name in ("first", "second"))
    inner = torch.nn.functional.conv2d(x.clamp(min=0), first, padding=1).clamp(min=0)
    torch.testing.assert_close(unit(x), x + torch.nn.functional.conv2d(inner, second, padding=1))
