"""Our adapters against transformers' own forward, on random weights of the real architectures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deviations import held as assert_same
from family_models import SENTENCES, save_clip, save_dino, save_siglip
from transformers import AutoTokenizer, SiglipTokenizer

from adapters.hub import build
from adapters.siglip import PieceTokenizer, lowered
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.contracts.prompts import canonical
from benchmark.errors import WeightsError

SEE = ImageRequest(layers=(0, -1), text_patches=True)


def encoder_of(folder, **options):
    return build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32", options=options))


def images_of(encoder, height, width, count=2):
    """Pictures, and what the model is to see of them: normalised, with a border of the mean colour to whole patches."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.transform.mean, encoder.transform.std))
    pixels = (images - mean) / std
    if (height, width) != (encoder.card.image_size, encoder.card.image_size):
        rows, columns = (-side % encoder.card.patch_size for side in (height, width))
        pixels = F.pad(pixels, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return images, pixels


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({}, (224, 224)),
        ({"patch_size": 16}, (192, 256)),
        ({"patch_size": 16}, (187, 249)),
        ({"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}, (224, 224)),
    ],
    ids=["b32", "b16-wide", "b16-odd", "l14"],
)
def test_clip_equals_transformers(tmp_path, shape, size):
    model, encoder = save_clip(tmp_path, **shape), encoder_of(tmp_path)
    images, pixels = images_of(encoder, *size)
    features = encoder.encode_image(images, SEE)
    with torch.inference_mode():
        pooled = model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
        states = model.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
        norm = model.vision_model.post_layernorm
        last = model.vision_model.encoder.layers[-1]
        attention = last.self_attn
        values = last.layer_norm1(states[-2]) @ attention.v_proj.weight.T + attention.v_proj.bias
        values = norm(values @ attention.out_proj.weight.T + attention.out_proj.bias) @ model.visual_projection.weight.T
        text = model.get_text_features(
            **AutoTokenizer.from_pretrained(tmp_path)(SENTENCES, padding=True, return_tensors="pt")
        )
    assert_same(features.cls, pooled)
    assert_same(features.patches, norm(states[-1])[:, 1:])
    assert_same(features.layers[0].patches, norm(states[1])[:, 1:])
    assert_same(features.layers[0].cls, norm(states[1])[:, :1])
    assert_same(features.layers[1].patches, features.patches)
    assert_same(features.text_patches, values[:, 1:])
    assert_same(encoder.encode_text(SENTENCES), text.pooler_output / text.pooler_output.norm(dim=-1, keepdim=True))
    assert features.patches.shape[1:3] == tuple(side // encoder.card.patch_size for side in pixels.shape[-2:])


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({}, (224, 224)),
        ({}, (160, 256)),
        ({}, (150, 249)),
        ({"hidden_size": 576, "intermediate_size": 1152, "num_attention_heads": 8, "patch_size": 14, "image_size": 384},
         (384, 384)),
    ],
    ids=["b16", "b16-wide", "b16-odd", "so400m-384"],
)  # fmt: skip
def test_siglip_equals_transformers(tmp_path, shape, size):
    model, encoder = save_siglip(tmp_path, **shape), encoder_of(tmp_path, positions="transformers")
    images, pixels = images_of(encoder, size[0], size[1], count=1)
    features = encoder.encode_image(images, SEE)
    with torch.inference_mode():
        out = model.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
        tokens, head = out.last_hidden_state, model.vision_model.head
        alone = torch.stack([head(tokens[:, i : i + 1]) for i in range(0, tokens.shape[1], 50)], dim=1)
        early = model.vision_model.post_layernorm(out.hidden_states[1])
        ids = encoder.tokenize(SENTENCES)
        text = model.get_text_features(input_ids=ids).pooler_output
    assert_same(features.cls, out.pooler_output)
    assert_same(features.patches, tokens)
    assert_same(features.layers[0].patches, early)
    assert_same(features.layers[0].cls, head(early))
    assert_same(features.layers[1].cls, features.cls)
    assert_same(features.text_patches.flatten(1, 2)[:, ::50], alone)
    assert_same(encoder.encode_text(SENTENCES), text / text.norm(dim=-1, keepdim=True))
    side = encoder.card.patch_size
    assert features.patches.shape[1:3] == tuple(length // side for length in pixels.shape[-2:])


@pytest.mark.parametrize("size", [(112, 112), (112, 224), (61, 75)], ids=["native", "wide", "odd"])
@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers", "dinov3_vit"])
def test_dino_equals_transformers_and_drops_registers(tmp_path, kind, size):
    model = save_dino(tmp_path, kind, image_size=112)
    encoder = encoder_of(tmp_path, positions="transformers")
    images, pixels = images_of(encoder, *size)
    features = encoder.encode_image(images, SEE)
    with torch.inference_mode():
        out = model(pixels, output_hidden_states=True)
        norm = model.norm if kind == "dinov3_vit" else model.layernorm
        early = norm(out.hidden_states[1])
    prefix = 1 + (0 if kind == "dinov2" else 4)
    assert_same(features.cls, out.last_hidden_state[:, :1])
    assert_same(features.patches, out.last_hidden_state[:, prefix:])
    assert_same(features.layers[0].patches, early[:, prefix:])
    assert_same(features.layers[1].patches, features.patches)
    assert features.text_patches is None
    assert not encoder.card.has_text


def test_swiglu_giant_equals_transformers(tmp_path):
    shape = {"hidden_size": 768, "num_attention_heads": 12, "use_swiglu_ffn": True}
    model, encoder = save_dino(tmp_path, "dinov2", **shape), encoder_of(tmp_path, positions="transformers")
    images, pixels = images_of(encoder, 56, 56, count=1)
    with torch.inference_mode():
        expected = model(pixels).last_hidden_state
    assert_same(encoder.encode_image(images).patches, expected[:, 1:])


def test_siglip_tokens_equal_transformers_tokenizer(tmp_path):
    save_siglip(tmp_path)
    theirs = SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=64)
    texts = [*SENTENCES, "A  cat,\tand -- a dog?", "", "x" * 300]
    expected = theirs(texts, padding="max_length", max_length=64, truncation=True)["input_ids"]
    ours = PieceTokenizer(tmp_path / "spiece.model", 64)  # theirs takes punctuation out of every text
    np.testing.assert_array_equal(ours([canonical(text) for text in texts]).numpy(), np.array(expected))
    assert not torch.equal(*ours(["a red car", "A red, car!"]))
    assert lowered("A CAFÉ, É!") == "a cafÉ, É!"  # tf.strings.lower without an encoding


