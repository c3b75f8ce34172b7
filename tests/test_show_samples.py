"""bench show --pictures: samples beside their targets, before any model is loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import told
from PIL import Image
from small import Noise, made

from benchmark.contracts import KINDS, Samples
from benchmark.images.drawing import STRIPES, WRONG, normal_colours, palette_for
from benchmark.images.samples import look_at_samples
from benchmark.images.sheets import Sheet, drawn


def sheet_of(kind: str, target: Any = None, n: int = 2, **fields: Any) -> Sheet:
    """The sheet of `n` noisy pictures of 40 × 48 with one target."""
    return look_at_samples(made(KINDS[kind], images=Noise(n), target=lambda i: target, **fields), "title", n)


def colours_of(panel: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in panel.reshape(-1, 3).tolist()}


def words_of(sheet: Sheet) -> list[str]:
    return [word.text for word in sheet.lines[0].words]


def test_classes_keep_their_colours_and_what_is_not_scored_is_striped() -> None:
    target = np.zeros((40, 48), np.uint8)
    target[:, 24:], target[:10] = 1, 255
    sheet = sheet_of("segmentation", target, class_names=["sky", "sea", "land"])
    picture, painted, over = sheet.lines[0].panels
    assert colours_of(painted) == {*map(tuple, palette_for(3)[:2].tolist()), *STRIPES}
    assert colours_of(painted[:10]) == set(STRIPES) and colours_of(over[:10]) == set(STRIPES)
    assert np.array_equal(picture, Noise(2).load(0)) and over[20, 23].tolist() == [40, 40, 40]  # the edge
    assert words_of(sheet) == ["sky  37.5 %", "sea  37.5 %", "not scored  25.0 %"]
    assert sheet.facts == ["2 of 3 classes: sky 37.5 %, sea 37.5 %", "not scored 25.0 %"]


@pytest.mark.parametrize(("classes", "ignored"), [(3, 255), (300, -1)])
def test_pictures_without_any_label_and_of_one_class(classes: int, ignored: int) -> None:
    names = [f"c{i}" for i in range(classes)]
    nothing = sheet_of("segmentation", np.full((40, 48), ignored, np.int32), class_names=names)
    assert nothing.lines[0].words[0].wrong and words_of(nothing) == ["not scored  100.0 %"]
    assert colours_of(nothing.lines[0].panels[1]) == set(STRIPES)
    one = sheet_of("segmentation", np.full((40, 48), classes - 1, np.int32), class_names=names)
    assert words_of(one) == [f"c{classes - 1}  100.0 %"] and len(drawn([nothing, one])) > 1000


def test_many_classes_are_cut_to_the_room_and_add_up() -> None:
    target = np.arange(40 * 48, dtype=np.int32).reshape(40, 48) % 200
    words = words_of(sheet_of("segmentation", target, class_names=[f"c{i}" for i in range(200)]))
    assert len(words) == 8 and words[-1].startswith("193 more")
    assert sum(float(word.split()[-2]) for word in words) == pytest.approx(100, abs=0.5)


def test_a_label_that_is_no_class_and_a_target_of_another_size_are_said() -> None:
    target = np.zeros((20, 24), np.uint8)
    target[5:] = 7
    sheet = sheet_of("segmentation", target, class_names=["sky", "sea"])
    assert [word.text for word in sheet.lines[0].words if word.wrong] == [
        "the target is 20 × 24, the picture 40 × 48",
        "label 7 is no class of 2",
    ]
    assert WRONG in colours_of(sheet.lines[0].panels[1]) and "75.0 % of a label that is no class" in sheet.facts[-1]


def test_depth_has_its_range_and_what_lies_beyond_the_limit_is_not_scored() -> None:
    target = np.full((40, 48), 2.0, np.float32)
    target[:8], target[8:10], target[10:20, 0], target[20, :24], target[39] = 50, np.inf, np.nan, -1, 4.5
    sheet = sheet_of("depth", target, max_depth=10.0)
    assert words_of(sheet) == [
        "nearest 2 m", "median 2 m", "farthest 4.5 m", "not scored  26.8 %", "of it beyond 10 m  20.0 %",
    ]  # fmt: skip
    assert colours_of(sheet.lines[0].panels[1][:10]) == set(STRIPES)
    assert sheet.facts == ["depth 2 to 4.5 m", "not scored 26.8 %"]
    none = sheet_of("depth", np.zeros((40, 48), np.float32))
    assert none.facts == ["not scored 100.0 %"] and words_of(none) == ["not scored  100.0 %"]
    relative = sheet_of("depth", np.full((40, 48), 0.5, np.float32), relative=True)
    assert relative.facts[0] == "depth 0.5 to 0.5 (relative)" and words_of(relative)[0] == "nearest 0.5"


def test_normals_have_the_usual_colours_and_say_a_wrong_length() -> None:
    up = np.broadcast_to(np.array([0, -1, 0], np.float32), (40, 48, 3)).copy()
    assert normal_colours(up)[0, 0].tolist() == [127, 255, 127]
    up[:20] = 0
    sheet = sheet_of("normals", up)
    assert "not scored  50.0 %" in words_of(sheet) and colours_of(sheet.lines[0].panels[1][:20]) == set(STRIPES)
    assert words_of(sheet_of("normals", 0.5 * up))[0] == "mean length 0.5, expected 1"


def test_labels_captions_and_instances_are_beside_their_pictures() -> None:
    labels = sheet_of("labels", labels=np.array([1, 1, 0]), class_names=["a", "b"], n=3)
    assert [line.titles for line in labels.lines] == [["b", "b", "a"]]
    assert labels.facts == ["2 of 2 classes: the largest b 66.7 %, the smallest a 33.3 %"]
    assert sheet_of("labels", labels=np.array([1, 0]), class_names=["a", "b"]).facts == ["2 of 2 classes: 50.0 % each"]
    captions = sheet_of("captions", captions=[["one", "two"], ["three"]])
    assert words_of(captions) == ["“one”", "“two”"] and captions.facts == ["3 captions"]
    data = made(
        KINDS["retrieval"], queries=Noise(2), index=Noise(3), query_labels=np.array([0, 1]),
        index_labels=np.array([0, 0, 1]), query_domains=["x", "x"], index_domains=["x", "x", "y"],
        self_index=np.array([0, -1]),
    )  # fmt: skip
    found = look_at_samples(data, "title", 2)
    assert found.lines[0].titles == ["query", "right 1"]
    assert np.array_equal(found.lines[0].panels[1], Noise(3).load(1))
    assert found.lines[1].words[-1].text == "no right answer in the index"
    assert len(drawn([labels, captions, found])) > 1000


def test_pairs_of_ones_own_without_views_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        Image.fromarray(Noise(2).load("ab".index(name))).save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text("source,target,source_x,source_y,target_x,target_y\na.png,b.png,4,5,6,7\n")
    (tmp_path / "t.toml").write_text('task = "correspondence"\nname = "mine"\nimages = "."\npairs = "pairs.csv"\n')
    code, out, _ = told(capsys, "show", str(tmp_path / "t.toml"), "--pictures", str(tmp_path / "p.png"))
    assert code == 0 and "1 of 1 sample drawn" in out and "2 pictures, 1 category" in out, out


class Pair(Samples):
    """A kind of another package."""

    digest = "test"
    own: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return 3

    def pictures(self) -> dict[str, Any]:
        return {"left": Noise(3), "right": Noise(3, seed=1), "all": Noise(7)}

    def take(self, rows: Any) -> Any:
        return self

    def panels(self, index: int) -> dict[str, np.ndarray]:
        return self.own


def test_a_kind_of_another_package_shows_its_pictures_or_what_it_draws_itself() -> None:
    sheet = look_at_samples(Pair(), "title", 2)
    assert [line.titles for line in sheet.lines] == [["left", "right"]] * 2
    assert np.array_equal(sheet.lines[1].panels[1], Noise(3, seed=1).load(2))
    drawing = Pair()
    drawing.own = {"matches": np.zeros((10, 20, 3), np.uint8)}
    assert look_at_samples(drawing, "title", 1).lines[0].titles == ["matches"]
    assert len(drawn([sheet])) > 1000


TASK = """task = "{task}"
name = "mine"
{more}
images = "p"
{key} = "t"
split = {{ test = 0.5 }}
"""


def test_the_command_draws_a_file_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey pictures and depth in millimetres of 16 bits; nothing is written unasked."""
    monkeypatch.chdir(tmp_path)
    for folder in ("p", "t"):
        Path(folder).mkdir()
    for i in range(12):
        Image.fromarray(Noise(12).load(i)[..., 0]).save(f"p/{i}.png")
        Image.fromarray(np.full((40, 48), 1500 + i, np.uint16)).save(f"t/{i}.png")
    Path("depth.toml").write_text(TASK.format(task="depth", key="depth", more="depth_scale = 0.001"))
    there = sorted(tmp_path.iterdir())
    code, out, _ = told(capsys, "show", "depth.toml")
    assert (
        code == 0
        and "depth/mine, train: 4 of" in out
        and "looked at: nothing wrong" in out
        and "depth 1.5" in out
        and "--pictures FILE.png" in out
    )
    assert sorted(tmp_path.iterdir()) == there
    code, out, _ = told(capsys, "show", "--task", "depth.toml", "--pictures", "look.png", "-n", "1", "--json")
    said = json.loads(out)
    assert said["pictures"] == "look.png" and len(said["samples"]) == 2
    picture = np.asarray(Image.open(io.BytesIO(Path("look.png").read_bytes())))
    assert picture.shape[0] > 2 * 160 and picture.shape[1] > 700


