"""A config.json that asks for more than its weight files hold is refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapters.plausible import check_config
from adapters.tipsv2.variants import Architecture
from adapters.weights_files import locate
from benchmark.contracts import ModelSpec
from benchmark.errors import WeightsError


def folder_of(place: Path, **changes: Any) -> Path:
    place.mkdir()
    save_file({f"layer.{i}.weight": torch.zeros(8, 8) for i in range(3)}, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"model_type": "vit", "num_hidden_layers": 3, **changes}))
    return place


FALSE = [
    {"num_hidden_layers": 10**23},
    {"num_hidden_layers": 1e23},
    {"vision_config": {"num_hidden_layers": 10_000}},
    {"depths": [2, 2, 10**23, 2]},
    {"n_layer": 10**400},
    {"hidden_size": 10**12},
    {"text_config": {"vocab_size": 10**15}},
    {"image_size": [224, 10**9]},
    {"num_attention_heads": 10**9},
]


@pytest.mark.parametrize("changes", FALSE, ids=str)
def test_more_than_the_files_hold_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = folder_of(tmp_path / "model", **changes)
    name = json.dumps(changes).split('"')[1]
    with pytest.raises(
        WeightsError, match=rf"config\.json: {name}.* is .*more than weight files of \d+ bytes"
    ) as caught:
        locate(ModelSpec("hf:x", weights=str(folder)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_tips_folder_is_held_against_its_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", model_type="tipsv2", vision_config={"num_hidden_layers": 10**23})
    with pytest.raises(WeightsError, match="more than weight files"):
        Architecture.from_config(folder / "config.json")


def test_numbers_that_are_no_sizes_may_be_large(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", rope_theta=10**7, max_position_embeddings=10**7, eos_token_id=10**6)
    check_config(
        folder / "config.json", json.loads((folder / "config.json").read_text()), [folder / "model.safetensors"]
    )
