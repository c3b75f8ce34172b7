"""Tiny dino.txt models in the authors' two layouts, and a backbone of transformers below them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mmseg
import torch
from safetensors.torch import save_file
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, DINOv3ViTConfig, DINOv3ViTModel

WIDTH, HEADS, TEXT = 128, 2, 128
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_register_tokens": 4,
}
MERGES = Path(mmseg.__file__).parent / "utils" / "bpe_simple_vocab_16e6.txt.gz"


def shapes(blocks: int = 2) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the head and the text encoder, as DINOv3's file has them."""
    found: dict[str, tuple[int, ...]] = {}
    hidden = 384  # int(4 * 128 * 2 / 3) = 341, up to a whole 64
    for i in range(blocks):
        at = f"visual_model.head.blocks.{i}"
        found |= {f"{at}.norm{n}.{p}": (WIDTH,) for n in (1, 2) for p in ("weight", "bias")}
        found |= {f"{at}.ls{n}.gamma": (WIDTH,) for n in (1, 2)}
        found |= {f"{at}.attn.qkv.weight": (3 * WIDTH, WIDTH), f"{at}.attn.proj.weight": (WIDTH, WIDTH)}
        found |= {
            f"{at}.attn.proj.bias": (WIDTH,),
            f"{at}.mlp.w3.weight": (WIDTH, hidden),
            f"{at}.mlp.w3.bias": (WIDTH,),
        }
        for w in ("w1", "w2"):
            found |= {f"{at}.mlp.{w}.weight": (hidden, WIDTH), f"{at}.mlp.{w}.bias": (hidden,)}
        at = f"text_model.backbone.blocks.{i}"
        found |= {f"{at}.{n}_norm.{p}": (TEXT,) for n in ("attention", "ffn") for p in ("weight", "bias")}
        for name, rows, columns in (
            ("attention.qkv", 3 * TEXT, TEXT), ("attention.proj", TEXT, TEXT),
            ("feed_forward.fc1", 4 * TEXT, TEXT), ("feed_forward.fc2", TEXT, 4 * TEXT),
        ):  # fmt: skip
            found |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (rows,)}
        del found[f"{at}.attention.qkv.bias"]
    found |= {
        f"{at}.ln_final.{p}": (128,) for at in ("visual_model.head", "text_model.backbone") for p in ("weight", "bias")
    }
    found["text_model.backbone.token_embedding.weight"] = (49408, TEXT)
    found["text_model.backbone.positional_embedding"] = (77, TEXT)
    found["text_model.head.linear_projection.weight"] = (2 * WIDTH, TEXT)
    return found


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random values, the same for each name whatever order they are made in."""
    made = {}
    for n, (name, shape) in enumerate(sorted(shapes().items())):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + n))
        flat = len(shape) == 1
        made[name] = (1 + 0.1 * noise) if flat and name.endswith(("weight", "gamma")) else 0.1 * noise
    return made


def save(folder: Path, dinov3: bool) -> None:
    """A folder as `--weights` takes it: DINOv3's one file of both parts, or DINOv2's two, which name no tower."""
    torch.manual_seed(0)
    if dinov3:
        DINOv3ViTModel(DINOv3ViTConfig(**SIZES, intermediate_size=256, patch_size=16, image_size=224)).save_pretrained(
            folder
        )
        save_file(tensors(), folder / "dinov3_dinotxt_vision_head_and_text_encoder.safetensors")
    else:
        config = Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, patch_size=14, image_size=518)
        Dinov2WithRegistersModel(config).save_pretrained(folder)
        parts: dict[str, dict[str, torch.Tensor]] = {"vision_head": {}, "text_encoder": {}}
        for name, tensor in tensors().items():
            if name.startswith("text_model."):
                parts["text_encoder"][name.removeprefix("text_model.")] = tensor
            else:
                inner = name.removeprefix("visual_model.head.").replace("blocks.", "block_list.")
                parts["vision_head"][inner] = tensor
        for part, state in parts.items():
            save_file(state, folder / f"dinov2_dinotxt_{part}.safetensors")
    shutil.copy(MERGES, folder / MERGES.name)
