"""Weights of the transformers families: what loads, and one line for every way a file can be wrong."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from family_models import save_clip, save_dino, save_siglip
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from adapters import clip, dino, hub, siglip
from benchmark.contracts import ModelSpec
from benchmark.errors import BenchError, WeightsError
from benchmark.registry import models

SMALL: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 64}
BUILDERS = {"clip": clip.build, "siglip": siglip.build, "dinov2": dino.build}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    save_clip(root / "clip", **SMALL, patch_size=16)
    save_siglip(root / "siglip", **SMALL, patch_size=16)
    save_dino(root / "dinov2", "dinov2", hidden_size=48, num_attention_heads=4, image_size=70)
    return root


@pytest.fixture(params=list(BUILDERS))
def folder(request, saved, tmp_path):
    return shutil.copytree(saved / request.param, tmp_path / request.param)


def load(folder, **changes):
    spec = ModelSpec(f"my-{folder.name}", weights=str(folder), device="cpu", dtype="float32", **changes)
    return BUILDERS[folder.name](spec)


def refusal(call, kind: type[BenchError] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def norm_of(folder) -> str:
    return next(k for k in load_file(folder / "model.safetensors") if k.endswith("layernorm.weight"))


def test_the_row_records_the_digest_of_the_bytes(folder):
    before = load(folder).card.weights
    key = norm_of(folder)
    change(folder, lambda t: t[key].add_(1))
    assert before.source == str(folder)
    assert load(folder).card.weights.sha256 != before.sha256


@pytest.mark.parametrize(
    "name",
    ["config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
     "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"],
)  # fmt: skip
def test_the_digest_covers_what_decides_the_outputs_beside_the_weights(saved, tmp_path, name):
    there = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    before = load(there).card.weights.sha256
    (there / "README.md").write_text("a note")
    assert load(there).card.weights.sha256 == before
    path = there / name
    path.write_text(path.read_text().replace("}", ' , "note": 1}', 1) if path.exists() else '{"do_normalize": false}')
    assert load(there).card.weights.sha256 != before


def test_a_named_file_is_loaded_whatever_stands_beside_it(folder):
    """Beside a model.safetensors a step's own file must not fall back to it: every step would get one score."""
    key = norm_of(folder)
    step = folder / "step-200.safetensors"
    shutil.copy(folder / "model.safetensors", step)
    same, named = load(folder), BUILDERS[folder.name]
    spec = ModelSpec(f"my-{folder.name}", weights=str(step), device="cpu", dtype="float32")
    images = torch.rand(1, 3, same.card.image_size, same.card.image_size)
    assert torch.equal(named(spec).encode_image(images).patches, same.encode_image(images).patches)
    tensors = load_file(step)
    tensors[key] += 1
    save_file(tensors, step)
    encoder = named(spec)
    assert encoder.card.weights.source == str(step)
    assert encoder.card.weights.sha256 != same.card.weights.sha256
    change(folder, lambda t: t[key].add_(1))  # now the folder holds the same weights
    assert torch.equal(encoder.encode_image(images).patches, load(folder).encode_image(images).patches)
    del tensors[key]
    save_file(tensors, step)
    assert f"{step} lacks {key}" in refusal(lambda: named(spec))


