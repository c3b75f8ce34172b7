"""Mean colours of 8-pixel patches, centred: enough to find a spot again."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d

from benchmark import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, WeightsInfo
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError
from benchmark.system.digest import fingerprint


class Colours:
    """Patch tokens [B, h, w, 3], and their mean as CLS."""

    device = "cpu"

    def __init__(self) -> None:
        self.transform = ImageTransform("square", 64)
        self.card = EncoderCard(
            name="toy-colours", family="toy", backend="torch", embed_dim=3, patch_size=8, image_size=64, depth=0,
            num_cls=1, has_text=False, licence="Apache-2.0", weights=WeightsInfo("none", fingerprint("toy colours 1")),
        )  # fmt: skip

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        patches = avg_pool2d(images, 8).permute(0, 2, 3, 1) - 0.5
        return ImageFeatures(patches.mean((1, 2))[:, None], patches)


def build(spec: ModelSpec) -> Colours:
    """Called for `--model toy-colours`."""
    if spec.dtype not in ("auto", "float32"):
        raise UsageError(f"toy-colours has float32 only, not {spec.dtype}")
    return Colours()
