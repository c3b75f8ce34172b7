"""bench captions: any image-text-to-text model writes one more column for a folder or for shards."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from command import bench
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)  # fmt: skip
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.tipsv2.recipe import captioning
from adapters.tipsv2.recipe.captioner import Captioner, filled
from adapters.tipsv2.recipe.captioning import known_prompt
from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import open_source
from benchmark.errors import UsageError

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "caption",
    "en",
    "a",
    "red",
    "cat",
    "on",
    "the",
    "grass",
    "two",
    "dogs",
    "blue",
    "sky",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA of 16 channels."""
    folder = tmp_path_factory.mktemp("llava")
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    side = {"height": 16, "width": 16}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side), tokenizer=tokenizer, patch_size=8,
        vision_feature_select_strategy="default", image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    made = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    made.generation_config.suppress_tokens = [0, 1, 2, 3, 4]  # it says words
    made.save_pretrained(folder)
    return folder


def pictures(root: Path, captions: bool) -> list[dict[str, Any]]:
    root.mkdir()
    rows = []
    for i, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (20, 24), colour).save(root / f"{i}.png")
        rows.append({"image": f"{i}.png", "alt": f"alt {colour}"})
    if captions:
        (root / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return rows


def said_by_itself(model: Path, colour: str, prompt: str) -> str:
    captioner = Captioner(str(model), 4, "cpu", "float32", True, False)
    return captioner([Image.new("RGB", (20, 24), colour)], [prompt])[0]


@pytest.mark.parametrize("captions", [True, False])
def test_a_folder_gets_one_more_column(tmp_path: Path, model: Path, captions: bool) -> None:
    pictures(tmp_path / "in", captions)
    words = ["--model", str(model), "--tokens", "4", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
    assert bench("captions", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *words) == 0
    data = DataConfig(source="folder", path=str(tmp_path / "out"), synthetic=("paligemma",))
    source = open_source(data)
    found = [source.load(i) for i in range(3)]
    assert [s.alt for s in found] == (["alt red", "alt blue", "alt green"] if captions else ["", "", ""])
    expected = said_by_itself(model, "blue", "caption en")
    assert len(expected.split()) == 4 and found[1].synthetic == ((expected,),)


def test_shards_keep_what_they_hold_and_are_not_made_twice(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "in", False)
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as out:
        (tmp_path / "0.json").write_text(json.dumps({"caption": "a cat", "key": "0"}))
        (tmp_path / "1.txt").write_text("two dogs")
        for file in (tmp_path / "in" / "0.png", tmp_path / "0.json", tmp_path / "in" / "1.png", tmp_path / "1.txt"):
            out.add(file, file.name)
    words = ["--model", str(model), "--tokens", "4", "--device", "cpu", "--dtype", "float32", "--kind", "own"]
    words += ["--prompt", "{caption}{txt} en", "--out", str(tmp_path / "out")]
    assert bench("captions", str(tmp_path / "in" / "*.tar"), *words) == 0
    made = tmp_path / "out" / "a.tar"
    with tarfile.open(made) as archive:
        assert archive.getnames() == ["0.png", "0.json", "1.png", "1.txt", "1.json"]
    source = open_source(DataConfig(source="tar", path=str(made), alt="own", synthetic=(), cache=str(tmp_path)))
    assert [source.load(i).alt for i in range(2)] == [
        said_by_itself(model, "red", "a cat en"), said_by_itself(model, "blue", "two dogs en"),
    ]  # fmt: skip
    before = made.read_bytes()
    monkeypatch.setattr(captioning, "_captioned_shard", lambda *_: pytest.fail("made again"))
    assert bench("captions", str(tmp_path / "in" / "*.tar"), *words) == 0
    assert made.read_bytes() == before
    assert bench("captions", str(tmp_path / "in" / "*.tar"), *words, "--prompt", "a cat") == 2


def test_a_folder_goes_on_where_it_was_cut_off(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "in", True)
    (tmp_path / "in" / "2.png").write_bytes(b"no picture")
    options = {"tokens": 4, "device": "cpu", "dtype": "float32", "offline": True, "trust": False}
    asked = captioning.Asked("own", "caption en", 1)
    real, calls = captioning._captions, [0]

    def cut(*words: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(captioning, "_captions", cut)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        captioning.caption(str(tmp_path / "in"), tmp_path / "out", asked, str(model), options)
    counts = captioning.caption(str(tmp_path / "in"), tmp_path / "out", asked, str(model), options)
    assert (counts.written, counts.bad, calls[0]) == (1, 1, 4) and "2.png" in counts.first
    rows = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert [bool(row["own"]) for row in rows] == [True, True, False]


def test_prompts_are_filled_and_unknown_kinds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt, _ = known_prompt("gemini")
    asked = filled(prompt, {"alt": "a cat", "paligemma": ["cat on grass", "x"], "n": 3})
    assert '"a cat"' in asked and '"cat on grass"' in asked
    assert filled("{nothing}{n} {{", {"n": 3}) == " {"
    with pytest.raises(UsageError, match="--prompt: "):
        filled("a { b", {})
    assert bench("captions", str(tmp_path), "--model", "x", "--kind", "palligemma", "--out", str(tmp_path / "o")) == 2
    assert "Did you mean 'paligemma'" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(b"x")
    assert bench("captions", str(tmp_path), "--model", str(tmp_path), "--out", str(tmp_path / "o"), "--offline") == 1
    assert "cannot be read as an image-text-to-text model" in capsys.readouterr().err
