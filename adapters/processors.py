"""Image processors of `transformers` as an ImageTransform: class and file give the fields, its own pixels the proof.

The fields are those of the Pillow class, so that what a file leaves out is what the class has by default. A transform
made of them is held against that class on a few small pictures; where a single pixel differs, the processor does
something that no ImageTransform can say, and is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.models.auto import image_processing_auto

from adapters.preprocessing import LARGEST_SIDE, PIL_FILTERS, WRAP, layout, normalisation, refuse_unstated
from benchmark.contracts import ImageTransform
from benchmark.errors import UsageError, first_line
from benchmark.images.decode import apply_transform

# Classes that transformers has for torchvision alone, of encoders that are read here: their fields (5.24). They resize
# in floating point, which differs from Pillow by the rounding of a level.
TORCHVISION_ONLY: dict[str, dict[str, Any]] = {
    "DINOv3ViTImageProcessor": {
        "resample": 2, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "size": {"height": 224, "width": 224}, "do_resize": True, "do_rescale": True, "do_normalize": True,
    },
    "Tipsv2ImageProcessor": {
        "resample": 2, "size": {"height": 448, "width": 448}, "do_resize": True, "do_rescale": True,
        "do_normalize": False,
    },
}  # fmt: skip
auto: Any = image_processing_auto
PICTURES = ((64, 97), (97, 64), (9, 13), (8, 24), (313, 231))  # height, width: odd, tiny, long, large


def from_processor(config: Mapping[str, Any], image_size: int, name: str, model_type: str = "") -> ImageTransform:
    """What a preprocessor_config.json, or the "image_processor" of a processor_config.json, says.

    Its pixels are those of the class of `transformers` that the file names (else the model type's), to 1/255. Raises
    UsageError, naming the field, for what ImageTransform cannot state.
    """
    processor, kind = processor_of(config, image_size, name, model_type)

    def field(key: str) -> Any:
        return getattr(processor, key, None) if config.get(key) is None else config[key]

    try:
        refuse_unstated(field, name)
        mean, std = normalisation(field, name)
        resize, size, crop = layout(processor, kind, image_size, name)
    except (TypeError, ValueError, ArithmeticError) as error:  # words for numbers, a crop_pct of 0
        raise UsageError(
            f"{name}: its processor has a field that is no number ({first_line(error)}). Mend it"
        ) from error
    if wrong := [side for side in (size, size if crop is None else crop) if not 0 < side <= LARGEST_SIDE]:
        raise UsageError(f"{name}: its processor makes pictures of {wrong[0]} pixels (size, crop_size). Mend the file")
    resample = field("resample")
    if resize != "none" and resample not in PIL_FILTERS:
        raise UsageError(f"{name}: its processor resizes with Pillow's filter {resample} (resample). {WRAP}")
    interpolation = PIL_FILTERS.get(resample, "bilinear")
    transform = ImageTransform(resize, size, crop=crop, interpolation=interpolation, mean=mean, std=std)
    hold(transform, processor, kind, name)
    return transform


def processor_of(config: Mapping[str, Any], image_size: int, name: str, model_type: str = "") -> tuple[Any, str]:
    """(the processor that a file describes, its class's name without "Pil" or "Fast").

    A file without a class's name is its model type's class, else a plain one that does what the file says, and says
    what it normalises by. Raises UsageError for classes that `transformers` lacks and for fields that it does not take.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = kind or str(auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {}).get("pil") or "")
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if not kind:
        cls: Any = type("PlainProcessor", (PilBackend,), {
            "do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2,
            "size": {"height": image_size, "width": image_size}, "default_to_square": not config.get("do_center_crop"),
        })  # fmt: skip
    elif kind in TORCHVISION_ONLY:
        cls = type(kind, (PilBackend,), dict(TORCHVISION_ONLY[kind]))
    else:
        cls = auto.get_image_processor_class_from_name(f"{kind}Pil")
        if not (isinstance(cls, type) and issubclass(cls, PilBackend)):
            raise UsageError(
                f"{name}: its processor prepares pictures by code of its own ({kind}, image_processor_type). {WRAP}"
            )
    try:
        return cls(**config), kind
    except Exception as error:  # each class checks its fields in its own way
        raise UsageError(
            f"{name}: its processor's fields do not fit {kind or 'any'} ({first_line(error)[:160]}). Mend the file"
        ) from error


def hold(transform: ImageTransform, processor: Any, kind: str, name: str) -> None:
    """Raises UsageError, naming what is in the way, where the processor's own pixels are not the transform's."""
    if same_pixels(transform, processor):
        return
    without = copy.copy(processor)
    without.do_pad = False
    if getattr(processor, "do_pad", None) and same_pixels(transform, without):
        raise UsageError(f"{name}: its processor pads pictures (do_pad), which no preset here states. {WRAP}")
    if transform.crop and processor.do_center_crop and same_pixels(replace(transform, crop=None), processor):
        raise UsageError(
            f"{name}: its processor {kind} leaves out the crop that its file asks for (do_center_crop). Mend the file"
        )
    raise UsageError(
        f"{name}: its processor prepares pictures by code of its own ({kind or 'no name'}, image_processor_type), not "
        f"as its fields alone say. {WRAP}"
    )


def same_pixels(transform: ImageTransform, processor: Any) -> bool:
    """Whether both give the same pixels, to 1/255, of every picture of PICTURES."""
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    for height, width in PICTURES:
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        try:
            theirs = np.asarray(processor(Image.fromarray(picture), return_tensors="np")["pixel_values"])
        except Exception:  # whatever its own code does not take
            return False
        ours = (apply_transform(picture, transform) - mean) / std
        if theirs.shape != (1, *ours.shape) or (np.abs(ours - theirs[0]) * std).max() > 1.01 / 255:
            return False
    return True