def test_siglip2_tokens_are_lower_case_and_padded_on_the_right(tmp_path):
    save_siglip(tmp_path, gemma=True)
    encoder = encoder_of(tmp_path)
    ids = encoder.tokenize(["A cat", "a CAT"])
    assert ids.shape == (2, 64)
    assert torch.equal(ids[0], ids[1])
    letters = {c: 260 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz▁")}
    assert ids[0, :7].tolist() == [letters["a"], letters["▁"], letters["c"], letters["a"], letters["t"], 1, 0]
    assert (ids[:, 6:] == 0).all()


def test_clip_tokens_are_pinned(tmp_path):
    save_clip(tmp_path)
    tokenizer = encoder_of(tmp_path).tokenizer
    rows = tokenizer(["a  CAT", "Cat, of!"], padding=True, truncation=True, max_length=77)["input_ids"]
    start, end, cat, of = 64, 65, 61, 63
    word = {c: 30 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz!,'?")}
    assert rows[0] == [start, word["a"], cat, end, end, end]
    assert rows[1] == [start, cat, word[","], of, word["!"], end]
    long = tokenizer(["cat " * 200], truncation=True, max_length=77)["input_ids"][0]
    assert len(long) == 77
    assert long[-1] == end


@pytest.mark.parametrize("stated", [65, 2, 49407])
def test_clip_pools_at_its_tokenizers_end_token_whatever_was_added_behind_it(tmp_path, stated):
    model = save_clip(tmp_path, hidden_size=64, intermediate_size=128, num_attention_heads=4)
    plain = encoder_of(tmp_path).encode_text(SENTENCES)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<my-dog>"])
    tokenizer.save_pretrained(tmp_path)
    table = model.text_model.embeddings.token_embedding.weight
    table.data = torch.cat([table, torch.randn(1, table.shape[1])])
    model.config.text_config.update({"vocab_size": 67, "eos_token_id": stated})  # 2: the hub's old configs
    model.save_pretrained(tmp_path)
    encoder = encoder_of(tmp_path)
    texts = ["a photo of <my-dog> in the snow", "a cat", "cat " * 90]
    ids = encoder.tokenize(texts)["input_ids"]
    assert ids.max() == 66 and (ids[0] == 65).any()
    assert_same(encoder.encode_text(SENTENCES), plain)
    with torch.inference_mode():
        hidden = model.text_model(**encoder.tokenize(texts)).last_hidden_state
        at = [row.tolist().index(65) for row in ids]
        wanted = model.text_projection(torch.stack([hidden[i, n] for i, n in enumerate(at)]))
    assert_same(encoder.encode_text(texts), wanted / wanted.norm(dim=-1, keepdim=True))


def test_a_clip_tokenizer_that_ends_no_text_is_refused(tmp_path):
    save_clip(tmp_path, hidden_size=64, intermediate_size=128, num_attention_heads=4)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}))
    with pytest.raises(WeightsError, match=r"ends no text with its end token \(66\), where CLIP pools"):
        encoder_of(tmp_path)
