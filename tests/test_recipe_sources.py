"""Folders, tar shards, parquet, hub data sets and scenes give the same samples; what is wrong is one line."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from recipe_fixtures import Squares, tiny

from adapters.tipsv2.recipe.captions import draw_pair
from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.config_file import CONFIGS, read_config
from adapters.tipsv2.recipe.loader import Positions
from adapters.tipsv2.recipe.samples import Without, ids_digest, open_source
from adapters.tipsv2.recipe.source_files import sample_from
from adapters.tipsv2.recipe.source_scenes import ScenesSource
from adapters.tipsv2.recipe.text import Tokenizer, train_tokenizer
from adapters.tipsv2.recipe.trainer import train
from adapters.tipsv2.recipe.views import crop_box, cut, draw_crop, pixels_of, three_bytes, whole_pixels
from benchmark.errors import BenchError, DataError, UsageError, WeightsError
from tasks.scenes.render import render

ROWS = [{"alt": f"alt {i}", "short": f"short {i}", "long": [f"long {i}", f"longer {i}"]} for i in range(3)]


ROW = json.dumps(ROWS[0]).encode()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def settings(source: str, path: Path | str, **more: Any) -> DataConfig:
    return DataConfig(source=source, path=str(path), synthetic=("short", "long"), **more)


def folder(root: Path) -> DataConfig:
    lines = []
    for i, row in enumerate(ROWS):
        (root / f"{i}.png").write_bytes(png(i))
        lines.append(json.dumps({**row, "image": f"{i}.png"}))
    (root / "captions.jsonl").write_text("\n".join(lines))
    return settings("folder", root)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def tar(root: Path) -> DataConfig:
    for shard, members in (("a", (0, 1)), ("b", (2,))):
        pairs = [{f"{i}.png": png(i), f"{i}.json": json.dumps(ROWS[i]).encode()} for i in members]
        write_tar(root / f"{shard}.tar", {name: data for pair in pairs for name, data in pair.items()})
    return settings("tar", root / "*.tar")


def parquet(root: Path) -> DataConfig:
    pq.write_table(pa.Table.from_pylist([{**r, "image": png(i)} for i, r in enumerate(ROWS)]), root / "a.parquet")
    return settings("parquet", root)


def hub(root: Path) -> DataConfig:
    rows = [{**r, "image": {"bytes": png(i), "path": None}} for i, r in enumerate(ROWS)]
    (root / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "data" / "train-00000-of-00001.parquet")
    return settings("hub", root)


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.mark.parametrize("make", [folder, tar, parquet, hub])
def test_every_source_gives_pictures_and_captions_in_order(tmp_path: Path, make: Any) -> None:
    source = open_source(make(tmp_path))
    assert len(source) == 3
    for i in range(3):
        sample = source.load(i)
        assert np.asarray(sample.image).shape == (6, 8, 3)
        assert np.asarray(sample.image).max() == i
        assert sample.alt == f"alt {i}"
        assert sample.synthetic == ((f"short {i}",), (f"long {i}", f"longer {i}"))
    if make in (folder, tar):
        assert pickle.loads(pickle.dumps(source)).load(1).alt == "alt 1"


@pytest.mark.parametrize("make", [folder, tar, parquet, hub])
def test_a_source_is_known_by_its_samples_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    def made(name: str, **more: Any) -> str:
        (tmp_path / name).mkdir()
        return ids_digest(open_source(dataclasses.replace(make(tmp_path / name), **more)))

    here = made("here")
    assert len(here) == 64 and here == made("there") != made("fewer", samples=2)
    if make in (parquet, hub):  # no names: the content tells pictures of one length apart
        monkeypatch.setattr("test_recipe_sources.png", lambda value, png=png: png(2 - value))
        assert made("turned") != here
    if make is tar:
        (tmp_path / "there" / "b.tar").rename(tmp_path / "there" / "0.tar")
        assert ids_digest(open_source(settings("tar", tmp_path / "there" / "*.tar"))) != here


@pytest.mark.parametrize("make", [folder, tar, parquet, hub])
def test_a_missing_column_names_itself_and_those_that_exist(tmp_path: Path, make: Any) -> None:
    config = dataclasses.replace(make(tmp_path), synthetic=("short", "title"))
    with pytest.raises(DataError, match="no column 'title'; there are .*'alt'") as caught:
        open_source(config).load(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [folder, tar, parquet, hub])
def test_an_object_without_the_key_has_no_alt_text_and_a_table_must_have_the_column(tmp_path: Path, make: Any) -> None:
    config = dataclasses.replace(make(tmp_path), alt="title")
    if make in (folder, tar):
        assert open_source(config).load(0).alt == "" and open_source(config).load(0).synthetic[0] == ("short 0",)
    else:
        with pytest.raises(DataError, match="no column 'title'; there are .*'alt'"):
            open_source(config)


def test_one_object_without_an_alt_text_is_counted_and_none_that_has_one_ends_the_run(tmp_path: Path) -> None:
    rows = [{"image": f"{i}.png", "synthetic": f"short {i}", **({"alt": f"alt {i}"} if i else {})} for i in range(4)]
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"data__source": "folder", "data__path": str(tmp_path), "data__samples": 0}
    short = {**data, "train__batch_size": 4, "train__steps": 1}
    final = train(tiny(**short), tmp_path / "run", quiet=True)
    record = json.loads((final / "run.json").read_text())
    assert (record["bad_samples"], record["samples_without_alt_text"]) == (0, 1)
    with pytest.raises(DataError, match="none of 4 samples has an alt text .data.alt = 'title'.. Name its column"):
        train(tiny(**short, data__alt="title"), tmp_path / "other", quiet=True)


def test_a_batch_that_is_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    """Its copies of a picture would be each other's negatives."""
    for number in (8, 96):
        Positions(Squares(number), tiny())
    with pytest.raises(UsageError, match=r"train\.batch_size = 8, but the data hold 7 samples: .* at most 7, or give"):
        train(tiny(data__samples=7), tmp_path / "run", quiet=True)
    gone = np.array([3, 5])
    with pytest.raises(UsageError, match="the data hold 7 samples"):
        Positions(Without(Squares(9), gone), tiny())
    for path in CONFIGS.glob("*.toml"):
        config = read_config(path)
        assert config.data.source != "scenes" or config.data.samples >= config.train.batch_size, path


