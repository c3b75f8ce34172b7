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
PIL_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def from_row(transform: Mapping[str, Any]) -> ImageTransform:
    """`transform = { resize, size, crop?, interpolation, normalisation }` of a models.toml row."""
    mean, std = NORMALISATION[transform["normalisation"]]
    return ImageTransform(
        resize=transform["resize"],
        size=transform["size"],
        crop=transform.get("crop"),
        interpolation=transform["interpolation"],
        mean=mean,
        std=std,
    )


def from_processor(config: Mapping[str, Any] | None, image_size: int, name: str) -> ImageTransform:
    """What a preprocessor_config.json says; without one, a bicubic square with ImageNet's normalisation.

    Raises UsageError for a rule that ImageTransform cannot state, rather than guess.
    """
    if config is None:
        mean, std = NORMALISATION["imagenet"]
        return ImageTransform("square", image_size, mean=mean, std=std)
    size = config.get("size", image_size)
    size = {"shortest_edge": size} if isinstance(size, int) and config.get("do_center_crop") else size
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crop = config.get("crop_size")
    crop = crop["height"] if isinstance(crop, Mapping) else crop
    mean, std = NORMALISATION["none"]
    if config.get("do_normalize", True):
        mean, std = (
            triple(config.get(key, default), name) for key, default in (("image_mean", 0.5), ("image_std", 0.5))
        )
    common = {"interpolation": PIL_FILTERS.get(config.get("resample", 2), "bilinear"), "mean": mean, "std": std}
    crop = crop if config.get("do_center_crop") else None
    if not config.get("do_resize", True):
        return ImageTransform("none", image_size, **cast(dict[str, Any], common))
    if "shortest_edge" in size and "longest_edge" not in size:
        if crop is None:
            raise UsageError(f"{name}: its processor keeps each picture's own shape, which cannot be batched")
        edge = size["shortest_edge"]
        if "crop_pct" in config:  # ConvNeXt: the short side is larger than the crop by 1 / crop_pct
            edge, crop = int(edge / config["crop_pct"]), edge
        return ImageTransform("short-side", edge, crop=crop, **cast(dict[str, Any], common))
    if size.get("height") == size.get("width") and size.get("height"):
        crop = None if crop == size["height"] else crop
        return ImageTransform("square", size["height"], crop=crop, **cast(dict[str, Any], common))
    raise UsageError(
        f"{name}: its processor's size {dict(size)} is neither a square nor a short side. Wrap it in a file"
    )


def triple(value: Any, name: str) -> Triple:
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    if len(values) != 3:
        raise UsageError(f"{name}: image_mean or image_std has {len(values)} channels, expected 3 (RGB)")
    return (float(values[0]), float(values[1]), float(values[2]))
