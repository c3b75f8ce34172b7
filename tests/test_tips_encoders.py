"""TIPS encoders of both backends: shapes, padding, layers, values, text, precision, and the way across DLPack."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tips_layouts as tips
import torch

from adapters.tipsv2 import build, sources
from adapters.tipsv2.export import export
from adapters.tipsv2.jax_encoder import to_jax, to_torch
from benchmark.contracts import ImageRequest, TextEncoder
from benchmark.errors import UsageError

ROW = tips.arch_row("S")
BACKENDS = ["torch", "jax"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tips.write_pair(tmp_path_factory.mktemp("tips"), ROW)


@pytest.fixture(scope="module")
def encoders(folder):
    return {backend: build(tips.spec(folder, ROW, backend=backend)) for backend in BACKENDS}


@pytest.fixture(params=BACKENDS)
def encoder(request, encoders):
    return encoders[request.param]


def close(a, b, tolerance=2e-6):
    return float((a - b).abs().max() / b.abs().max()) < tolerance


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_card_says_what_was_loaded(encoder, folder):
    assert isinstance(encoder, TextEncoder)
    card = encoder.card
    assert (card.embed_dim, card.text_dim, card.depth, card.num_cls, card.patch_size, card.image_size) == (
        48, 48, 2, 2, 14, 112,
    )  # fmt: skip
    assert card.has_text and card.has_text_patches and card.dtype == "float32" and card.licence == "Apache-2.0"
    assert card.weights.source == str(folder) and len(card.weights.sha256) == 64
    assert encoder.temperature == pytest.approx(0.0047)


def test_the_transform_is_a_bilinear_square_with_pixels_left_alone(encoder):
    rule = encoder.transform
    assert (rule.resize, rule.size, rule.interpolation, rule.antialias) == ("square", 112, "bilinear", True)
    assert (rule.mean, rule.std, rule.range) == ((0.0,) * 3, (1.0,) * 3, (0.0, 1.0))


def test_shapes_and_types(encoder):
    out = encoder.encode_image(images(2, 3, 70, 98), ImageRequest(layers=(1, 0), text_patches=True))
    assert out.cls.shape == (2, 2, 48) and out.patches.shape == (2, 5, 7, 48) == out.text_patches.shape
    assert len(out.layers) == 2 and out.layers[0].cls.shape == (2, 2, 48)
    assert torch.equal(out.layers[0].patches, out.patches)
    assert all(t.dtype == torch.float32 for t in (out.cls, out.patches, out.text_patches, *out.layers[1]))
    assert encoder.encode_image(images(1, 3, 70, 98)).text_patches is None


def test_other_sizes_are_padded_with_zeros_the_smaller_half_first(encoder):
    picture = images(1, 3, 65, 93)
    padded = torch.zeros(1, 3, 70, 98)
    padded[:, :, 2:67, 2:95] = picture  # 5 more rows: 2 above, 3 below; 5 more columns: 2 left, 3 right
    ours, by_hand = encoder.encode_image(picture), encoder.encode_image(padded)
    assert torch.equal(ours.cls, by_hand.cls) and torch.equal(ours.patches, by_hand.patches)


def test_a_change_in_one_place_moves_that_patch_most(encoder):
    before = images(1, 3, 70, 98)
    after = before.clone()
    after[:, :, 14:28, 70:84] = 1 - after[:, :, 14:28, 70:84]
    moved = (encoder.encode_image(after).patches - encoder.encode_image(before).patches).norm(dim=-1)[0]
    assert divmod(int(moved.argmax()), 7) == (1, 5)


def test_a_batch_gives_what_its_pictures_give_alone(encoder):
    batch = images(2, 3, 70, 98)
    whole = encoder.encode_image(batch, ImageRequest(text_patches=True))
    alone = [encoder.encode_image(batch[i : i + 1], ImageRequest(text_patches=True)) for i in range(2)]
    for name in ("cls", "patches", "text_patches"):
        assert close(torch.cat([getattr(one, name) for one in alone]), getattr(whole, name))


def test_layers_count_from_either_end_and_stop_at_the_last(encoder):
    picture = images(1, 3, 70, 98)
    out = encoder.encode_image(picture, ImageRequest(layers=(0, -2)))
    assert torch.equal(out.layers[0].patches, out.layers[1].patches)
    with pytest.raises(UsageError, match="tipsv2-x has blocks 0 to 1, layer 2 was asked for"):
        encoder.encode_image(picture, ImageRequest(layers=(2,)))


def test_text_patches_are_the_value_path_of_the_whole_last_block(encoder, folder):
    """By hand in float64 from the official file: values, projection, LayerScale, both residuals, MLP, final norm."""
    weights = {k: torch.from_numpy(v).double() for k, v in np.load(folder / "tips_v2_oss_x14_vision.npz").items()}

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (48,), weights[name + ".weight"], weights[name + ".bias"], 1e-6)

    def dense(x, name, rows=slice(None)):
        return x @ weights[name + ".weight"][rows].T + weights[name + ".bias"][rows]

    def attend(x, b):
        q, k, v = (dense(x, b + "attn.qkv", slice(48 * i, 48 * i + 48)).unflatten(-1, (6, 8)) for i in range(3))
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / 8**0.5
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(-2)

    def values(x, b):
        return dense(x, b + "attn.qkv", slice(96, 144))

    def block(x, b, mix):
        approximate = "none" if encoder.card.options == (("gelu", "erf"),) else "tanh"
        x = x + weights[b + "ls1.gamma"] * dense(mix(norm(x, b + "norm1"), b), b + "attn.proj")
        hidden = torch.nn.functional.gelu(dense(norm(x, b + "norm2"), b + "mlp.fc1"), approximate=approximate)
        return x + weights[b + "ls2.gamma"] * dense(hidden, b + "mlp.fc2")

    picture = images(2, 3, 112, 112)
    kernel = weights["patch_embed.proj.weight"]
    x = torch.nn.functional.conv2d(picture.double(), kernel, weights["patch_embed.proj.bias"], 14).flatten(2).mT
    x = torch.cat([weights["cls_token"].expand(2, 1, 48), x], 1) + weights["pos_embed"]
    x = torch.cat([x[:, :1], weights["register_tokens"].expand(2, 1, 48), x[:, 1:]], 1)
    x = block(x, "blocks.0.", attend)
    by_hand = norm(block(x, "blocks.1.", values), "norm")[:, 2:]
    out = encoder.encode_image(picture, ImageRequest(text_patches=True))
    assert close(out.text_patches.flatten(1, 2).double(), by_hand)
    assert close(out.patches.flatten(1, 2).double(), norm(block(x, "blocks.1.", attend), "norm")[:, 2:])


# ------------------------------------------------------------------------------------------------ text


def test_text_is_lower_cased_cut_at_64_and_padded_with_zero(encoder):
    tokenize = encoder.tokenizer
    assert tokenize(["A Photo of a CAT"]).tolist() == tokenize(["a photo of a cat"]).tolist()
    assert tokenize(["a cat"]).shape == (1, 16) and tokenize(["the dog " * 5]).shape[1] in (16, 32)
    ids = tokenize(["a cat", "the dog " * 100])
    assert ids.shape == (2, 64) and ids.dtype == np.int32
    pieces = tokenize.pieces.encode("a cat")
    assert ids[0].tolist() == pieces + [0] * (64 - len(pieces)) and 0 not in ids[1]


def test_only_ascii_is_lower_cased_as_in_training(encoder):
    """`tf.strings.lower` without an encoding leaves "É" alone; Python's `lower` would not."""
    assert encoder.tokenizer(["É"]).tolist() != encoder.tokenizer(["é"]).tolist()


