"""--save-heads for heads that learn on live crops: what the file says of a test picture is what the task scored."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from benchmark.contracts import Answer, Method
from benchmark.engine.run import run
from benchmark.errors import DataError
from benchmark.images.decode import decode
from benchmark.look import head as look_head
from benchmark.look.head import look_with_head
from benchmark.metrics.geometry import depth_errors, normal_errors
from benchmark.metrics.segmentation import confusion_areas
from benchmark.rows.row import Row

EXAMPLES = Path(__file__).parents[1] / "examples" / "my_task"
ENCODER = """
from training_context import Deep
def build(spec):
    return Deep("mine")
"""
STEPS = {"steps": "3", "batch_size": "2", "warmup_steps": "1"}
DENSE = {**STEPS, "channels": "8", "resize": "48"}
LONG: dict[tuple[str, str], dict[str, str]] = {
    ("linear_segmentation", "dinov2"): {**STEPS, "short_side": "64", "crop": "32", "window": "32", "stride": "21"},
    ("depth", "dinov3"): {**DENSE, "bins": "8", "crop": "[40,40]", "eval_crop": "none"},  # linear, with batch norm
    ("depth", "dpt"): {**DENSE, "bins": "8", "flip_test": "true"},
    ("normals", "paper"): {**DENSE, "test_square": "true"},
    ("classification", "dinov2"): {
        "ks": "[1]", "headline_k": "1", "epochs": "1", "epoch_length": "3", "batch": "8", "view_size": "48",
        "crop": "32", "learning_rates": "[0.01, 0.1]",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Row]:
    there = tmp_path_factory.mktemp("long")
    runpy.run_path(str(EXAMPLES / "make_data.py"))["main"](there / "data")
    (there / "mine.py").write_text(ENCODER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        found = {}
        for (task, preset), fields in LONG.items():
            shutil.copy(EXAMPLES / f"{task}.toml", there)
            how: dict[str, Any] = {"protocol": preset, "overrides": fields, "results": there / "rows", "check": False}
            report = run("mine.py:build", f"{task}.toml", **how, save_heads=True)
            found[task, preset] = report.rows[0]
            assert run("mine.py:build", f"{task}.toml", **how, save_heads=True).reused == 1
    return found


def pictures_of(row: Row) -> list[Path]:
    """The first two test pictures of a row, in the order of its samples."""
    data = row.folder.parents[4] / "data"
    names = [Path(str(name)).name for name in row.samples["id"][:2]]
    folder = {"linear_segmentation": "segmentation/test", "classification": "classification/test"}
    where = data / folder.get(row.data.task.name, "geometry/images")
    return [next(where.rglob(name)) for name in names]


def answers(row: Row, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """What `bench look --head` says of them; the sheet is made on the way."""
    said: list[Answer] = []
    real = look_head._method

    def spied(file: Path, meta: Any) -> Method[Any]:
        method = real(file, meta)
        plain = method.answer
        method.answer = lambda *a: said.append(plain(*a)) or said[-1]  # type: ignore[func-returns-value,method-assign]
        return method

    monkeypatch.setattr(look_head, "_method", spied)
    monkeypatch.chdir(row.folder.parents[4])
    assert look_with_head(row.folder / "head.safetensors", pictures_of(row), "mine.py:build").startswith(b"\x89PNG")
    return said


def test_maps_and_classes_are_those_that_were_scored(
    rows: dict[tuple[str, str], Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    for (task, _), row in rows.items():
        samples = row.samples
        for at, (photo, (shown, values)) in enumerate(zip(pictures_of(row), answers(row, monkeypatch))):
            geometry = photo.parents[1]
            if task == "depth":
                truth = np.asarray(Image.open(geometry / "depth" / f"{photo.stem}.png")) / 1000
                errors = depth_errors(values, truth, 0, 5)
                assert errors["rmse"] == pytest.approx(samples["rmse"][at], rel=1e-5)
            elif task == "normals":
                assert shown.shape == (64, 64, 3) and np.allclose(np.linalg.norm(values, axis=-1), 1, atol=1e-5)
                stored = next((geometry / "normals").glob(f"{photo.stem}.*"))
                truth = np.asarray(Image.open(stored)) / 127.5 - 1
                angles = normal_errors(values, truth.astype(np.float32), True)
                assert angles["angular_rmse"] == pytest.approx(samples["angular_rmse"][at], rel=1e-3)
            elif task == "linear_segmentation":
                mask = np.array(Image.open(photo.parents[1] / "masks" / f"{photo.stem}.png"))
                assert (confusion_areas(values, mask, 3).columns()["intersection"] == samples["intersection"][at]).all()
            else:
                right = ["apple", "leaf"].index(photo.parent.name) == int(values.argmax())
                assert right == bool(samples["linear hit"][at])


def test_a_photograph_larger_than_the_tests_is_shown_at_their_size(
    rows: dict[tuple[str, str], Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = pictures_of(rows["depth", "dinov3"])[0]
    pixels = decode(small)
    Image.fromarray(pixels).resize((640, 480)).save(tmp_path / "large.png")
    monkeypatch.setitem(globals(), "pictures_of", lambda row: [tmp_path / "large.png"])
    assert answers(rows["depth", "dinov3"], monkeypatch)[0].shown.shape == (48, 64, 3)
    assert answers(rows["linear_segmentation", "dinov2"], monkeypatch)[0].values.shape == (64, 85)


def test_what_a_file_says_of_itself_is_under_its_checksum(rows: dict[tuple[str, str], Row], tmp_path: Path) -> None:
    """Another range, and a protocol that this version does not have."""
    file = rows["depth", "dpt"].folder / "head.safetensors"
    with safe_open(file, "pt") as opened:
        meta = dict(opened.metadata())
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    use = json.loads(meta["use"])
    save_file(arrays, tmp_path / "head", {**meta, "use": json.dumps({**use, "far": 50})})
    with pytest.raises(DataError, match="does not agree with its checksum"):
        look_with_head(tmp_path / "head", [])
    with pytest.raises(DataError, match="was trained by dpt.set as another version of densebench has it"):
        look_head._method(file, {**meta, "fields": json.dumps({**json.loads(meta["fields"]), "bins": 9})})
