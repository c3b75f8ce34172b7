"""The published preprocessing of a model, from its row in models.toml, and the fields of a preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from benchmark.contracts import ImageTransform, Interpolation, ResizeRule
from benchmark.errors import UsageError

Triple = tuple[float, float, float]

# Mean and standard deviation per RGB channel, of pixels in [0, 1].
NORMALISATION: dict[str, tuple[Triple, Triple]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),  # openai/CLIP clip.py
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # SigLIP: pixels in [-1, 1]
    "satellite": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),  # facebookresearch/dinov3, README: SAT-493M
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
WRAP = "Wrap the model in your own file: --model file.py:function"
PIL_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
LARGEST_SIDE = 8192  # pixels; an encoder of today takes 1,536 at most
TILES = (  # fields that make several pictures of one, as vision-language models read them
    "crop_to_patches", "do_image_splitting", "do_pan_and_scan", "do_split_image", "image_grid_pinpoints",
    "max_image_tiles", "slice_mode", "split_image",
)  # fmt: skip
OWN_SHAPE = ("keep_aspect_ratio", "size_divisor", "do_thumbnail", "do_align_long_axis", "do_crop_margin")


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


def refuse_unstated(field: Callable[[str], Any], name: str) -> None:
    """Raises UsageError for steps beside resize, crop and normalisation, which ImageTransform has no words for."""
    factor = field("rescale_factor") or 1 / 255
    steps = {
        "reads the channels as BGR (do_flip_channel_order)": field("do_flip_channel_order"),
        "makes pictures grey (do_grayscale)": field("do_grayscale"),
        "subtracts 1 from the pixels (rescale_offset)": field("rescale_offset"),
        "leaves the pixels in 0 to 255 (do_rescale)": not field("do_rescale"),
        f"multiplies the pixels by {factor}, not 1/255 (rescale_factor)": abs(factor * 255 - 1) > 1e-6,
        **{f"keeps each picture's own shape ({key})": field(key) for key in OWN_SHAPE},
        **{f"cuts pictures into tiles ({key})": field(key) for key in TILES},
    }
    for step, asked in steps.items():
        if asked:
            raise UsageError(f"{name}: its processor {step}, which no preset here states. {WRAP}")


def normalisation(field: Callable[[str], Any], name: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation per RGB channel. EfficientNet's processor divides by the deviation once more."""
    mean, std = NORMALISATION["none"]
    wanted, again = field("do_normalize"), field("include_top")
    if wanted or again:
        absent = [key for key in ("image_mean", "image_std") if field(key) is None]
        if absent:
            raise UsageError(f"{name}: its processor normalises, but has no {absent[0]}. Write it into the file")
        deviation = triple(field("image_std"), name)
        if not min(deviation) > 0:
            raise UsageError(f"{name}: its processor divides by an image_std of {min(deviation):g}. Mend the file")
        mean = triple(field("image_mean"), name) if wanted else mean
        std = deviation if wanted else std
        std = cast(Triple, tuple(s * d for s, d in zip(std, deviation))) if again else std
    return mean, std


def layout(processor: Any, kind: str, image_size: int, name: str) -> tuple[ResizeRule, int, int | None]:
    """(rule, size, crop) by the processor's `size` and `crop_size`, and by what four classes have in their code."""
    crop = None
    if processor.do_center_crop:
        said = sides(processor.crop_size)
        if set(said) != {"height", "width"} or said["height"] != said["width"]:
            raise UsageError(f"{name}: its processor's crop_size {said} is no square. {WRAP}")
        crop = said["height"]
    if not processor.do_resize:
        return "none", image_size, crop
    said = sides(processor.size)
    pct: Any = getattr(processor, "crop_pct", None)
    edge = said.get("shortest_edge", 0)
    square = said["height"] if set(said) == {"height", "width"} and said["height"] == said["width"] else 0
    if kind.startswith("ConvNext") and set(said) == {"shortest_edge"}:  # ResNet, RegNet and CvT have it, too
        return ("square", edge, None) if edge >= 384 else ("short-side", int(edge / pct), edge)
    if kind.startswith("PoolFormer") and pct and crop and (edge or square):  # a square is a short side there
        return "short-side", int((edge or square) / pct), crop
    if set(said) == {"shortest_edge"}:
        if crop is None:
            raise UsageError(
                f"{name}: its processor keeps each picture's own shape (size {said} without do_center_crop), which "
                "cannot be batched"
            )
        return "short-side", int(256 / 224 * edge) if kind.startswith("Levit") else edge, crop
    if square:
        return "square", square, None if crop == square else crop
    raise UsageError(f"{name}: its processor's size {said} is neither a square nor a short side. {WRAP}")


def sides(value: Any) -> dict[str, int]:
    """`size` or `crop_size` in its words; a number is a square where the class has not said otherwise.

    Raises ValueError for a side that is no whole number.
    """
    found = {"height": value, "width": value} if isinstance(value, int) else dict(value or {})
    if wrong := [side for side in found.values() if side is not None and type(side) is not int]:
        raise ValueError(f"{wrong[0]!r} pixels")
    return {key: side for key, side in found.items() if side}


def triple(value: Any, name: str) -> Triple:
    """A number, or three, for R, G and B. Raises UsageError for another count."""
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    if len(values) != 3:
        raise UsageError(f"{name}: image_mean or image_std has {len(values)} channels, expected 3 (RGB)")
    return (float(values[0]), float(values[1]), float(values[2]))