def test_text_rows_are_normalised_and_do_not_depend_on_their_neighbours(encoder):
    texts = ["a cat", "", "the red cube", "dog " * 100]
    rows = encoder.encode_text(texts)
    assert rows.shape == (4, 48) and rows.dtype == torch.float32
    assert torch.allclose(rows.norm(dim=1), torch.ones(4), atol=1e-6)
    for text, row in zip(texts, rows, strict=True):
        assert close(encoder.encode_text([text])[0], row)
    assert encoder.encode_text([]).shape == (0, 48)


def test_many_texts_keep_their_order(encoder, monkeypatch):
    monkeypatch.setattr(f"adapters.tipsv2.{encoder.card.backend}_encoder.TEXT_BATCH", 4)
    texts = [f"a cat number {i}" for i in range(11)]
    rows = encoder.encode_text(texts)
    assert rows.shape == (11, 48)
    assert close(encoder.encode_text([texts[10], texts[7], texts[0], texts[1]]), rows[[10, 7, 0, 1]])


# --------------------------------------------------------------------------------- precision and options


@pytest.mark.parametrize(("backend", "dtype"), [("torch", "bfloat16"), ("torch", "float16"), ("jax", "bfloat16")])
def test_half_precision_drifts_little_and_hands_out_float32(folder, encoders, backend, dtype):
    half = build(tips.spec(folder, ROW, backend=backend, dtype=dtype))
    assert half.card.dtype == dtype
    picture = images(2, 3, 70, 98)
    a, b = (e.encode_image(picture, ImageRequest(text_patches=True)) for e in (half, encoders[backend]))
    pairs: list[Any] = [(a.cls, b.cls), (a.patches, b.patches), (a.text_patches, b.text_patches)]
    for x, y in pairs:
        assert x.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(x, y, dim=-1).min() > 0.995
    if backend == "torch":
        assert (half.encode_text(["a cat"]) @ encoders[backend].encode_text(["a cat"]).T).item() > 0.999


