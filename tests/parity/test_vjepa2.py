"""V-JEPA 2 on still pictures against transformers' own clips, on tiny random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from deviations import held
from family_models import saved
from transformers import VJEPA2Config, VJEPA2Model

from adapters import hub
from benchmark.contracts import ImageRequest, ModelSpec

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
SHAPE |= {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "crop_size": 64, "frames_per_clip": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("vjepa2")
    model = saved(VJEPA2Model, VJEPA2Config(**SHAPE), folder, 0)
    return model, hub.build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (64, 96), (61, 75)], ids=["native", "larger", "wide", "odd"])
def test_a_still_is_a_clip_of_sixteen_equal_frames(made: tuple[Any, Any], size: tuple[int, int]) -> None:
    model, encoder = made
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    rows, columns = (-side % 16 for side in size)
    pixels = (images - encoder.mean) / encoder.std
    pixels = F.pad(pixels, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    height, width = (side // 16 for side in pixels.shape[-2:])
    if height == width:  # transformers counts by the size in the config
        reference = VJEPA2Model(VJEPA2Config(**{**SHAPE, "crop_size": 16 * height})).eval()
    else:
        reference = VJEPA2Model(VJEPA2Config(**SHAPE)).eval()
        places = torch.meshgrid(torch.arange(8), torch.arange(height), torch.arange(width), indexing="ij")
        for block in reference.encoder.layer:
            block.attention.get_position_ids = lambda _tokens, masks=None: tuple(p.flatten() for p in places)
    reference.load_state_dict(model.state_dict())
    found = encoder.encode_image(images, ImageRequest(layers=(0, -1)))
    with torch.inference_mode():
        out = reference(pixels[:, None].repeat(1, 16, 1, 1, 1), skip_predictor=True).last_hidden_state
    expected = out.reshape(2, 8, height, width, 48).mean(1)
    held(found.patches, expected, 1e-5)
    held(found.cls[:, 0], out.mean(1), 1e-5)
    held(found.layers[1].patches, found.patches, 1e-5)
    assert not torch.allclose(found.layers[0].patches, found.patches)


def test_its_pixels_are_its_authors(made: tuple[Any, Any]) -> None:
    transform, card = made[1].transform, made[1].card
    assert (transform.resize, transform.size, transform.crop, transform.interpolation) == (
        "short-side",
        73,
        64,
        "bilinear",
    )
    assert (card.depth, card.patch_size, card.embed_dim, card.num_cls, card.has_text) == (2, 16, 48, 1, False)
    assert card.params == sum(p.numel() for p in made[0].encoder.parameters())
