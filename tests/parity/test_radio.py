"""C-RADIOv4's SigLIP 2 adaptor against its authors' code, whole: tower, adaptor, texts, on the keys of their files.

`radio_official.json` holds the shapes of a tiny C-RADIOv4 (two blocks, ten tokens before the patches) and of a SigLIP
text tower, and 24 evenly spaced values of what NVlabs/RADIO (c0f3701) gives for them, on the weights that `weights`
draws; a picture that is no whole number of patches was given to it with a border of the mean colour, and its patches
went through the adaptor's summary head as RADSeg has them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deviations import held
from family_models import save_siglip
from safetensors.torch import load_file, save_file

from adapters.radio import HEAD, build
from benchmark import load_encoder
from benchmark.check import check_encoder
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.engine.session import refusal
from benchmark.errors import WeightsError
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, models, protocol_file

GOLDEN = json.loads((Path(__file__).parent / "radio_official.json").read_text(encoding="utf-8"))
NAME, TOWER, ADAPTOR = "c-radio-v4-h16-siglip2", "naflexvit_tiny.safetensors", "c-radio_v4-h_siglip2-g.safetensors"
SIZES = {"own": (512, 512), "other": (96, 160), "odd": (93, 75)}
TEXTS = ["A photo of a Cat", "two  dogs_in the snow!", "", "x " * 90]
SHAPE = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4, "image_size": 32}
ROW = {**models()[NAME], "embed_dim": 64, "depth": 2, "text_dim": 128}


def weights() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(5)
    found = {}
    for key, shape in GOLDEN["shapes"].items():
        ones = 1.0 if len(shape) == 1 and key.endswith("weight") else 0.0
        found[key] = torch.from_numpy(0.2 * rng.standard_normal(shape, dtype=np.float32) + np.float32(ones))
    return found


def under(prefix: str, state: dict[str, torch.Tensor], to: str = "") -> dict[str, torch.Tensor]:
    return {key.replace(prefix, to, 1): value for key, value in state.items() if key.startswith(prefix)}


def encoder_of(folder: Path) -> Any:
    return build(ModelSpec(NAME, ROW, target="tiny_radio_v4", weights=str(folder), device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three parts, the adaptor as the documented command converts the authors' file."""
    try:
        timm = pytest.importorskip("timm")
    except (RuntimeError, AttributeError) as error:  # a torchvision of another torch
        pytest.skip(f"timm does not import: {error}")

    def tiny_radio_v4(pretrained: bool = False, **more: Any) -> Any:
        more.pop("dynamic_img_size", None)
        more.pop("cache_dir", None)
        sizes: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}
        return timm.create_model("naflexvit_huge_patch16_radio_v4", **sizes, **more)

    timm.models.register_model(tiny_radio_v4)
    place, state = tmp_path_factory.mktemp("radio"), weights()
    save_siglip(place, gemma=True, **SHAPE)
    texts = load_file(place / "model.safetensors") | under("text_model.", state, "text_model.")
    save_file(texts, place / "model.safetensors", metadata={"format": "pt"})
    tower = under("base_model.", state, "radio_model.model.")
    tower = timm.models.naflexvit.checkpoint_filter_fn(tower, tiny_radio_v4(num_classes=0))
    save_file({key: value.contiguous() for key, value in tower.items()}, place / TOWER)
    teachers = [{"name": "siglip2-g", "model": "siglip2-g-384", "type": "siglip2"}, {"name": "dino_v3_7b"}]
    released = {"state_dict": state, "args": argparse.Namespace(teachers=teachers, dtype=torch.float32), "epoch": 299}
    torch.save(released, place / "c-radio_v4-h_half.pth.tar")
    command = str(ROW["files"]).partition('python -c "')[2].partition('"')[0]
    with contextlib.chdir(place):
        exec(command, {})
    assert load_file(place / ADAPTOR).keys() == {key for key in state if key.startswith(HEAD)}
    return place


