"""hf: models of every shape, one's own files, optional packages, and where and in what type an encoder runs."""

from __future__ import annotations

import importlib
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from family_models import save_clip, save_dino, save_siglip, saved
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from adapters.extras import import_extra
from adapters.hub import build
from adapters.open_clip_models import uses_quick_gelu
from adapters.placement import pick_device, pick_dtype
from adapters.timm_models import TimmEncoder
from benchmark.check import check_encoder
from benchmark.contracts import ImageRequest, ModelSpec, WeightsInfo
from benchmark.errors import BenchError, MissingExtra, UsageError
from benchmark.system.torchvision_fit import remedy

SMALL: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 64}


def load(folder, **changes):
    return build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32", **changes))


def refusal(call, kind: type[BenchError] = UsageError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def normalised(encoder, images):
    return (images - encoder.mean) / encoder.std


# ------------------------------------------------------------------------------- any vision model of the hub


def test_a_plain_vit_gives_its_tokens_layers_and_other_sizes(tmp_path):
    config = ViTConfig(**SMALL, patch_size=16, num_hidden_layers=3)
    model = saved(partial(ViTModel, add_pooling_layer=False), config, tmp_path, 0)
    encoder = load(tmp_path)
    assert (encoder.card.family, encoder.card.depth, encoder.card.embed_dim, encoder.prefix) == ("hf", 3, 48, 1)
    for size in ((64, 64), (48, 96)):
        images = rand(2, 3, *size)
        features = encoder.encode_image(images, ImageRequest(layers=(0, -1)))
        with torch.inference_mode():
            out = model(normalised(encoder, images), interpolate_pos_encoding=True, output_hidden_states=True)
            first = model.layernorm(out.hidden_states[1])
        assert torch.allclose(features.cls, out.last_hidden_state[:, :1], atol=1e-6)
        assert torch.allclose(features.patches.flatten(1, 2), out.last_hidden_state[:, 1:], atol=1e-6)
        assert torch.allclose(features.layers[0].patches.flatten(1, 2), first[:, 1:], atol=1e-6)
        assert torch.equal(features.layers[1].patches, features.patches)
    assert check_encoder(encoder, cheap=True).ok


CONVOLUTIONS = {
    "resnet": (ResNetModel, ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")),
    "convnext": (ConvNextModel, ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolutional_network_gives_its_map_channels_last(tmp_path, kind):
    model_class, config = CONVOLUTIONS[kind]
    model = saved(model_class, config, tmp_path, 0)
    encoder = load(tmp_path)
    images = rand(2, 3, 224, 224)
    features = encoder.encode_image(images)
    with torch.inference_mode():
        out = model(normalised(encoder, images))
    expected = out.last_hidden_state.permute(0, 2, 3, 1)
    assert features.patches.shape == expected.shape == (2, 224 // encoder.card.patch_size, *expected.shape[2:])
    assert (features.patches - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.allclose(features.cls[:, 0], out.pooler_output.flatten(1), atol=1e-5)  # ConvNeXt's mean is normed
    kernel = next(p for p in encoder.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[-1] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert refusal(lambda: encoder.encode_image(images, ImageRequest(layers=(0,))))


@pytest.mark.parametrize("sides", [(224, 224), (96, 160)])
def test_dinov3_s_convnext_gives_its_pooled_vector_and_the_map_behind_it(tmp_path, sides):
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])
    model = saved(DINOv3ConvNextModel, config, tmp_path, 0)
    encoder = load(tmp_path)
    assert (encoder.card.patch_size, encoder.card.embed_dim, encoder.prefix, encoder.card.depth) == (32, 32, 1, 0)
    images = rand(2, 3, *sides)
    features = encoder.encode_image(images)
    with torch.inference_mode():
        out = model(normalised(encoder, images))
    assert features.patches.shape[1:3] == (sides[0] // 32, sides[1] // 32)
    assert torch.allclose(features.cls[:, 0], out.pooler_output, atol=1e-6)
    assert torch.allclose(features.patches.flatten(1, 2), out.last_hidden_state[:, 1:], atol=1e-6)


def test_a_pyramid_gives_its_last_and_coarsest_grid(tmp_path):
    saved(
        SwinModel, SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4), tmp_path, 0
    )
    encoder = load(tmp_path)
    assert (encoder.card.patch_size, encoder.prefix) == (8, 0)
    assert encoder.encode_image(rand(1, 3, 64, 64)).patches.shape == (1, 8, 8, 16)


def test_a_model_that_reads_no_pictures_says_how_to_wrap_it(tmp_path):
    saved(BertModel, BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20), tmp_path, 0)
    assert "bert is no image encoder of transformers" in refusal(lambda: load(tmp_path))


def test_a_repository_with_its_own_code_needs_a_word_from_the_user(tmp_path):
    save_dino(tmp_path, "dinov2", hidden_size=48, num_attention_heads=4, image_size=70)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoModel": "code.Theirs"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('the code ran')")
    assert "runs its own Python code" in refusal(lambda: load(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": None} | {"model_type": "unheard-of"}))
    config.pop("auto_map")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "transformers does not know model type 'theirs'" in refusal(lambda: load(tmp_path))


CODE = """
from transformers import Dinov2Config, Dinov2Model

class TheirConfig(Dinov2Config):
    model_type = "theirs"

class Theirs(Dinov2Model):
    config_class = TheirConfig
"""


def test_a_repository_s_own_code_runs_where_the_user_says_so_and_is_part_of_the_digest(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    there = tmp_path / "theirs"
    code: dict[str, Any] = {"__name__": "theirs"}
    exec(CODE, code)
    shape = code["TheirConfig"](hidden_size=48, num_hidden_layers=1, num_attention_heads=4, image_size=70)
    shape.save_pretrained(there)
    save_file(code["Theirs"](shape).state_dict(), there / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((there / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "code.TheirConfig", "AutoModel": "code.Theirs"}}
    (there / "config.json").write_text(json.dumps(config))
    trusted = partial(load, there, trust_remote_code=True)
    assert f"its code code.py is not in {there}. Put the .py files of https://huggingface.co/" in refusal(trusted)
    (there / "code.py").write_text(CODE)
    encoder = trusted()
    assert type(encoder.model).__name__ == "Theirs" and encoder.card.embed_dim == 48
    (there / "helper.py").write_text("WIDTH = 3\n")
    assert trusted().card.weights.sha256 != encoder.card.weights.sha256
    (there / "code.py").write_text("import no_such_package\n" + CODE)
    assert f"the code in {there} does not run (This modeling file requires" in refusal(trusted)
    config["auto_map"] = {"AutoConfig": "else/where--code.TheirConfig"}
    (there / "config.json").write_text(json.dumps(config))
    assert "Put the .py files of https://huggingface.co/else/where there and take 'else/where--' out of" in refusal(
        trusted
    )


# --------------------------------------------------------------------------------------- precision, --compile


def test_auto_is_bfloat16_on_a_gpu_that_has_it_and_never_on_a_cpu(monkeypatch):
    for has, picked in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_args, has=has: has)
        assert pick_dtype("auto", torch.device("cuda")) == picked
        assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert "Use auto, float32, bfloat16, float16" in refusal(lambda: pick_dtype("int8", torch.device("cpu")))
    assert "device 'cuda:7' is not here: torch sees" in refusal(lambda: pick_device("cuda:7"))
    assert "unknown device 'gpu'" in refusal(lambda: pick_device("gpu"))


FAMILIES = {
    "dinov2": lambda folder: save_dino(folder, "dinov2", hidden_size=48, num_attention_heads=4, image_size=70),
    "clip": lambda folder: save_clip(folder, **SMALL, patch_size=16),
    "siglip": lambda folder: save_siglip(folder, **SMALL, patch_size=16),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_compile_changes_no_output_whatever_is_asked_for_when(tmp_path, monkeypatch, family):
    """Layers asked for after the first compiled call are the ones a hook on a compiled module would lose."""
    FAMILIES[family](tmp_path)
    plain = load(tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled = load(tmp_path, options={"compile": "1"})
    images = rand(2, 3, plain.card.image_size, plain.card.image_size)
    for request in (ImageRequest(), ImageRequest((0, -1), True), ImageRequest((1,))):
        ours, theirs = compiled.encode_image(images, request), plain.encode_image(images, request)
        assert torch.allclose(ours.patches, theirs.patches, atol=1e-6)
        assert [torch.allclose(a.patches, b.patches, atol=1e-6) for a, b in zip(ours.layers, theirs.layers)] == [
            True
        ] * len(request.layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_hands_out_float32_close_to_it(tmp_path, family):
    FAMILIES[family](tmp_path)
    exact = load(tmp_path)
    half = build(ModelSpec("hf:local", target=str(tmp_path), device="cpu", dtype="bfloat16"))
    images = rand(1, 3, exact.card.image_size, exact.card.image_size)
    a, b = half.encode_image(images), exact.encode_image(images)
    assert half.card.dtype == "bfloat16" and a.patches.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(a.patches, b.patches, dim=-1).min() > 0.99


# ------------------------------------------------------------------------------------------ timm and open_clip


def test_a_missing_extra_gives_the_line_that_installs_it(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = refusal(lambda: import_extra("timm", "timm", "--model timm:x"), MissingExtra)
    assert message == "--model timm:x needs an extra that is not installed. Get it: pip install 'densebench[timm]'"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
    ],
)
def test_an_extra_without_a_torchvision_is_named_with_the_remedy(monkeypatch, error):
    def broken(_name):
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    message = refusal(lambda: import_extra("open_clip", "open_clip", "--model open_clip:x"))
    assert "which needs torchvision, and that cannot be imported here" in message
    assert f"Run: {remedy()}" in message and "hf:" not in message


class Tokens(nn.Module):
    """timm's surface of a ViT with two prefix tokens and an attention pool."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 8, 8)
        self.patch_embed = SimpleNamespace(grid_size=(4, 4))

    def forward_features(self, x):
        tokens = self.embed(x).flatten(2).mT
        return torch.cat([tokens[:, :2] * 3, tokens], 1)

    def forward_head(self, hidden, pre_logits):
        assert pre_logits
        return hidden.amax(1)


class Map(Tokens):
    """timm's surface of a convolutional network, NCHW or NHWC, whose classifier reads a wider vector."""

    def __init__(self, channels_last, wide):
        super().__init__()
        self.channels_last, self.wide = channels_last, wide

    def forward_features(self, x):
        out = self.embed(x)
        return out.permute(0, 2, 3, 1) if self.channels_last else out

    def forward_head(self, hidden, pre_logits):
        mean = hidden.mean((1, 2) if self.channels_last else (2, 3)) + 1
        return torch.cat([mean, mean], 1) if self.wide else mean


DATA = {"input_size": (3, 32, 32), "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # fmt: skip


def timm_encoder(model):
    spec = ModelSpec("timm:x", target="x", device="cpu", dtype="float32")
    return TimmEncoder(spec, model, DATA, WeightsInfo("test", "0" * 64))


def test_timm_tokens_lose_their_prefix_and_cls_is_what_the_model_pools():
    encoder = timm_encoder(Tokens())
    images = rand(2, 3, 32, 32)
    features = encoder.encode_image(images)
    hidden = encoder.model.forward_features(images * 2 - 1)
    assert (encoder.transform.size, encoder.transform.crop, encoder.card.patch_size) == (35, 32, 8)
    assert torch.equal(features.patches.flatten(1, 2), hidden[:, 2:])
    assert torch.equal(features.cls[:, 0], hidden.amax(1))
    assert check_encoder(encoder, cheap=True).ok


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_timm_maps_of_either_order_and_a_wider_head_falls_back_to_the_mean(channels_last, wide):
    encoder = timm_encoder(Map(channels_last, wide))
    features = encoder.encode_image(rand(2, 3, 32, 32))
    assert features.patches.shape == (2, 4, 4, 12)
    expected = features.patches.mean((1, 2)) + (0 if wide else 1)
    assert torch.allclose(features.cls[:, 0], expected, atol=1e-6)


def test_open_clip_weights_get_the_activation_they_were_trained_with():
    trained = {"openai": True, "laion": False}
    package = SimpleNamespace(
        get_pretrained_cfg=lambda arch, tag: {"quick_gelu": trained[tag]},
        get_model_config=lambda arch: {"quick_gelu": True} if "quickgelu" in arch else {},
    )
    assert uses_quick_gelu(package, "ViT-B-32", "openai")
    assert uses_quick_gelu(package, "ViT-B-32-quickgelu", "openai")
    assert not uses_quick_gelu(package, "ViT-B-32", "laion")
    message = refusal(lambda: uses_quick_gelu(package, "ViT-B-32-quickgelu", "laion"))
    assert message.endswith("Write open_clip:ViT-B-32/laion")


# ------------------------------------------------------------------------------------------ one's own file
