"""Preprocessing of hf: folders: the same pixels as transformers' own processors, or one line that refuses."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from family_models import piece_tokenizer, save_clip, save_siglip
from PIL import Image
from transformers import SiglipVisionModel

from adapters.hub import build
from adapters.preprocessing import NORMALISATION
from adapters.processors import from_processor
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError
from benchmark.images.decode import apply_transform

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGENET = {"image_mean": MEAN, "image_std": STD, "do_normalize": True, "do_resize": True, "rescale_factor": 1 / 255}
SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 16,
}

# module of transformers, start of its class's name, what the file says: as the models' owners uploaded them
FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "convnext, first": ("convnext", "ConvNext", {"size": 224, "crop_pct": 0.875, "resample": 3}),
    "convnext, newer": ("convnext", "ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}),
    "convnext 384": ("convnext", "ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3}),
    "efficientnet": (
        "efficientnet", "EfficientNet",
        {"size": {"height": 224, "width": 224}, "do_center_crop": False, "include_top": True, "rescale_offset": False,
         "resample": 0, "crop_size": {"height": 289, "width": 289}},
    ),
    "efficientnet, features": (
        "efficientnet", "EfficientNet", {"size": {"height": 224, "width": 224}, "include_top": False, "resample": 2},
    ),
    "vit": ("vit", "ViT", {"size": 224}),
    "deit": ("deit", "DeiT", {"size": 256, "crop_size": 224, "do_center_crop": True, "resample": 3}),
    "clip": ("clip", "CLIP", {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}),
    "levit": ("levit", "Levit", {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}),
    "poolformer": (
        "poolformer", "PoolFormer",
        {"size": 224, "crop_size": 224, "crop_pct": 0.9, "do_center_crop": True, "resample": 3},
    ),
    "mobilenet": ("mobilenet_v2", "MobileNetV2", {"size": {"shortest_edge": 256}, "do_center_crop": True,
                                                  "crop_size": {"height": 224, "width": 224}, "resample": 2}),
    "hiera": ("bit", "Bit", {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
                             "do_center_crop": True, "do_convert_rgb": True, "crop_pct": 0.875}),
    "internvit": ("clip", "CLIP", {"size": 448, "crop_size": 448, "do_center_crop": True, "resample": 3}),
    "beit": ("beit", "Beit", {"size": 224, "crop_size": 224, "do_center_crop": False, "resample": 2,
                              "reduce_labels": False}),
    "segformer": ("segformer", "Segformer", {"size": 512, "reduce_labels": True, "resample": 2}),
    "saved with nulls": (
        "vit", "ViT",
        {"size": {"height": 224, "width": 224}, "crop_size": None, "do_center_crop": None, "do_convert_rgb": None,
         "data_format": "channels_first", "default_to_square": True, "device": None, "disable_grouping": None,
         "input_data_format": None, "return_tensors": None, "resample": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("key", ["image_processor_type", "feature_extractor_type"])
def test_pixels_are_those_of_the_authors_processor(tmp_path, case, key):
    module, kind, rules = FILES[case]
    suffix = "ImageProcessor" if key == "image_processor_type" else "FeatureExtractor"
    config = {**IMAGENET, **rules, key: kind + suffix}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    library = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    processor = getattr(library, f"{kind}ImageProcessorPil").from_pretrained(tmp_path)
    noise = np.random.default_rng(0).random((20, 28, 3)) * 255
    picture = Image.fromarray(noise.astype(np.uint8)).resize((417, 301), Image.Resampling.BICUBIC)
    theirs = processor(picture, return_tensors="np")["pixel_values"][0]
    transform = from_processor(config, 224, "x")
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    ours = (apply_transform(np.asarray(picture), transform) - mean) / std
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1 / 255 / min(transform.std) + 1e-6


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"image_processor_type": "MobileViTImageProcessor", "do_normalize": None}, "reads the channels as BGR"),
        ({"do_flip_channel_order": True}, "reads the channels as BGR"),
        ({"rescale_offset": True}, "subtracts 1 from the pixels"),
        ({"rescale_factor": 1 / 127.5}, "multiplies the pixels by 0.00784"),
        ({"do_rescale": False}, "leaves the pixels in 0 to 255"),
        ({"size_divisor": 32}, "keeps each picture's own shape"),
        ({"keep_aspect_ratio": True}, "keeps each picture's own shape"),
        ({"image_processor_type": "PerceiverFeatureExtractor"}, "prepares pictures by code of its own (Perceiver"),
        ({"image_mean": None}, "normalises, but has no image_mean"),
        ({"resample": 4}, "resizes with Pillow's filter 4"),
        ({"size": {"shortest_edge": 224}}, "keeps each picture's own shape"),
        ({"size": {"height": 224, "width": 448}}, "is neither a square nor a short side"),
    ],
)
def test_a_rule_that_no_transform_states_is_refused(rules, line):
    with pytest.raises(UsageError) as caught:
        from_processor({**IMAGENET, "size": 224, **rules}, 224, "hf:x")
    assert str(caught.value).startswith("hf:x: its processor") and line in str(caught.value)


def test_a_mobilevit_file_that_flips_nothing_does_not_normalise_either():
    rules = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": False, "size": 224}
    transform = from_processor(rules, 224, "x")
    assert (transform.mean, transform.std) == NORMALISATION["none"]


# --------------------------------------------------------------------------- which file, and what stands for none


def load(folder):
    return build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32"))


def test_a_processor_saved_by_transformers_5_is_read_and_wins(tmp_path):
    save_clip(tmp_path, **SMALL)
    older = {**IMAGENET, "size": {"height": 64, "width": 64}, "resample": 0}
    newer = {**older, "image_mean": [0.1, 0.2, 0.3], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert load(tmp_path).transform.interpolation == "nearest"
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": newer}))
    for _ in range(2):
        transform = load(tmp_path).transform
        assert (transform.mean, transform.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
        (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)


def test_clip_and_siglip_without_a_processor_keep_to_their_families_rule(tmp_path):
    save_clip(tmp_path / "clip", **SMALL)
    save_siglip(tmp_path / "one", **SMALL)
    save_siglip(tmp_path / "two", gemma=True, **SMALL)
    clip, one, two = (load(tmp_path / name).transform for name in ("clip", "one", "two"))
    assert (clip.resize, clip.size, clip.crop, clip.interpolation) == ("short-side", 64, 64, "bicubic")
    assert (clip.mean, clip.std) == NORMALISATION["clip"]
    assert [(t.resize, t.size, t.interpolation) for t in (one, two)] == [
        ("square", 64, "bicubic"), ("square", 64, "bilinear"),
    ]  # fmt: skip
    assert {(t.mean, t.std) for t in (one, two)} == {NORMALISATION["half"]}


def test_a_siglip_tower_that_could_be_either_is_refused(tmp_path):
    save_siglip(tmp_path / "whole", **SMALL)
    torch.manual_seed(0)
    SiglipVisionModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "tower")
    with pytest.raises(UsageError, match=r"Put the model's preprocessor_config\.json there"):
        load(tmp_path / "tower")
    piece_tokenizer(tmp_path / "tower")
    assert load(tmp_path / "tower").transform.interpolation == "bicubic"
