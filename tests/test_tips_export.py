"""bench export: same layout bit for bit, across layouts the same outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tips_layouts as tips
import torch
from safetensors.torch import load_file, save_file
from transformers import Tipsv2Model
from typer.testing import CliRunner

import benchmark.cli.export as command
from adapters.tipsv2 import build
from adapters.tipsv2.export import export
from adapters.tipsv2.variants import Architecture
from benchmark.contracts import ImageRequest
from benchmark.errors import UsageError

STEM = {"torch": "tips_v2_oss_x14", "scenic": "tips_v2_x14"}


def outputs(folder, row, **changes):
    encoder = build(tips.spec(folder, row, **changes))
    images = torch.rand(2, 3, 100, 70, generator=torch.Generator().manual_seed(0))
    out = encoder.encode_image(images, ImageRequest(layers=(0,), text_patches=True))
    return [out.cls, out.patches, *out.layers[0], out.text_patches, encoder.encode_text(["a cat", "the red cube"])]


def assert_close(a, b, tolerance=1e-6):
    for x, y in zip(a, b, strict=True):
        assert (x - y).norm() / y.norm() < tolerance


@pytest.mark.parametrize("layout", ["torch", "scenic"])
@pytest.mark.parametrize("size", ["So400m", "g"])
def test_an_npz_pair_comes_back_bit_for_bit(tmp_path, size, layout):
    row = tips.arch_row(size)
    folder = tips.write_pair(tmp_path / "in", row, layout)
    export(tips.spec(folder, row), f"{layout}-npz", tmp_path / "out")
    for part in ("vision", "text"):
        name = f"{STEM[layout]}_{part}.npz"
        before, after = np.load(folder / name), np.load(tmp_path / "out" / name)
        assert set(before.files) == set(after.files)
        for key in before.files:
            assert before[key].dtype == after[key].dtype and before[key].shape == after[key].shape, key
            assert before[key].tobytes() == after[key].tobytes(), key
    assert (tmp_path / "out/tokenizer.model").read_bytes() == tips.tokenizer_bytes()


@pytest.mark.parametrize("size", ["So400m", "g"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, size):
    """What `save_pretrained` writes, through the npz pair and back: names, shapes and bits."""
    row = tips.arch_row(size)
    Tipsv2Model(Architecture.from_row(row).to_config(8)).save_pretrained(tmp_path / "a")
    (tmp_path / "a/tokenizer.model").write_bytes(tips.tokenizer_bytes())
    export(tips.spec(tmp_path / "a", row), "torch-npz", tmp_path / "b")
    export(tips.spec(tmp_path / "b", row), "transformers", tmp_path / "c")
    before, after = load_file(tmp_path / "a/model.safetensors"), load_file(tmp_path / "c/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_negative_zero_keeps_its_sign_through_scenic(tmp_path):
    row = tips.arch_row("S")
    folder = tips.write_pair(tmp_path / "in", row, "scenic")
    arrays = dict(np.load(folder / "tips_v2_x14_vision.npz"))
    arrays["encoder/ToTokenSequence_0/cls"][...] = -0.0
    np.savez(folder / "tips_v2_x14_vision.npz", **arrays)
    export(tips.spec(folder, row), "scenic-npz", tmp_path / "out")
    after = np.load(tmp_path / "out/tips_v2_x14_vision.npz")["encoder/ToTokenSequence_0/cls"]
    assert np.signbit(after).all()


@pytest.mark.parametrize("names", ["hub", "module"])
def test_a_transformers_folder_comes_back_bit_for_bit(tmp_path, names):
    row = tips.arch_row("B")
    folder = tips.write_pair(tmp_path / "npz", row)
    export(tips.spec(folder, row), "transformers", tmp_path / "a")
    if names == "module":  # as `bench train` writes
        model = Tipsv2Model.from_pretrained(tmp_path / "a")
        state = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
        save_file(state, tmp_path / "a/model.safetensors", metadata={"format": "pt"})
    export(tips.spec(tmp_path / "a", {"family": "tipsv2"}), "transformers", tmp_path / "b")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/config.json").read_bytes() == (tmp_path / "b/config.json").read_bytes()


@pytest.mark.parametrize("start", ["torch", "scenic"])
@pytest.mark.parametrize("size", ["So400m", "g"])
def test_every_layout_gives_the_same_outputs_in_every_backend(tmp_path, size, start):
    row = tips.arch_row(size)
    folder = tips.write_pair(tmp_path / "in", row, start)
    want = outputs(folder, row, options={"gelu": "tanh"})
    for layout in ("transformers", "torch-npz", "scenic-npz"):
        export(tips.spec(folder, row), layout, tmp_path / layout)
        assert_close(outputs(tmp_path / layout, row, options={"gelu": "tanh"}), want)
    assert_close(outputs(tmp_path / "transformers", row, backend="jax"), want, 1e-5)


def test_transformers_itself_loads_the_exported_folder(tmp_path):
    row = tips.arch_row("g")
    folder = tips.write_pair(tmp_path / "in", row)
    export(tips.spec(folder, row), "transformers", tmp_path / "out")
    loaded: Any = Tipsv2Model.from_pretrained(tmp_path / "out", output_loading_info=True)
    theirs, report = loaded
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert float(theirs.temperature.detach()) == pytest.approx(0.0047)
    images = torch.rand(1, 3, 112, 112)
    ours = build(tips.spec(folder, row)).encode_image(images)
    with torch.no_grad():
        tokens = theirs.vision_model(images).last_hidden_state
    assert torch.allclose(ours.cls, tokens[:, :2], rtol=0, atol=2e-6)


def test_a_model_without_fixed_sizes_takes_its_config_along(tmp_path):
    row = tips.arch_row("S")
    export(tips.spec(tips.write_pair(tmp_path / "in", row), row), "transformers", tmp_path / "a")
    free = {"family": "tipsv2"}
    export(tips.spec(tmp_path / "a", free, "my-model"), "torch-npz", tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "config.json", "my-model_text.npz", "my-model_vision.npz", "tokenizer.model",
    ]  # fmt: skip
    assert_close(outputs(tmp_path / "b", free), outputs(tmp_path / "a", free))


def test_half_precision_weights_stay_half_precision_and_fold_exactly(tmp_path):
    row = tips.arch_row("S")
    folder = tips.write_pair(tmp_path / "in", row)
    name = folder / "tips_v2_oss_x14_vision.npz"
    np.savez(name, **{k: v.astype(np.float16) for k, v in np.load(name).items()})
    export(tips.spec(folder, row), "scenic-npz", tmp_path / "scenic")
    tanh = {"gelu": "tanh"}
    want = outputs(folder, row, options=tanh)
    assert_close(outputs(tmp_path / "scenic", row, options=tanh), want)
    assert_close(outputs(folder, row, options=tanh, backend="jax"), want, 2e-6)
    export(tips.spec(folder, row), "transformers", tmp_path / "out")
    assert load_file(tmp_path / "out/model.safetensors")["vision_encoder.norm.weight"].dtype == torch.float16


def test_an_unknown_layout_and_another_family_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--to onnx: choose one of transformers, torch-npz, scenic-npz"):
        export(tips.spec(tmp_path, tips.arch_row("S")), "onnx", tmp_path)
    with pytest.raises(UsageError, match="--model clip-b16: bench export converts TIPS"):
        export(tips.spec(tmp_path, {"target": "adapters.clip:build"}, "clip-b16"), "transformers", tmp_path)


def test_the_command_prints_the_files_it_wrote(tmp_path, monkeypatch):
    row = tips.arch_row("S")
    folder = tips.write_pair(tmp_path / "in", row)
    monkeypatch.setattr(command, "models", lambda: {"tipsv2-x": row})
    app = command.typer.Typer()
    app.command()(command.export)
    words = ["--model", "tipsv2-x", "--weights", str(folder), "--to", "scenic-npz", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    names = ["tips_v2_x14_vision.npz", "tips_v2_x14_text.npz", "tokenizer.model"]
    assert [line.rpartition("/")[2] for line in result.output.splitlines()] == names
