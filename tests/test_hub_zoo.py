"""Every vision family of transformers through hf: its own pooled vector, its own patches, layer -1, or one line."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from deviations import remember
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from adapters import hub
from adapters.hub import build
from adapters.patches import center_pad
from benchmark.check import check_encoder, measured
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.errors import BenchError
from benchmark.registry import models

TABLE = tomllib.loads(Path(__file__).with_name("vision_families.toml").read_text(encoding="utf-8"))
FAMILIES: dict[str, dict[str, Any]] = TABLE["family"]
READ = [name for name, family in FAMILIES.items() if "refused" not in family]


def saved(name: str, folder: Path) -> Any:
    """The family's model with numbers that a picture moves, saved as its authors save it."""
    family = FAMILIES[name]
    shape = {k: v for k, v in TABLE["shape"].get(family.get("like"), {}).items() if k not in family.get("drop", ())}
    model_class = getattr(transformers, name)
    torch.manual_seed(family.get("seed", 0))
    config = model_class.config_class(**{**shape, **family.get("config", {})})
    model = model_class(config, **family.get("init", {}))
    with torch.no_grad():
        if family.get("deep"):
            answer(model)
        else:
            for parameter in model.parameters():  # zeros and ones would hide a norm or a bias in the wrong place
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval()
    model.requires_grad_(False).save_pretrained(folder)
    return model


