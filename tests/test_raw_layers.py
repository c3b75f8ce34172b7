"""Layers without the final norm: what each family hands over, and what a head that wants them is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tips_layouts as tips
import torch
from family_models import save_clip, save_dino, save_siglip
from small import SmallEncoder
from training_context import preset
from transformers import AutoModel

from adapters.tipsv2 import build
from benchmark import load_encoder
from benchmark.contracts import ImageRequest
from tasks.depth import TASK
from tasks.training.frozen import Frozen

SHAPE: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
BOTH = (0, -1)


def both_ways(encoder, images):
    """(normed, raw) layers of the blocks in BOTH; the final output is the same, however layers are asked for."""
    normed, raw = (encoder.encode_image(images, ImageRequest(BOTH, final_norm=norm)) for norm in (True, False))
    torch.testing.assert_close(raw.patches, normed.patches, rtol=0, atol=0)
    torch.testing.assert_close(raw.cls, normed.cls, rtol=0, atol=0)
    return normed.layers, raw.layers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("families")
    save_clip(base / "clip", intermediate_size=128, **SHAPE)
    save_siglip(base / "siglip", intermediate_size=128, **SHAPE)
    save_dino(base / "dinov2", "dinov2", **SHAPE)
    return base


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_the_final_norm_of_a_raw_layer_is_the_layer(folders, family):
    encoder = load_encoder(f"hf:{folders / family}", device="cpu")
    assert encoder.card.has_raw_layers
    for normed, raw in zip(*both_ways(encoder, torch.rand(2, 3, 64, 80))):
        assert not torch.allclose(normed.patches, raw.patches, atol=1e-3)
        torch.testing.assert_close(encoder.norm(raw.patches), normed.patches)
        if family != "siglip":  # its CLS is pooled by a head, from normed tokens
            torch.testing.assert_close(encoder.norm(raw.cls), normed.cls)


def test_raw_layers_of_dinov2_are_transformers_hidden_states(folders):
    encoder = load_encoder(f"hf:{folders / 'dinov2'}", device="cpu")
    images = torch.rand(2, 3, 64, 64)
    model = AutoModel.from_pretrained(folders / "dinov2").eval()
    with torch.no_grad():
        states = model(encoder.prepare(images), output_hidden_states=True).hidden_states
    _, raw = both_ways(encoder, images)
    for layer, state in zip(raw, (states[1], states[-1])):
        torch.testing.assert_close(layer.cls[:, 0], state[:, 0])
        torch.testing.assert_close(layer.patches.flatten(1, 2), state[:, 1:])


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_raw_layers_of_tips(tmp_path, backend):
    row = tips.arch_row("S")
    folder = tips.write_pair(tmp_path, row)
    encoder = build(tips.spec(folder, row, backend=backend))
    norm = build(tips.spec(folder, row, backend="torch")).model.vision_model.layernorm
    assert encoder.card.has_raw_layers
    for normed, raw in zip(*both_ways(encoder, torch.rand(1, 3, 112, 112))):
        for kind in ("cls", "patches"):
            before, after = getattr(raw, kind), getattr(normed, kind)
            torch.testing.assert_close(norm(before), after, rtol=1e-4, atol=1e-4)


def test_raw_layers_of_random_vit():
    encoder = load_encoder("random-vit", device="cpu")
    for normed, raw in zip(*both_ways(encoder, torch.rand(1, 3, 96, 96))):
        assert not torch.allclose(normed.patches, raw.patches, atol=1e-3)
        torch.testing.assert_close(torch.nn.functional.layer_norm(raw.patches, (128,)), normed.patches)


def test_dinov2s_depth_reads_the_last_block_as_it_is():
    protocol, encoder = preset("depth", "dinov2"), load_encoder("random-vit", device="cpu")
    assert not protocol.final_norm
    images = torch.rand(1, 3, 96, 96)
    for p in (protocol, replace(protocol, with_cls=False)):
        ((cls, patches),) = Frozen(encoder, p.blocks(encoder.card), "cpu", p.final_norm).layers(images)
        (raw,) = encoder.encode_image(images, ImageRequest((-1,), final_norm=False)).layers
        torch.testing.assert_close(cls, raw.cls[:, 0])
        torch.testing.assert_close(patches, raw.patches.permute(0, 3, 1, 2))


def test_an_encoder_without_raw_layers_is_told_what_to_set():
    card = SmallEncoder().card
    assert not card.has_raw_layers and TASK.refusal(card, preset("depth", "dinov3")) is None
    said = "small gives no layers without its final norm. Try --set final_norm=true"
    assert TASK.refusal(card, preset("depth", "dinov2")) == said
    assert TASK.refusal(replace(card, has_raw_layers=True), preset("depth", "dinov2")) is None
