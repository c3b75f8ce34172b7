"""dino.txt against the authors' code on random weights (dinotxt_official.json), in both layouts of their files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from deviations import held, remember
from dinotxt_layouts import MERGES, save
from torch.nn.functional import normalize, pad
from transformers import AutoModel

from adapters import dinotxt
from benchmark import ImageRequest, load_encoder
from benchmark.contracts import ModelSpec
from benchmark.errors import WeightsError
from benchmark.registry import models
from tasks.prompting import class_embeddings

OFFICIAL = json.loads((Path(__file__).parent / "dinotxt_official.json").read_text(encoding="utf-8"))
SIZES = {"embed_dim": 128, "depth": 2, "text_dim": 256}


def near(found: torch.Tensor, wanted: list[float]) -> None:
    values = np.array(wanted)
    gap = np.linalg.norm(found.flatten().numpy() - values) / np.linalg.norm(values)
    remember(float(gap))
    assert gap <= 1e-5


@pytest.fixture(scope="module", params=[True, False], ids=["DINOv3", "DINOv2"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and the model of which it is a tiny one."""
    folder = tmp_path_factory.mktemp("dinotxt")
    save(folder, request.param)
    return folder, "dinov3-l-dinotxt" if request.param else "dinov2-l-dinotxt"


def build(made: tuple[Path, str]) -> dinotxt.DinoText:
    folder, name = made
    return dinotxt.build(
        ModelSpec(name, {**models()[name], **SIZES}, weights=str(folder), device="cpu", dtype="float32")
    )


def test_head_and_texts_are_the_authors(made: tuple[Path, str]) -> None:
    encoder = build(made)
    tokens = torch.randn(2, 17, 128, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        above = encoder.head(tokens)
        features = encoder.features((tokens, above), (3, 4))
        patches = encoder.text_tokens((tokens, above), {})
        texts = encoder.encode_text(OFFICIAL["texts"])
        cosines = normalize(patches, dim=-1) @ encoder.text_for_patches(texts).T
    near(features.cls[:, 0, ::16], OFFICIAL["image"])
    near(features.cls[:, 0].norm(dim=-1), OFFICIAL["image_norm"])
    near(patches[:, ::5, 128::32], OFFICIAL["patches"])
    near(patches.norm(dim=-1), OFFICIAL["patches_norm"])
    near(texts[:, ::16], OFFICIAL["text"])
    near(cosines, OFFICIAL["cosines"])
    assert torch.equal(features.patches, tokens[:, 5:].unflatten(1, (3, 4))), "probes read the backbone's patches"
    assert encoder.is_cut(OFFICIAL["texts"]) == [False, False, True, False]


def test_zero_shot_segmentation_averages_prompts_as_its_notebook_does(made: tuple[Path, str]) -> None:
    """Second half of each text, normalised, averaged, normalised; whole pictures are compared with both halves."""
    encoder = build(made)
    context: Any = SimpleNamespace(card=encoder.card, encoder=lambda: encoder, text=encoder.encode_text)
    names, templates = ["dog", "cat; kitten"], ["a photo of a {}.", "a bad photo of many {}"]
    found = class_embeddings(context, names, templates, for_patches=True)
    rows = [encoder.encode_text([t.replace("{}", w) for t in templates for w in n.split("; ")]) for n in names]
    wanted = torch.stack([normalize(normalize(r[:, 128:], dim=-1).mean(0), dim=0) for r in rows])
    torch.testing.assert_close(found[:, 128:], wanted, rtol=1e-5, atol=1e-6)
    assert not found[:, :128].any() and class_embeddings(context, names, templates)[:, :128].any()


@pytest.mark.parametrize("size", ["native", "wide", "odd"])
def test_a_picture_of_any_size_goes_through_backbone_and_head(made: tuple[Path, str], size: str) -> None:
    """Of transformers and as held to the authors above."""
    encoder = build(made)
    own, patch = encoder.card.image_size, encoder.card.patch_size
    height, width = {"native": (own, own), "wide": (3 * patch, 5 * patch), "odd": (3 * patch - 5, 5 * patch - 2)}[size]
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    found = encoder.encode_image(images, ImageRequest(layers=(-1,), text_patches=True))
    pixels = (images - encoder.mean) / encoder.std
    pixels = pad(pixels, (1, 1, 2, 3)) if size == "odd" else pixels
    grid = tuple(side // patch for side in pixels.shape[-2:])
    with torch.inference_mode():
        tokens = (AutoModel.from_pretrained(made[0]).eval())(pixels).last_hidden_state
        above = encoder.head(tokens)
    held(found.patches.flatten(1, 2), tokens[:, 5:], 1e-5)
    held(found.cls[:, 0], torch.cat([above[:, 0], above[:, 5:].mean(1)], dim=-1), 1e-5)
    assert found.text_patches is not None and found.text_patches.shape == (2, *grid, 256)
    assert not found.text_patches[..., :128].any()
    held(found.text_patches[..., 128:].flatten(1, 2), above[:, 5:], 1e-5)
    mean = found.text_patches[..., 128:].mean((1, 2))
    torch.testing.assert_close(found.cls[:, 0, 128:], mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.layers[0].patches, found.patches, rtol=1e-5, atol=1e-5)


def test_what_is_missing_or_of_another_model_is_one_line(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, name = made
    with pytest.raises(WeightsError, match="on no hub. Give --weights FOLDER with the backbone's config.json"):
        load_encoder(name)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match=r"no \*dinotxt\*.safetensors in"):
        load_encoder(name, weights=tmp_path)
    (tmp_path / "x_dinotxt_head.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="is a pickle, which can run code"):
        load_encoder(name, weights=tmp_path)
    for path in folder.iterdir():
        if path.name != MERGES.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match=f"no {MERGES.name} in"):
        load_encoder(name, weights=tmp_path)
    (tmp_path / MERGES.name).write_bytes(b"no gzip")
    with pytest.raises(WeightsError, match="is no list of merges"):
        build((tmp_path, name))
    other = next(n for n in ("dinov2-l-dinotxt", "dinov3-l-dinotxt") if n != name)
    with pytest.raises(WeightsError, match="config.json is of a"):
        load_encoder(other, weights=folder)
    with pytest.raises(WeightsError, match="embed_dim"):
        load_encoder(name, weights=folder)
