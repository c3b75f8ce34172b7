"""bench check: errors of the encoder, texts, measured numbers, the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import SmallEncoder
from test_check import Sound, Wrapped, names_of_failures
from typer.testing import CliRunner

from benchmark.check.image_side import ImageChecks
from benchmark.check.labelled import Labelled
from benchmark.check.measured import BATCHES, dtype_drift, speed
from benchmark.check.text_side import TextChecks
from benchmark.cli.commands import app
from benchmark.contracts import ImageFeatures, ImageRequest, ImageSet, LabelData
from benchmark.engine.options import RunOptions
from benchmark.engine.session import _check_once
from benchmark.errors import BenchError, EncoderError


def test_a_crash_on_odd_sizes_is_caught_and_a_refusal_is_not():
    class Crashes(SmallEncoder):
        def encode_image(self, images, request=ImageRequest()):
            images.unflatten(2, (-1, 8))  # RuntimeError unless whole patches
            return super().encode_image(images, request)

    class Refuses(Crashes):
        def encode_image(self, images, request=ImageRequest()):
            if images.shape[2] % 8:
                raise EncoderError("whole patches only")
            return super().encode_image(images, request)

    assert names_of_failures(Crashes()) == {"odd sizes"}
    assert not names_of_failures(Refuses())


# ------------------------------------------------------------------------------------------------ text


class Text(Sound):
    def __init__(self, change, image_size=32):
        super().__init__(image_size=image_size)
        self.change = change

    def encode_text(self, texts):
        return self.change(super().encode_text(texts), texts)


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (lambda rows, texts: rows * 2, "text rows"),
        (lambda rows, texts: rows[:, :3], "text rows"),
        (lambda rows, texts: rows * torch.nan if "" in texts else rows, "text rows"),
        (lambda rows, texts: rows[:1].expand(len(rows), -1), "text rows"),
        (lambda rows, texts: rows if len(texts) > 1 else rows.flip(1), "padding invariance"),
    ],
)
def test_a_broken_text_side_is_caught_by_its_check(change, caught_by):
    assert caught_by in names_of_failures(Text(change), cheap=True)


def test_known_tokens_are_compared():
    class Tokenised(Sound):
        def tokenize(self, texts):
            return {"input_ids": [[ord(c) for c in texts[0].lower()] + [0]]}

    golden = {"text": "A b", "ids": [97, 32, 98]}
    assert TextChecks(Tokenised(), golden).tokens().ok
    finding = TextChecks(Tokenised(), {**golden, "ids": [65, 32, 98]}).tokens()
    assert not finding.ok and "another tokeniser's files?" in finding.detail


# -------------------------------------------------------------------------------------------- measured


class Colours(ImageSet):
    """40 pictures of two colours."""

    digest = "colours"

    def __len__(self):
        return 40

    def image_id(self, index):
        return f"colours/{index}"

    def load(self, index):
        level = 40 + 160 * (index % 2)
        noise = np.random.default_rng(index).integers(0, 20, (32, 32, 3))
        return (noise + np.array([level, 80, 255 - level])).clip(0, 255).astype(np.uint8)


class Named(LabelData):
    """Their label is the colour."""

    digest, class_names = "named", ("dark", "light")

    def __init__(self):
        self.images, self.labels = Colours(), np.arange(40) % 2


def blind(features, _images):
    return replace(features, cls=torch.randn(features.cls.shape))


def test_the_alarm_rings_at_chance_level_only():
    torch.manual_seed(0)
    assert Labelled(ImageChecks(Sound(), "cpu"), Named()).chance().ok
    finding = Labelled(ImageChecks(Wrapped(blind), "cpu"), Named()).chance()
    assert not finding.ok and "wrong normalisation, unloaded weights?" in finding.detail


def test_a_number_type_that_overflows_or_drifts_is_named():
    def other(change):
        return lambda kind: Sound() if kind == "float32" else Wrapped(change)

    checks = ImageChecks(Sound(), "cpu")
    overflow = dtype_drift(checks, other(lambda f, _: ImageFeatures(f.cls, f.patches * torch.inf)))
    assert [f.detail for f in overflow][1] == "overflow: do not run this model with --dtype float16"
    drift = dtype_drift(checks, other(lambda f, _: ImageFeatures(f.cls, f.patches.flip(0, 1, 2))))
    assert all(not f.ok and "keep --dtype float32" in f.detail for f in drift)


def test_speed_is_measured_at_three_batch_sizes_within_its_budget():
    found = speed(ImageChecks(Sound(), "cpu"), budget_s=math.inf)
    assert [f.name for f in found] == [f"batch {n}" for n in BATCHES]
    assert all("images/s" in f.value and "MB peak" in f.value for f in found)
    assert all("too slow" in f.value for f in speed(ImageChecks(Sound(), "cpu"), budget_s=-1.0))


# ------------------------------------------------------------------------------------------- the command

FILE = """
import sys
sys.path.insert(0, {tests!r})
from small import SmallEncoder

