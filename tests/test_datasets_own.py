"""What people's own data hold that a number must not depend on: replaced files, copies, spaces, names."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch

from benchmark import load_task
from benchmark.contracts import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, WeightsInfo
from benchmark.data.tolerance import tolerating
from benchmark.engine.identity import model_stamp
from benchmark.errors import DataError
from tasks.datasets.user import open_task


def replaced(path: Path, content: bytes) -> None:
    """Writes `content` in the place of a file of its size, and gives it the old one's time, as `cp -p` does."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_data_replaced_in_place_with_size_and_time_kept_are_other_data(tmp_path: Path, kind: str) -> None:
    for name, seed in (("a/0.bmp", 1), ("b/1.bmp", 2), ("a/2.bmp", 3)):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        miniatures.Image.fromarray(miniatures.picture(seed)).save(tmp_path / "images" / name)

    def pack() -> None:
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for path in sorted((tmp_path / "images").rglob("*.bmp")):
                archive.writestr(path.relative_to(tmp_path / "images").as_posix(), path.read_bytes())

    pack()
    shutil.copy(tmp_path / "new.zip", tmp_path / "images.zip")
    place = "images" if kind == "folder" else "images.zip"
    (tmp_path / "t.toml").write_text(
        f'task = "zero_shot_classification"\nname = "x"\nclasses = ["a", "b"]\nimages = "{place}"\n'
    )
    before = open_task(tmp_path / "t.toml").dataset.data("labels", "test").digest
    assert open_task(tmp_path / "t.toml").dataset.data("labels", "test").digest == before
    first, second = tmp_path / "images/a/0.bmp", tmp_path / "images/a/2.bmp"
    replaced(first, second.read_bytes())
    if kind == "zip":
        pack()
        replaced(tmp_path / "images.zip", (tmp_path / "new.zip").read_bytes())
    assert open_task(tmp_path / "t.toml").dataset.data("labels", "test").digest != before


def test_weights_replaced_in_place_with_size_and_time_kept_are_another_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a" * 100)
    before = model_stamp("tipsv2-b", str(tmp_path))
    assert model_stamp("tipsv2-b", str(tmp_path)) == before
    replaced(tmp_path / "model.safetensors", b"b" * 100)
    assert model_stamp("tipsv2-b", str(tmp_path)) != before


class Perfect:
    """Knows every picture: one axis for each mean colour."""

    COLOURS = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    transform = ImageTransform("square", 16)
    card = EncoderCard(
        "perfect", "own", "torch", 8, 8, 16, 0, 1, False, WeightsInfo("none", "0" * 64), "Apache-2.0"
    )  # fmt: skip

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        own = torch.eye(8)[torch.cdist(images.mean((2, 3)), self.COLOURS).argmin(1)]
        return ImageFeatures(own[:, None], own[:, None, None].expand(-1, 2, 2, -1).clone())


def coloured(path: Path, colour: int, shade: int = 0) -> None:
    """A picture that `Perfect` takes for `colour`; another `shade` is another picture of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (255 * Perfect.COLOURS[colour]).numpy().astype(np.uint8)
    pixels = np.broadcast_to(values, (16, 16, 3)).copy()
    pixels[0, shade] = 128
    miniatures.Image.fromarray(pixels).save(path)


def instances(folder: Path, counts: tuple[int, ...] = (3, 3, 1)) -> Path:
    """A retrieval task of so many pictures of each thing."""
    rows = ["image,label"]
    for thing, count in enumerate(counts):
        for view in range(count):
            coloured(folder / "images" / f"{thing}-{view}.png", thing, view)
            rows.append(f"{thing}-{view}.png,thing {thing}")
    (folder / "l.csv").write_text("\n".join(rows))
    (folder / "t.toml").write_text(
        'task = "instance_retrieval"\nname = "things"\nimages = "images"\nlabels = "l.csv"\n'
    )
    return folder / "t.toml"


def scored(task: Path, cache: Path, **options: object):
    return load_task(str(task), cache=cache, workers=0, **options).run(Perfect())


def values(outcome) -> dict[str, float]:
    return {m.name: m.statistic.of(outcome.samples) for m in outcome.measurements}


@pytest.mark.parametrize("how", ["unique label", "limit", "max-bad"])
def test_a_query_that_nothing_answers_is_left_out_of_every_metric_and_counted(tmp_path, cache, how) -> None:
    counts = {"unique label": (3, 3, 1), "limit": (3, 3, 1), "max-bad": (3, 3, 2)}[how]
    task = instances(tmp_path, counts)
    if how == "max-bad":
        (tmp_path / "images" / "2-1.png").write_bytes(b"no picture")
    found = scored(task, cache, **{"limit": {"limit": 5}, "max-bad": {"max_bad": 1}}.get(how, {}))
    assert set(values(found).values()) == {100.0}
    lonely = found.details["queries_without_right_answer"]
    assert lonely == np.isnan(found.samples["hit@1"]).sum() == np.isnan(found.samples["ap"]).sum() > 0
    assert found.n == len(found.samples["id"]) - lonely


def test_retrieval_without_any_right_answer_is_refused(tmp_path, cache) -> None:
    with pytest.raises(DataError, match="no query has a right answer"):
        scored(instances(tmp_path, (1, 1, 1)), cache)


def test_copies_of_an_instance_count_as_one_right_answer(tmp_path, cache) -> None:
    """Any encoder finds a copy of its query, in the index itself or in a folder of queries."""
    task = instances(tmp_path, (3, 3, 1))
    shutil.copy(tmp_path / "images/2-0.png", tmp_path / "images/2-0 (1).png")
    with miniatures.Image.open(tmp_path / "images/2-0.png") as same:
        same.save(tmp_path / "images/again.bmp")
    with (tmp_path / "l.csv").open("a") as table:
        table.write("\n2-0 (1).png,thing 2\nagain.bmp,thing 2\n")
    with tolerating() as noted:
        data = open_task(task).dataset.data("retrieval", "test")
    assert len(data.index) == 7 and noted.notes == ["2 pictures there more than once: each counts as one"]
    shutil.copytree(tmp_path / "images", tmp_path / "asked")
    task.write_text(task.read_text() + 'queries = "asked"\nquery_labels = "l.csv"\n')
    data = open_task(task).dataset.data("retrieval", "test")
    assert data.self_index.tolist() == list(range(7))
    assert scored(task, cache).details["queries_without_right_answer"] == 1
