"""Labels, class names, masks and maps of people's own data: what a number must not depend on, and what is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import miniatures
import numpy as np
import pytest
import torch
from family_models import save_clip, save_siglip

from benchmark import load_encoder, load_task
from benchmark.data.tolerance import tolerating
from benchmark.errors import DataError
from tasks.datasets.user import open_task
from tasks.prompting import class_embeddings

LABELS = (
    'task = "classification"\nname = "x"\n{}[train]\nimages = "train"\nlabels = "train.{s}"\n[test]\nimages = "test"\n'
)
LABELS += 'labels = "test.{s}"\n[protocol]\nks = [1]\nheadline_k = 1\nlinear = false\n'


def labelled(folder: Path, words: dict[str, list[str]], suffix: str = "csv", more: str = "") -> Path:
    """A classification task whose splits have pictures with these labels."""
    for split, labels in words.items():
        rows = []
        for i, word in enumerate(labels):
            miniatures.save_jpeg(folder / split / f"{i}.jpg", i + 50 * (split == "test"))
            rows.append({"image": f"{i}.jpg", "label": word})
        text = "image,label\n" + "".join(f'{r["image"]},"{r["label"]}"\n' for r in rows)
        text = text if suffix == "csv" else "".join(json.dumps(r) + "\n" for r in rows)
        (folder / f"{split}.{suffix}").write_text(text, encoding="utf-8")
    (folder / "t.toml").write_text(LABELS.replace("{}", more).replace("{s}", suffix))
    return folder / "t.toml"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_spaces_at_the_ends_of_labels_make_no_classes(tmp_path: Path, suffix: str) -> None:
    words = {"train": ["cat", "cat ", "dog", "caf\u00e9"], "test": [" cat", "dog\u00a0", "cafe\u0301", "dog\t"]}
    dataset = open_task(labelled(tmp_path, words, suffix)).dataset
    train, test = dataset.data("labels", "train"), dataset.data("labels", "test")
    assert train.class_names == test.class_names == ("caf\u00e9", "cat", "dog")
    assert train.labels.tolist() == [1, 1, 2, 0] and test.labels.tolist() == [1, 2, 0, 2]
    with pytest.raises(DataError, match=r"train.*: has no 'label'"):
        open_task(labelled(tmp_path, {**words, "train": [" ", "dog"]}, suffix)).dataset.data("labels", "train")


def test_names_that_are_nearly_the_same_are_named(tmp_path: Path) -> None:
    words = {"train": ["Cat", "cat", "hot dog", "hot_dog"], "test": ["cat", "Cat", "hot dog", "hot_dog"]}
    with tolerating() as noted:
        data = open_task(labelled(tmp_path, words)).dataset.data("labels", "train")
    assert len(data.class_names) == 4
    assert noted.notes == ["classes 'Cat', 'cat' are alike, and are 2 classes",
                           "classes 'hot dog', 'hot_dog' are alike, and are 2 classes"]  # fmt: skip


def test_labels_and_domains_of_retrieval_are_stripped_and_held_against_each_other_too(tmp_path: Path) -> None:
    rows = ["image,label,domain"]
    for i, (label, domain) in enumerate((("a", "in "), ("a ", "in"), ("b", "In"), (" b", "In"))):
        miniatures.save_jpeg(tmp_path / "images" / f"{i}.jpg", i)
        rows.append(f"{i}.jpg,{label},{domain}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    (tmp_path / "t.toml").write_text('task = "instance_retrieval"\nname = "x"\nimages = "images"\nlabels = "l.csv"\n')
    with tolerating() as noted:
        data = open_task(tmp_path / "t.toml").dataset.data("retrieval", "test")
    assert data.query_labels.tolist() == [0, 0, 1, 1] and data.query_domains == ("in", "in", "In", "In")
    assert noted.notes == ["domains 'in', 'In' are alike, and are 2 domains"]


def test_underscores_of_class_names_are_spaces_in_every_prompt() -> None:
    """big_vision's canonicalize_text and open_clip's say so; a tokenizer alone keeps or drops them."""
    asked: list[str] = []
    card = SimpleNamespace(prompts="plain")
    context = SimpleNamespace(card=card, text=lambda texts: (asked.extend(texts), torch.eye(len(texts)))[1])
    class_embeddings(context, ["hot_dog", "ice__cream; sundae_", "cat"], ["a photo of a {}."])
    assert asked == [f"a photo of a {word}." for word in ("hot dog", "ice cream", "sundae", "cat")]
    card.prompts = "canonical"
    class_embeddings(context, ["Hot_dog (the food)", "bull's eye"], ["a photo of a {}.", 'a "{}" - big.'])
    assert asked[4:] == [
        "a photo of a hot dog the food", "a hot dog the food big", "a photo of a bulls eye", "a bulls eye big"
    ]  # fmt: skip


PAIRS = 'task = "zero_shot_segmentation"\nname = "x"\nclasses = ["a", "b", "c"]\nimages = "i"\nmasks = "m"\n'


@pytest.mark.parametrize("ignore", [-1, -100, 2**32 - 1])
def test_ignore_values_below_zero_and_far_above_can_be_said(tmp_path: Path, ignore: int) -> None:
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    values = miniatures.mask(1, 3).astype(np.int64)
    values[:4] = ignore
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m/1.npy", values)
    (tmp_path / "t.toml").write_text(PAIRS)
    with pytest.raises(DataError, match=f"label {ignore} is out of range"):
        open_task(tmp_path / "t.toml").dataset.data("segmentation", "test").target(0)
    digests = set()
    for said in (f"[{ignore}]", f"[255, {ignore}]"):
        (tmp_path / "t.toml").write_text(PAIRS + f"ignore = {said}\n")
        data = open_task(tmp_path / "t.toml").dataset.data("segmentation", "test")
        assert (data.target(0)[:4] == 255).all() and (data.target(0)[4:] == values[4:]).all()
        digests.add(data.digest)
    assert len(digests) == 2


@pytest.mark.parametrize("suffix", ["tif", "jpg", "exr"])
def test_masks_of_other_formats_are_named(tmp_path: Path, suffix: str) -> None:
    for i in range(3):
        miniatures.save_jpeg(tmp_path / f"i/{i}.jpg", i)
        miniatures.save_png(tmp_path / f"m/{i}.png", miniatures.mask(i, 3))
    (tmp_path / "t.toml").write_text(PAIRS)
    (tmp_path / f"m/2.{suffix}").write_bytes(b"x")
    with tolerating() as noted:
        assert len(open_task(tmp_path / "t.toml").dataset.data("segmentation", "test").images) == 3
    words = rf"1 of other formats are not read, 2.{suffix} among them: masks are .png, .npy, .npz"
    assert noted.notes == [f"masks: {words}"]
    (tmp_path / "m/2.png").unlink()
    with pytest.raises(DataError, match=rf"no file named like 2.jpg; 2 of 3 have one\. {words}"):
        open_task(tmp_path / "t.toml").dataset.data("segmentation", "test")


def test_training_data_of_one_class_are_refused(tmp_path: Path, cache: Path) -> None:
    task = labelled(tmp_path / "l", {"train": ["a"] * 4, "test": ["a", "b", "a"]})
    with pytest.raises(DataError, match="every training picture is of one class"):
        load_task(str(task), cache=cache, workers=0).run(load_encoder("pixels"))
    for split, classes in (("train", 1), ("test", 2)):
        for i in range(3):
            miniatures.save_jpeg(tmp_path / split / f"i/{i}.jpg", i + 9 * classes)
            miniatures.save_png(tmp_path / split / f"m/{i}.png", miniatures.mask(i, classes))
    (tmp_path / "t.toml").write_text(
        'task = "linear_segmentation"\nname = "x"\nclasses = ["a", "b"]\n'
        '[train]\nimages = "train/i"\nmasks = "train/m"\n[test]\nimages = "test/i"\nmasks = "test/m"\n'
    )
    with pytest.raises(DataError, match="every training pixel is of class 0"):
        load_task(str(tmp_path / "t.toml"), cache=cache, workers=0).run(load_encoder("pixels"))


DEPTH = 'task = "depth"\nname = "x"\n{}[train]\nimages = "train/i"\ndepth = "train/d"\n[test]\nimages = "test/i"\n'
DEPTH += 'depth = "test/d"\n'


@pytest.mark.parametrize(
    ("preset", "said", "message"),
    [
        ("fast", "depth_scale = 1.0\n", r"read as 1500 to 3\d\d\d m .* none lies between 0.* and 80 m.*depth_scale"),
        ("paper", "depth_scale = 1.0\n", r"read as 1500 to 3\d\d\d m .* none lies between 0.* and 10 m.*depth_scale"),
        ("fast", "max_depth = 1.0\n", r"read as 1.5 to 3.* none lies between 0.* and 1 m.*max_depth of the task file"),
    ],
)
def test_a_wrong_unit_or_limit_of_depth_names_itself(tmp_path, cache, preset, said, message) -> None:
    for split in ("train", "test"):
        for i in range(3):
            miniatures.save_jpeg(tmp_path / split / f"i/{i}.jpg", i + 9 * (split == "test"))
            metres = np.linspace(1500, 3000 + i, 24 * 32).reshape(24, 32).astype(np.uint16)
            (tmp_path / split / "d").mkdir(exist_ok=True)
            miniatures.Image.fromarray(metres).save(tmp_path / split / f"d/{i}.png")
    (tmp_path / "t.toml").write_text(DEPTH.replace("{}", said))
    task = load_task(str(tmp_path / "t.toml"), cache=cache, workers=0, protocol=preset)
    with pytest.raises(DataError, match=message):
        task.run(load_encoder("random-vit"))


def test_the_row_says_which_depths_were_read(tmp_path, cache) -> None:
    test_a_wrong_unit_or_limit_of_depth_names_itself(tmp_path, cache, "fast", "max_depth = 1.0\n", "none lies")
    (tmp_path / "t.toml").write_text(DEPTH.replace("{}", "max_depth = 2.25\n"))
    found = load_task(str(tmp_path / "t.toml"), cache=cache, workers=0).run(load_encoder("pixels"))
    read = found.details["depths_read"]
    assert read["test"]["median_m"] == pytest.approx(2.25, abs=0.01) and read["train"]["counted"] == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "tipsv2-mini"])
def test_captions_longer_than_an_encoder_reads_are_told(tmp_path: Path, family: str) -> None:
    if family == "tipsv2-mini":
        encoder = load_encoder(family)
    else:
        save = save_clip if family == "clip" else save_siglip
        save(tmp_path, **({"gemma": True} if family == "siglip2" else {}))
        encoder = load_encoder(f"hf:{tmp_path}")
    lengths = range(1, 140)
    texts = [" ".join("abcdefghij"[i % 10] for i in range(n)) for n in lengths]
    cut = encoder.is_cut(texts)
    assert cut == sorted(cut) and not cut[0] and cut[-1]
    last = cut.index(True) - 1  # the longest that is read whole
    vectors = encoder.encode_text([texts[last - 1], texts[last], texts[last + 1], texts[last + 2]])
    assert not torch.equal(vectors[0], vectors[1])
    same = encoder.encode_text([texts[last + 1] + " b", texts[last + 1] + " c"])
    torch.testing.assert_close(same[0], same[1], msg="what is cut off decides nothing")
