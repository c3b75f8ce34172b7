"""Every image processor class of transformers, under many settings: its pixels to 1/255, or a refusal by name."""

from __future__ import annotations

import glob
import importlib
import logging
import os
import re

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from adapters.processors import from_processor
from benchmark.errors import UsageError
from benchmark.images.decode import apply_transform

STATED = {
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True, "do_resize": True,
    "do_rescale": True, "rescale_factor": 1 / 255,
}  # fmt: skip
SQUARE48 = {"height": 48, "width": 48}
SETTINGS: dict[str, dict] = {
    "class defaults": {},
    "size int": {"size": 56},
    "size list": {"size": [56, 56]},
    "square": {"size": {"height": 56, "width": 56}},
    "no square": {"size": {"height": 56, "width": 40}},
    "short side": {"size": {"shortest_edge": 56}},
    "short side, crop": {"size": {"shortest_edge": 56}, "crop_size": SQUARE48, "do_center_crop": True},
    "short side, odd crop": {"size": {"shortest_edge": 57}, "crop_size": 48, "do_center_crop": True},
    "ints, crop": {"size": 56, "crop_size": 48, "do_center_crop": True},
    "square, crop": {"size": {"height": 57, "width": 57}, "crop_size": SQUARE48, "do_center_crop": True},
    "crop no square": {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 40}, "do_center_crop": True},
    "crop larger": {"size": {"shortest_edge": 40}, "crop_size": {"height": 57, "width": 57}, "do_center_crop": True},
    "crop not asked for": {"size": {"height": 56, "width": 56}, "crop_size": 48, "do_center_crop": False},
    "longest edge": {"size": {"longest_edge": 56}},
    "short and long side": {"size": {"shortest_edge": 48, "longest_edge": 56}},
    "at most": {"size": {"max_height": 56, "max_width": 56}},
    "pixels": {"size": {"min_pixels": 1000, "max_pixels": 3136}},
    "crop_pct": {"size": {"shortest_edge": 56}, "crop_pct": 0.8},
    "crop_pct, crop": {"size": 56, "crop_pct": 0.9, "crop_size": 56, "do_center_crop": True},
    "pad": {"size": {"height": 48, "width": 48}, "do_pad": True, "pad_size": {"height": 56, "width": 56}},
    "pad to the batch": {"size": {"height": 56, "width": 56}, "do_pad": True},
    "no resize": {"do_resize": False, "do_center_crop": False},
    "no resize, crop": {"do_resize": False, "crop_size": {"height": 48, "width": 48}, "do_center_crop": True},
    "no resize, odd crop": {"do_resize": False, "crop_size": 33, "do_center_crop": True},
    "no rescale": {"size": {"height": 56, "width": 56}, "do_rescale": False},
    "another factor": {"size": {"height": 56, "width": 56}, "rescale_factor": 1 / 127.5},
    "no normalisation": {"size": {"height": 56, "width": 56}, "do_normalize": False},
    "one mean": {"size": {"height": 56, "width": 56}, "image_mean": 0.5, "image_std": 0.25},
    "nulls": {"size": {"height": 56, "width": 56}, "resample": None, "image_mean": None, "image_std": None},
    **{f"resample {n}": {"size": {"shortest_edge": 56}, "crop_size": 48, "do_center_crop": True, "resample": n}
       for n in range(6)},
}  # fmt: skip
NOISE = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
PICTURES = [
    Image.fromarray(NOISE).resize(size, Image.Resampling.BICUBIC)
    for size in ((640, 427), (427, 640), (7, 5), (1, 3), (200, 31))
]
GREY = Image.fromarray(NOISE).convert("L").convert("RGB")
# Settings that every class without code of its own takes.
PLAIN = {"ViTImageProcessor", "CLIPImageProcessor", "BitImageProcessor", "BlipImageProcessor", "SiglipImageProcessor",
         "DeiTImageProcessor", "PvtImageProcessor", "ChineseCLIPImageProcessor", "OwlViTImageProcessor",
         "MobileNetV1ImageProcessor", "MobileNetV2ImageProcessor", "BeitImageProcessor",
         "FlavaImageProcessor", "PPChart2TableImageProcessor"}  # fmt: skip
TAKEN = {"square", "size list", "short side, crop", "short side, odd crop", "ints, crop", "square, crop", "crop larger",
         "crop not asked for", "no normalisation", "one mean", "no resize, crop", "no resize, odd crop",
         "pad to the batch", *(f"resample {n}" for n in range(4))}  # fmt: skip


def classes() -> dict[str, type]:
    """Name of a file -> its Pillow class, of every module of transformers that has one, and of its auto mapping."""
    logging.disable(logging.WARNING)
    found = {}
    for path in glob.glob(f"{os.path.dirname(transformers.__file__)}/models/*/image_processing_pil_*.py"):
        name = os.path.basename(path).removesuffix(".py")
        try:
            library = importlib.import_module(f"transformers.models.{os.path.basename(os.path.dirname(path))}.{name}")
        except ImportError:  # a package that only this model needs
            continue
        for cls in vars(library).values():
            if isinstance(cls, type) and issubclass(cls, PilBackend) and cls.__module__ == library.__name__:
                found[cls.__name__.removesuffix("Pil")] = cls
    for backends in IMAGE_PROCESSOR_MAPPING_NAMES.values():
        name = (backends.get("pil") or "").removesuffix("Pil")
        if name and name not in found and issubclass(getattr(transformers, f"{name}Pil", int), PilBackend):
            found[name] = getattr(transformers, f"{name}Pil")
    logging.disable(logging.NOTSET)
    return dict(sorted(found.items()))


