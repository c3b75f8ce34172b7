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
    index = {}
    for n, (prefix, name) in enumerate(parts.items()):
        shard = f"model-0000{n}-of-00002.safetensors"
        arrays = {prefix + k: torch.from_numpy(v) for k, v in np.load(folder / name).items() if k != "temperature"}
        save_file(arrays, tmp_path / "hub" / shard)
        index |= dict.fromkeys(arrays, shard)
    (tmp_path / "hub/model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    ours, hub = load(tips.spec(folder, ROW)), load(tips.spec(tmp_path / "hub", ROW))
    assert hub.vision.keys() == ours.vision.keys() and hub.text.keys() == ours.text.keys()
    assert all(torch.equal(hub.vision[k], ours.vision[k]) for k in ours.vision)
    assert float(hub.temperature) == pytest.approx(0.0047)


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
        assert float(checkpoint.temperature) == np.float32(0.004785141441971064)
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


def test_a_missing_key_is_named(folder):
    change(folder / VISION, blocks__1__mlp__fc2__bias=None)
    message = refusal(folder)
    assert VISION in message and "'blocks.1.mlp.fc2.bias' is missing for tipsv2-x" in message


def test_a_shallower_file_names_its_first_missing_block(folder):
    assert "'blocks.2.attn.proj.bias' (and 13 more) is missing" in refusal(folder, {**ROW, "depth": 3})


def test_an_extra_key_is_named(folder):
    change(folder / TEXT, transformer__resblocks__2__ln_1__bias=np.zeros(48, np.float32))
    assert "'transformer.resblocks.2.ln_1.bias' is unknown for tipsv2-x" in refusal(folder)


def test_another_size_is_named_with_both_shapes(folder):
    message = refusal(folder, tips.arch_row("B"))
    assert f"{VISION}: 'cls_token' is [1, 1, 48], tipsv2-x needs [1, 1, 96]" in message


def test_a_position_table_that_is_not_square_is_refused(folder):
    change(folder / VISION, pos_embed=np.zeros((1, 60, 48), np.float32))
    assert "'pos_embed' is [1, 60, 48], tipsv2-x needs [1, 50, 48]" in refusal(folder)


def test_another_family_is_named_by_its_keys(folder):
    np.savez(folder / VISION, conv1=np.zeros(3, np.float32))
    assert "is no TIPS image tower: its keys are 'conv1'" in refusal(folder)


def test_files_of_another_published_model_are_refused_by_name(tmp_path):
    """TIPS and TIPSv2 of one size have the same shapes: only the name tells them apart."""
    row = {**ROW, "npz": {"torch": ["tips_oss_b14_highres_distilled"], "scenic": []}}
    folder = tips.write_pair(tmp_path, row)
    message = refusal(folder, models()["tipsv2-b"], name="tipsv2-b")
    assert "tips_oss_b14_highres_distilled_vision.npz holds weights of tips-b, not of tipsv2-b" in message


def test_swapped_files_are_refused(folder):
    (folder / VISION).rename(folder / "x")
    (folder / TEXT).rename(folder / VISION)
    (folder / "x").rename(folder / TEXT)
    assert "is no TIPS image tower" in refusal(folder)


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.999])
def test_a_truncated_archive_says_so(folder, kept):
    data = (folder / VISION).read_bytes()
    (folder / VISION).write_bytes(data[: int(len(data) * kept)])
    assert f"{VISION} is truncated" in refusal(folder)


def test_a_damaged_byte_is_found_and_its_key_named(folder):
    data = bytearray((folder / VISION).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / VISION).write_bytes(data)
    assert "cannot be read (Bad CRC-32 for file" in refusal(folder)


