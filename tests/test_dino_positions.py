"""DINOv2's position table away from 518 pixels: the authors' resampling, or transformers', and the row says whose."""

from __future__ import annotations

import math

import pytest
import torch
from family_models import save_dino

from benchmark import load_encoder
from benchmark.errors import UsageError

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


def test_positions_that_are_no_choice_are_named(tmp_path):
    save_dino(tmp_path, "dinov2", **SHAPE)
    with pytest.raises(UsageError, match="--positions timm: .* takes authors or transformers"):
        load_encoder(f"hf:{tmp_path}", device="cpu", options={"positions": "timm"})
    with pytest.raises(UsageError, match="--positions authors: pixels has no such choice; it is for DINOv2"):
        load_encoder("pixels", device="cpu", options={"positions": "authors"})
