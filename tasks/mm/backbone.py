"""Any densebench encoder as a frozen mmsegmentation backbone.

In a config, once this module is imported: `backbone=dict(type='densebench.Encoder', encoder='dinov2-b')`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmark.contracts import Encoder, ImageRequest, LayerFeatures, ModelSpec
from benchmark.errors import EncoderError
from benchmark.features.encode import encode_halving
from benchmark.registry import build_encoder
from benchmark.system.plurals import number_of
from tasks.block_cls import beside, last_block
from tasks.mm.library import MODELS, Registry

BACKBONES = Registry("model", parent=MODELS, scope="densebench")


@BACKBONES.register_module(name="Encoder")
class EncoderBackbone(nn.Module):
    """[B, 3, H, W] from a SegDataPreProcessor -> one [B, D, h, w] map per layer ([B, 2D, h, w] with that layer's CLS).

    `mean` and `std` (0–255, RGB) are the preprocessor's, and are undone: `encode_image` takes [0, 1] and normalises by
    itself. Pictures are padded at the centre to whole patches with the encoder's mean colour, which its normalisation
    turns into zeros; as in DINOv2, the maps are those of the padded picture. Nothing in it is trained or saved.
    """

    mean: torch.Tensor
    std: torch.Tensor
    pad: torch.Tensor

    def __init__(
        self,
        encoder: Encoder | str,
        layers: Sequence[int] = (-1,),
        with_cls: bool = False,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        **spec: Any,
    ) -> None:
        super().__init__()
        found = build_encoder(ModelSpec(encoder, **spec)) if isinstance(encoder, str) else encoder
        self._held = (found,)  # in a tuple, so that an encoder that is a Module is no child of this one
        self.layers, self.with_cls = tuple(layers), with_cls
        per_channel = {"mean": mean, "std": std, "pad": found.transform.mean}
        for name, values in per_channel.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)

    @property
    def encoder(self) -> Encoder:
        return self._held[0]

    @property
    def channels(self) -> list[int]:
        """Width of each map."""
        return [self.encoder.card.embed_dim * (2 if self.with_cls else 1)] * len(self.layers)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = self._padded((inputs * self.std + self.mean) / 255)
        last = last_block(self.encoder.card, self.with_cls)
        request = ImageRequest(last if self.layers == (-1,) else self.layers)
        out = encode_halving(self.encoder, images, request, images.device)
        found = out.layers if request.layers else (LayerFeatures(out.cls, out.patches),)
        if len(found) != len(self.layers):
            name = self.encoder.card.name
            raise EncoderError(
                f"{name}: asked for {number_of(len(self.layers), 'layer')}, {len(found)} came. Try bench check"
            )
        # clones: what inference mode made cannot be saved for a backward pass
        return tuple(self._map(layer).clone() for layer in found)

    def _padded(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, H', W'] with whole patches, the smaller half of the border at the top and left."""
        height, width = images.shape[-2:]
        patch = self.encoder.card.patch_size
        rows, columns = -height % patch, -width % patch
        if not rows and not columns:
            return images
        canvas = self.pad.expand(len(images), 3, height + rows, width + columns).clone()
        canvas[..., rows // 2 : rows // 2 + height, columns // 2 : columns // 2 + width] = images
        return canvas

    def _map(self, layer: LayerFeatures) -> torch.Tensor:
        patches = layer.patches.to(self.pad.device, torch.float32).permute(0, 3, 1, 2)  # [B, D, h, w]
        if self.with_cls:
            patches = beside(patches, layer.cls[:, 0].to(patches), self.encoder.card.name)
        if not bool(torch.isfinite(patches).all()):
            raise EncoderError(f"{self.encoder.card.name}: patch tokens hold NaN or infinite values")
        return patches