def test_unknown_options_are_refused_with_the_choices(folder):
    for backend in BACKENDS:
        with pytest.raises(UsageError, match="--gelu quick: tipsv2-x takes tanh or erf"):
            build(tips.spec(folder, ROW, backend=backend, options={"gelu": "quick"}))
        with pytest.raises(UsageError, match="unknown dtype 'int8'"):
            build(tips.spec(folder, ROW, backend=backend, dtype="int8"))
    with pytest.raises(UsageError, match="--backend tf: tipsv2-x has torch and jax"):
        build(tips.spec(folder, ROW, backend="tf"))


def test_compile_is_off_unless_asked_for_and_takes_every_block(folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *a, **k: compiled.append(self))
    build(tips.spec(folder, ROW))
    assert not compiled
    build(tips.spec(folder, ROW, options={"compile": "true"}))
    assert len(compiled) == 2


def test_features_can_feed_a_head_that_is_trained(encoder):
    features = encoder.encode_image(images(1, 3, 70, 98)).patches
    head = torch.nn.Linear(48, 3)
    head(features).sum().backward()
    assert head.weight.grad is not None and head.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------ DLPack


def test_arrays_cross_between_torch_and_jax_without_a_copy():
    cpu = jax.devices("cpu")[0]
    tensor = images(2, 3, 28, 28)
    array = to_jax(tensor, cpu)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    assert to_torch(array).data_ptr() == tensor.data_ptr()


def test_a_slice_at_an_odd_address_is_read_correctly(encoders):
    batch = images(3, 3, 70, 99)[:, :, :, 1:]
    flat = images(1 + 3 * 70 * 98)[1:].view(1, 3, 70, 98)
    for picture in (batch[1:2], flat):
        assert close(
            encoders["jax"].encode_image(picture).cls,
            encoders["jax"].encode_image(picture.clone(memory_format=torch.contiguous_format)).cls,
        )


# ---------------------------------------------------------------------------------------- embedded models


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_embedded_folder_brings_its_own_sizes(tmp_path, monkeypatch, backend):
    row = tips.arch_row("S", depth=3, text_depth=1)
    row |= {"patch_size": 14, "image_size": 56}
    source = tips.write_pair(tmp_path / "npz", row, grid=4)
    export(tips.spec(source, row), "transformers", tmp_path / "weights/tipsv2-mini")
    monkeypatch.setattr(sources, "files", lambda package: tmp_path)
    mini = build(
        tips.spec(None, {"family": "tipsv2", "embedded": True, "embed_dim": 1}, "tipsv2-mini", backend=backend)
    )
    assert (mini.card.embed_dim, mini.card.depth, mini.card.image_size, mini.transform.size) == (48, 3, 56, 56)
    assert mini.card.weights.source == "embedded tipsv2-mini"
    assert mini.encode_image(images(1, 3, 56, 56)).patches.shape == (1, 4, 4, 48)
