"""`timm:NAME`: any image model of timm (extra `timm`), through `forward_features`.

Tokens past the patch grid's count come first (CLS, registers). `cls` is what the model pools for its classifier (CLS,
attention pool, mean and norm), or the mean of the patches where that vector has another width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as read

from adapters.custom import module_digest
from adapters.extras import import_extra
from adapters.patches import center_pad, to_map
from adapters.placement import dtype_name, pick_device, pick_dtype, wants_compile
from adapters.weights_files import check_file
from benchmark.contracts import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, ModelSpec, WeightsInfo
from benchmark.digest import sha256_file
from benchmark.errors import EncoderError, NotApplicable, UsageError, WeightsError
from benchmark.registry import code_versions


class TimmEncoder:
    """A timm model behind the interface."""

    def __init__(self, spec: ModelSpec, model: Any, data: dict[str, Any], weights: WeightsInfo) -> None:
        self.device = pick_device(spec.device)
        self.dtype = pick_dtype(spec.dtype, self.device)
        self.model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        size = int(data["input_size"][-1])
        resized = int(size / data["crop_pct"])
        square = data["crop_mode"] == "squash" or resized == size
        self.transform = ImageTransform(
            "square" if square else "short-side",
            size if square else resized,
            crop=None if square else size,
            interpolation=data["interpolation"] if data["interpolation"] != "random" else "bicubic",
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (data["mean"], data["std"])
        )
        with torch.inference_mode():
            probe = self.model.forward_features(torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype))
        if probe.ndim == 3:
            height, _width = self.model.patch_embed.grid_size
            patch, width = size // height, probe.shape[-1]
        else:  # NCHW, or NHWC for some pyramids: the channel axis is the one timm calls num_features
            self.channels_last = probe.shape[-1] == self.model.num_features
            height, width = probe.shape[1 if self.channels_last else 2], self.model.num_features
            patch = size // height
            self.model.to(memory_format=torch.channels_last)  # 1.1 × on a CPU, more on a GPU; a ViT gains nothing
        if wants_compile(spec.options):
            self.model.forward_features = torch.compile(self.model.forward_features)
        self.tokens = probe.ndim == 3
        self.prefix = probe.shape[1] - height * height if self.tokens else 0
        self.card = EncoderCard(
            name=spec.name, family="timm", backend="torch", embed_dim=width, patch_size=patch, image_size=size,
            depth=0, num_cls=1, has_text=False, weights=weights, licence="see the model's page",
            params=sum(p.numel() for p in model.parameters()), dtype=dtype_name(self.dtype),
            code_version=code_versions()[__name__],
        )  # fmt: skip

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS [B, 1, D] and patches [B, h, w, D]. Raises NotApplicable when layers are asked for."""
        if request.layers:
            raise NotApplicable(f"{self.card.name} offers no intermediate layers")
        pixels = center_pad((images.to(self.device, torch.float32) - self.mean) / self.std, self.card.patch_size)
        pixels = pixels.to(self.dtype)
        if not self.tokens:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        try:
            hidden = self.model.forward_features(pixels)
            pooled = self.model.forward_head(hidden, pre_logits=True)[:, None].float()
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            size = "x".join(map(str, pixels.shape[-2:]))
            reason = (str(error).splitlines() or [""])[0]
            raise EncoderError(f"{self.card.name} does not take {size} pixels ({reason})") from error
        if self.tokens:
            height, width = (side // self.card.patch_size for side in pixels.shape[-2:])
            patches = to_map(hidden[:, self.prefix :].float(), height, width)
        else:
            patches = (hidden if self.channels_last else hidden.permute(0, 2, 3, 1)).float()
        cls = pooled if pooled.shape[-1] == self.card.embed_dim else patches.mean(dim=(1, 2))[:, None]
        return ImageFeatures(cls, patches)


def build(spec: ModelSpec) -> TimmEncoder:
    """The pretrained model, or the safetensors file of `--weights`. Raises MissingExtra, UsageError or WeightsError."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    timm = import_extra("timm", "timm", f"--model {spec.name}")
    if ":" not in spec.target and not timm.is_model(spec.target):  # hf-hub:OWNER/NAME is looked up by timm
        close = ", ".join(timm.list_models(f"*{spec.target.split('_')[0]}*")[:3])
        raise UsageError(f"timm does not know {spec.target!r}. Close: {close or 'none'}")

    def create(**more: Any) -> Any:
        return timm.create_model(spec.target, pretrained=spec.weights is None, num_classes=0, **more)

    try:
        try:
            model = create(dynamic_img_size=True)
        except TypeError:  # an architecture of one size
            model = create()
    except Exception as error:
        raise WeightsError(
            f"{spec.name}: its weights cannot be had ({type(error).__name__}: {str(error).splitlines()[0][:120]}). "
            "Pass --weights FILE.safetensors"
        ) from error
    if spec.weights:
        load_file(model, spec)
        weights = WeightsInfo(spec.weights, sha256_file(spec.weights))
    else:
        weights = WeightsInfo(f"timm:{spec.target}", module_digest({"": model}))
    return TimmEncoder(spec, model, timm.data.resolve_model_data_config(model), weights)


def load_file(model: Any, spec: ModelSpec) -> None:
    path = str(spec.weights)
    if not path.endswith(".safetensors"):
        raise WeightsError(f"{spec.name}: {path} is no .safetensors file")
    check_file(Path(path), spec.name)
    missing, _unexpected = model.load_state_dict(read(path), strict=False)
    if missing:
        raise WeightsError(f"{spec.name}: {path} lacks {missing[0]} and {len(missing) - 1} more keys. Another model?")
