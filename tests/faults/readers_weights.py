"""The readers of `readers` that open weights, tokenisers and recipes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]


from files_of_others import saved, written  # noqa: E402

from adapters import weights_files  # noqa: E402
from adapters.tipsv2 import files as tips_files  # noqa: E402
from adapters.tipsv2.recipe.config_file import read_config  # noqa: E402
from adapters.tipsv2.recipe.text import Tokenizer  # noqa: E402
from adapters.tipsv2.tokenizer import Tokenizer as AdapterTokenizer  # noqa: E402
from benchmark.contracts import ModelSpec  # noqa: E402
from benchmark.heads.dpt_weights import load_dpt  # noqa: E402
from benchmark.watch.checkpoints import Checkpoint, damage, is_training_state  # noqa: E402

MINI = ROOT / "adapters" / "weights" / "tipsv2-mini"


# ------------------------------------------------------------------------------------------------------------ weights


def weights(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save

    tensors = {"vision_encoder.w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3, dtype=torch.bfloat16)}
    index = json.dumps({"weight_map": {"a": "model.safetensors"}})
    return written(folder, {
        "model.safetensors": save(tensors, {"format": "pt"}),
        "a_vision.npz": saved(lambda f: np.savez(f, w=np.eye(2))),
        "model.safetensors.index.json": index, "config.json": (MINI / "config.json").read_bytes(),
        "preprocessor_config.json": '{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}',
    })  # fmt: skip


def read_weights(path: Path) -> None:
    damage(Checkpoint(path.parent, "x"))
    is_training_state(Checkpoint(path.parent, "x"))
    if path.suffix == ".safetensors":
        weights_files.check_file(path, "m")
        tips_files.read_safetensors([path])
        tips_files.safetensors_shards(path.parent)
    if path.suffix == ".npz":
        tips_files.read_npz(path)
        load_dpt(path, 16, 4)
    if path.name == "config.json":
        weights_files.locate(ModelSpec("m", target=str(path.parent))).processor()


def tokeniser(folder: Path) -> list[Path]:
    return written(folder, {"tokenizer.model": (MINI / "tokenizer.model").read_bytes()})


def read_tokeniser(path: Path) -> None:
    Tokenizer.read(path, 16).ids("a red box")
    AdapterTokenizer(path, 10**6)


def configs(folder: Path) -> list[Path]:
    from adapters.tipsv2.recipe.config_file import CONFIGS

    return written(folder, {name: (CONFIGS / name).read_bytes() for name in ("tipsv2-mini-64.toml", "g-224.toml")})


def read_recipe(path: Path) -> None:
    read_config(str(path), {})
