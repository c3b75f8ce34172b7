"""dino.txt (Jose et al. 2024): text for DINOv2 ViT-L/14 with registers, and by its authors again for DINOv3 ViT-L/16.

A frozen DINO, two vision blocks above its normed tokens, and a text tower of CLIP's kind. What surprises:

- An image's vector is the head's CLS and the mean of its patches, joined: [2 D]. A text's vector has the same halves,
  and a patch is compared with the second alone, normalised by itself. Here patches in text space are [2 D], zero in
  the first half, and `text_for_patches` makes the same of texts: their cosines are the authors'.
- The head's blocks know no positions, above DINOv3's rotary ones neither; registers go through them.
- Dense probes read DINO's own patches, not the head's.

`--weights FOLDER` holds the backbone as `transformers` saves it (model.safetensors, config.json), the authors' files
(head and text encoder, converted from pickles, "dinotxt" in their names) and bpe_simple_vocab_16e6.txt.gz.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTokenizer

from adapters.clip_texts import ClipTexts
from adapters.dino import MODELS
from adapters.patches import to_map
from adapters.state_dicts import PICKLED, pickle_line, read_tensors
from adapters.vit import VisionTransformer, load_pretrained, normalise_rows
from adapters.weights_files import Checkpoint, check_file, locate
from benchmark.contracts import ImageFeatures, ModelSpec, WeightsInfo
from benchmark.errors import WeightsError, reading
from benchmark.registry import code_versions
from benchmark.system.digest import fingerprint, sha256_file

AUTHORS = "*dinotxt*"
MERGES = "bpe_simple_vocab_16e6.txt.gz"  # of CLIP: 48,894 merges are read, after a line of comment
MERGE_COUNT = 49152 - 256 - 2
HEAD_WIDTH = 64  # of an attention head of the text tower: 20 of them in 1,280
PUT_TOGETHER = (
    "Give --weights FOLDER with the backbone's config.json and model.safetensors, the authors' two parts converted to "
    f".safetensors ('dinotxt' in their names) and CLIP's {MERGES}"
)
BACKBONES = ("dinov2_with_registers", "dinov3_vit")


class HeadBlock(nn.Module):
    """A block of the vision head: no positions, no bias for queries, keys and values, SwiGLU."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict(
            {"w1": nn.Linear(width, hidden), "w2": nn.Linear(width, hidden), "w3": nn.Linear(hidden, width)}
        )
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.empty(width))}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1["gamma"] * attention(self.attn, self.norm1(x), self.heads)
        y = self.norm2(x)
        out: torch.Tensor = x + self.ls2["gamma"] * self.mlp["w3"](F.silu(self.mlp["w1"](y)) * self.mlp["w2"](y))
        return out


class TextBlock(nn.Module):
    """A block of the text tower: causal, GELU, no bias for queries, keys and values."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)}
        )
        self.feed_forward = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + attention(self.attention, self.attention_norm(x), x.shape[-1] // HEAD_WIDTH, causal=True)
        added: torch.Tensor = self.feed_forward["fc2"](F.gelu(self.feed_forward["fc1"](self.ffn_norm(x))))
        return x + added


def attention(layers: nn.ModuleDict, x: torch.Tensor, heads: int, causal: bool = False) -> torch.Tensor:
    """Self-attention of tokens [B, N, D]."""
    q, k, v = layers["qkv"](x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    out: torch.Tensor = layers["proj"](mixed.transpose(1, 2).flatten(2))
    return out


class VisionHead(nn.Module):
    """Tokens [B, N, D] of the backbone to as many of the head."""

    def __init__(self, state: Mapping[str, torch.Tensor], heads: int) -> None:
        super().__init__()
        width, hidden = state["ln_final.weight"].shape[0], state["blocks.0.mlp.w1.weight"].shape[0]
        self.blocks = nn.ModuleList(HeadBlock(width, hidden, heads) for _ in range(count(state)))
        self.ln_final = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        found: torch.Tensor = self.ln_final(tokens)
        return found


class TextTower(nn.Module):
    """Token ids [N, L] to vectors [N, E], each of the token at `end` [N]."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        (vocabulary, width), (length, _) = state["token_embedding.weight"].shape, state["positional_embedding"].shape
        hidden, self.length = state["blocks.0.feed_forward.fc1.weight"].shape[0], length
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(TextBlock(width, hidden) for _ in range(count(state)))
        self.ln_final = nn.LayerNorm(width)
        self.linear_projection = nn.Linear(width, state["linear_projection.weight"].shape[0], bias=False)

    def forward(self, ids: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        found: torch.Tensor = self.linear_projection(self.ln_final(x[torch.arange(len(end), device=x.device), end]))
        return found


class DinoText(ClipTexts, VisionTransformer):
    """CLS is the joined vector [1, 2 D]; patches are the backbone's after its final norm [h, w, D]."""

    family = "dinotxt"
    code_version = code_versions()[__name__]

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: nn.ModuleDict, tokenizer: Any) -> None:
        super().__init__(spec, checkpoint, model)
        tower: Any = self.model["backbone"]
        self.vision, self.head, self.text = tower, self.model["head"], self.model["text"]
        self.blocks = tower.encoder.layer if hasattr(tower, "encoder") else tower.model.layer
        self.norm = tower.layernorm if hasattr(tower, "layernorm") else tower.norm
        self.prefix = 1 + tower.config.num_register_tokens
        self.tokenizer, self.context, self.width = tokenizer, self.text.length, int(tower.config.hidden_size)
        self.finish(tower.config, text_dim=2 * self.width)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens: torch.Tensor = self.vision(pixels).last_hidden_state
        return tokens, self.head(tokens)

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        tokens, above = output
        joined = torch.cat([above[:, 0], above[:, self.prefix :].mean(1)], dim=-1)
        return ImageFeatures(joined[:, None].float(), to_map(tokens[:, self.prefix :], *grid).float())

    def text_tokens(self, output: Any, tokens: dict[int, torch.Tensor]) -> torch.Tensor:
        return F.pad(output[1][:, self.prefix :], (self.width, 0))

    def text_for_patches(self, vectors: torch.Tensor) -> torch.Tensor:
        """[N, E] unit vectors of texts as patches are compared with them: their second half alone."""
        return F.pad(normalise_rows(vectors[:, self.width :]), (self.width, 0))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        tokens = self.tokenize(texts).to(self.device)
        return normalise_rows(self.text(tokens["input_ids"], tokens["attention_mask"].sum(1) - 1))


