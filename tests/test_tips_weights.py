"""Reading TIPS weights: every published file name and layout, and one line for every way a file can be wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tips_layouts as tips
import torch

from adapters.tipsv2 import variants
from adapters.tipsv2.checkpoint import load, shapes
from adapters.tipsv2.export import export
from adapters.tipsv2.variants import Architecture
from benchmark.errors import BenchError, UsageError, WeightsError
from benchmark.registry import models

ROW = tips.arch_row("S")
VISION, TEXT = "tips_v2_oss_x14_vision.npz", "tips_v2_oss_x14_text.npz"


@pytest.fixture
def folder(tmp_path):
    return tips.write_pair(tmp_path / "weights", ROW)


def change(path, **arrays):
    """Rewrites an archive with some arrays replaced; None removes one. Double underscores stand for dots."""
    stored = dict(np.load(path))
    for name, value in arrays.items():
        key = name.replace("__", ".")
        stored.pop(key, None)
        if value is not None:
            stored[key] = value
    np.savez(path, **stored)


def refusal(folder, row=ROW, kind: type[BenchError] = WeightsError, **changes) -> str:
    with pytest.raises(kind) as caught:
        load(tips.spec(folder, row, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ what loads


@pytest.mark.parametrize("name", [name for name, row in models().items() if "npz" in row])
def test_a_published_model_has_the_parameters_its_row_says(name):
    row = models()[name]
    arch = Architecture.from_row(row)
    towers = shapes(arch, row["image_size"] // 14)
    assert sum(t.numel() for tower in towers.values() for t in tower.values()) == row["params"]
    assert len({k.split(".")[2] for k in towers["text"] if k.startswith("encoder.layers.")}) == (
        27 if "so400m" in name else 12
    )
    assert any("gate_proj" in k for k in towers["vision"]) == (name in ("tipsv2-g", "tips-g", "tips-g-lr"))


@pytest.mark.parametrize("name", [name for name, row in models().items() if "npz" in row])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_official_file_name_is_found(tmp_path, name, backend):
    """All names of the official download scripts, for both codes, with an 8 x 8 and a 16 x 16 table."""
    row = models()[name]
    for layout, stems in row["npz"].items():
        for stem in stems:
            small = {**ROW, "npz": {"torch": [], "scenic": [], layout: [stem]}}
            grid = 16 if "lr" in name else 8
            folder = tips.write_pair(tmp_path / f"{layout}-{stem}", small, layout, grid=grid)
            checkpoint = load(tips.spec(folder, {**small, "npz": row["npz"]}, name, backend=backend))
            assert checkpoint.layout == ("scenic-npz" if layout == "scenic" else "torch-npz")
            assert checkpoint.grid == grid


def test_the_right_pair_is_taken_from_a_folder_that_holds_several(tmp_path):
    other = {**ROW, "npz": {"torch": ["tips_v2_oss_y14"], "scenic": []}}
    tips.write_pair(tmp_path, other, seed=7)
    tips.write_pair(tmp_path, ROW)
    tips.write_pair(tmp_path, ROW, "scenic")
    assert load(tips.spec(tmp_path, ROW)).layout == "torch-npz"
    assert load(tips.spec(tmp_path, ROW, backend="jax")).layout == "scenic-npz"
    named = load(tips.spec(tmp_path / "tips_v2_oss_y14_vision.npz", ROW))
    assert not torch.equal(named.vision["layernorm.weight"], load(tips.spec(tmp_path, ROW)).vision["layernorm.weight"])
    unlisted = {**ROW, "npz": {"torch": ["absent"], "scenic": []}}
    assert "say which with --weights FOLDER/NAME_vision.npz" in refusal(tmp_path, unlisted, UsageError)


def test_the_hubs_own_names_and_sharded_files_load(tmp_path, folder):
    """The hub's files carry the official names behind `vision_encoder.` and `text_encoder.`, and no temperature."""
    from safetensors.torch import save_file

    export(tips.spec(folder, ROW), "transformers", tmp_path / "hub")
    (tmp_path / "hub/model.safetensors").unlink()
    parts = {"vision_encoder.": VISION, "text_encoder.": TEXT}
    index: dict[str, str] = {}
    for n, (prefix, name) in enumerate(parts.items()):
        shard = f"model-0000{n}-of-00002.safetensors"
        arrays = {prefix + k: torch.from_numpy(v) for k, v in np.load(folder / name).items() if k != "temperature"}
        save_file(arrays, tmp_path / "hub" / shard)
        index |= dict.fromkeys(arrays, shard)
    (tmp_path / "hub/model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    ours, hub = load(tips.spec(folder, ROW)), load(tips.spec(tmp_path / "hub", ROW))
    assert hub.vision.keys() == ours.vision.keys() and hub.text.keys() == ours.text.keys()
    assert all(torch.equal(hub.vision[k], ours.vision[k]) for k in ours.vision)
    assert hub.temperature.item() == pytest.approx(0.0047)


def test_a_named_file_is_loaded_whatever_stands_beside_it(tmp_path, folder):
    """Neither the folder's model.safetensors nor an npz pair in it may stand in for the file that was named."""
    from safetensors.torch import load_file, save_file

    there = tmp_path / "hf"
    export(tips.spec(folder, ROW), "transformers", there)
    tensors = load_file(there / "model.safetensors")
    tensors["vision_encoder.norm.weight"] += 1
    step = there / "step-200.safetensors"
    save_file({f"module.{k}": v for k, v in tensors.items()}, step)
    for name in (VISION, TEXT):
        shutil.copy(folder / name, there)
    named, whole = load(tips.spec(step, ROW)), load(tips.spec(there / "model.safetensors", ROW))
    pair = load(tips.spec(there / VISION, ROW))
    assert torch.equal(named.vision["layernorm.weight"], whole.vision["layernorm.weight"] + 1)
    assert (named.layout, pair.layout) == ("transformers", "torch-npz")
    assert named.info.source == str(step) and len({c.info.sha256 for c in (named, whole, pair)}) == 3
    by_hub_name = load(tips.spec(None, {"family": "tipsv2"}, f"hf:{there}", target=str(there)))
    assert by_hub_name.layout == "transformers"


def test_a_pickle_of_a_training_loop_is_named_with_its_remedy(folder):
    (folder / VISION).unlink()
    (folder / TEXT).unlink()
    torch.save({}, folder / "last.pt")
    for path in (folder, folder / "last.pt"):
        assert f"{folder}/last.pt is a pickle, which can run code and is never opened" in refusal(path)
    assert "tokenizer.model is neither .safetensors nor .npz" in refusal(folder / "tokenizer.model")


def hub_config(**changes):
    """The layout of google/tipsv2-l14's own config.json, for the small model of these tests."""
    sizes = tips.sizes_of(ROW)
    text = {"text_mlp_dim": sizes["text_mlp_width"], "text_num_heads": 6, "text_num_layers": 2}
    return {
        "model_type": "tipsv2", "auto_map": {"AutoModel": "modeling_tips.TIPSv2Model"}, "vision_fn": "vit_test",
        "patch_size": 14, "img_size": 112, "vocab_size": 300, "max_len": 64, "embed_dim": 48, "text_hidden_size": 48,
        "ffn_layer": "mlp", "temperature": 0.004785141441971064, **text, **changes,
    }  # fmt: skip


@pytest.fixture
def clone(tmp_path, folder, monkeypatch):
    """A folder as `git clone` of the hub's repository makes it: flat config.json, official names, no temperature."""
    from safetensors.torch import load_file, save_file

    monkeypatch.setitem(variants.HUB_SIZES, "vit_test", "tipsv2-x")
    monkeypatch.setattr(variants, "models", lambda: {"tipsv2-x": ROW})
    there = tmp_path / "clone"
    export(tips.spec(folder, ROW), "transformers", there)
    tensors = load_file(there / "model.safetensors")
    del tensors["temperature"]
    save_file(tensors, there / "model.safetensors")
    (there / "config.json").write_text(json.dumps(hub_config()))
    return there


def test_a_clone_of_the_hubs_repository_gives_sizes_and_temperature(clone, folder):
    for spec in (tips.spec(clone, ROW), tips.spec(None, {"family": "tipsv2"}, f"hf:{clone}", target=str(clone))):
        checkpoint = load(spec)
        assert checkpoint.arch == Architecture.from_row(ROW)
        assert checkpoint.temperature.item() == np.float32(0.004785141441971064)
    (clone / "config.json").write_text(json.dumps(hub_config(embed_dim=64)))
    assert "embed_dim 64 and text_hidden_size 48, a vit_test has 48 in both towers" in refusal(clone)
    (clone / "config.json").write_text(json.dumps(hub_config(text_num_layers=3)))
    assert "is missing for tipsv2-x" in refusal(clone)
    (clone / "config.json").write_text(json.dumps(hub_config(vision_fn="vit_unheard_of")))
    assert "no config.json says how large" in refusal(clone, {"family": "tipsv2"})


@pytest.mark.parametrize(("kind", "name"), [("base", "b"), ("large", "l"), ("so400m", "so400m"), ("giant2", "g")])
def test_the_hubs_sizes_are_those_of_the_registered_models(tmp_path, kind, name):
    row = models()[f"tipsv2-{name}"]
    arch = Architecture.from_row(row)
    flat = hub_config(
        vision_fn=f"vit_{kind}", embed_dim=arch.width, text_hidden_size=arch.width, text_mlp_dim=arch.text_mlp_width,
        text_num_heads=arch.text_heads, text_num_layers=arch.text_depth, vocab_size=32_000, img_size=448,
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert Architecture.from_config(tmp_path / "config.json") == arch


def test_only_a_known_temperature_is_exported(clone, tmp_path):
    def exported(out):
        config = json.loads((export(tips.spec(clone, ROW), "transformers", out) and out / "config.json").read_text())
        pair = export(tips.spec(clone, ROW), "scenic-npz", out)
        return config.get("temperature_init_value"), np.load(pair[1]).get("temperature_contrastive")

    config, array = exported(tmp_path / "known")
    assert config == pytest.approx(0.004785141441971064) and array == np.float32(0.004785141441971064)
    (clone / "config.json").write_text(json.dumps({**hub_config(), "temperature": None}))
    assert exported(tmp_path / "unknown") == (None, None)
    assert load(tips.spec(tmp_path / "unknown/model.safetensors", ROW)).temperature is None


def test_the_digest_follows_the_bytes_and_not_the_folder(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "copy")
    before = load(tips.spec(folder, ROW)).info
    assert load(tips.spec(tmp_path / "copy", ROW)).info.sha256 == before.sha256
    change(folder / TEXT, temperature=np.float32(0.0048))
    assert load(tips.spec(folder, ROW)).info.sha256 != before.sha256
    assert before.source == str(folder)


# ------------------------------------------------------------------------------------------ what does not