def answer(model: Any) -> None:
    """Deep convolutions forget a picture by their first numbers: kernels about the middle, norms that saw pictures."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            kernel = module.weight
            row, column = (n // 2 for n in kernel.shape[-2:])
            kernel.normal_(0, (2 / kernel[0].numel()) ** 0.5)
            if row or column:
                kernel.mul_(0.2)
                kernel[:, :, row, column] += torch.randn(kernel.shape[:2]) * (2 / kernel.shape[1]) ** 0.5
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9
    pictures = torch.nn.functional.interpolate(torch.rand(8, 3, 6, 6), (224, 224), mode="bilinear")
    for _ in range(3):
        model(pictures)


def load(folder: Path) -> Any:
    return build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32"))


def one_line(call: Any) -> str:
    with pytest.raises(BenchError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


LOOSE = {
    "BitModel": 1e-4,  # it divides by the spread of its weights, which is small where they are drawn
    "MobileNetV2Model": 1e-4,  # rounding: on some processors its own float32 output is 4e-5 from that in float64
}


def close(found: torch.Tensor, wanted: torch.Tensor, limit: float = 1e-5) -> bool:
    gap = ((found - wanted).abs().max() / wanted.abs().max()).item()
    remember(gap)
    return gap <= limit


@pytest.mark.parametrize("name", READ)
def test_a_family_gives_its_own_vector_and_its_last_layer_is_its_output(tmp_path, monkeypatch, name):
    monkeypatch.setattr(measured, "speed", lambda _checks: [])
    near = partial(close, limit=LOOSE.get(name, 1e-5))
    model, encoder = saved(name, tmp_path), load(tmp_path)
    card, side = encoder.card, encoder.card.image_size
    images = torch.rand(2, 3, side, side)
    found = encoder.encode_image(images, ImageRequest(layers=(-1,) if card.depth else ()))
    for layer in found.layers:
        assert near(layer.patches, found.patches) and near(layer.cls, found.cls)
    options = {"noise": torch.arange((side // 8) ** 2).expand(2, -1)} if name == "ViTMAEModel" else {}
    if options:
        model.config.mask_ratio = 0.0
    with torch.inference_mode():
        out = model((images - encoder.mean) / encoder.std, **options)
    hidden = out["last_hidden_state"] if "last_hidden_state" in out else out["feature_maps"][-1]
    pooled = out.get("summary", out.get("pooler_output"))
    if pooled is not None and "summary" not in out:
        width = hidden.shape[-1] if hidden.ndim == 3 else pooled.shape[1]
        if FAMILIES[name].get("unpooled") or pooled.flatten(1).shape[1] != width:
            pooled = None  # several tokens, or a small map, or of a language model's width
    if "summary" in out:
        assert near(found.cls.flatten(1), pooled) and card.num_cls == 2 and not encoder.mean.any()
    elif pooled is not None:
        assert near(found.cls[:, 0], pooled.flatten(1))
    elif hidden.ndim == 3 and encoder.prefix:
        assert near(found.cls[:, 0], hidden[:, 0])
    else:
        assert near(found.cls[:, 0], found.patches.mean((1, 2)))
    if hidden.ndim == 3:
        after = FAMILIES[name].get("norm")
        tokens = model.get_submodule(after)(hidden) if after else hidden
        start = tokens.shape[1] - found.patches[0, ..., 0].numel() - getattr(model.config, "num_detection_tokens", 0)
        assert near(found.patches.flatten(1, 2), tokens[:, start : start + found.patches[0, ..., 0].numel()])
    elif found.patches.shape[1] == hidden.shape[1]:
        assert near(found.patches, hidden)
    else:
        assert near(found.patches, hidden.permute(0, 2, 3, 1))
    report = check_encoder(encoder)
    assert report.ok, [finding for finding in report.findings if not finding.ok]


@pytest.mark.parametrize("more", [(0, 32), (3, -5)], ids=["wide", "odd"])
@pytest.mark.parametrize("name", ["DINOv3ConvNextModel", "IJepaModel", "ViTModel"])
def test_a_named_family_of_another_size_is_transformers_on_the_padded_picture(tmp_path, name, more):
    model, encoder = saved(name, tmp_path), load(tmp_path)
    patch, side = encoder.card.patch_size, encoder.card.image_size
    images = torch.rand(2, 3, *(side + length for length in more))
    pixels = center_pad((images - encoder.mean) / encoder.std, patch)
    options = {} if "ConvNext" in name else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        out = model(pixels, **options)
    found = encoder.encode_image(images)
    rows, columns = (length // patch for length in pixels.shape[-2:])
    assert found.patches.shape[1:3] == (rows, columns)
    assert close(found.patches.flatten(1, 2), out.last_hidden_state[:, -rows * columns :])
    if out.get("pooler_output") is not None:
        assert close(found.cls[:, 0], out.pooler_output)


def test_a_pooler_that_nobody_trained_is_no_vector_where_the_row_says_so(tmp_path):
    model = saved("ViTModel", tmp_path)
    images = torch.rand(2, 3, 64, 64)
    encoder = build(ModelSpec("webssl-tiny", {"pooler": False}, target=str(tmp_path), device="cpu", dtype="float32"))
    with torch.inference_mode():
        hidden = model((images - encoder.mean) / encoder.std).last_hidden_state
    assert encoder.card.num_cls == 1 and load(tmp_path).card.num_cls == 2
    assert close(encoder.encode_image(images).cls[:, 0], hidden[:, 0])
    assert all(row.get("pooler") is False for name, row in models().items() if name.startswith("webssl-mae"))


MAPPINGS = (
    "BACKBONE", "CAUSAL_IMAGE_MODELING", "DEPTH_ESTIMATION", "IMAGE", "IMAGE_CLASSIFICATION", "IMAGE_MATTING",
    "IMAGE_SEGMENTATION", "IMAGE_TEXT_TO_TEXT", "IMAGE_TO_IMAGE", "INSTANCE_SEGMENTATION", "KEYPOINT_DETECTION",
    "KEYPOINT_MATCHING", "MASKED_IMAGE_MODELING", "MASK_GENERATION", "NORMAL_ESTIMATION", "OBJECT_DETECTION",
    "POINTMAP_ESTIMATION", "POSE_ESTIMATION", "SEMANTIC_SEGMENTATION", "TABLE_RECOGNITION", "TEXT_RECOGNITION",
    "UNIVERSAL_SEGMENTATION", "VIDEO_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION",
)  # fmt: skip


def test_no_family_of_transformers_own_lists_is_forgotten(tmp_path):
    """Each is in the table above, has an adapter or a tower that is read, or one line says what to write instead."""
    known = tomllib.loads(Path(hub.__file__).with_name("families.toml").read_text(encoding="utf-8"))
    read = {getattr(transformers, name).config_class.__name__ for name in FAMILIES}
    listed = {t for name in MAPPINGS for t in getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES")}
    assert len(listed) > 200
    spec = ModelSpec("hf:local", target=str(tmp_path))
    for kind in sorted(listed):
        tower = known["read"].get(kind, {}).get("tower")
        if tower or kind in hub.FAMILIES or CONFIG_MAPPING_NAMES.get(kind) in read:
            continue
        checkpoint: Any = SimpleNamespace(config={"model_type": kind}, folder=tmp_path)
        message = one_line(partial(hub.refuse, kind, known, checkpoint, spec))
        assert f"hf:local: {kind} " in message and (". Use " in message or ". Save " in message), message


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(READ)))
def test_a_family_that_is_not_read_says_so_in_one_line(tmp_path, name):
    saved(name, tmp_path)
    assert FAMILIES[name]["refused"] in one_line(lambda: load(tmp_path))
