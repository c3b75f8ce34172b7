"""The sizes in models.toml are those of the architectures: each is built on the meta device, without a number in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from benchmark import load_encoder
from benchmark.registry import models

CLIP = {"b32": (768, 12, 12, 32, 512), "b16": (768, 12, 12, 16, 512), "l14": (1024, 24, 16, 14, 768)}
SIGLIP = {
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "g": (1536, 40, 16, 6144),
}
DINOV2 = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "g": (1536, 40, 24)}
DINOV3 = {
    "s": (384, 12, 6, 1536), "s-plus": (384, 12, 6, 1536), "b": (768, 12, 12, 3072), "l": (1024, 24, 16, 4096),
    "h-plus": (1280, 32, 20, 5120), "7b": (4096, 40, 32, 8192),
}  # fmt: skip
CONVNEXT = {
    "t": ([96, 192, 384, 768], [3, 3, 9, 3]), "s": ([96, 192, 384, 768], [3, 3, 27, 3]),
    "b": ([128, 256, 512, 1024], [3, 3, 27, 3]), "l": ([192, 384, 768, 1536], [3, 3, 27, 3]),
}  # fmt: skip
IJEPA = {"h14": (1280, 32, 16, 5120), "h16": (1280, 32, 16, 5120), "g16": (1408, 40, 16, 6144)}
WEBSSL = {
    "dino300m": (1024, 24, 16), "dino1b": (1536, 40, 24), "dino2b": (2688, 24, 21), "dino3b": (3072, 26, 24),
    "dino5b": (3584, 32, 28), "dino7b": (4096, 32, 32),
    "mae300m": (1024, 24, 16), "mae700m": (1280, 32, 16), "mae1b": (1536, 40, 24), "mae2b": (2688, 24, 21),
    "mae3b": (3072, 26, 24),
}  # fmt: skip
VJEPA2 = {"l": (1024, 24, 16, 4096), "h": (1280, 32, 16, 5120), "g": (1408, 40, 22, 6144)}


def sizes(values: tuple[int, ...]) -> dict[str, Any]:
    """Width, depth, heads and the MLP's width, by default four times the width."""
    width, depth, heads, *mlp = values
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (width, depth, heads, *(mlp or [4 * width]))))


def architecture(name: str, row: dict[str, Any]) -> Any:
    """The class of transformers with the configuration of a registered model, as its authors published it."""
    family, _, size = name.partition("-")
    own: dict[str, Any] = {"patch_size": row["patch_size"], "image_size": row["image_size"]}
    if family == "clip":
        width, depth, heads, patch, text = CLIP[size.removesuffix("-336")]
        texts = {"hidden_size": text, "intermediate_size": 4 * text, "num_attention_heads": text // 64}
        vision = {**sizes((width, depth, heads)), "patch_size": patch, "image_size": row["image_size"]}
        return hf.CLIPModel(hf.CLIPConfig(text_config=texts, vision_config=vision, projection_dim=text))
    if family in ("siglip", "siglip2"):
        key = size.split("-")[0].rstrip("0123456789") if not size.startswith("so400m") else "so400m"
        vision = {**sizes(SIGLIP[key]), "patch_size": row["patch_size"]}
        vocabulary = {"vocab_size": 256000 if family == "siglip2" else 32000, "max_position_embeddings": 64}
        texts = {**sizes(SIGLIP["so400m" if key == "g" else key]), **vocabulary}
        texts["projection_size"] = vision["hidden_size"]
        if "naflex" in name:
            vision["num_patches"] = (row["image_size"] // row["patch_size"]) ** 2
            return hf.Siglip2Model(hf.Siglip2Config(text_config=texts, vision_config=vision))
        vision["image_size"] = row["image_size"]
        if size in ("so400m-224",) and family == "siglip":
            texts["max_position_embeddings"] = 16
        return hf.SiglipModel(hf.SiglipConfig(text_config=texts, vision_config=vision))
    if family == "dinov2":
        shape = {**sizes(DINOV2[size.removesuffix("-reg")]), **own, "use_swiglu_ffn": size.startswith("g")}
        shape.pop("intermediate_size")
        kind = "Dinov2WithRegisters" if size.endswith("-reg") else "Dinov2"
        return getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**shape))
    if family == "franca":
        shape = {**sizes(DINOV2[size[0]]), **own, "use_swiglu_ffn": True}
        shape.pop("intermediate_size")
        return hf.Dinov2Model(hf.Dinov2Config(**shape))
    if name.startswith("dinov3-convnext-"):
        widths, depths = CONVNEXT[name[-1]]
        return hf.DINOv3ConvNextModel(hf.DINOv3ConvNextConfig(hidden_sizes=widths, depths=depths))
    if family == "dinov3":
        gated = size.startswith(("s-plus", "h-plus", "7b"))
        shape = {**sizes(DINOV3[size.removesuffix("-sat")]), **own, "use_gated_mlp": gated, "num_register_tokens": 4}
        if size.startswith("7b"):  # the one without biases of queries and values
            shape |= {"query_bias": False, "value_bias": False}
        return hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**shape))
    if family == "ijepa":
        return hf.IJepaModel(hf.IJepaConfig(**sizes(IJEPA[size.split("-")[0]]), **own), add_pooling_layer=False)
    if family == "vjepa2":
        shape = sizes(VJEPA2[size[0]])
        ratio = shape.pop("intermediate_size") / shape["hidden_size"]
        config = hf.VJEPA2Config(**shape, mlp_ratio=ratio, crop_size=row["image_size"])
        return hf.VJEPA2Model(config).encoder
    shape = sizes(WEBSSL[size.split("-")[0]])
    if "dino" in size:
        shape.pop("intermediate_size")
        return hf.Dinov2Model(hf.Dinov2Config(**shape, **own, use_swiglu_ffn=True))
    return hf.ViTModel(hf.ViTConfig(**shape, **own))


