"""Franca against its authors' code, by the towers of transformers on the authors' own keys.

`franca_official.json` holds the shapes of a tiny Franca (two blocks in two chunks, 56 pixels) and 24 evenly spaced
values of what valeoai/Franca (24f8c60) gives for it, on the weights that `weights` draws; a picture that is no whole
number of patches was given to it with a border of the mean colour.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deviations import held
from safetensors.torch import save_file

from adapters.franca import build
from benchmark.check import check_encoder
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.errors import WeightsError
from benchmark.registry import models

GOLDEN = json.loads((Path(__file__).parent / "franca_official.json").read_text(encoding="utf-8"))
SIZES = [key for key in GOLDEN if key != "shapes"]
TINY = {**models()["franca-b14"], "embed_dim": 128, "image_size": 56, "depth": 2}


def weights() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(5)
    found = {}
    for key, shape in GOLDEN["shapes"].items():
        ones = 1.0 if ("norm" in key and key.endswith("weight")) or key.endswith("gamma") else 0.0
        found[key] = torch.from_numpy(0.2 * rng.standard_normal(shape, dtype=np.float32) + np.float32(ones))
    return found


def encoder_of(path: Path, row: dict[str, Any] = TINY, **options: str) -> Any:
    return build(ModelSpec("franca-b14", row, weights=str(path), device="cpu", dtype="float32", options=options))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The release as the documented command converts it, and blocks flattened by the authors' code."""
    folder, state = tmp_path_factory.mktemp("franca"), weights()
    released = {f"module.backbone.{key}": value for key, value in state.items()}
    released["module.dino_head.0.mlp.0.weight"] = torch.zeros(3)
    torch.save({"teacher": released}, folder / "franca_vitb14_In21k.pth")
    command = str(TINY["files"]).partition('python -c "')[2].partition('"')[0]
    with contextlib.chdir(folder):
        exec(command, {})
    flat = {key.replace("blocks.0.", "blocks.").replace("blocks.1.", "blocks."): v for key, v in state.items()}
    assert "blocks.1.norm1.weight" in flat and "blocks.0.norm1.weight" in flat
    save_file(flat, folder / "flat.safetensors")
    return {"released": folder / "franca_vitb14_In21k.safetensors", "flat": folder / "flat.safetensors"}


def spread(values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 24)][:24]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", ["released", "flat"])
def test_towers_of_any_size_are_the_authors(files: dict[str, Path], layout: str, size: str) -> None:
    sides = [int(n) for n in size.split("x")]
    images = torch.from_numpy(np.random.default_rng(7).random((1, 3, *sides), dtype=np.float32))
    found = encoder_of(files[layout]).encode_image(images, ImageRequest(layers=(0,)))
    held(spread(found.cls), torch.tensor(GOLDEN[size]["cls"]), 1e-5)
    held(spread(found.patches), torch.tensor(GOLDEN[size]["patches"]), 1e-5)
    held(spread(found.layers[0].patches), torch.tensor(GOLDEN[size]["layer0"]), 1e-5)


def test_positions_are_the_authors_or_transformers(files: dict[str, Path]) -> None:
    ours, library = (encoder_of(files["flat"], positions=word) for word in ("authors", "transformers"))
    images = torch.rand(1, 3, 98, 98)
    assert not torch.allclose(ours.encode_image(images).patches, library.encode_image(images).patches, atol=1e-3)


def test_it_is_an_encoder(files: dict[str, Path]) -> None:
    report = check_encoder(encoder_of(files["released"]), cheap=True)
    assert report.ok, [finding for finding in report.findings if not finding.ok]


def test_what_is_missing_or_of_another_model_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    def refusal(state: dict[str, torch.Tensor], row: dict[str, Any] = TINY) -> str:
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError) as caught:
            encoder_of(tmp_path, row)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    state = weights()
    with pytest.raises(WeightsError, match="on no hub as safetensors. bench show franca-b14"):
        build(ModelSpec("franca-b14", TINY, device="cpu"))
    assert "holds no backbone of Franca (x)" in refusal({"x": torch.zeros(1)})
    assert "model.safetensors has embed_dim 128, franca-b14 has 768." in refusal(state, models()["franca-b14"])
    assert "lora" in refusal({**state, "blocks.0.0.attn.lora.weight": torch.zeros(2, 2)})
    assert "layer_scale1.lambda1" in refusal({k: v for k, v in state.items() if k != "blocks.1.1.ls1.gamma"})
    pickled = tmp_path / "franca_vitb14_In21k.pth"
    pickled.write_bytes(b"")
    with pytest.raises(WeightsError, match="is a pickle, which can run code"):
        encoder_of(pickled)
