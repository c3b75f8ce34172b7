"""The published preprocessing of a model, from its row in models.toml or its preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from benchmark.contracts import ImageTransform, Interpolation
from benchmark.errors import UsageError

Triple = tuple[float, float, float]

# Mean and standard deviation per RGB channel, of pixels in [0, 1].
NORMALISATION: dict[str, tuple[Triple, Triple]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),  # openai/CLIP clip.py
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # SigLIP: pixels in [-1, 1]
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
# Processors of `transformers` by the start of their class's name.
SQUARE_THEN_CROP = ("DeiT", "Flava")  # a plain number as `size` is a square, though a crop follows
OWN_CODE = ("Perceiver", "Owlv2", "Swin2SR", "Siglip2", "GLPN", "Chameleon", "Janus", "Deepseek")
WRAP = "Wrap the model in your own file: --model file.py:function"
PIL_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def from_row(transform: Mapping[str, Any]) -> ImageTransform:
    """`transform = { resize, size, crop?, rounding?, interpolation, normalisation }` of a models.toml row."""
    mean, std = NORMALISATION[transform["normalisation"]]
    return ImageTransform(
        resize=transform["resize"],
        size=transform["size"],
        crop=transform.get("crop"),
        interpolation=transform["interpolation"],
        rounding=transform.get("rounding", "floor"),
        mean=mean,
        std=std,
    )


def from_processor(config: Mapping[str, Any], image_size: int, name: str) -> ImageTransform:
    """What a preprocessor_config.json, or the "image_processor" of a processor_config.json, says.

    Raises UsageError for a rule that ImageTransform cannot state, rather than guess. Rules that a class of
    `transformers` keeps in its code, not in the file: tests/test_preprocessing.py holds them against those classes.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    refuse_unstated(config, kind, name)
    mean, std = normalisation(config, kind, name)
    resample = config.get("resample", 2)
    if resample not in PIL_FILTERS:
        raise UsageError(f"{name}: its processor resizes with Pillow's filter {resample}. {WRAP}")
    common: dict[str, Any] = {"interpolation": PIL_FILTERS[resample], "mean": mean, "std": std}
    if not config.get("do_resize", True):
        return ImageTransform("none", image_size, **common)
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    crop = crop["height"] if isinstance(crop, Mapping) else crop
    size = config.get("size", image_size)
    if kind.startswith("ConvNext") or ("crop_pct" in config and crop is None):
        return convnext(size, config.get("crop_pct") or 224 / 256, common)
    if isinstance(size, int):
        short = crop is not None and not kind.startswith(SQUARE_THEN_CROP)
        size = {"shortest_edge": size} if short else {"height": size, "width": size}
    if "shortest_edge" in size and "longest_edge" not in size:
        if crop is None:
            raise UsageError(f"{name}: its processor keeps each picture's own shape, which cannot be batched")
        edge = size["shortest_edge"]
        if "crop_pct" in config:  # PoolFormer: the short side is larger than the crop by 1 / crop_pct
            edge = int(edge / config["crop_pct"])
        if kind.startswith("Levit"):
            edge = int(256 / 224 * edge)
        return ImageTransform("short-side", edge, crop=crop, **common)
    if size.get("height") == size.get("width") and size.get("height"):
        crop = None if crop == size["height"] else crop
        return ImageTransform("square", size["height"], crop=crop, **common)
    raise UsageError(f"{name}: its processor's size {dict(size)} is neither a square nor a short side. {WRAP}")


def refuse_unstated(config: Mapping[str, Any], kind: str, name: str) -> None:
    """Raises UsageError for steps between the resize and the normalisation that ImageTransform has no words for."""
    factor = config.get("rescale_factor") or 1 / 255
    steps = {
        "reads the channels as BGR": config.get("do_flip_channel_order", kind.startswith("MobileViT")),
        "subtracts 1 from the pixels (rescale_offset)": config.get("rescale_offset"),
        "leaves the pixels in 0 to 255 (do_rescale)": not config.get("do_rescale", True),
        f"multiplies the pixels by {factor}, not 1/255": abs(factor * 255 - 1) > 1e-6,
        "keeps each picture's own shape (keep_aspect_ratio)": config.get("keep_aspect_ratio"),
        "keeps each picture's own shape (size_divisor)": config.get("size_divisor"),
        f"prepares pictures by code of its own ({kind})": kind.startswith(OWN_CODE),
    }
    for step, asked in steps.items():
        if asked:
            raise UsageError(f"{name}: its processor {step}, which no preset here states. {WRAP}")


def normalisation(config: Mapping[str, Any], kind: str, name: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation per RGB channel. EfficientNet's processor divides by the deviation once more."""
    mean, std = NORMALISATION["none"]
    wanted = config.get("do_normalize", not kind.startswith("MobileViT"))
    again = config.get("include_top", kind.startswith("EfficientNet"))
    if wanted or again:
        absent = [key for key in ("image_mean", "image_std") if config.get(key) is None]
        if absent:
            raise UsageError(f"{name}: its processor normalises, but has no {absent[0]}. Write it into the file")
        deviation = triple(config["image_std"], name)
        mean = triple(config["image_mean"], name) if wanted else mean
        std = deviation if wanted else std
        std = cast(Triple, tuple(s * d for s, d in zip(std, deviation))) if again else std
    return mean, std


def convnext(size: Any, crop_pct: float, common: Mapping[str, Any]) -> ImageTransform:
    """ConvNeXt and ResNet: a crop out of a short side larger by 1 / crop_pct; from 384 pixels on a stretched square."""
    edge = size["shortest_edge"] if isinstance(size, Mapping) else size
    if edge >= 384:
        return ImageTransform("square", edge, **common)
    return ImageTransform("short-side", int(edge / crop_pct), crop=edge, **common)


def triple(value: Any, name: str) -> Triple:
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    if len(values) != 3:
        raise UsageError(f"{name}: image_mean or image_std has {len(values)} channels, expected 3 (RGB)")
    return (float(values[0]), float(values[1]), float(values[2]))
