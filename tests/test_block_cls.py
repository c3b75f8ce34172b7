"""The CLS beside the patches of a linear head is the last block's own, of the patches' width: not the pooled vector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import save_clip, save_siglip
from small import SmallEncoder
from training_context import ColourDepth, MemoryContext, Ramps, preset

from benchmark import load_encoder
from benchmark.contracts import ImageFeatures, ImageRequest, LayerFeatures
from benchmark.errors import EncoderError, NotApplicable
from tasks.depth import TASK
from tasks.mm.backbone import EncoderBackbone
from tasks.training.frozen import Frozen


class Projected(SmallEncoder):
    """Pools into a space of texts of `wide` values, as CLIP does; its blocks keep a CLS of seven everywhere."""

    wide = 4

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        found = super().encode_image(images, ImageRequest())
        layers = [LayerFeatures(torch.full_like(found.cls, 7), found.patches) for _ in request.layers]
        return ImageFeatures(found.cls[..., : self.wide], found.patches, tuple(layers))


class SameWidth(Projected):
    """Where the two spaces have one width, nothing but the values tells them apart."""

    wide = 6


def blockless(encoder: SmallEncoder) -> SmallEncoder:
    encoder.card = replace(encoder.card, depth=0)
    return encoder


@pytest.mark.parametrize("encoder", [Projected(), SameWidth()])
def test_linear_heads_read_the_last_blocks_cls(encoder):
    p = preset("depth", "paper")
    assert p.blocks(encoder.card) == (-1,) and replace(p, with_cls=False).blocks(encoder.card) == ()
    images = torch.rand(2, 3, 16, 24)
    ((cls, patches),) = Frozen(encoder, p.blocks(encoder.card), "cpu").layers(images)
    assert cls.shape == (2, 6) and (cls == 7).all() and patches.shape == (2, 6, 2, 3)
    (maps,) = EncoderBackbone(encoder, with_cls=True)(images)
    assert maps.shape == (2, 12, 2, 3) and (maps[:, 6:] == 7).all()
    torch.testing.assert_close(maps[:, :6], EncoderBackbone(encoder)(images)[0])


def test_an_encoder_that_forgets_the_layers_it_was_asked_for_is_named():
    encoder = SmallEncoder()
    encoder.encode_image = lambda images, request=None: SmallEncoder().encode_image(images)
    with pytest.raises(EncoderError, match="small: asked for 1 layer, 0 came"):
        EncoderBackbone(encoder, with_cls=True)(torch.rand(1, 3, 16, 16))
    with pytest.raises(EncoderError, match="small: asked for 1 layer, 0 came"):
        Frozen(encoder, (-1,), "cpu").layers(torch.rand(1, 3, 16, 16))


def test_clips_own_cls_is_not_the_vector_it_compares_with_texts_and_siglips_is(tmp_path):
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    save_clip(tmp_path / "clip", **shape)
    save_siglip(tmp_path / "siglip", **shape)
    images = torch.rand(2, 3, 64, 64)
    for name, pooled in (("clip", 512), ("siglip", 64)):
        encoder = load_encoder(f"hf:{tmp_path / name}", device="cpu")
        ((cls, patches),) = Frozen(encoder, preset("depth", "paper").blocks(encoder.card), "cpu").layers(images)
        plain = encoder.encode_image(images)
        assert cls.shape == (2, 64) and plain.cls.shape == (2, 1, pooled), name
        torch.testing.assert_close(patches.permute(0, 2, 3, 1), plain.patches)
        assert name == "clip" or torch.allclose(cls, plain.cls[:, 0], atol=1e-6)


def test_an_encoder_without_blocks_gives_its_pooled_vector_or_is_not_applicable(tmp_path):
    images = torch.rand(1, 3, 16, 16)
    (maps,) = EncoderBackbone(blockless(SameWidth()), with_cls=True)(images)
    torch.testing.assert_close(maps[:, 6:, 0, 0], blockless(SameWidth()).encode_image(images).cls[:, 0])
    with pytest.raises(NotApplicable, match="small has patches of 6 values.*pooled vector of 4.*with_cls=false"):
        EncoderBackbone(blockless(Projected()), with_cls=True)(images)
    data = {split: ColourDepth(Ramps(4, 1)) for split in ("train", "test")}

    def run(protocol: Any) -> Any:
        context: Any = MemoryContext(protocol, data, tmp_path, live=blockless(Projected()))
        return TASK.method(protocol).run(context)

    p = preset("depth", "dinov2", steps=2, batch_size=2, bins=8, border_crop="none", crop=())
    with pytest.raises(NotApplicable, match="no CLS to set beside the patches"):
        run(p)
    without = replace(p, with_cls=False)
    assert run(without).n == 4