def test_a_shard_alone_and_other_files_are_refused_by_name(saved, tmp_path):
    there = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    shutil.copy(there / "model.safetensors", there / "model-00001-of-00002.safetensors")
    index = {"weight_map": {k: f"model-0000{k}-of-00002.safetensors" for k in "12"}}
    (there / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = ModelSpec("my-dino", weights=str(there / "model-00001-of-00002.safetensors"), device="cpu")
    assert "is one of the shards that model.safetensors.index.json names. Give its folder" in refusal(
        lambda: dino.build(spec)
    )
    spec = ModelSpec("my-dino", weights=str(there / "config.json"), device="cpu")
    assert "config.json is no .safetensors file" in refusal(lambda: dino.build(spec))


def test_an_index_left_by_an_earlier_save_in_shards_is_ignored(saved, tmp_path):
    there = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    before = load(there).card.weights
    (there / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    assert load(there).card.weights == before


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_taken_off(folder, wrapper):
    before = load(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({wrapper + k: v for k, v in tensors.items()}, folder / "model.safetensors")
    images = torch.rand(1, 3, before.card.image_size, before.card.image_size)
    assert torch.equal(load(folder).encode_image(images).patches, before.encode_image(images).patches)


def test_a_pickle_of_a_training_loop_comes_with_the_command_that_converts_it(saved, tmp_path):
    there = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    before = load(there).card.weights.sha256
    state = load_file(there / "model.safetensors")
    (there / "model.safetensors").unlink()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, there / "last.pt")
    spec = ModelSpec("my-dino", weights=str(there / "last.pt"), device="cpu")
    for message in (refusal(lambda: dino.build(spec)), refusal(lambda: load(there))):
        assert f"{there}/last.pt is a pickle, which can run code and is never opened" in message
        command = message.partition('python -c "')[2].partition('"')[0]
    exec(command, {})
    spec = ModelSpec("my-dino", weights=str(there / "last.safetensors"), device="cpu")
    assert dino.build(spec).card.weights.sha256 != before
    torch.save({"model": state, "epoch": 3}, there / "pytorch_model.bin")
    (there / "last.safetensors").unlink()
    assert "pytorch_model.bin holds 'model' beside or around its tensors. If you trust it, convert it" in refusal(
        lambda: load(there)
    )


def test_attention_is_torch_s_fused_one(folder):
    assert load(folder).model.config._attn_implementation == "sdpa"


def test_a_missing_key_is_named_with_its_file(folder):
    key = norm_of(folder)
    change(folder, lambda t: t.pop(key))
    message = refusal(lambda: load(folder))
    assert f"{folder}/model.safetensors lacks {key}" in message


def test_a_wrong_shape_is_named_with_both_shapes(folder):
    key = norm_of(folder)
    change(folder, lambda t: t.__setitem__(key, torch.zeros(7)))
    assert f"model.safetensors has {key} of shape [7], the model needs [48]" in refusal(lambda: load(folder))


@pytest.mark.parametrize("tail", ["norm1.lora_A", "9.weight"])
def test_a_weight_inside_the_blocks_that_the_model_would_drop_is_named(folder, tail):
    """Deeper blocks than config.json says, an adapter that was not merged: the row would be of another model."""
    blocks = next(k for k in load_file(folder / "model.safetensors") if ".0." in k).partition(".0.")[0]
    key = f"{blocks}.{tail}" if tail[0].isdigit() else f"{blocks}.0.{tail}"
    change(folder, lambda t: t.update({"classifier.weight": torch.zeros(3, 48)}))
    load(folder)
    change(folder, lambda t: t.update({key: torch.zeros(3)}))
    message = refusal(lambda: load(folder))
    assert f"{folder}/model.safetensors has {key} inside the blocks, where the model has no such weight" in message


def test_an_adapter_beside_the_model_is_refused_unless_the_model_s_file_is_named(folder):
    """transformers applies it where peft is installed: one digest would stand for two models."""
    before = load(folder).card.weights.sha256
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert f"{folder} holds an adapter (adapter_config.json) beside the model" in refusal(lambda: load(folder))
    spec = ModelSpec("mine", weights=str(folder / "model.safetensors"), device="cpu", dtype="float32")
    assert BUILDERS[folder.name](spec).card.weights.sha256 == before


@pytest.mark.parametrize("named", [False, True])
def test_a_value_that_no_configuration_takes_is_named(saved, tmp_path, named):
    there = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    config = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps({**config, "hidden_size": "large"}))
    weights = str(there / "model.safetensors") if named else str(there)
    message = refusal(lambda: dino.build(ModelSpec("mine", weights=weights, device="cpu")))
    assert message.startswith(f"mine: {there}/config.json is no configuration: ") and "'hidden_size'" in message
    generic = {**config, "model_type": "vit", "hidden_size": "large"}
    (there / "config.json").write_text(json.dumps(generic))
    assert "'hidden_size' expected int, got str" in refusal(lambda: hub.build(ModelSpec("hf:x", target=str(there))))


def test_a_siglip_tower_without_its_attention_pool_is_refused(saved, tmp_path):
    there = shutil.copytree(saved / "siglip", tmp_path / "siglip")
    tower = json.loads((there / "config.json").read_text())["vision_config"]
    SiglipVisionModel(SiglipVisionConfig(**{**tower, "vision_use_head": False})).save_pretrained(there)
    assert f"the image tower of {there} has no attention pool (vision_use_head)" in refusal(lambda: load(there))


def test_another_family_is_refused(folder):
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json is of a 'bert' model, expected" in refusal(lambda: load(folder))


def test_another_size_of_the_family_is_refused(folder):
    row = {"embed_dim": 768}
    assert f"config.json has embed_dim 48, my-{folder.name} has 768. Another variant's weights?" in refusal(
        lambda: load(folder, row=row)
    )


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_truncated_file_says_so(folder, kept):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(len(data) * kept)])
    assert "model.safetensors is no whole safetensors file" in refusal(lambda: load(folder))


def test_pickles_are_not_run(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin cannot be read as plain tensors" in refusal(lambda: load(folder))
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    assert "model.safetensors is no whole safetensors file (it is a pickle)" in refusal(lambda: load(folder))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<!DOCTYPE html><html>Sign in</html>", "It is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "It is a Git LFS pointer"),
    ],
)
def test_a_saved_page_or_pointer_says_so(folder, text, line):
    (folder / "model.safetensors").write_text(text)
    message = refusal(lambda: load(folder))
    assert line in message and str(folder / "model.safetensors") in message
    (folder / "config.json").write_text("<html>403</html>")
    assert "config.json: is no JSON" in refusal(lambda: load(folder))


def test_an_index_with_an_absent_shard_names_it(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    assert "names model-2.safetensors, which is missing" in refusal(lambda: load(folder))


def test_a_folder_without_weights_says_which_files_belong_there(tmp_path):
    row = models()["clip-b16"]
    message = refusal(lambda: clip.build(ModelSpec("clip-b16", row=row, weights=str(tmp_path))))
    assert (
        f"clip-b16: no config.json in {tmp_path}. Get config.json, model.safetensors and the tokenizer files" in message
    )
    assert "https://huggingface.co/openai/clip-vit-base-patch16" in message


def test_half_a_text_side_is_refused(saved, tmp_path):
    there = shutil.copytree(saved / "siglip", tmp_path / "siglip")
    (there / "spiece.model").unlink()
    assert "neither spiece.model (SigLIP) nor tokenizer.json (SigLIP 2) in" in refusal(lambda: load(there))


# ------------------------------------------------------------------------------------------ the hub
