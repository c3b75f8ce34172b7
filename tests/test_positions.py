"""A position table away from its own size: the authors' resampling, or the library's, and the row says whose.

`parity/positions_official.json` holds 24 evenly spaced values of a table of 8 x 8 places as the authors' own code
resamples it: facebookresearch/dino 7c446df, bytedance/ibot da316d8, facebookresearch/mae efb2a80, baaivision/EVA
5623d08 (EVA-CLIP/rei), facebookresearch/perception_models 3e352cc, google-deepmind/tips 4db271d, google-research's
big_vision 0127fb6; the last of them and MAE's and EVA's resample squares alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from family_models import save_dino, save_siglip

from adapters.positions import Positions, rules
from benchmark import load_encoder
from benchmark.errors import UsageError

GOLDEN = json.loads((Path(__file__).parent / "parity" / "positions_official.json").read_text(encoding="utf-8"))
TABLE = torch.from_numpy(np.random.default_rng(5).standard_normal((1, 1 + 8 * 8, 16), dtype=np.float32))

SHAPE = {"hidden_size": 48, "num_attention_heads": 4}
GRIDS = ((16, 16), (32, 32), (44, 44), (12, 21), (37, 20))


def authors_table(table, grid, offset, antialias):
    """facebookresearch/dinov2, vision_transformer.py: interpolate_pos_encoding, by its two settings."""
    side = math.isqrt(table.shape[1] - 1)
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    size = {"scale_factor": [(n + offset) / side for n in grid]} if offset else {"size": grid}
    patches = torch.nn.functional.interpolate(patches, mode="bicubic", antialias=antialias, **size)
    assert patches.shape[-2:] == grid
    return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], 1)


@pytest.mark.parametrize(("kind", "offset", "antialias"), [("dinov2", 0.1, False), ("dinov2_with_registers", 0, True)])
def test_dinov2_resamples_its_table_as_its_authors_do(tmp_path, kind, offset, antialias):
    save_dino(tmp_path, kind, **SHAPE)
    encoder = load_encoder(f"hf:{tmp_path}", device="cpu")
    assert dict(encoder.card.options) == {"positions": "authors"}
    table = encoder.model.embeddings.position_embeddings
    theirs = load_encoder(f"hf:{tmp_path}", device="cpu", options={"positions": "transformers"})
    assert dict(theirs.card.options) == {"positions": "transformers"}
    for grid in GRIDS:
        sides = [14 * n for n in grid]
        images = torch.rand(1, 3, *sides)
        wanted = authors_table(table, grid, offset, antialias)
        ours = encoder.encode_image(images).patches
        method = encoder.model.embeddings.interpolate_pos_encoding
        encoder.model.embeddings.interpolate_pos_encoding = lambda *_args, wanted=wanted: wanted
        torch.testing.assert_close(ours, encoder.encode_image(images).patches, rtol=0, atol=1e-5)
        encoder.model.embeddings.interpolate_pos_encoding = method
        gap = (ours - theirs.encode_image(images).patches).norm() / ours.norm()
        assert gap > 1e-4 if kind == "dinov2" else gap < 1e-6
    own = torch.rand(1, 3, 518, 518)
    torch.testing.assert_close(encoder.encode_image(own).patches, theirs.encode_image(own).patches, rtol=0, atol=0)


@pytest.mark.parametrize(("family", "grid"), [(name, grid) for name, grids in GOLDEN.items() for grid in grids])
def test_each_familys_table_is_resampled_as_its_authors_code_does(family, grid):
    prefix = 0 if family == "siglip" else 1
    found = rules()[family].resample(TABLE[:, 1 - prefix :], [int(n) for n in grid.split("x")], prefix)
    flat = found.numpy().ravel()
    np.testing.assert_allclose(flat[:: max(1, len(flat) // 24)][:24], GOLDEN[family][grid], atol=1e-6)


def test_a_table_always_starts_from_the_checkpoints_own():
    model = SimpleNamespace(pos_embed=torch.nn.Parameter(TABLE), no_embed_class=False, num_prefix_tokens=1)
    model.patch_embed, model.rope = SimpleNamespace(grid_size=(8, 8)), SimpleNamespace(ref_feat_shape=(8, 8))
    positions, rule = Positions(model, rules()["pe"]), rules()["pe"]
    assert model.rope.ref_feat_shape is None
    for grid in ((5, 5), (12, 12), (6, 11), (8, 8)):
        positions.set(grid)
        assert model.patch_embed.grid_size == grid
        assert torch.equal(model.pos_embed, rule.resample(TABLE, grid))
    assert torch.equal(model.pos_embed, TABLE)


def test_siglips_positions_are_the_authors_or_transformers(tmp_path):
    save_siglip(tmp_path)
    ours, theirs = (load_encoder(f"hf:{tmp_path}", device="cpu", options={"positions": word}) for word in
                    ("authors", "transformers"))  # fmt: skip
    assert [dict(e.card.options)["positions"] for e in (ours, theirs)] == ["authors", "transformers"]
    images, own = torch.rand(1, 3, 160, 256), torch.rand(1, 3, 224, 224)
    assert torch.equal(ours.encode_image(own).patches, theirs.encode_image(own).patches)
    table = ours.vision.embeddings.position_embedding.weight[None]
    theirs.vision.embeddings.interpolate_pos_encoding = lambda *_args: rules()["siglip"].resample(table, (10, 16), 0)
    torch.testing.assert_close(
        ours.encode_image(images).patches, theirs.encode_image(images).patches, rtol=0, atol=1e-5
    )


def test_positions_that_are_no_choice_are_named(tmp_path):
    save_dino(tmp_path, "dinov2", **SHAPE)
    with pytest.raises(UsageError, match="--positions timm: .* takes authors or transformers"):
        load_encoder(f"hf:{tmp_path}", device="cpu", options={"positions": "timm"})
    with pytest.raises(UsageError, match="--positions authors: pixels has no such choice; it is for families"):
        load_encoder("pixels", device="cpu", options={"positions": "authors"})
