"""timm and open_clip themselves, random weights: what the adapters hand over is what the libraries' modules compute.

Run where the extras are installed beside a torchvision that fits the installed torch; skipped elsewhere.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from deviations import held
from PIL import Image
from safetensors.torch import save_file

from adapters import open_clip_models, open_clip_values, timm_models
from adapters.patches import center_pad
from adapters.positions import rules
from adapters.processors import TORCHVISION_ONLY, from_processor
from benchmark.check import check_encoder
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.images.decode import apply_transform, center_crop

ALL = {
    # what timm calls it: (depth, tokens before the patches, own CLS)
    "vit_tiny_patch16_224": (12, 1, True),
    "vit_small_patch14_reg4_dinov2": (12, 5, True),
    "vit_small_patch16_dinov3": (12, 5, True),
    "deit_tiny_distilled_patch16_224": (12, 2, True),
    "vit_medium_patch16_reg4_gap_256": (12, 4, False),
    "eva02_tiny_patch14_224": (12, 1, True),
    "beit_base_patch16_224": (12, 1, True),
    "vit_base_patch16_siglip_224": (12, 0, False),
    "swin_tiny_patch4_window7_224": (0, 0, False),
    "convnext_atto": (0, 0, False),
    "hiera_tiny_224": (0, 0, False),
    "naflexvit_base_patch16_gap": (12, 4, False),
}


@pytest.fixture(scope="module")
def timm():
    try:
        return pytest.importorskip("timm")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"timm does not import: {error}")


@pytest.fixture(scope="module")
def open_clip():
    try:
        return pytest.importorskip("open_clip")
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"open_clip does not import: {error}")


def timm_encoder(timm, name, folder):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return timm_models.build(ModelSpec(f"timm:{name}", target=name, weights=str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize("name", list(ALL))
def test_layers_of_timm(timm, name, tmp_path):
    depth, prefix, own = ALL[name]
    encoder = timm_encoder(timm, name, tmp_path)
    card, model = encoder.card, encoder.model
    assert (card.depth, encoder.prefix, card.has_raw_layers) == (depth, prefix, depth > 0)
    images = torch.rand(2, 3, card.image_size, card.image_size)
    plain = encoder.encode_image(images)
    with torch.no_grad():
        pixels = (images - encoder.mean) / encoder.std
        hidden, pooled = model.forward_features(pixels), model(pixels)
    if hidden.ndim == 3 and not name.startswith("hiera"):  # its patches are in the order of mask units
        held(plain.patches.flatten(1, 2), hidden[:, prefix:], 1e-5)
    if pooled.shape[-1] == card.embed_dim:
        held(plain.cls[:, 0], pooled, 1e-5)
    if not depth:
        return
    blocks = []
    hooks = [model.blocks[i].register_forward_hook(lambda _m, _i, out: blocks.append(out)) for i in (2, depth - 1)]
    found = encoder.encode_image(images, ImageRequest((-1, 2)))
    raw = encoder.encode_image(images, ImageRequest((-1, 2), final_norm=False))
    for hook in hooks:
        hook.remove()
    for features in (found, raw):
        torch.testing.assert_close(features.patches, plain.patches)
        torch.testing.assert_close(features.cls, plain.cls)
    torch.testing.assert_close(found.layers[0].patches, plain.patches)
    for (normed, bare), tokens in zip(zip(found.layers, raw.layers), (blocks[1], blocks[0])):
        torch.testing.assert_close(bare.patches.flatten(1, 2), tokens[:, prefix:])
        torch.testing.assert_close(normed.patches.flatten(1, 2), model.norm(tokens)[:, prefix:])
        expected = tokens[:, 0] if own else tokens[:, prefix:].mean(1)
        torch.testing.assert_close(bare.cls[:, 0], expected)


SMALL: dict[str, Any] = {"img_size": 64, "depth": 2, "num_heads": 4, "embed_dim": 64}
FAMILIES: dict[
    str, tuple[str, dict[str, Any]]
] = {  # family of models.toml: (what timm makes it of, what is made small beside SMALL)
    "dino": ("vit_small_patch16_224", {}),
    "ibot": ("vit_small_patch16_224", {}),
    "mae": ("vit_base_patch16_224", {}),
    "eva": ("eva02_base_patch14_224", {"patch_size": 16, "ref_feat_shape": (4, 4)}),
    "tipsv2": ("vit_base_patch14_reg1_tipsv2", {"patch_size": 16}),
    "aimv2": ("aimv2_large_patch14_224", {"patch_size": 16}),  # no rule of its authors'
}


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (61, 75)], ids=["native", "wide", "odd"])
def test_a_familys_tower_of_any_size_is_timms_with_its_authors_positions(timm, size, family, tmp_path):
    base, more = FAMILIES[family]

    def tiny(pretrained=False, **asked):
        asked = {key: asked[key] for key in ("num_classes", "dynamic_img_size", "img_size") if key in asked}
        return timm.create_model(base, pretrained_cfg_overlay={"input_size": (3, 64, 64)}, **{**SMALL, **more, **asked})

    tiny.__name__ = f"tiny_{family}_{size[0]}x{size[1]}"
    timm.models.register_model(tiny)
    torch.manual_seed(0)
    own = {k: v + 0.1 * torch.randn_like(v) for k, v in tiny(num_classes=0).state_dict().items()}
    save_file(own, tmp_path / "model.safetensors")
    spec = ModelSpec(
        "x", {"family": family}, target=tiny.__name__, weights=str(tmp_path), device="cpu", dtype="float32"
    )
    encoder, rule = timm_models.build(spec), rules().get(family)
    assert dict(encoder.card.options) == {"positions": "authors" if rule else "timm"}
    images = torch.rand(1, 3, *size)
    pixels = center_pad((images - encoder.mean) / encoder.std, 16)
    grid = tuple(side // 16 for side in pixels.shape[-2:])
    model = tiny(num_classes=0, img_size=tuple(pixels.shape[-2:])).eval()
    table, prefix = own["pos_embed"], own["pos_embed"].shape[1] - 16
    if rule:
        table = rule.resample(table, grid, prefix)
    else:
        table = timm.layers.resample_abs_pos_embed(table, grid, (4, 4), num_prefix_tokens=prefix)
    model.load_state_dict({**own, "pos_embed": table})
    found = encoder.encode_image(images)
    with torch.inference_mode():
        tokens = model.forward_features(pixels)
        held(found.patches.flatten(1, 2), tokens[:, encoder.prefix :], 1e-5)
        held(found.cls[:, 0], model.forward_head(tokens, pre_logits=True), 1e-5)


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("pct", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(300, 400), (427, 640), (640, 427), (61, 43)])
def test_pixels_of_timm(timm, mode, pct, shape):
    data = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4),
            "crop_pct": pct, "crop_mode": mode}  # fmt: skip
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = timm.data.create_transform(**data)(Image.fromarray(noise))
    transform = timm_models.published(data, "timm:x")
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    torch.testing.assert_close((torch.from_numpy(apply_transform(noise, transform)) - mean) / std, expected)


@pytest.mark.parametrize("shape", [(300, 400), (427, 640), (640, 427), (61, 43)])
def test_pixels_of_open_clip(open_clip, tmp_path, shape):
    encoder = open_clip_encoder(open_clip, "ViT-B-32", tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    mean, std = encoder.transform.mean, encoder.transform.std
    expected = open_clip.image_transform(224, is_train=False, mean=mean, std=std)(Image.fromarray(noise))
    ours = torch.from_numpy(apply_transform(noise, encoder.transform))
    torch.testing.assert_close((ours - encoder.mean[0]) / encoder.std[0], expected)


@pytest.mark.parametrize("shape", [(300, 400), (427, 640), (640, 427)])
@pytest.mark.parametrize("kind", list(TORCHVISION_ONLY))
def test_processors_that_transformers_has_for_torchvision_alone(kind, shape):
    pytest.importorskip("torchvision")
    processor = getattr(transformers, kind)()
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    theirs = processor(Image.fromarray(noise), return_tensors="np")["pixel_values"][0]
    for config in ({"image_processor_type": f"{kind}Fast"}, {**processor.to_dict(), "image_processor_type": kind}):
        transform = from_processor(config, 96, "hf:x")
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
        ours = (apply_transform(noise, transform) - mean) / std
        assert ours.shape == theirs.shape
        assert (np.abs(ours - theirs) * std).max() <= 1.01 / 255


def test_middles_of_torchvision():
    functional = pytest.importorskip("torchvision.transforms.functional")
    for shape, size in itertools.product([(31, 29), (28, 50), (5, 64), (20, 21)], [24, 25, 30]):
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        expected = np.asarray(functional.center_crop(Image.fromarray(noise), [size, size]))
        np.testing.assert_array_equal(center_crop(noise, size, size, "even"), expected)


def open_clip_encoder(open_clip, arch, folder):
    torch.manual_seed(0)
    model = open_clip.create_model(arch)
    path = folder / "model.safetensors"
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)
    tag = open_clip.list_pretrained_tags_by_model(arch)[-1]
    spec = ModelSpec(
        f"open_clip:{arch}/{tag}", target=f"{arch}/{tag}", weights=str(path), device="cpu", dtype="float32"
    )
    return open_clip_models.build(spec)


def test_a_caption_of_open_clip_is_cut_past_75_words_beside_both_ends(open_clip, tmp_path):
    encoder = open_clip_encoder(open_clip, "ViT-B-32", tmp_path)
    lengths = (1, 74, 75, 76, 90)
    texts = [" ".join("a" * n) for n in lengths]
    assert encoder.is_cut(texts) == [n > 75 for n in lengths]
    assert encoder.is_cut(texts[::-1]) == [n > 75 for n in lengths[::-1]]
    cut, same = encoder.encode_text([texts[-1] + " b", texts[-1] + " c"])
    assert torch.equal(cut, same)


def test_layers_of_open_clip(open_clip, tmp_path):
    encoder = open_clip_encoder(open_clip, "ViT-B-32", tmp_path)
    visual = encoder.model.visual
    assert (encoder.card.depth, encoder.card.has_raw_layers, encoder.card.embed_dim) == (12, True, 768)
    images = torch.rand(2, 3, 224, 224)
    blocks = []
    hooks = [visual.transformer.resblocks[i].register_forward_hook(lambda _m, _i, o: blocks.append(o)) for i in (3, 11)]
    plain = encoder.encode_image(images)
    del blocks[:]
    found = encoder.encode_image(images, ImageRequest((-1, 3)))
    raw = encoder.encode_image(images, ImageRequest((-1, 3), final_norm=False))
    for hook in hooks:
        hook.remove()
    pixels = (images - encoder.mean) / encoder.std
    with torch.no_grad():
        torch.testing.assert_close(plain.cls[:, 0], encoder.model.encode_image(pixels))
    for features in (found, raw):
        torch.testing.assert_close(features.patches, plain.patches)
        torch.testing.assert_close(features.cls, plain.cls)
    torch.testing.assert_close(found.layers[0].patches, plain.patches)
    for (normed, bare), tokens in zip(zip(found.layers, raw.layers), (blocks[1], blocks[0])):
        torch.testing.assert_close(bare.patches.flatten(1, 2), tokens[:, 1:])
        torch.testing.assert_close(bare.cls[:, 0], tokens[:, 0])
        with torch.no_grad():
            torch.testing.assert_close(normed.patches.flatten(1, 2), visual.ln_post(tokens)[:, 1:])


def test_values_of_open_clip_are_the_last_block_with_every_token_seeing_itself_alone(open_clip, tmp_path):
    encoder = open_clip_encoder(open_clip, "ViT-B-32-quickgelu", tmp_path)
    visual, before = encoder.model.visual, []
    images = torch.rand(2, 3, 224, 224)
    hook = visual.transformer.resblocks[10].register_forward_hook(lambda _m, _i, out: before.append(out))
    found = encoder.encode_image(images, ImageRequest(text_patches=True))
    hook.remove()
    assert encoder.card.has_text_patches and found.text_patches.shape == (2, 7, 7, 512)
    alone = torch.full((50, 50), -torch.inf).fill_diagonal_(0)
    with torch.no_grad():
        block = visual.transformer.resblocks[11]
        mixed = block.attention(block.ln_1(before[0]), attn_mask=alone)
        expected = visual.ln_post(mixed[:, 1:]) @ visual.proj
    torch.testing.assert_close(found.text_patches.flatten(1, 2), expected)
    plain = encoder.encode_image(images)
    assert plain.text_patches is None
    torch.testing.assert_close(plain.cls, found.cls)


@pytest.mark.parametrize("arch", ["coca_ViT-B-32", "RN50"])
def test_towers_of_open_clip_that_pool_by_queries_of_patches_have_no_text_patches(open_clip, arch):
    assert open_clip_values.text_space(open_clip.create_model(arch).visual) is None


def test_a_pyramid_of_open_clip_offers_no_layers(open_clip, tmp_path):
    encoder = open_clip_encoder(open_clip, "convnext_base", tmp_path)
    assert (encoder.card.depth, encoder.card.has_raw_layers) == (0, False)


def test_they_pass_bench_check(timm, tmp_path):
    report = check_encoder(timm_encoder(timm, "vit_tiny_patch16_224", tmp_path))
    assert [f for f in report.findings if not f.ok] == []