def test_a_pickle_inside_is_never_opened(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    with np.load(folder / TEXT) as archive:
        arrays = dict(archive)
    np.savez(folder / TEXT, **{**arrays, "ln_final.bias": np.array([Bomb()], dtype=object)})
    assert "'ln_final.bias' is a pickle, which can run code; it is not loaded" in refusal(folder)


def test_a_whole_file_of_pickle_is_never_opened(folder):
    (folder / VISION).write_bytes(b"\x80\x04\x95\x10\x00\x00\x00")
    assert f"{VISION} is not an .npz archive" in refusal(folder)


@pytest.mark.parametrize("name", [VISION, TEXT])
def test_a_saved_web_page_says_so(folder, name):
    (folder / name).write_text("\n<!DOCTYPE html><html><body>403 Forbidden</body></html>")
    assert f"{name} is a web page, not weights: the download failed" in refusal(folder)


def test_a_bucket_error_document_says_so(folder):
    (folder / VISION).write_text("<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code></Error>")
    assert "is a web page" in refusal(folder)


def test_a_lfs_pointer_says_so(folder):
    (folder / VISION).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert "Git LFS pointer" in refusal(folder)


def test_integers_are_no_weights(folder):
    change(folder / VISION, norm__bias=np.zeros(48, np.int64))
    assert "'norm.bias' is int64, weights are floating point" in refusal(folder)


@pytest.mark.parametrize("name", [VISION, TEXT])
def test_half_a_pair_names_the_other_half(folder, name):
    (folder / name).unlink()
    message = refusal(folder)
    assert f"{name} is missing: image and text weights come as a pair" in message
    assert "https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/" in message


def test_a_missing_tokenizer_says_where_it_is(folder):
    (folder / "tokenizer.model").unlink()
    message = refusal(folder)
    assert f"no tokenizer.model in {folder}" in message and "v1_0/checkpoints/tokenizer.model" in message


def test_an_empty_folder_says_what_belongs_there(tmp_path):
    message = refusal(tmp_path, models()["tips-so400m"], name="tips-so400m", backend="jax")
    assert (
        "tips_oss_so400m14_highres_largetext_distilled_vision.npz" in message and "/v1_0/checkpoints/scenic/" in message
    )


def test_without_weights_a_model_that_is_on_no_hub_says_which_files_to_get():
    message = refusal(None, models()["tips-b"], name="tips-b")
    assert message.startswith("tips-b is not on the hub. Get tips_oss_b14_highres_distilled_vision.npz and")


def test_an_absent_path_is_named(tmp_path):
    assert f"--weights {tmp_path / 'nowhere'}: no such file or folder" in refusal(tmp_path / "nowhere")


def test_offline_without_a_cache_says_where_the_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal(None, models()["tipsv2-l"], name="tipsv2-l", offline=True)
    assert "--offline" in message and "https://huggingface.co/google/tipsv2-l14" in message
    assert "--weights FOLDER" in message


def test_the_pinned_revision_is_read_from_the_hubs_cache(tmp_path, folder, monkeypatch):
    """A stand-in for a download: the cache folders that huggingface_hub itself would write."""
    revision = "0123456789abcdef" * 2 + "01234567"
    row = {**ROW, "hub": "google/tipsv2-x14", "revision": revision}
    export(tips.spec(folder, ROW), "transformers", tmp_path / "hub/models--google--tipsv2-x14/snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for offline in (True, False):
        checkpoint = load(tips.spec(None, row, offline=offline))
        assert checkpoint.info.source == f"google/tipsv2-x14@{revision}"
        assert torch.equal(
            checkpoint.text["final_layer_norm.bias"], load(tips.spec(folder, ROW)).text["final_layer_norm.bias"]
        )


def test_an_absent_embedded_model_says_so():
    row = {"embedded": True, "family": "tipsv2"}
    assert "tipsv2-nano: no weights in " in refusal(None, row, name="tipsv2-nano")


def test_a_transformers_folder_is_checked_as_closely(tmp_path, folder):
    there = tmp_path / "hf"
    export(tips.spec(folder, ROW), "transformers", there)
    data = (there / "model.safetensors").read_bytes()
    (there / "model.safetensors").write_bytes(data[:-1000])
    assert "model.safetensors cannot be read" in refusal(there)
    (there / "model.safetensors").write_bytes(data)
    assert "width 48 and 2 blocks, tipsv2-x has 96 and 2" in refusal(there, tips.arch_row("B"))
    config = json.loads((there / "config.json").read_text())
    for key, value in {"hidden_size": "wide", "num_attention_heads": 0}.items():
        wrong = {**config, "vision_config": {**config["vision_config"], key: value}}
        (there / "config.json").write_text(json.dumps(wrong))
        assert "config.json: no TIPS configuration" in refusal(there)
    (there / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    assert "config.json: model_type is 'siglip'" in refusal(there)
    (there / "config.json").write_text("{")
    assert "config.json: not a readable config.json" in refusal(there)
    (there / "config.json").unlink()
    assert "has model.safetensors but no config.json beside it" in refusal(there)
    (there / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    (there / "model.safetensors").unlink()
    assert "outside its folder" in refusal(there)
