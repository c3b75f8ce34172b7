"""Random models of the real families, saved as their authors' checkpoints are, small enough for a test."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

SENTENCES = [
    "a photo of a cat", "two dogs in the snow", "a red car", "The Red, car!", "a bird on a tree",
    "an old house near the sea", "people walking through a market", "it's raining", "blue sky over green hills",
]  # fmt: skip


def clip_tokenizer(folder: Path) -> None:
    """CLIP's class over an alphabet of bytes and a few merges."""
    letters = list("abcdefghijklmnopqrstuvwxyz!,'?")
    words = [letter + "</w>" for letter in letters]
    merges: Any = [("c", "a"), ("ca", "t</w>"), ("p", "h"), ("o", "f</w>")]
    joined = ["ca", "cat</w>", "ph", "of</w>"]
    vocab = {t: i for i, t in enumerate([*letters, *words, *joined, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77).save_pretrained(folder)


def save_clip(folder: Path, seed: int = 0, **vision: Any) -> CLIPModel:
    """CLIP with two blocks in each tower."""
    shape = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    }
    text = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    text |= {"vocab_size": 66, "bos_token_id": 64, "eos_token_id": 65, "pad_token_id": 65}
    config = CLIPConfig(text_config=text, vision_config={**shape, "num_hidden_layers": 2, **vision}, projection_dim=512)
    return saved(CLIPModel, config, folder, seed, clip_tokenizer)


def piece_tokenizer(folder: Path) -> None:
    """A sentencepiece model with SigLIP's special ids: </s> is 1."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=model, vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())


def gemma_tokenizer(folder: Path) -> None:
    """A byte-fallback BPE with Gemma's special ids, as tokenizer.json."""
    symbols = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        *(f"<0x{i:02X}>" for i in range(256)),
        *"abcdefghijklmnopqrstuvwxyz▁",
    ]
    tokenizer = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special).save_pretrained(folder)


def save_siglip(folder: Path, seed: int = 0, gemma: bool = False, **vision: Any) -> SiglipModel:
    """SigLIP with two blocks in each tower."""
    shape = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    }
    shape |= {"num_hidden_layers": 2, **vision}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    text |= {"vocab_size": 300, "max_position_embeddings": 64, "projection_size": shape["hidden_size"]}
    text |= {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 1}
    config = SiglipConfig(text_config=text, vision_config=shape)
    return saved(SiglipModel, config, folder, seed, gemma_tokenizer if gemma else piece_tokenizer)


def save_dino(folder: Path, kind: str, seed: int = 0, **shape: Any) -> Any:
    """DINOv2, DINOv2 with registers or DINOv3 with two blocks."""
    common = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, **shape}
    if kind == "dinov3_vit":
        config: Any = DINOv3ViTConfig(**{"intermediate_size": 1536, "num_register_tokens": 4, **common})
        return saved(DINOv3ViTModel, config, folder, seed)
    common = {"image_size": 518, "patch_size": 14, **common}
    if kind == "dinov2":
        return saved(Dinov2Model, Dinov2Config(**common), folder, seed)
    return saved(Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**common), folder, seed)


def saved(model_class: Any, config: Any, folder: Path, seed: int, tokenizer: Any = None) -> Any:
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():  # zeros and ones would hide a norm or a bias in the wrong place
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.requires_grad_(False).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer(folder)
    return model
