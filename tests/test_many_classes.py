"""More classes than a byte holds: 255 is ignored up to 255 of them, and is one of them beyond, in every part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import bench
from miniatures import save_png

import tasks.linear_segmentation
from benchmark.contracts import ignored_label
from benchmark.metrics.segmentation import confusion_areas
from benchmark.rows.row import read_all

MODEL = f"{Path(__file__).parent}/small_model.py:build"


def own(folder: Path, classes: int, more: str = "") -> Path:
    """A TOML task whose pictures show every class as 4 × 4 squares of a colour of its own."""
    names = [f"c{i}" for i in range(classes)]
    for s, split in enumerate(("train", "test")):
        for p in range(4):
            labels = np.random.default_rng([s, p]).permutation(-(-classes // 32) * 32).reshape(-1, 32) % classes
            labels = labels.repeat(4, 0).repeat(4, 1).astype(np.uint16)
            colours = np.random.default_rng(9).integers(0, 256, (classes, 3), dtype=np.uint8)
            save_png(folder / split / "images" / f"{p}.png", colours[labels])
            save_png(folder / split / "masks" / f"{p}.png", labels)
    file = folder / "many.toml"
    parts = "".join(f'[{s}]\nimages = "{s}/images"\nmasks = "{s}/masks"\n' for s in ("train", "test"))
    file.write_text(f'task = "TASK"\nname = "many"\nclasses = {names!r}\n{more}\n{parts}'.replace("'", '"'))
    return file


def run(file: Path, task: str, *words: str) -> object:
    text = file.read_text().replace("TASK", task)
    file.write_text(text)
    results = file.parent / "results"
    command = ["run", "--task", str(file), "--results", str(results), "--no-check", "--cross-check"]
    assert bench(*command, *words) == 0
    return read_all(results)[0][0]


@pytest.mark.parametrize("classes", [255, 256, 300])
@pytest.mark.parametrize("more", ["", "ignore = [255]", "ignore = [7]", "ignore = [65535]"])
def test_fast_trains_on_every_class_that_it_scores(tmp_path, monkeypatch, classes, more):
    seen = set()
    fit = tasks.linear_segmentation.fit_logistic

    def noted(features, labels, *rest, **named):
        seen.update(labels.tolist())
        return fit(features, labels, *rest, **{**named, "max_iterations": 3})  # no value of the row is looked at

    monkeypatch.setattr(tasks.linear_segmentation, "fit_logistic", noted)
    words = [w for f in ("penalties=[1e-3]", "pixels_at_most=2048", "judged_images=1") for w in ("--set", f)]
    row = run(own(tmp_path, classes, more), "linear_segmentation", "--model", "pixels", *words)
    left = {255} & set(range(classes)) if more == "ignore = [255]" else {7} if more == "ignore = [7]" else set()
    assert seen == set(range(classes)) - left
    scored = np.stack(row.samples["target_area"]).sum(0)
    assert (scored[sorted(seen)] > 0).all() and (scored[sorted(left)] == 0).all()


def test_paper_and_zero_shot_score_class_255_of_300(tmp_path):
    sets = ["steps=2", "batch_size=2", "crop=32", "short_side=32", "window=32", "stride=32"]
    words = [w for f in sets for w in ("--set", f)]
    row = run(own(tmp_path / "l", 300), "linear_segmentation", "--model", "pixels", "--protocol", "paper", *words)
    assert np.stack(row.samples["target_area"]).sum(0)[255] > 0 and row.data.details["cross_check"]
    row = run(own(tmp_path / "z", 300), "zero_shot_segmentation", "--model", MODEL)
    assert np.stack(row.samples["target_area"]).sum(0)[255] > 0 and row.data.details["cross_check"]


def test_one_place_says_what_is_ignored():
    assert [ignored_label(n) for n in (1, 254, 255, 256, 300, 1000)] == [255, 255, 255, -1, -1, -1]
    for classes in (255, 256):
        target = np.array([[0, 254, 255, -1]])
        areas = confusion_areas(np.array([[0, 254, 254, 0]]), target, classes)
        assert areas.target_area.sum() == (2 if classes == 255 else 3)
