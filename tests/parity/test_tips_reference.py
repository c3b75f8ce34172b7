"""TIPS encoders against other people's code: the official PyTorch and JAX code, and transformers.

`tips_official.json` holds 24 evenly spaced values of each output of the official code (google-deepmind/tips, commit
4db271d), run on the same random weights: PyTorch files in its PyTorch code, scenic files in its JAX code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tips_layouts as tips
import torch
from deviations import held
from transformers import Tipsv2Model

from adapters.tipsv2 import build
from adapters.tipsv2.checkpoint import load
from adapters.tipsv2.torch_encoder import build_model
from benchmark.contracts import ImageRequest
from benchmark.registry import models

GOLDEN = json.loads((Path(__file__).parent / "tips_official.json").read_text())
CASES = [key for key in GOLDEN if key != "ids"]


def relative(a, b) -> float:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a - b).abs().max() / b.abs().max())


def spread(values: torch.Tensor) -> np.ndarray:
    flat = values.numpy().ravel()
    return flat[:: max(1, len(flat) // 24)][:24]


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_official_code(tmp_path, case):
    size, layout, sides = case.split("/")
    row = tips.arch_row(size)
    folder = tips.write_pair(tmp_path, row, layout)
    encoder = build(tips.spec(folder, row, backend="torch" if layout == "torch" else "jax"))
    encoder.tokenizer = lambda texts: np.array(GOLDEN["ids"], np.int32)
    height, width = map(int, sides.split("x"))
    images = np.random.default_rng(5).random((1, 3, height, width), dtype=np.float32)
    out = encoder.encode_image(torch.from_numpy(images), ImageRequest(layers=(0,), text_patches=True))
    ours: dict[str, Any] = {"cls": out.cls, "patches": out.patches, "text_patches": out.text_patches}
    ours |= {"layer0": out.layers[0].patches, "text": encoder.encode_text(["", ""])}
    for name, values in GOLDEN[case].items():
        held(torch.from_numpy(spread(ours[name])), torch.tensor(values), 2e-6)


@pytest.mark.parametrize("size", list(tips.SIZES))
@pytest.mark.parametrize("sides", [(112, 112), (70, 154)])
def test_outputs_are_those_of_transformers(tmp_path, size, sides):
    row = tips.arch_row(size)
    folder = tips.write_pair(tmp_path, row)
    ours = build(tips.spec(folder, row))
    checkpoint = load(tips.spec(folder, row))
    theirs = Tipsv2Model(checkpoint.arch.to_config(checkpoint.grid)).eval()
    theirs.load_state_dict(build_model(checkpoint).state_dict())
    images = torch.rand(2, 3, *sides)
    ids = torch.from_numpy(ours.tokenizer(["a cat", "the red cube under the house"])).long()
    with torch.no_grad():
        vision = theirs.vision_model(images, output_hidden_states=True)
        text = theirs.text_model(ids, attention_mask=(ids != 0).long()).pooler_output
        first = theirs.vision_model.layernorm(vision.hidden_states[1])
    out = ours.encode_image(images, ImageRequest(layers=(0, -1)))
    assert relative(out.cls, vision.last_hidden_state[:, :2]) < 1e-6
    assert relative(out.patches.flatten(1, 2), vision.last_hidden_state[:, 2:]) < 1e-6
    assert relative(out.layers[0].cls, first[:, :2]) < 1e-6
    assert relative(out.layers[0].patches.flatten(1, 2), first[:, 2:]) < 1e-6
    assert torch.equal(out.layers[1].patches, out.patches)
    pooled = ours.encode_text(["a cat", "the red cube under the house"])
    assert relative(pooled, text / text.norm(dim=1, keepdim=True)) < 1e-6


AGREE = [  # the position table as it is; resized, padded and not square
    ("S", "torch", "tanh", (112, 112)),
    ("B", "scenic", "erf", (70, 41)),
    ("L", "torch", "erf", (41, 70)),
    ("So400m", "scenic", "tanh", (56, 84)),
    ("g", "torch", "tanh", (70, 41)),
]


@pytest.mark.parametrize(("size", "layout", "gelu", "sides"), AGREE)
def test_the_two_backends_agree_with_the_same_gelu(tmp_path, size, layout, gelu, sides):
    row = tips.arch_row(size)
    folder = tips.write_pair(tmp_path, row, layout)
    ours, theirs = (build(tips.spec(folder, row, backend=b, options={"gelu": gelu})) for b in ("torch", "jax"))
    texts = ["a cat", "", "the GREEN sphere, number 7", "a photo of a tree"]
    held(ours.encode_text(texts), theirs.encode_text(texts), 2e-6)
    request = ImageRequest(layers=(0, 1), text_patches=True)
    images = torch.rand(2, 3, *sides)
    a, b = ours.encode_image(images, request), theirs.encode_image(images, request)
    pairs: list[Any] = [(a.cls, b.cls), (a.patches, b.patches), (a.text_patches, b.text_patches)]
    pairs += [pair for x, y in zip(a.layers, b.layers, strict=True) for pair in zip(x, y, strict=True)]
    for x, y in pairs:
        assert x.shape == y.shape
        held(x, y, 3e-6)


def test_the_default_gelus_differ_by_what_the_official_codes_do(tmp_path):
    row = tips.arch_row("B")
    folder = tips.write_pair(tmp_path, row)
    ours, theirs = (build(tips.spec(folder, row, backend=b)) for b in ("torch", "jax"))
    assert (ours.card.options, theirs.card.options) == ((("gelu", "erf"),), (("gelu", "tanh"),))
    said = [row["gelu"] for row in models().values() if "backends" in row]  # what `bench show` prints of each
    assert said and all(gelu == {"torch": "erf", "jax": "tanh"} for gelu in said)
    images = torch.rand(1, 3, 112, 112)
    assert 1e-5 < relative(ours.encode_image(images).patches, theirs.encode_image(images).patches) < 1e-2