ON_TRANSFORMERS = tuple(f"adapters.{module}:build" for module in ("clip", "dino", "franca", "hub", "siglip", "vjepa2"))
NAMES = [name for name, row in models().items() if row["target"] in ON_TRANSFORMERS]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_what_transformers_builds(name: str) -> None:
    row = models()[name]
    with torch.device("meta"):
        model = architecture(name, row)
    config = getattr(model.config, "vision_config", model.config)
    assert row["params"] == sum(p.numel() for p in model.parameters())
    if "convnext" in name:
        assert row["embed_dim"] == config.hidden_sizes[-1] and row["patch_size"] == 32 and row["depth"] == 0
        return
    assert (row["embed_dim"], row["patch_size"]) == (config.hidden_size, config.patch_size)
    assert row["depth"] == config.num_hidden_layers
    text = getattr(model.config, "text_config", None)
    width = getattr(model.config, "projection_dim", None) or getattr(text, "projection_size", 0)
    assert (row["text_dim"], row["has_text"]) == (width, text is not None)


LIBRARY = [name for name, row in models().items() if "library" in row]


@pytest.mark.parametrize("name", LIBRARY)
def test_sizes_of_what_a_library_builds(name: str) -> None:
    try:
        timm, open_clip = pytest.importorskip("timm"), pytest.importorskip("open_clip")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"timm does not import: {error}")
    row = models()[name]
    library, _, there = row["library"].partition(":")
    side = row["image_size"]
    with torch.device("meta"):
        picture = torch.zeros(1, 3, side, side)
        if library == "timm":
            model = timm.create_model(there, pretrained=False, num_classes=0).eval()
            found, blocks = model.forward_features(picture), getattr(model, "blocks", ())
            assert model.pretrained_cfg["input_size"][-1] == side
            assert row.get("hub") in (None, model.pretrained_cfg["hf_hub_id"])
            assert row["patch_size"] == patch_of(model)
            assert (row["embed_dim"], row["depth"]) == (found.shape[-1], len(blocks))
        else:
            arch, _, tag = there.partition("/")
            model = open_clip.create_model(arch, device="meta", load_weights=False, pretrained_text=False).eval()
            check_clip(row, model, picture)
            assert open_clip.get_pretrained_cfg(arch, tag)["hf_hub"].strip("/") == row["hub"]
        parts = [model, *(adaptor_and_texts(row) if row["target"] == "adapters.radio:build" else ())]
    assert row["params"] == sum(p.numel() for part in parts for p in part.parameters())


def adaptor_and_texts(row: dict[str, Any]) -> tuple[Any, Any]:
    """What stands beside the tower of C-RADIOv4: an adaptor of two inner blocks, SigLIP 2 g's text tower."""
    from adapters.radio import Adaptor

    hidden, space = 1520, row["text_dim"]
    state = {"fc1.weight": torch.empty(hidden, row["embed_dim"]), "final.2.weight": torch.empty(space, hidden)}
    state |= {f"blocks.{i}.2.bias": torch.empty(hidden) for i in range(2)}
    text = hf.SiglipTextConfig(**sizes(SIGLIP["so400m"]), vocab_size=256000, projection_size=space)
    return Adaptor(state), hf.SiglipTextModel(text)


@pytest.mark.parametrize("name", [name for name, row in models().items() if row.get("embedded")])
def test_sizes_of_what_is_in_the_package(name: str) -> None:
    assert models()[name]["params"] == load_encoder(name, device="cpu").card.params


def patch_of(model: Any) -> int:
    """Pixels to a side of a patch."""
    return int(getattr(model, "embeds", getattr(model, "patch_embed", None)).patch_size[0])  # NaFlex calls it embeds


def check_clip(row: dict[str, Any], model: Any, picture: torch.Tensor) -> None:
    """Width, patch, depth and space of texts of an open_clip model."""
    from adapters.open_clip_values import entering, mean_head, text_space

    with entering(mean_head(model.visual)) as pooled:
        found = model.forward_intermediates(image=picture, image_indices=1, normalize_intermediates=True)
    last = (pooled or found["image_intermediates"])[-1]
    trunk = getattr(model.visual, "trunk", None)
    blocks = model.visual.transformer.resblocks if trunk is None else getattr(trunk, "blocks", ())
    assert (row["embed_dim"], row["depth"]) == (last.shape[1], len(blocks))
    assert row["patch_size"] == picture.shape[-1] // last.shape[-1]
    assert row["text_dim"] == found["image_features"].shape[-1]
    assert row["has_text_patches"] == (text_space(model.visual) is not None)
