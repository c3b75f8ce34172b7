"""What people's own data hold that a number must not depend on: replaced files, copies, spaces, names."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import miniatures
import pytest

from benchmark.engine.encoders import model_stamp
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
