"""TIPS checkpoints that do not load: one line that names the key, the file, or what to get."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tips_layouts as tips
import torch
from test_tips_weights import ROW, TEXT, VISION, change, folder, refusal  # noqa: F401

from adapters.tipsv2.checkpoint import load
from adapters.tipsv2.export import export
from benchmark.registry import models


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
