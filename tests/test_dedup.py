"""bench dedup finds altered copies of evaluation pictures among training pictures; training leaves them out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command import bench
from PIL import Image
from recipe_fixtures import Squares, tiny

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.samples import Without, ids_digest, open_source
from adapters.tipsv2.recipe.trainer import train
from benchmark.contracts import ImageSet
from benchmark.dedup.near import Spoilt
from benchmark.errors import UsageError
from benchmark.registry import open_dataset
from benchmark.system import sealed
from benchmark.system.sealed import Damaged
from tasks.scenes.render import render

COPIES = (1, 4)  # the training pictures that are altered copies of test pictures


def evaluated(root: Path) -> ImageSet:
    images: ImageSet = open_dataset("scenes", root).samples("depth", "test").limited(8).images
    return images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven training pictures, two of them altered copies of test pictures of scenes, and what bench dedup says."""
    root = tmp_path_factory.mktemp("dedup")
    spoilt = Spoilt(evaluated(root), [0, 3])
    lines = []
    for i in range(7):
        pixels = spoilt.load(COPIES.index(i)) if i in COPIES else render(9, 70 + i, 96, split="pretrain").rgb
        Image.fromarray(pixels).save(root / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "alt": f"picture {i}"}))
    (root / "captions.jsonl").write_text("\n".join(lines))
    data = ("data.source=folder", f"data.path={root}", "data.synthetic=[]", "data.samples=0")
    words = [word for setting in data for word in ("--set", setting)]
    words += ["--against", "depth/scenes", "--limit", "8", "--out", str(root / "out"), "--device", "cpu"]
    assert bench("dedup", "tipsv2-mini-64", *words) == 0
    return root


def test_altered_copies_are_found_and_named(made: Path) -> None:
    rows = list(csv.DictReader((made / "out" / "pictures.csv").open()))
    assert [row["kept"] for row in rows] == ["no" if i in COPIES else "yes" for i in range(7)]
    assert all(row["nearest"].startswith("depth/scenes: ") for row in rows)
    test = evaluated(made)
    assert [rows[i]["nearest"] for i in COPIES] == [f"depth/scenes: {test.image_id(k)}" for k in (0, 3)]
    report = (made / "out" / "report.md").read_text()
    assert "2 of 7 are left out" in report and "1.png" in report


def test_training_leaves_them_out_and_refuses_a_list_of_other_data(made: Path) -> None:
    kept = made / "out" / "left-out.json"
    data = {"data__source": "folder", "data__path": str(made), "data__synthetic": [], "data__samples": 0}
    source = open_source(tiny(**data, data__leave_out=str(kept)).data)
    assert [source.load(i).alt for i in range(len(source))] == [f"picture {i}" for i in range(7) if i not in COPIES]
    with pytest.raises(UsageError, match="is of 7 samples, the data hold 3. Make it again"):
        open_source(tiny(**data | {"data__samples": 3}, data__leave_out=str(kept)).data)
    lines = (made / "captions.jsonl").read_text().split("\n")
    for name, other in (("turned", lines[::-1]), ("other", [lines[0].replace("0.png", "x.png"), *lines[1:]])):
        (made / name).mkdir()
        (made / name / "captions.jsonl").write_text("\n".join(other))
        with pytest.raises(UsageError, match="is of other samples, or of these in another order"):
            open_source(tiny(**data | {"data__path": str(made / name)}, data__leave_out=str(kept)).data)
    (made / "moved").mkdir()
    whole = "\n".join(lines).replace('"image": "', f'"image": "{made / "moved"}/')
    (made / "moved" / "captions.jsonl").write_text(whole)  # the same pictures, by whole paths in another place
    assert len(open_source(tiny(**data | {"data__path": str(made / "moved")}, data__leave_out=str(kept)).data)) == 5
    old = made / "old.json"
    sealed.write_json(old, {"schema": 1, "samples": 7, "threshold": 0.9, "indices": [1, 4], "against": ["depth"]})
    with pytest.raises(UsageError, match="is older and does not say of which samples it is"):
        open_source(tiny(**data, data__leave_out=str(old)).data)
    with pytest.raises(UsageError, match="no such file. Make it with bench dedup"):
        open_source(tiny(**data, data__leave_out="none.json").data)
    changed = made / "changed.json"
    changed.write_text(kept.read_text().replace('"indices": [', '"indices": [\n 0,'))
    with pytest.raises(Damaged):
        open_source(tiny(**data, data__leave_out=str(changed)).data)


def test_a_list_of_a_part_of_the_evaluation_pictures_says_so(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    there = len(open_dataset("scenes", made).samples("depth", "test").images)
    said = f"8 of {there} pictures of depth/scenes"
    assert said in (made / "out" / "report.md").read_text()
    kept = made / "out" / "left-out.json"
    assert json.loads(kept.read_text())["compared"] == {"depth/scenes": [8, there]}
    data = {"data__source": "folder", "data__path": str(made), "data__synthetic": [], "data__samples": 0}
    open_source(tiny(**data, data__leave_out=str(kept)).data)
    assert f"made with --limit: of depth/scenes, 8 of {there} pictures were compared" in caplog.text


def test_a_run_is_taken_up_with_the_samples_that_it_was_begun_with(tmp_path: Path) -> None:
    """Its list is another one of as many samples; or its samples are in another order."""

    def listed(*gone: int) -> str:
        path = tmp_path / "list.json"
        facts = {"schema": 2, "samples": 12, "ids": ids_digest(Squares(12)), "indices": list(gone), "compared": {}}
        sealed.write_json(path, facts)
        return str(path)

    def config(steps: int) -> RecipeConfig:
        data = {"data__samples": 12, "data__leave_out": str(tmp_path / "list.json")}
        return tiny(train__steps=steps, train__checkpoint_every=1, **data)

    listed(1, 4)
    final = train(config(1), tmp_path / "run", quiet=True)
    assert json.loads((final / "run.json").read_text())["left_out"]["samples"] == 2
    listed(1, 5)
    with pytest.raises(UsageError, match="or those of them that are left out are others than when it was made"):
        train(config(2), tmp_path / "run", quiet=True)
    listed(1, 4)
    train(config(2), tmp_path / "run", quiet=True)


def test_shards_shrink_by_what_is_left_out_of_them() -> None:
    class Shards:
        starts = np.array([0, 4, 8, 9])

        def __len__(self) -> int:
            return 9

    left = Without(Shards(), np.array([0, 3, 4, 8]))  # type: ignore[arg-type]
    assert len(left) == 5 and left.starts.tolist() == [0, 2, 5, 5]


def test_without_evaluation_pictures_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("dedup", "tipsv2-mini-64") == 2
    assert "--against" in capsys.readouterr().err