def test_shards_with_captions_in_txt_alone_say_how_they_are_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}{e}": d for i in range(4) for e, d in ((".png", png(i)), (".txt", b"a cat"))})
    data = {"data__source": "tar", "data__path": str(tmp_path / "*.tar"), "data__samples": 0, "train__batch_size": 4}
    with pytest.raises(DataError, match="none of 4 samples can be read; the first: ") as caught:
        train(tiny(**data), tmp_path / "run", quiet=True)
    said = str(caught.value)
    assert "a.tar, sample 0: no column 'synthetic'; there are 'txt'." in said and "\n" not in said
    assert said.endswith('(captions of .txt alone: --set data.alt=txt --set "data.synthetic=[]")')
    with pytest.raises(DataError, match=r"none of 4 samples has a caption .data.alt = 'alt', data.synthetic = \[\]"):
        train(tiny(**data, data__synthetic=[]), tmp_path / "run", quiet=True)
    train(tiny(**data, data__synthetic=[], data__alt="txt", train__steps=1), tmp_path / "run", quiet=True)


def test_a_damaged_picture_names_its_row(tmp_path: Path) -> None:
    config = folder(tmp_path)
    (tmp_path / "1.png").write_bytes(png(1)[:30])
    with pytest.raises(DataError, match=r"captions\.jsonl:2: .*1\.png"):
        open_source(config).load(1)


def test_an_unreadable_shard_is_named(tmp_path: Path) -> None:
    config = tar(tmp_path)
    (tmp_path / "b.tar").write_bytes(b"<html>not found</html>" * 50)
    with pytest.raises(DataError, match=r"b\.tar: not a readable tar file"):
        open_source(config)


def test_a_shard_cut_short_fails_at_its_last_member(tmp_path: Path) -> None:
    config = tar(tmp_path)
    source = open_source(config)
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[:520])
    with pytest.raises(DataError, match="b.tar"):
        source.load(2)


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"cannot be read") as caught:
        open_source(settings("parquet", tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("folder", "none", r"none/captions.jsonl: missing .data.path = 'none'.\. Set data.path to a folder"),
        ("folder", "", r"captions.jsonl: missing .data.path = ''.\. Set data.path to a folder"),
        ("tar", "none/*.tar", "matches no file"),
        ("parquet", "none", "matches no parquet file"),
        ("imagenet", "", "must be scenes, folder, tar, parquet, hub or module:function"),
        ("nowhere:at_all", "", "cannot be loaded"),
        ("scenes", "", "needs a renderer. Train with `bench train`"),
    ],
)
def test_a_source_that_is_not_there_is_one_line(source: str, path: str, message: str) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        open_source(settings(source, path))


