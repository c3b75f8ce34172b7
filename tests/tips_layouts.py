"""Random weights in the official file layouts, spelled out name by name, and a small SentencePiece model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from benchmark.contracts import ModelSpec

VOCABULARY = 300

SIZES: dict[str, dict[str, Any]] = {  # the five published sizes, two blocks deep, widths divided by 8 or 16
    "S": {"width": 48, "heads": 6, "mlp_width": 192},
    "B": {"width": 96, "heads": 12, "mlp_width": 384},
    "L": {"width": 128, "heads": 16, "mlp_width": 512},
    "So400m": {"width": 144, "heads": 16, "mlp_width": 538, "text_depth": 3},
    "g": {"width": 96, "heads": 6, "mlp_width": 256, "swiglu": True, "text_mlp_width": 384},
}


def arch_row(size: str, depth: int = 2, **changes: Any) -> dict[str, Any]:
    """A row as in models.toml, for a model with an 8 x 8 position table."""
    sizes = {"text_depth": 2, "vocabulary": VOCABULARY, **SIZES[size], **changes}
    sizes.setdefault("text_heads", sizes["heads"])
    sizes.setdefault("text_mlp_width", sizes["mlp_width"])
    width = sizes.pop("width")
    return {
        "arch": sizes, "embed_dim": width, "depth": depth, "patch_size": 14, "image_size": 112, "family": "tipsv2",
        "licence": "Apache-2.0", "version": "v2_0", "npz": {"torch": ["tips_v2_oss_x14"], "scenic": ["tips_v2_x14"]},
    }  # fmt: skip


def sizes_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"width": row["embed_dim"], "depth": row["depth"], **row["arch"]}


def spec(folder: Path | None, row: dict[str, Any], name: str = "tipsv2-x", **changes: Any) -> ModelSpec:
    weights = None if folder is None else str(folder)
    return ModelSpec(name, row=row, weights=weights, device="cpu", **changes)


def official_vision(arch: dict[str, Any], grid: int = 8, seed: int = 0, unit_scale: bool = False) -> dict[str, Any]:
    d, m = arch["width"], arch["mlp_width"]
    draw = _drawer(seed)
    out = {
        "cls_token": draw(1, 1, d),
        "pos_embed": draw(1, 1 + grid * grid, d),
        "register_tokens": draw(1, 1, d),
        "mask_token": draw(1, d),
        "patch_embed.proj.weight": draw(d, 3, 14, 14),
        "patch_embed.proj.bias": draw(d),
    }
    for i in range(arch["depth"]):
        b = f"blocks.{i}."
        out |= (
            _norm(draw, b + "norm1", d) | _dense(draw, b + "attn.qkv", d, 3 * d) | _dense(draw, b + "attn.proj", d, d)
        )
        out |= {b + "ls1.gamma": np.ones(d, np.float32) if unit_scale else 1 + draw(d)}
        out |= _norm(draw, b + "norm2", d)
        if arch.get("swiglu"):
            out |= _dense(draw, b + "mlp.w12", d, 2 * m) | _dense(draw, b + "mlp.w3", m, d)
        else:
            out |= _dense(draw, b + "mlp.fc1", d, m) | _dense(draw, b + "mlp.fc2", m, d)
        out |= {b + "ls2.gamma": np.ones(d, np.float32) if unit_scale else 1 + draw(d)}
    return out | _norm(draw, "norm", d)


def official_text(arch: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    d, m = arch["width"], arch["text_mlp_width"]
    draw = _drawer(seed)
    out = {"token_embedding.weight": draw(arch["vocabulary"], d)}
    for i in range(arch["text_depth"]):
        b = f"transformer.resblocks.{i}."
        out |= {b + "attn.in_proj_weight": draw(3 * d, d, fan=d), b + "attn.in_proj_bias": draw(3 * d)}
        out |= _dense(draw, b + "attn.out_proj", d, d) | _norm(draw, b + "ln_1", d)
        out |= _dense(draw, b + "mlp.c_fc", d, m) | _dense(draw, b + "mlp.c_proj", m, d) | _norm(draw, b + "ln_2", d)
    return out | _norm(draw, "ln_final", d) | {"temperature": np.float32(0.0047)}


def scenic_vision(arch: dict[str, Any], grid: int = 8, seed: int = 2) -> dict[str, Any]:
    d, m = arch["width"], arch["mlp_width"]
    draw = _drawer(seed)
    tokens = "encoder/ToTokenSequence_0/"
    out = {
        tokens + "embedding/kernel": draw(14, 14, 3, d),
        tokens + "embedding/bias": draw(d),
        tokens + "posembed_input": draw(1, grid, grid, d),
        tokens + "cls": draw(1, 2, d),
        "encoder/encoder_norm/scale": 1 + draw(d),
        "encoder/encoder_norm/bias": draw(d),
    }
    for i in range(arch["depth"]):
        b = f"encoder/transformer/encoderblock_{i}/"
        out |= _flax_block(draw, b, d, arch["heads"])
        if arch.get("swiglu"):
            widths = {
                "FFNSwiGluFused_0/Dense_0": (d, m),
                "FFNSwiGluFused_0/Dense_1": (d, m),
                "FFNSwiGluFused_0/Dense_2": (m, d),
            }
        else:
            widths = {"MlpBlock_0/Dense_0": (d, m), "MlpBlock_0/Dense_1": (m, d)}
        for name, (rows, columns) in widths.items():
            out |= {f"{b}{name}/kernel": draw(rows, columns, fan=rows), f"{b}{name}/bias": draw(columns)}
    return out


def scenic_text(arch: dict[str, Any], seed: int = 3) -> dict[str, Any]:
    d, m = arch["width"], arch["text_mlp_width"]
    draw = _drawer(seed)
    out = {
        "token_emb/emb_var": draw(arch["vocabulary"], d),
        "text_encoder_norm/scale": 1 + draw(d),
        "text_encoder_norm/bias": draw(d),
        "temperature_contrastive": np.float32(0.0036),
    }
    for i in range(arch["text_depth"]):
        b = f"transformer/encoderblock_{i}/"
        out |= _flax_block(draw, b, d, arch["text_heads"])
        out |= {b + "MlpBlock_0/Dense_0/kernel": draw(d, m, fan=d), b + "MlpBlock_0/Dense_0/bias": draw(m)}
        out |= {b + "MlpBlock_0/Dense_1/kernel": draw(m, d, fan=m), b + "MlpBlock_0/Dense_1/bias": draw(d)}
    return out


def write_pair(folder: Path, row: dict[str, Any], layout: str = "torch", grid: int = 8, **options: Any) -> Path:
    """Writes the two files and the tokenizer; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = row["npz"][layout][0]
    arch = sizes_of(row)
    vision = official_vision(arch, grid, **options) if layout == "torch" else scenic_vision(arch, grid, **options)
    np.savez(folder / f"{stem}_vision.npz", **vision)
    np.savez(folder / f"{stem}_text.npz", **(official_text(arch) if layout == "torch" else scenic_text(arch)))
    (folder / "tokenizer.model").write_bytes(tokenizer_bytes())
    return folder


