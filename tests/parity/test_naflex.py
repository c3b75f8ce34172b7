"""SigLIP 2 NaFlex against transformers' and timm's own forward, on tiny random weights, at several grids of patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from deviations import held
from family_models import SENTENCES, gemma_tokenizer, saved
from safetensors.torch import save_file
from transformers import Siglip2Config, Siglip2Model

from adapters import hub, timm_models
from adapters.siglip import NaFlex
from benchmark.contracts import ImageRequest, ModelSpec

SIZES = pytest.mark.parametrize("size", [(128, 128), (128, 192), (125, 75)], ids=["native", "wide", "odd"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    text = {**shape, "vocab_size": 300, "max_position_embeddings": 64, "projection_size": 64}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    config = Siglip2Config(text_config=text, vision_config={**shape, "patch_size": 16, "num_patches": 64})
    folder = tmp_path_factory.mktemp("naflex")
    model = saved(Siglip2Model, config, folder, 0, gemma_tokenizer)
    return model, hub.build(ModelSpec("hf:local", target=str(folder), device="cpu", dtype="float32"))


def padded(images: torch.Tensor, encoder: Any) -> torch.Tensor:
    """Normalised pictures with a border of the mean colour, to whole patches."""
    pixels = (images - encoder.mean) / encoder.std
    rows, columns = (-side % 16 for side in images.shape[-2:])
    return F.pad(pixels, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


@SIZES
def test_naflex_equals_transformers(made: tuple[Any, Any], size: tuple[int, int]) -> None:
    model, encoder = made
    assert isinstance(encoder, NaFlex) and (encoder.card.image_size, encoder.card.patch_size) == (128, 16)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    pixels = padded(images, encoder)
    height, width = (side // 16 for side in pixels.shape[-2:])
    rows = F.unfold(pixels, 16, stride=16).transpose(1, 2)  # channel, row, column of a patch; the model has them last
    rows = rows.unflatten(2, (3, 256)).transpose(2, 3).flatten(2)
    found = encoder.encode_image(images, ImageRequest(layers=(-1,), text_patches=True))
    with torch.inference_mode():
        empty = torch.zeros(2, 9, rows.shape[2])  # as the processor fills up a row of patches
        mask = torch.cat([torch.ones(2, height * width), torch.zeros(2, 9)], 1).long()
        shapes = torch.tensor([[height, width]] * 2)
        out = model.get_image_features(torch.cat([rows, empty], 1), pixel_attention_mask=mask, spatial_shapes=shapes)
        tokens = out.last_hidden_state[:, : height * width]
        alone = model.vision_model.head(tokens.reshape(-1, 1, 64))
    assert found.patches.shape[1:3] == (height, width)
    held(found.patches.flatten(1, 2), tokens, 1e-5)
    held(found.layers[0].patches, found.patches, 1e-5)
    held(found.cls[:, 0], out.pooler_output, 1e-5)
    held(found.text_patches.flatten(0, 2), alone, 1e-5)


def test_texts_of_naflex_are_transformers(made: tuple[Any, Any]) -> None:
    model, encoder = made
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=encoder.tokenize(SENTENCES)).pooler_output
    held(encoder.encode_text(SENTENCES), F.normalize(expected, dim=-1), 1e-5)


@pytest.fixture(scope="module", params=["naflexvit_base_patch16_siglip", "naflexvit_base_patch16_radio_v3"])
def of_timm(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tower of timm that takes any grid: SigLIP 2's, and C-RADIO's with its positions cut from one large table."""
    try:
        timm = pytest.importorskip("timm")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"timm does not import: {error}")
    name, folder = f"tiny_{request.param}", tmp_path_factory.mktemp("timm")

    def tiny(pretrained: bool = False, **more: Any) -> Any:
        more.pop("dynamic_img_size", None)
        more.pop("cache_dir", None)
        return timm.create_model(request.param, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2.0, **more)

    tiny.__name__ = name
    timm.models.register_model(tiny)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0)
    save_file({k: v + 0.05 * torch.randn(v.shape) for k, v in model.state_dict().items()}, folder / "model.safetensors")
    spec = ModelSpec(f"timm:{name}", target=name, weights=str(folder), device="cpu", dtype="float32")
    return timm_models.build(spec)


@SIZES
def test_towers_of_any_grid_equal_timm(of_timm: Any, size: tuple[int, int]) -> None:
    encoder, model = of_timm, of_timm.model
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    pixels = padded(images, encoder)
    found = encoder.encode_image(images)
    with torch.inference_mode():
        tokens = model.forward_features(pixels)
        held(found.patches.flatten(1, 2), tokens[:, model.num_prefix_tokens :], 1e-5)
        held(found.cls[:, 0], model(pixels), 1e-5)
    assert found.patches.shape[1:3] == tuple(side // 16 for side in pixels.shape[-2:])


def test_a_folder_of_naflex_says_its_square(made: tuple[Any, Any]) -> None:
    transform = made[1].transform
    assert (transform.resize, transform.size, transform.interpolation) == ("square", 128, "bilinear")
    assert transform.mean == (0.5, 0.5, 0.5) and Path(made[1].checkpoint.folder).is_dir()
