"""bench look: the maps are those of the features, and the sheet shows every model beside its texts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import SmallEncoder

from benchmark.cli import main
from benchmark.errors import EncoderError
from benchmark.look.maps import look, pca, sheet

MODEL = """
from small import SmallEncoder
def build(spec):
    return SmallEncoder("mine")
"""


def picture() -> np.ndarray:
    """Left half red, right half blue, 64 × 64."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 2] = 250, 250
    return image


def test_heat_is_the_cosine_of_patches_and_texts() -> None:
    encoder = SmallEncoder()
    found = look(encoder, picture(), ["a", "b"])
    assert found.heat is not None and found.heat.shape == (2, 4, 4)
    red = encoder.map[0] * 250 / 255
    words = encoder.encode_text(["a", "b"])
    assert found.heat[:, 0, 0] == pytest.approx((words @ red / red.norm()).numpy(), abs=1e-5)


def test_pca_parts_the_halves_and_explains_their_variance() -> None:
    found = look(SmallEncoder(), picture())
    assert found.explained == pytest.approx(1)
    first = found.pca[..., 0]
    assert abs(first[0, 0] - first[0, -1]) > 0.9 and first[:, :2].std() < 0.05 and found.heat is None


def test_components_without_variance_stay_dark() -> None:
    features = np.zeros((4, 4, 5))
    features[:2, :, 1] = 3.0
    rgb, share = pca(features)
    assert share == 1 and rgb[..., 0].max() == 1 and rgb[..., 1:].max() == 0


def test_pca_of_equal_features_is_the_same_whatever_their_sign_convention() -> None:
    features = np.random.default_rng(0).standard_normal((5, 6, 9))
    first, share = pca(features)
    assert 0 < share < 1 and first.min() >= 0 and first.max() <= 1
    assert np.allclose(first, pca(features.copy())[0])


def test_a_model_without_text_says_so_and_nan_is_an_error() -> None:
    encoder = SmallEncoder()
    encoder.card = type(encoder.card)(**{**vars(encoder.card), "has_text": False, "has_text_patches": False})
    assert look(encoder, picture(), ["a"]).why_no_text == "no text tower"
    with pytest.raises(EncoderError, match="NaN"):
        look(SmallEncoder(nan_at=0), picture())


def test_a_sheet_has_a_row_for_each_model() -> None:
    one = sheet(picture(), [look(SmallEncoder(), picture(), ["a", "b"])], ["a", "b"])
    two = sheet(picture(), [look(SmallEncoder(), picture(), ["a", "b"])] * 2, ["a", "b"])
    sizes = [Image.open(io.BytesIO(png)).size for png in (one, two)]
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] == pytest.approx(2 * sizes[0][1], abs=2)


def test_the_command_writes_one_png_and_explains_bad_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save("two.png")
    Path("mine.py").write_text(MODEL)
    torch.manual_seed(0)

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["look", *words])
        return int(stop.value.code or 0)

    assert run("two.png", "-m", "mine.py:build", "-m", "pixels", "--text", "a dog", "grass") == 0
    assert capsys.readouterr().out.strip() == "two-look.png"
    assert Image.open("two-look.png").width > 5 * 200
    assert run("none.png") == 2 and "no such picture" in capsys.readouterr().err
    assert run("two.png", "-m", "a", "-m", "b", "--weights", "x") == 2
    assert "--weights is for one model" in capsys.readouterr().err