CLASSES = classes()


def test_there_are_as_many_classes_and_settings_as_the_library_has():
    listed = {(b.get("pil") or "").removesuffix("Pil") for b in IMAGE_PROCESSOR_MAPPING_NAMES.values()} - {""}
    assert len(CLASSES) >= 85 and len(listed - set(CLASSES)) <= 8  # those with a base class or a package of their own
    assert len(SETTINGS) >= 30 and set(CLASSES) >= PLAIN


@pytest.mark.parametrize("kind", CLASSES)
def test_pixels_are_the_classes_own_or_the_field_is_named(kind):
    fields = set(CLASSES[kind].valid_kwargs.__annotations__) | {"image_processor_type"}
    for setting, rules in SETTINGS.items():
        config = {**(STATED if rules else {}), **rules, "image_processor_type": kind}
        try:
            transform = from_processor(config, 56, "hf:x")
        except UsageError as error:
            line = str(error)
            assert line.startswith("hf:x: its processor") and "\n" not in line
            assert any(re.search(rf"\b{field}\b", line) for field in fields) or "do not fit" in line, line
            assert not (kind in PLAIN and setting in TAKEN), f"{setting}: {line}"
            continue
        processor = CLASSES[kind](**{k: v for k, v in config.items() if k != "image_processor_type"})
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
        for picture in (*PICTURES, GREY) if transform.size < 100 else PICTURES[:3]:
            theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
            ours = (apply_transform(np.asarray(picture), transform) - mean) / std
            assert theirs.shape == (1, *ours.shape), (setting, picture.size)
            assert (np.abs(ours - theirs[0]) * std).max() <= 1.01 / 255, (setting, picture.size)


@pytest.mark.parametrize(("kind", "default"), [("ViT", "bilinear"), ("DeiT", "bicubic"), ("CLIP", "bicubic"),
                                               ("ConvNext", "bicubic"), ("MobileNetV2", "bilinear")])  # fmt: skip
@pytest.mark.parametrize("suffix", ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"])
def test_a_filter_that_the_file_leaves_out_is_the_classes(kind, default, suffix):
    transform = from_processor({"image_processor_type": kind + suffix}, 224, "hf:x")
    assert transform.interpolation == default
    assert transform == from_processor({"image_processor_type": f"{kind}ImageProcessor"}, 224, "hf:x")


def test_a_file_without_a_class_is_the_model_types_class_or_does_what_it_says():
    clip = from_processor({}, 224, "hf:x", "clip")
    assert (clip.resize, clip.crop, clip.interpolation) == ("short-side", 224, "bicubic")
    plain = from_processor({"do_normalize": False}, 96, "hf:x", "a model of tomorrow")
    assert (plain.resize, plain.size, plain.interpolation, plain.mean) == ("square", 96, "bilinear", (0, 0, 0))


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"size": 48, "do_pad": True, "pad_size": 56}, r"pads pictures \(do_pad\)"),
        ({"crop_size": {"height": 48, "width": 40}, "do_center_crop": True}, "crop_size .* is no square"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, r"into tiles \(image_grid_pinpoints\)"),
        ({"image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": True}, r"into tiles \(crop_to_patches\)"),
        ({"image_processor_type": "Gemma3ImageProcessor", "do_pan_and_scan": True}, r"into tiles \(do_pan_and_scan\)"),
        ({"image_processor_type": "MyOwnImageProcessor"}, r"MyOwnImageProcessor, image_processor_type"),
        (
            {"image_processor_type": "SegformerImageProcessor", "crop_size": 48, "do_center_crop": True},
            "do_center_crop",
        ),
        ({"size": "large"}, "fields do not fit ViTImageProcessor"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std of 0"),
        ({"image_std": ["a", "b", "c"]}, "no number"),
        ({"size": {"height": "56", "width": "56"}}, "no number"),
        ({"size": 10**7}, r"10000000 pixels \(size, crop_size\)"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0}, "no number"),
    ],
)
def test_refusals_name_the_field(rules, line):
    with pytest.raises(UsageError, match=line):
        from_processor({**STATED, "size": 56, "image_processor_type": "ViTImageProcessor", **rules}, 56, "hf:x")


@pytest.mark.parametrize("size", [40, 56, 57])
@pytest.mark.parametrize("crop", [47, 48, 57])
@pytest.mark.parametrize("kind", ["CLIP", "Bit", "Levit", "DeiT", "MobileNetV1"])
def test_crops_that_are_larger_than_the_picture_have_the_classes_black_border(kind, size, crop):
    config = {
        **STATED,
        "size": size,
        "crop_size": crop,
        "do_center_crop": True,
        "image_processor_type": f"{kind}ImageProcessor",
    }
    transform, processor = from_processor(config, 56, "hf:x"), CLASSES[f"{kind}ImageProcessor"](**config)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    for picture in PICTURES:
        theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"])[0]
        np.testing.assert_allclose((apply_transform(np.asarray(picture), transform) - mean) / std, theirs, atol=1e-5)