class Swapped(SmallEncoder):
    def encode_image(self, images, *request):
        features = super().encode_image(images, *request)
        features.patches = features.patches.transpose(1, 2)
        return features

def good():
    return SmallEncoder()

def swapped():
    return Swapped()
"""


@pytest.fixture
def file(tmp_path):
    from pathlib import Path

    path = tmp_path / "mine.py"
    path.write_text(FILE.format(tests=str(Path(__file__).parent)))
    return path


def test_the_command_exits_1_when_something_is_off(file):
    runner = CliRunner()
    fine = runner.invoke(app, ["check", "--cheap", "--model", f"{file}:good"])
    assert fine.exit_code == 0 and "checks passed in" in fine.output
    wrong = runner.invoke(app, ["check", "--cheap", "--json", "--model", f"{file}:swapped"])
    assert wrong.exit_code == 1
    failed = [f for f in map(json.loads, wrong.output.splitlines()) if not f["ok"]]
    assert [f["name"] for f in failed] == ["grid orientation"]


def test_a_first_run_checks_a_new_model_before_it_encodes_anything(file, tmp_path):
    for part in ("train", "test"):
        for name, level in (("dark", 40), ("light", 200)):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(12):
                noise = np.random.default_rng([i, len(part)]).integers(level, level + 20, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / part / name / f"{i}.png")
    task = tmp_path / "mine.toml"
    task.write_text('task = "classification"\nname = "mine"\n[train]\nimages = "train"\n[test]\nimages = "test"\n')
    words = ["run", "--model", f"{file}:swapped", "--task", str(task), "--results", str(tmp_path / "r")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "breaks the encoder contract: grid orientation" in result.output
    assert f"are swapped. See bench check --model {file}:swapped" in " ".join(result.output.split())
    assert not list((tmp_path / "r").rglob("result.json"))
    unchecked = CliRunner().invoke(app, [*words, "--no-check"])
    assert unchecked.exit_code == 0, unchecked.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"weights": "run 1/final"}, " --weights 'run 1/final'"),
        ({"backend": "jax", "dtype": "bfloat16"}, " --backend jax --dtype bfloat16"),
        ({"model_options": {"gelu": "tanh", "compile": "1"}}, " --gelu tanh --compile"),
        ({"trust_remote_code": True}, " --trust-remote-code"),
    ],
)
def test_the_line_of_a_wrong_encoder_names_the_check_of_the_same_weights(tmp_path, options, words):
    class Asks(SmallEncoder):
        """Its first fault ends in a question mark."""

        def encode_image(self, images, request=ImageRequest()):
            found = super().encode_image(images, request)
            return replace(found, patches=found.patches.flatten(1, 2).roll(1, 1).view_as(found.patches))

    with pytest.raises(BenchError) as raised:
        _check_once(Asks(), "cpu", RunOptions(cache=tmp_path, **options), "small")
    assert str(raised.value).endswith(f"dropped from the front? See bench check --model small{words}")
