"""Perception Encoder away from its own size against its authors' code, by timm's towers on the authors' own keys.

`pe_official.json` holds the shapes of a tiny core (with CLS) and spatial (without) and 24 evenly spaced values of what
facebookresearch/perception_models (3e352cc) gives for them at three sizes, on the weights that `weights` draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deviations import held
from safetensors.torch import save_file

from adapters import timm_models
from benchmark.contracts import ImageRequest, ModelSpec

GOLDEN = json.loads((Path(__file__).parent / "pe_official.json").read_text(encoding="utf-8"))
BASE = {"core": "vit_pe_core_tiny_patch16_384", "spatial": "vit_pe_spatial_tiny_patch16_512"}
SIZES = [key for key in GOLDEN["core"] if key != "shapes"]


def weights(kind: str) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(5)
    found = {}
    for key, shape in GOLDEN[kind]["shapes"].items():
        ones = 1.0 if ("ln" in key or "layernorm" in key) and key.endswith("weight") else 0.0
        found[key] = torch.from_numpy(0.2 * rng.standard_normal(shape, dtype=np.float32) + np.float32(ones))
    return found


@pytest.fixture(scope="module", params=list(BASE))
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kind and its encoder's builder, by whose resampling positions come."""
    try:
        timm = pytest.importorskip("timm")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"timm does not import: {error}")
    from timm.models.eva import checkpoint_filter_fn

    kind, folder = request.param, tmp_path_factory.mktemp("pe")
    shape = {"img_size": 64, "depth": 2, "num_heads": 4, "embed_dim": 64, "ref_feat_shape": (4, 4)}
    shape |= {"class_token": kind == "core"}

    def tiny(pretrained: bool = False, **more: Any) -> Any:
        more = {key: value for key, value in more.items() if key in ("num_classes", "dynamic_img_size")}
        overlay = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        return timm.create_model(BASE[kind], pretrained_cfg_overlay=overlay, **{**shape, **more})

    tiny.__name__ = f"tiny_pe_{kind}"
    timm.models.register_model(tiny)
    model = timm.create_model(tiny.__name__, num_classes=0)
    model.load_state_dict(checkpoint_filter_fn({f"visual.{k}": v for k, v in weights(kind).items()}, model))
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")

    def build(positions: str) -> Any:
        spec = ModelSpec("pe-tiny", {"family": "pe"}, target=tiny.__name__, weights=str(folder), device="cpu",
                         dtype="float32", options={"positions": positions})  # fmt: skip
        return timm_models.build(spec)

    return kind, build


def spread(values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 24)][:24]


def test_towers_of_any_size_are_the_authors(made: Any) -> None:
    kind, build = made
    ours, library = build("authors"), build("timm")
    assert [dict(e.card.options)["positions"] for e in (ours, library)] == ["authors", "timm"]
    for size in SIZES:
        sides = [int(n) for n in size.split("x")]
        images = torch.from_numpy(np.random.default_rng(7).random((1, 3, *sides), dtype=np.float32))
        found, expected = ours.encode_image(images, ImageRequest(layers=(-1,))), GOLDEN[kind][size]
        held(spread(found.patches), torch.tensor(expected["patches"]), 1e-5)
        held(found.layers[0].patches, found.patches, 1e-5)
        if kind == "core":
            held(spread(found.cls), torch.tensor(expected["cls"]), 1e-5)
        gap = (library.encode_image(images).patches - found.patches).norm() / found.patches.norm()
        assert gap < 1e-6 if size == "64x64" else gap > 0.01


def test_an_odd_picture_has_a_border_of_the_mean_colour(made: Any) -> None:
    encoder = made[1]("authors")
    images = torch.from_numpy(np.random.default_rng(7).random((1, 3, 83, 45), dtype=np.float32))
    whole = encoder.mean.repeat(1, 1, 96, 48)
    whole[:, :, 6:89, 1:46] = images
    found, expected = encoder.encode_image(images), encoder.encode_image(whole)
    held(found.patches, expected.patches, 1e-5)
    held(found.cls, expected.cls, 1e-5)