def build(spec: ModelSpec) -> DinoText:
    """Raises WeightsError when a file of the folder is missing, damaged or of another model."""
    how = f"{PUT_TOGETHER}. The backbone: {spec.row['backbone']}; the authors' files: {spec.row['files']}"
    if spec.weights is None or not Path(spec.weights).is_dir():
        raise WeightsError(f"{spec.name}: its weights are on no hub. {how}")
    folder = Path(spec.weights)
    files = sorted(folder.glob(f"{AUTHORS}.safetensors"))
    for pickled in () if files else (path for path in sorted(folder.glob(AUTHORS)) if path.suffix in PICKLED):
        raise WeightsError(f"{spec.name}: {pickle_line(pickled)}")
    if not files or not (folder / MERGES).is_file():
        missing = MERGES if files else f"{AUTHORS}.safetensors"
        raise WeightsError(f"{spec.name}: no {missing} in {folder}. {how}")
    checkpoint = locate(spec)
    kind, expected = str(checkpoint.config.get("model_type")), spec.row.get("model_type")
    if kind not in BACKBONES or expected not in (None, kind):
        wanted = expected or " or ".join(BACKBONES)
        raise WeightsError(f"{spec.name}: {folder}/config.json is of a {kind!r} model, expected {wanted!r}")
    for path in files:
        check_file(path, spec.name)
    own = {path.name: sha256_file(path) for path in (*files, folder / MERGES)}
    weights = WeightsInfo(checkpoint.weights.source, fingerprint([checkpoint.weights.sha256, own]))
    backbone = load_pretrained(MODELS[kind], checkpoint, spec.name)
    head, text = towers(read_tensors(files), backbone.config, folder)
    model = nn.ModuleDict({"backbone": backbone, "head": head, "text": text})
    return DinoText(spec, replace(checkpoint, weights=weights), model, tokenizer_of(folder / MERGES))


def towers(state: Mapping[str, torch.Tensor], config: Any, folder: Path) -> tuple[VisionHead, TextTower]:
    """Head and text tower of the authors' tensors: DINOv3's one file names both, DINOv2's two files leave that away.

    Raises WeightsError naming what is missing or of another shape.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"head": {}, "text": {}}
    for name, tensor in state.items():
        inner = name.removeprefix("visual_model.head.").replace("block_list.", "blocks.")
        if name.startswith(("text_model.", "backbone.", "head.linear")):
            inner = name.removeprefix("text_model.").removeprefix("backbone.").removeprefix("head.")
            parts["text"][inner] = tensor
        elif not name.startswith("visual_model.backbone.") and name != "logit_scale":
            parts["head"][inner] = tensor
    try:
        head, text = VisionHead(parts["head"], config.num_attention_heads), TextTower(parts["text"])
        head.load_state_dict(parts["head"])
        text.load_state_dict(parts["text"])
    except (KeyError, RuntimeError) as error:
        lines = str(error).splitlines()
        raise WeightsError(
            f"{folder}: {AUTHORS}.safetensors are no head and text encoder of dino.txt ({lines[-1].strip()}). Convert "
            "the authors' files again"
        ) from None
    width, space = config.hidden_size, text.linear_projection.out_features
    if head.ln_final.weight.shape[0] != width or space != 2 * width:
        raise WeightsError(
            f"{folder}: a head for {head.ln_final.weight.shape[0]} and texts for {space // 2} values a patch, where "
            f"the backbone has {width}. Take the three of one model"
        )
    return head, text


def count(state: Mapping[str, torch.Tensor]) -> int:
    """How many blocks there are."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def tokenizer_of(path: Path) -> Any:
    """CLIP's tokenizer from its list of merges. Raises WeightsError for a damaged file."""
    with (
        reading(path, "is no list of merges", "Get it again", WeightsError),
        gzip.open(path, "rt", encoding="utf-8") as f,
    ):
        merges: list[Any] = [tuple(line.split()) for line in islice(f, 1, 1 + MERGE_COUNT)]
        if any(len(pair) != 2 for pair in merges):
            raise ValueError("a line holds no pair")
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves; others follow
    others = [byte for byte in range(256) if byte not in letters]
    signs = [*map(chr, letters), *(chr(256 + i) for i in range(len(others)))]
    words = [*signs, *(f"{sign}</w>" for sign in signs), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges)
