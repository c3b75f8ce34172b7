"""open_clip's towers of timm and its own, tiny and random: patches, image vector, texts and patches in text space are
what the library's own modules give, at the size they were made for and at another.

Run where the extras are installed beside a torchvision that fits the installed torch; skipped elsewhere.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from deviations import held
from safetensors.torch import save_file

from adapters import open_clip_models
from adapters.positions import rules
from benchmark.contracts import ImageRequest, ModelSpec

SMALL: dict[str, Any] = {"img_size": 64, "depth": 2, "num_heads": 4, "embed_dim": 64}
TOWERS: dict[str, tuple[Any, dict[str, Any], str, Any]] = {
    # name: (what timm makes it of, what is made small, pool, projection)
    "pe": ("vit_pe_core_tiny_patch16_384", {**SMALL, "ref_feat_shape": (4, 4)}, "map", None),
    "pe-g": ("vit_pe_core_tiny_patch16_384", {**SMALL, "ref_feat_shape": (4, 4), "class_token": False}, "map", None),
    "map": ("vit_base_patch16_siglip_224", SMALL, "map", "none"),
    "eva02": ("eva02_base_patch16_clip_224", SMALL, "token", None),
    "eva02-e": ("eva02_enormous_patch14_clip_224", {**SMALL, "patch_size": 16, "mlp_ratio": 2.0}, "token", None),
    "eva01": ("eva_giant_patch14_224", {**SMALL, "patch_size": 16, "mlp_ratio": 2.0}, "token", None),
    "mobileclip-s": ("fastvit_mci0", {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 64)}, "avg", None),
    "mobileclip-l": ("vit_large_patch14_clip_224", {**SMALL, "patch_size": 16}, "token", None),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)}, "", "linear"),
    "own": (None, {}, "", None),
}  # fmt: skip
TEXTS = ["a photo of a cat", "Two dogs, in the snow!"]


@pytest.fixture(scope="module")
def libraries() -> tuple[Any, Any]:
    try:
        return pytest.importorskip("open_clip"), pytest.importorskip("timm")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"open_clip does not import: {error}")


@pytest.fixture(scope="module", params=list(TOWERS))
def made(request: Any, libraries: Any, tmp_path_factory: Any) -> tuple[str, Any, Any]:
    """A tower's name, its encoder, and what makes the library's own model of the same weights for a size."""
    (open_clip, timm), name = libraries, request.param
    base, shape, pool, projection = TOWERS[name]
    vision: dict[str, Any] = {"image_size": 64, "patch_size": 16, "layers": 2, "width": 64, "head_width": 16}
    if base:

        def tiny(pretrained: bool = False, **more: Any) -> Any:
            return timm.create_model(base, **{**shape, **more})

        tiny.__name__ = f"tiny_{name.replace('-', '_')}"
        timm.models.register_model(tiny)
        vision = {"image_size": 64, "timm_model_name": tiny.__name__, "timm_pool": pool, "timm_proj": projection}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}
    folder, arch = tmp_path_factory.mktemp(name), f"Tiny-{name}"
    width = 64 if projection != "linear" else 48
    config = {"embed_dim": width, "vision_cfg": vision, "text_cfg": text, "custom_text": bool(base)}
    (folder / f"{arch}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(arch)
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.abs().max() < 2:  # zeros and ones, as they start, would hide a mistake
            parameter.data += 0.1 * torch.randn_like(parameter)
    path = folder / "model.safetensors"
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)

    def at(size: tuple[int, int]) -> Any:
        return open_clip.create_model(arch, pretrained=str(path), force_image_size=size).eval()

    at.path, at.arch = path, arch
    spec = ModelSpec(f"open_clip:{arch}", target=arch, weights=str(path), device="cpu", dtype="float32")
    return name, open_clip_models.build(spec), at


def tokens_of(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The library's last map or patches [B, N, D]."""
    visual = model.visual
    if not hasattr(visual, "trunk"):
        found = model.forward_intermediates(image=pixels, image_indices=1, normalize_intermediates=True)
        return found["image_intermediates"][-1].flatten(2).transpose(1, 2)
    found = visual.trunk.forward_features(pixels)
    return found.flatten(2).transpose(1, 2) if found.ndim == 4 else found[:, visual.trunk.num_prefix_tokens :]