def test_scenes_are_rendered_once_and_held_out_ones_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.tipsv2.recipe.source_scenes.SHARD", 4)
    source = open_source(DataConfig(samples=6, size=32, cache=str(tmp_path)), render)
    first = source.load(5)
    assert first.image.size == (32, 32)
    assert len(first.synthetic) == 2
    monkeypatch.setattr(ScenesSource, "_draw", lambda *_: pytest.fail("rendered again"))
    again = open_source(DataConfig(samples=6, size=32, cache=str(tmp_path)), render).load(5)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    monkeypatch.undo()
    monkeypatch.setattr("adapters.tipsv2.recipe.source_scenes.SHARD", 4)
    seen = {np.asarray(source.load(i).image).tobytes() for i in range(6)}
    assert isinstance(source, ScenesSource)
    assert not seen & {np.asarray(s.image).tobytes() for s in source.held_out(3)}


def test_captions_meet_their_cls_and_granularities_are_drawn_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_pair("alt", ("a", "b"), rng) for _ in range(400)]
    assert {first for first, _ in drawn} == {"alt"}
    assert 160 < sum(second == "a" for _, second in drawn) < 240
    assert draw_pair("alt", (), rng) == ("alt", "alt")
    assert draw_pair("alt", ("a",), rng, "alt") == ("alt", "alt")
    assert draw_pair("alt", ("a",), rng, "synthetic") == ("a", "a")


def test_the_kind_of_a_synthetic_caption_is_drawn_before_the_caption() -> None:
    rng = np.random.default_rng(0)
    kinds = (("a",), ("b", "c", "d"), (), "e", " ")
    drawn = [draw_pair("", kinds, rng)[1] for _ in range(900)]
    assert all(250 < sum(text in kind for text in drawn) < 350 for kind in kinds[:2])
    weighted = [draw_pair("", kinds, rng, "pairs", (3, 1, 5, 0, 2))[1] for _ in range(400)]
    assert 260 < weighted.count("a") < 340 and "e" not in weighted
    with pytest.raises(UsageError, match="data.synthetic_weights has 2 weights, a sample has 5 kinds"):
        draw_pair("", kinds, rng, "pairs", (1, 2))


def test_a_row_without_a_text_keeps_its_kinds() -> None:
    image = Image.new("RGB", (4, 4))
    config = DataConfig(synthetic=("s",))
    assert sample_from(image, {"s": "a cat", "alt": None}, config, "x").alt == ""
    assert sample_from(image, {"s": None, "alt": None}, config, "x").synthetic == ((),)


def test_crops_stay_inside_with_the_asked_area_and_ratio() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop_box(100, 60, (0.2, 0.5), (0.8, 1.25), rng)
        assert 0 <= left < right <= 100.001
        assert 0 <= top < bottom <= 60.001
        assert 0.2 <= (right - left) * (bottom - top) / 6000 <= 0.5 + 1e-9
        assert 0.8 - 1e-9 <= (right - left) / (bottom - top) <= 1.25 + 1e-9
    assert crop_box(1000, 10, (0.9, 1.0), (0.8, 1.25), rng) == pytest.approx((493.75, 0, 506.25, 10))


def test_flip_mirrors_the_view() -> None:
    ramp = pixels_of(Image.fromarray(np.tile(np.arange(16, dtype=np.uint8)[None, :, None] * 10, (16, 1, 3))))
    drawn = [draw_crop(16, 16, (1.0, 1.0), (1.0, 1.0), flip, np.random.default_rng(0)) for flip in (0.0, 1.0)]
    straight, mirrored = (cut(ramp, crop, 8) for crop in drawn)
    assert straight[0, 0, 0] < straight[0, -1, 0]
    assert np.array_equal(straight, mirrored[:, ::-1])


@pytest.mark.parametrize("size", [8, 24, 60])
def test_a_view_is_what_pillow_makes_of_the_same_crop(size: int) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    rng = np.random.default_rng(0)
    crops = [draw_crop(50, 40, (0.2, 1.0), (0.75, 1.3333), 0.0, rng) for _ in range(8)]
    found = np.stack([cut(pixels_of(image), crop, size) for crop in crops])
    right = [np.asarray(image.crop(crop[:4]).resize((size, size), Image.Resampling.BILINEAR)) for crop in crops]
    assert found.shape == (8, size, size, 3)
    assert np.abs(found.astype(int) - right).max() <= 1