_TOKENIZER: list[bytes] = []


def tokenizer_bytes() -> bytes:
    """A 300-piece model with the ids of TIPS's own: 0 pads, no BOS, no EOS."""
    if not _TOKENIZER:
        things = ("cat", "dog", "red cube", "green sphere", "tree", "house", "river", "mountain", "photo", "street")
        lines = [f"a {x} {where} the {y}, number {i}" for i, x in enumerate(things) for y in things
                 for where in ("beside", "under", "above")]  # fmt: skip
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=VOCABULARY, hard_vocab_limit=False,
            pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, byte_fallback=True, minloglevel=2, num_threads=1,
        )  # fmt: skip
        _TOKENIZER.append(model.getvalue())
    return _TOKENIZER[0]


def _drawer(seed: int) -> Any:
    generator = np.random.default_rng(seed)

    def draw(*shape: int, fan: int = 0) -> np.ndarray:
        scale = fan**-0.5 if fan else 0.05
        return (generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

    return draw


def _dense(draw: Any, name: str, rows: int, columns: int) -> dict[str, Any]:
    return {name + ".weight": draw(columns, rows, fan=rows), name + ".bias": draw(columns)}


def _norm(draw: Any, name: str, d: int) -> dict[str, Any]:
    return {name + ".weight": 1 + draw(d), name + ".bias": draw(d)}


def _flax_block(draw: Any, b: str, d: int, heads: int) -> dict[str, Any]:
    head = d // heads
    out: dict[str, Any] = {}
    for norm in ("LayerNorm_0", "LayerNorm_1"):
        out |= {f"{b}{norm}/scale": 1 + draw(d), f"{b}{norm}/bias": draw(d)}
    for name in ("query", "key", "value"):
        out[f"{b}MultiHeadDotProductAttention_0/{name}/kernel"] = draw(d, heads, head, fan=d)
        out[f"{b}MultiHeadDotProductAttention_0/{name}/bias"] = draw(heads, head)
    out[f"{b}MultiHeadDotProductAttention_0/out/kernel"] = draw(heads, head, d, fan=d)
    out[f"{b}MultiHeadDotProductAttention_0/out/bias"] = draw(d)
    return out