def alone(name: str, visual: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[B, N, E]: the reading of each patch by itself, written out."""
    trunk = getattr(visual, "trunk", None)
    if name in ("pe", "pe-g", "map"):
        pool, half = trunk.attn_pool, tokens.shape[-1]
        value = pool.proj(F.linear(tokens, pool.kv.weight[half:], pool.kv.bias[half:]))
        return visual.head(trunk.head(trunk.fc_norm(value + pool.mlp(pool.norm(value)))))
    if name == "mobileclip-s":
        return F.linear(tokens, trunk.head.fc.weight, trunk.head.fc.bias)
    if name == "convnext":
        normed = F.layer_norm(tokens, tokens.shape[-1:], trunk.head.norm.weight, trunk.head.norm.bias, 1e-6)
        return visual.head.proj(normed)
    before: list[torch.Tensor] = []
    block = (visual.transformer.resblocks if trunk is None else trunk.blocks)[-1]
    hook = block.register_forward_pre_hook(lambda _m, inputs: before.append(inputs[0]))
    visual(pixels)
    hook.remove()
    count = before[0].shape[1]
    mask = torch.full((count, count), -torch.inf).fill_diagonal_(0)  # every token sees itself alone
    if trunk is None:
        mixed = block.attention(block.ln_1(before[0]), attn_mask=mask)
        return visual.ln_post(mixed[:, 1:]) @ visual.proj
    rope = {"rope": trunk.rope.get_embed()} if getattr(trunk, "rope", None) is not None else {}
    if name == "eva02-e":
        mixed = block.norm1(block.attn(before[0], attn_mask=mask, **rope))
    else:
        mixed = block.attn(block.norm1(before[0]), attn_mask=mask, **rope)
    return visual.head(trunk.head(trunk.norm(mixed[:, 1:])))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (61, 75)], ids=["native", "wide", "odd"])
def test_towers_are_the_librarys(made: Any, size: tuple[int, int]) -> None:
    name, encoder, at = made
    patch = encoder.card.patch_size
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    more = [-side % patch for side in size]
    pixels = (images - encoder.mean) / encoder.std
    pixels = F.pad(pixels, (more[1] // 2, more[1] - more[1] // 2, more[0] // 2, more[0] - more[0] // 2))
    model = at(tuple(pixels.shape[-2:]))
    encoder.encode_image(torch.rand(1, 3, 96, 64))  # another size before leaves no trace
    found = encoder.encode_image(images, ImageRequest(text_patches=True))
    with torch.inference_mode():
        tokens = tokens_of(model, pixels)
        expected = alone(name, model.visual, pixels, tokens)
        pooled = model.encode_image(pixels)
    assert found.patches.shape[1:3] == tuple(side // patch for side in pixels.shape[-2:])
    held(found.patches.flatten(1, 2), tokens, 1e-5)
    held(found.cls[:, 0], pooled, 1e-5)
    held(found.text_patches.flatten(1, 2), expected, 1e-5)
    whose = {"mobileclip-s": {}, "convnext": {}, "own": {"positions": "open_clip"}}.get(name, {"positions": "timm"})
    assert encoder.card.has_text_patches and dict(encoder.card.options) == whose


def test_a_row_whose_authors_rule_is_known_takes_it(made: Any) -> None:
    name, _, at = made
    if name not in ("pe", "pe-g", "eva02"):
        return
    row = {"family": name[:3].rstrip("-0")}
    encoder = open_clip_models.build(ModelSpec("x", row, target=at.arch, weights=str(at.path), device="cpu"))
    assert dict(encoder.card.options) == {"positions": "authors"}
    images = torch.rand(1, 3, 64, 96)
    model = at((64, 96))
    trunk, rule = model.visual.trunk, rules()[row["family"]]
    own = at((64, 64)).visual.trunk.pos_embed
    trunk.pos_embed.data = rule.resample(own, (4, 6), trunk.num_prefix_tokens)
    if row["family"] == "pe":
        trunk.rope.ref_feat_shape = None
        trunk.rope.feat_shape = (0, 0)  # so that it is not kept
        trunk.rope.update_feat_shape((4, 6))
    encoder.encode_image(torch.rand(1, 3, 96, 64))
    with torch.inference_mode():
        pixels = (images - encoder.mean) / encoder.std
        held(encoder.encode_image(images).patches.flatten(1, 2), tokens_of(model, pixels), 1e-5)


def test_texts_are_the_librarys(made: Any) -> None:
    _, encoder, at = made
    with torch.inference_mode():
        expected = at((64, 64)).encode_text(encoder.tokenize(TEXTS), normalize=True)
    held(encoder.encode_text(TEXTS), expected, 1e-5)


def test_the_mean_of_a_fastvits_patches_in_text_space_is_its_image_vector(made: Any) -> None:
    name, encoder, _ = made
    if name != "mobileclip-s":
        return
    found = encoder.encode_image(torch.rand(1, 3, 64, 96), ImageRequest(text_patches=True))
    held(found.text_patches.mean(dim=(1, 2)), found.cls[:, 0], 1e-5)