def test_pixels_are_those_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    large = np.zeros((2100, 2000, 3), np.uint8)  # Pillow holds it in two pieces
    large[-1] = 7
    for pixels in (noise, large):
        assert np.array_equal(three_bytes(pixels_of(Image.fromarray(pixels))), pixels)
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")  # as before Pillow 11.2
    assert np.array_equal(three_bytes(pixels_of(Image.fromarray(noise))), noise)


def test_boxes_are_drawn_as_numpys_uniform_draws() -> None:
    ours, numpys = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(300):
        box = crop_box(640, 480, (0.2, 0.4), (0.75, 1.3333), ours)
        area, aspect = 640 * 480 * numpys.uniform(0.2, 0.4), math.exp(numpys.uniform(math.log(0.75), math.log(1.3333)))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        left, top = numpys.uniform(0, 640 - w), numpys.uniform(0, 480 - h)
        assert box == (left, top, left + w, top + h)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1.4, 2.6, 9.6, 7.4), (1, 3, 10, 7)),
        ((9.7, 0.2, 10.0, 0.4), (9, 0, 10, 1)),  # less than half a pixel, at an edge
        ((0.0, 0.6, 0.3, 0.9), (0, 0, 1, 1)),
        ((4.6, 4.6, 4.9, 4.9), (4, 4, 5, 5)),
    ],
)
def test_a_crop_is_of_whole_pixels_and_at_least_one(
    box: tuple[float, float, float, float], pixels: tuple[int, int, int, int]
) -> None:
    assert whole_pixels(box) == pixels


def test_tokenizer_lowercases_pads_with_zero_and_repeats_its_bytes() -> None:
    texts = [f"a {c} box on the {g}" for c in ("red", "blue", "green") for g in ("grass", "sand")]
    tokenizer = train_tokenizer(texts, 120, 16)
    assert train_tokenizer(texts, 120, 16).model == tokenizer.model
    ids = tokenizer(["A RED box", "a red box on the grass"])
    assert ids.shape[0] == 2
    assert ids[0, len(tokenizer.ids("a red box")) :].eq(0).all()
    assert tokenizer.ids("A RED box") == tokenizer.ids("a red box")
    assert 0 not in tokenizer.ids("a red box")
    assert tokenizer.ids("") == [1]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    for content in (b"<html>", b""):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(WeightsError, match=r"tokenizer\.model: not a SentencePiece model"):
            Tokenizer.read(tmp_path / "tokenizer.model", 16)
    with pytest.raises(BenchError, match="no such file"):
        Tokenizer.read(tmp_path / "none.model", 16)


@pytest.mark.parametrize("folder", ["./", "shard.v1/", "./a/b.c/"])
def test_members_of_a_shard_may_lie_in_a_folder(tmp_path: Path, folder: str) -> None:
    """`tar -c .` names its members ./0.png; a dot of a folder's name is none of the member's ending."""
    write_tar(tmp_path / "a.tar", {f"{folder}{i}{e}": d for i in (0, 1) for e, d in ((".png", png(i)), (".json", ROW))})
    source = open_source(settings("tar", tmp_path / "a.tar"))
    assert [np.asarray(source.load(i).image).max() for i in range(len(source))] == [0, 1]


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        (b"5", "the captions are int"),
        (b'["alt"]', "the captions are list"),
        (json.dumps({**ROWS[0], "alt": ["a", "b"]}).encode(), "column 'alt' holds list, not one caption"),
        (json.dumps({**ROWS[0], "short": {"a": "b"}}).encode(), "column 'short' holds dict, not one caption"),
    ],
)
def test_captions_that_are_no_texts_are_an_error_of_their_sample(tmp_path: Path, captions: bytes, words: str) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": png(0), "0.json": captions})
    with pytest.raises(DataError, match=f"sample 0: {words}"):
        open_source(settings("tar", tmp_path / "a.tar")).load(0)


@pytest.mark.parametrize("image", [None, 5])
def test_a_table_row_without_a_picture_is_an_error_of_that_row(tmp_path: Path, image: Any) -> None:
    pq.write_table(pa.Table.from_pylist([{**ROWS[0], "image": image}]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 0: no picture, but"):
        open_source(settings("parquet", tmp_path)).load(0)
