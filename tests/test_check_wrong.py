"""bench check against adapters with one fault each: what it sees by itself, with pictures that are named, with golden
features. Right ones of the same families pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import save_clip, save_dino, save_siglip
from wrong_adapters import WRONG

from benchmark import load_encoder
from benchmark.check import check_encoder
from benchmark.check.golden import read_golden, write_golden_of
from benchmark.check.image_side import ImageChecks
from benchmark.check.labelled import Labelled
from benchmark.check.numbers import number_type
from benchmark.cli.check import scenes
from benchmark.errors import UsageError

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
}
TABLE = list(WRONG)[: list(WRONG).index("CLS that depends on the batch") + 1]

# What no forward shows: only features, or tokens, of the author's own code do.
PIXELS = {"no mean and std", "wrong mean and std", "BGR"}
UNSEEN = {
    "tips": PIXELS,
    "clip": PIXELS,
    "siglip": PIXELS | {"upper-cased text", "CLS without final norm"},
    "dino": PIXELS | {"negated CLS"},
    "custom": PIXELS
    | {"upper-cased text", "whole output without final norm", "early layers without final norm"}
    | {"CLS without final norm"},
}
# No fault in this family: CLIP's tokenizer lower-cases, DINO has no text, SigLIP's head pools normed tokens alone.
NO_FAULT = {
    "clip": {"upper-cased text"},
    "siglip": {"CLS without final norm"},
    "dino": {"upper-cased text", "negated text patches"},
}
# What golden features of the last layer and of one native picture cannot show.
NOT_GOLDEN = {
    "layers without final norm", "layers off by one", "bfloat16 under a float32 card", "squeezed to a square",
    "reversed layers", "early layers without final norm", "layers off by one, the last right", "layers from the end",
    "float16 under a float32 card", "squeezed, the map laid back",
}  # fmt: skip


def first(count):
    """The first pictures of the embedded data set with labels."""
    return scenes().take(range(count))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Name -> a loader of the right encoder in a number type."""
    folder = tmp_path_factory.mktemp("families")
    save_clip(folder / "clip", **SMALL)
    save_siglip(folder / "siglip", **SMALL)
    save_dino(folder / "dino", "dinov2", hidden_size=64, num_attention_heads=4, image_size=70)

    def hub(name):
        return lambda dtype="float32": load_encoder(f"hf:{folder / name}", dtype=dtype)

    def custom(dtype="float32"):
        if dtype != "float32":
            raise UsageError(f"no {dtype}")
        encoder = load_encoder("random-vit")
        encoder.card = replace(encoder.card, name="mine", has_raw_layers=False)
        return encoder

    loaders = {name: hub(name) for name in ("clip", "siglip", "dino")}
    return loaders | {"tips": lambda dtype="float32": load_encoder("tipsv2-mini", dtype=dtype), "custom": custom}


@pytest.fixture(scope="module")
def right(models):
    return {name: load() for name, load in models.items()}


@pytest.fixture(scope="module")
def golden(right, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    for name, encoder in right.items():
        write_golden_of(encoder, "cpu", folder / f"{name}.safetensors")
    return {name: read_golden(folder / f"{name}.safetensors") for name in right}


def failures(encoder, **options):
    return [f"{f.name}: {f.detail}" for f in check_encoder(encoder, **options).findings if not f.ok]


@pytest.mark.parametrize("family", UNSEEN)
def test_right_adapters_pass_with_pictures_golden_features_and_number_types(family, models, right, golden):
    labelled = first(64 if family == "tips" else 256)
    report = check_encoder(right[family], reload=models[family], labelled=labelled, features=golden[family])
    assert report.ok, [f for f in report.findings if not f.ok]
    found = {f.name for f in report.findings}
    assert {"pixels as they are", "golden cls", "golden patches", "bfloat16 drift"} <= found


CASES = [(family, fault) for family in UNSEEN for fault in (TABLE if family == "tips" else WRONG)]


@pytest.mark.parametrize(("family", "fault"), CASES)
def test_a_wrong_adapter_is_seen_by_the_cheap_check_or_with_golden_features(family, fault, right, golden):
    torch.manual_seed(0)
    if fault in NO_FAULT.get(family, ()):
        pytest.skip("no fault in this family")
    found = failures(WRONG[fault](right[family]), cheap=True, features=golden[family])
    plain = [line for line in found if not line.startswith("golden ")]
    assert bool(plain) == (fault not in UNSEEN[family]), found
    assert (len(found) > len(plain)) == (fault not in NOT_GOLDEN), found


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("no mean and std", "pixels as they are: mean and std"),
        ("wrong mean and std", "pixels as they are: mean and std"),
        ("BGR", "pixels as they are: red and blue are swapped"),
        ("upper-cased text", "zero-shot: CLS tells pictures apart, texts do not name them"),
        ("negated text patches", "patches and texts: text_patches and encode_text point apart"),
        ("negated CLS", "zero-shot: cls and encode_text point apart"),
    ],
)
def test_pictures_with_names_show_what_a_trained_model_reads_wrongly(fault, caught_by, right):
    known = Labelled(ImageChecks(WRONG[fault](right["tips"]), "cpu"), first(64))
    findings = [known.inputs()] if caught_by.startswith("pixels") else known.zero_shot()
    found = [f"{f.name}: {f.detail}" for f in findings if not f.ok]
    assert any(line.startswith(caught_by) for line in found), found


@pytest.mark.parametrize("family", ["tips", "clip", "dino"])
def test_a_number_type_that_is_asked_for_and_not_followed_is_named(family, models, right):
    found = failures(right[family], reload=lambda dtype: models[family]())
    assert [line.partition(":")[0] for line in found] == ["bfloat16 drift", "float16 drift"]
    assert all("changes nothing: follow spec.dtype" in line for line in found)


@pytest.mark.parametrize(
    ("computed", "said"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "bfloat16")]
)
@pytest.mark.parametrize("family", ["tips", "clip", "siglip", "dino"])
def test_a_card_that_says_another_number_type_than_is_computed_in(family, computed, said, models):
    encoder = models[family](computed)
    encoder.card = replace(encoder.card, dtype=said)
    found = failures(encoder, cheap=True)
    assert any(f"the card says dtype {said}" in line for line in found), found
    assert not number_type(ImageChecks(encoder, "cpu")).ok  # also where the last step was in float32


def test_the_report_says_what_cannot_be_seen_without_golden_features(right):
    (finding,) = [f for f in check_encoder(right["dino"]).findings if f.name == "golden features"]
    assert finding.ok and "mean and std, channel order" in finding.detail and "--golden FILE" in finding.detail
