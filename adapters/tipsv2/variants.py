"""What makes one TIPS model differ from another: widths, depths, and the feed-forward layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.plausible import check_config
from benchmark.errors import WeightsError
from benchmark.registry import models
from benchmark.system.plurals import number_of

if TYPE_CHECKING:
    from transformers import Tipsv2Config

MAX_TOKENS = 64
# What the hub's config.json calls the image tower -> the model of that size in models.toml. The names are those of the
# functions in the authors' pytorch/image_encoder.py; KerasHub's convert_tipsv2.py reads the four of v2 from there too.
HUB_SIZES = {
    "vit_small": "tips-s", "vit_base": "tipsv2-b", "vit_large": "tipsv2-l", "vit_so400m": "tipsv2-so400m",
    "vit_giant2": "tipsv2-g",
}  # fmt: skip
HUB_NAMES = {  # our name -> its name there
    "text_depth": "text_num_layers", "text_heads": "text_num_heads", "text_mlp_width": "text_mlp_dim",
    "patch_size": "patch_size", "image_size": "img_size", "vocabulary": "vocab_size", "max_tokens": "max_len",
}  # fmt: skip
# The two official codes differ in the GELU of the image tower and in the LayerNorm epsilon of the text tower:
# "tanh" names the numbers of the JAX code, with which the weights were trained, "erf" those of the PyTorch code.
TEXT_EPSILON = {"tanh": 1e-6, "erf": 1e-5}


@dataclass(frozen=True)
class Architecture:
    """The sizes of both towers. The text tower has the width of the image tower (TIPSv2, table 15)."""

    width: int
    depth: int
    heads: int
    mlp_width: int  # hidden width of the image tower's feed-forward layer as built: 4096 for the SwiGLU of g
    text_depth: int
    text_heads: int
    text_mlp_width: int
    swiglu: bool = False
    patch_size: int = 14
    image_size: int = 448  # pixels the model was made for; the position table may be smaller
    vocabulary: int = 32_000
    max_tokens: int = MAX_TOKENS

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Architecture | None:
        """From a row of models.toml; None when the row leaves the sizes to config.json (it has no `arch`).

        The text tower repeats the image tower's heads and MLP width where `arch` says nothing else.
        """
        if "arch" not in row:
            return None
        arch = dict(row["arch"])
        same = {"text_heads": arch["heads"], "text_mlp_width": arch["mlp_width"]}
        shared = {"width": "embed_dim", "depth": "depth", "patch_size": "patch_size", "image_size": "image_size"}
        return cls(**{**same, **{name: row[key] for name, key in shared.items()}, **arch})

    @classmethod
    def from_config(cls, path: Path) -> Architecture | None:
        """From a `config.json` of transformers' layout or of the authors' hub code; None when it gives no sizes.

        Raises WeightsError when the file is not JSON or of another model family.
        """
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as e:
            raise WeightsError(f"{path}: not a readable config.json ({e}). Download it again") from None
        if isinstance(config, dict) and (files := sorted(path.parent.glob("*.safetensors"))):
            check_config(path, config, files)
        kind = config.get("model_type", "tipsv2") if isinstance(config, dict) else "no object"
        if kind != "tipsv2":
            raise WeightsError(
                f"{path}: model_type is {kind!r}, a TIPS folder has 'tipsv2'. Use the folder's own model"
            )
        if not isinstance(config.get("vision_config"), dict) or not isinstance(config.get("text_config"), dict):
            return cls._of_hub(config, path)
        from transformers import Tipsv2Config

        try:
            return cls._of(Tipsv2Config(**{k: v for k, v in config.items() if not k.startswith("_")}))
        except Exception as e:  # the library's validation has error types of its own
            why = " ".join(str(e).split())
            raise WeightsError(f"{path}: no TIPS configuration ({why}). Download it again") from None

    @classmethod
    def _of_hub(cls, config: Mapping[str, Any], path: Path) -> Architecture | None:
        """From the flat config.json of google/tipsv2-*: it names the image tower's size and spells out the text's."""
        row = models().get(HUB_SIZES.get(str(config.get("vision_fn")), ""))
        arch = cls.from_row(row) if row else None
        if arch is None:
            return None
        if (config.get("embed_dim", arch.width), config.get("text_hidden_size", arch.width)) != (arch.width,) * 2:
            raise WeightsError(
                f"{path}: embed_dim {config.get('embed_dim')} and text_hidden_size {config.get('text_hidden_size')}, a "
                f"{config['vision_fn']} has {arch.width} in both towers. Download it again"
            )
        sizes: dict[str, Any] = {ours: int(config[theirs]) for ours, theirs in HUB_NAMES.items() if theirs in config}
        return replace(arch, **sizes)

    @classmethod
    def _of(cls, config: Tipsv2Config) -> Architecture:
        vision: Any = config.vision_config
        text: Any = config.text_config
        mlp = int(vision.hidden_size * vision.mlp_ratio)
        return cls(
            width=vision.hidden_size,
            depth=vision.num_hidden_layers,
            heads=vision.num_attention_heads,
            mlp_width=(int(mlp * 2 / 3) + 7) // 8 * 8 if vision.use_swiglu_ffn else mlp,
            text_depth=text.num_hidden_layers,
            text_heads=text.num_attention_heads,
            text_mlp_width=text.intermediate_size,
            swiglu=vision.use_swiglu_ffn,
            patch_size=vision.patch_size,
            image_size=vision.image_size,
            vocabulary=text.vocab_size,
            max_tokens=text.max_position_embeddings,
        )

    def __post_init__(self) -> None:
        if min(self.heads, self.text_heads) < 1 or self.width % self.heads or self.width % self.text_heads:
            heads = number_of(self.text_heads, "head")
            raise WeightsError(f"width {self.width} does not divide into {self.heads} and {heads}")

    def to_config(self, grid: int, gelu: str = "erf") -> Tipsv2Config:
        """The transformers configuration with a `grid` × `grid` position table."""
        from transformers import Tipsv2Config, Tipsv2TextConfig, Tipsv2VisionConfig

        ratio = self.mlp_width / self.width * (1.5 if self.swiglu else 1.0)
        vision = Tipsv2VisionConfig(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            mlp_ratio=int(ratio) if ratio == int(ratio) else ratio,
            hidden_act="gelu" if gelu == "erf" else "gelu_pytorch_tanh",
            image_size=grid * self.patch_size,
            patch_size=self.patch_size,
            use_swiglu_ffn=self.swiglu,
        )
        text = Tipsv2TextConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.text_mlp_width,
            num_hidden_layers=self.text_depth,
            num_attention_heads=self.text_heads,
            max_position_embeddings=self.max_tokens,
            layer_norm_eps=TEXT_EPSILON[gelu],
        )
        return Tipsv2Config(vision_config=vision, text_config=text)
