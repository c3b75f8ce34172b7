"""An encoder in a file or package of one's own, by its name on the command line."""

from __future__ import annotations

import pytest
from test_adapters_hub import refusal

from benchmark.check import check_encoder
from benchmark.engine.loading import load_encoder
from benchmark.errors import EncoderError, UsageError

GOOD = """
import torch
from benchmark import EncoderCard, ImageFeatures, ImageTransform, WeightsInfo

class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Conv2d(3, 4, 8, 8)
        self.transform = ImageTransform("square", 32)
        self.card = EncoderCard("mine", "own", "torch", 4, 8, 32, 0, 1, False, WeightsInfo("", ""), "MIT")

    @torch.inference_mode()
    def encode_image(self, images, request=None):
        patches = self.embed(images).permute(0, 2, 3, 1)
        return ImageFeatures(patches.mean((1, 2))[:, None], patches)

def build():
    return Mine()

def with_spec(spec):
    assert spec.options == {"compile": "1"}
    return Mine()
"""


def own(tmp_path, text, name="build", **options):
    (tmp_path / "own.py").write_text(text)
    return load_encoder(f"{tmp_path}/own.py:{name}", device="cpu", **options)


def test_a_file_is_an_encoder_and_an_edit_of_it_another_version(tmp_path):
    encoder = own(tmp_path, GOOD)
    assert check_encoder(encoder, cheap=True).ok
    assert len(encoder.card.weights.sha256) == 64 and encoder.card.weights.source.endswith("own.py")
    again = own(tmp_path, GOOD + "\n# edited\n")
    assert again.card.weights.sha256 == encoder.card.weights.sha256
    assert again.card.code_version != encoder.card.code_version
    assert own(tmp_path, GOOD, "with_spec", options={"compile": "1"}).card.name == "mine"


def test_a_module_of_a_package_is_an_encoder(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_encoder("their_package:build", device="cpu").card.name == "mine"
    assert "cannot import 'no_package'" in refusal(lambda: load_encoder("no_package:build", device="cpu"))


@pytest.mark.parametrize(
    ("text", "name", "kind", "line"),
    [
        (GOOD, "bild", UsageError, "no function 'bild' in"),
        ("import nothing_like_it\n", "build", EncoderError, "own.py:1: ModuleNotFoundError"),
        ("def build(:\n", "build", EncoderError, "own.py:1: SyntaxError"),
        ("\ndef build():\n    return 1 / 0\n", "build", EncoderError, "own.py:3: ZeroDivisionError: division by zero"),
        ("def build(a, b):\n    pass\n", "build", UsageError, "may take one ModelSpec or nothing, it takes 2"),
    ],
)
def test_a_file_that_fails_is_blamed_with_its_line(tmp_path, text, name, kind, line):
    assert line in refusal(lambda: own(tmp_path, text, name), kind)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("        self.card =", "        self.other =", "Mine.card must be an EncoderCard"),
        ("self.transform = Im", "self.other = Im", "Mine.transform must be an ImageTransform"),
        ("def encode_image", "def encode", "Mine has no encode_image(images, request)"),
        ("1, False, W", "1, True, W", "the card says has_text, but Mine has no encode_text(texts)"),
        ("4, 8, 32, 0", "4, 8, None, 0", "card.image_size is None, must be a whole number"),
        ("1, False, W", "1, 'no', W", "card.has_text is 'no', must be True or False"),
        ('"own", "torch"', 'None, "torch"', "card.family is None, must be a text"),
        ('WeightsInfo("", "")', "None", "card.weights must be a WeightsInfo(source, sha256)"),
        ("4, 8, 32, 0", "0, 8, 32, 0", "the card must have embed_dim, num_cls, patch_size ≥ 1"),
    ],
)
def test_a_result_that_is_no_encoder_is_named(tmp_path, old, new, line):
    assert line in refusal(lambda: own(tmp_path, GOOD.replace(old, new)), EncoderError)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert f"no file {tmp_path}/gone.py" in refusal(lambda: load_encoder(f"{tmp_path}/gone.py:build", device="cpu"))