def test_a_data_set_is_drawn_by_its_name_and_what_is_none_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = [word for split in ("train", "test") for word in ("--option", f"n_{split}=4")]
    code, out, _ = told(capsys, "show", "normals/scenes", "--pictures", "n.png", "-n", "1", *few)
    assert code == 0 and "normals/scenes, train: 1 of 4 samples drawn" in out and Path("n.png").is_file()
    for words, said in (
        (["clip-mini", "--pictures", "x.png"], "clip-mini is no data set"),
        (["linear_segmentation", "--pictures", "x.png"], "linear_segmentation is no data set"),
        (["none.toml", "--pictures", "x.png"], "no such file"),
        (["scenes", "--pictures", "x.jpg"], "Name it x.png"),
        (["ade20k", "--pictures", "x.png", "--data", "."], "ade20k"),
        ([], "takes one name"),
        (["scenes", "--task", "scenes"], "takes one name"),
    ):
        code, _, err = told(capsys, "show", *words)
        assert code in (1, 2) and said in err and len(err.splitlines()) == 1, err
    assert not Path("x.png").exists()


def test_what_is_damaged_or_does_not_fit_is_named_and_drawn_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged picture, a damaged mask, a label of no class, one of another size, one without a label: none of them
    where four evenly spread samples lie."""
    monkeypatch.chdir(tmp_path)
    for folder in ("p", "t"):
        Path(folder).mkdir()
    for i in range(40):
        Image.fromarray(Noise(40).load(i)).save(f"p/{i:02}.png")
        mask = np.full((40, 48), {5: 7, 6: 255}.get(i, i % 2), np.uint8)
        Image.fromarray(mask[:20] if i == 7 else mask).save(f"t/{i:02}.png")
    for damaged in ("p/03.png", "t/09.png"):
        Path(damaged).write_bytes(Path(damaged).read_bytes()[:60])
    head = 'task = "zero_shot_segmentation"\nname = "mine"\nclasses = ["sky", "sea"]\nignore = [255]\n'
    Path("mine.toml").write_text(head + 'images = "p"\nmasks = "t"\n')
    code, out, err = told(capsys, "show", "mine.toml", "--pictures", "look.png", "--samples", "5")
    assert code == 1 and Path("look.png").is_file()
    assert "4 samples cannot be read or scored, the first: " in err and len(err.splitlines()) == 1
    for said in (
        "40 of 40 looked at: 5 samples with a fault, shown first", "03.png: cannot be read", "09.png: cannot be read",
        "05.png: label 7 is out of range for 2 classes", "06.png: nothing of it is scored", "07.png: is 48x20",
        "10 of 40 samples drawn",
    ):  # fmt: skip
        assert said in out, out
    few = told(capsys, "show", "mine.toml", "--limit", "4")
    assert few[0] == 0 and "4 of 40 looked at: nothing wrong" in few[1]