def spread(values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 24)][:24]


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_the_authors(folder: Path, size: str) -> None:
    images = torch.from_numpy(np.random.default_rng(7).random((1, 3, *SIZES[size]), dtype=np.float32))
    found = encoder_of(folder).encode_image(images, ImageRequest(text_patches=True))
    for what in ("cls", "patches", "text_patches"):
        held(spread(getattr(found, what)), torch.tensor(GOLDEN[size][what]), 1e-5)


def test_texts_are_the_authors(folder: Path) -> None:
    encoder = encoder_of(folder)
    held(encoder.encode_text(TEXTS)[:, ::16], torch.tensor(GOLDEN["texts"]), 1e-5)
    assert encoder.is_cut(TEXTS) == [False, False, False, True]


def test_it_is_an_encoder_and_its_patches_are_those_of_the_tower_alone(folder: Path) -> None:
    from adapters import timm_models

    encoder = encoder_of(folder)
    report = check_encoder(encoder, cheap=True)
    assert report.ok, [finding for finding in report.findings if not finding.ok]
    alone = timm_models.build(ModelSpec("tower", target="tiny_radio_v4", weights=str(folder / TOWER), device="cpu"))
    images, request = torch.rand(1, 3, 64, 64), ImageRequest(layers=(0,))
    ours, towers = encoder.encode_image(images, request), alone.encode_image(images, request)
    assert torch.equal(ours.patches, towers.patches) and torch.equal(ours.layers[0].cls, towers.layers[0].cls)
    assert (encoder.card.text_dim, encoder.card.has_text_patches, alone.card.has_text) == (128, True, False)


def test_what_is_missing_or_of_another_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(WeightsError) as caught:
            encoder_of(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(WeightsError, match="its adaptor is on no hub as safetensors. Give --weights FOLDER with"):
        build(ModelSpec(NAME, ROW, target="tiny_radio_v4", device="cpu"))
    assert "no naflexvit*.safetensors (timm's image tower) in" in refusal()
    (tmp_path / TOWER).write_bytes((folder / TOWER).read_bytes())
    assert "no c-radio*.safetensors (the authors' adaptor) in" in refusal()
    (tmp_path / "c-radio_v4-h_half.pth.tar").write_bytes(b"")
    assert "c-radio_v4-h_half.pth.tar is a pickle, which can run code" in refusal()
    state = load_file(folder / ADAPTOR)
    save_file({key.replace("siglip2-g", "0"): value for key, value in state.items()}, tmp_path / ADAPTOR)
    assert "from https://huggingface.co/google/siglip2-giant-opt-patch16-384" in refusal()
    for part in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / part).write_bytes((folder / part).read_bytes())
    assert "holds no summary head _heads.siglip2-g.* of the authors' MLP v2 ('fc1.weight'; it begins with" in refusal()
    save_file({key: value for key, value in state.items() if key != f"{HEAD}final.0.bias"}, tmp_path / ADAPTOR)
    assert "final.0.bias" in refusal()
    narrow = {f"{HEAD}final.2.weight": torch.zeros(96, 96), f"{HEAD}final.2.bias": torch.zeros(96)}
    save_file(state | narrow, tmp_path / ADAPTOR)
    assert "makes 96 values of 64, where the tower has 64 and a text 128. Take the three of one model" in refusal()


def test_a_tower_alone_says_which_name_has_texts() -> None:
    name, task = "zero_shot_classification", load_task("zero_shot_classification")
    protocol = load_protocol(name, task.schemas, protocol_file(name), "fast", None, None).values
    card = load_encoder("pixels").card
    assert refusal(task, card, protocol) == "pixels has no text tower"
    said = refusal(task, replace(card, name="c-radio-v4-h16"), protocol)
    assert said == "c-radio-v4-h16 has no text tower: with its SigLIP 2 adaptor it is c-radio-v4-h16-siglip2"
    assert "no public source states the names" in str(refusal(task, replace(card, name="c-radio-v3-b16"), protocol))
