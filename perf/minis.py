"""What the embedded models reach on held-out `scenes`, beside the predictors that see no picture.

    python perf/minis.py [--results results/reference] [--shuffles 20]

Read-outs are the `fast` protocol's: the rows are read, not made. Made here: the commonest class and the mean depth of
each pixel over the training scenes ("position only"), and zero-shot segmentation with the class names shuffled.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.metrics.geometry import depth_errors
from benchmark.metrics.segmentation import confusion_areas, miou
from benchmark.registry import open_dataset
from benchmark.rows.row import Row, read_all
from benchmark.statistics.bootstrap import interval
from benchmark.statistics.statistic import Statistic

MINIS = ("tipsv2-mini", "tips-mini", "clip-mini")
FLOORS = ("random-vit", "pixels")


def columns(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Per-image rows as columns."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def majority_map() -> tuple[float, tuple[float, float]]:
    """mIoU, with its interval, of predicting each pixel's commonest class in the training scenes."""
    scenes = open_dataset("scenes", None)
    train, test = (scenes.data("segmentation", split) for split in ("train", "test"))
    classes = len(test.class_names)
    counts: Any = 0
    for i in range(len(train.images)):
        counts = counts + (np.arange(classes) == np.asarray(train.target(i))[..., None])
    guess = np.argmax(counts, -1)
    rows = [confusion_areas(guess, test.target(i), classes).columns() for i in range(len(test.images))]
    table = columns(rows)
    return miou().of(table), interval(table, miou(), seed=0)


def mean_depth_map() -> tuple[float, tuple[float, float]]:
    """RMSE in metres, with its interval, of predicting each pixel's mean depth in the training scenes."""
    scenes = open_dataset("scenes", None)
    train, test = (scenes.data("depth", split) for split in ("train", "test"))
    far = getattr(test, "max_depth", 80.0)
    total: Any = 0.0
    seen: Any = 0
    for i in range(len(train.images)):
        depth = train.target(i)
        valid = np.isfinite(depth) & (depth > 1e-3) & (depth < far)
        total, seen = total + np.where(valid, depth, 0.0), seen + valid
    guess = total / np.maximum(seen, 1)
    rows = [{"rmse": depth_errors(guess, test.target(i), 1e-3, far)["rmse"]} for i in range(len(test.images))]
    table, statistic = columns(rows), Statistic("mean", ("rmse",))
    return statistic.of(table), interval(table, statistic, seed=0)


def shuffled_names(model: str, shuffles: int) -> list[float]:
    """mIoU of zero-shot segmentation when every class is given another class's name."""
    from benchmark import load_encoder, load_task

    task = load_task("zero_shot_segmentation/scenes")
    data, names = task.data, task.data["test"].class_names
    found = []
    for seed in range(shuffles):
        draws = np.random.default_rng(seed)
        order = draws.permutation(len(names))
        while (order == np.arange(len(names))).any():  # no class may keep its own name
            order = draws.permutation(len(names))
        renamed = dataclasses.replace(data["test"], class_names=tuple(names[i] for i in order))
        shuffled = dataclasses.replace(task, job=dataclasses.replace(task.job, data={**data, "test": renamed}))
        outcome = shuffled.run(load_encoder(model))
        found.append(miou().of(outcome.samples))
    return found


def rows_in(results: Path) -> list[Row]:
    """The rows of the five models under `results`; nothing is run, so that the shipped ones stay as they are."""
    found = [r for r in read_all(results)[0] if r.model in (*MINIS, *FLOORS) and r.unit.endswith("/scenes")]
    if missing := {*MINIS, *FLOORS} - {r.model for r in found}:
        words = " ".join(f"--model {name}" for name in sorted(missing))
        raise SystemExit(f"{results}: no row of these models. bench run --suite scenes {words} --results {results}")
    return found


def report(rows: list[Row]) -> None:
    """One line per model and claim."""
    by = {(r.model, r.data.task.name): r for r in rows}

    def value(model: str, task: str) -> str:
        main = by[model, task].main
        return f"{main.value:.2f} [{main.ci95[0]:.2f}, {main.ci95[1]:.2f}]"

    majority, depth = majority_map(), mean_depth_map()
    print(f"commonest class per pixel: mIoU {majority[0]:.2f} [{majority[1][0]:.2f}, {majority[1][1]:.2f}]")
    print(f"mean depth per pixel: RMSE {depth[0]:.3f} m [{depth[1][0]:.3f}, {depth[1][1]:.3f}]")
    floor = by["random-vit", "linear_segmentation"].main.value
    for model in [m for m in (*MINIS, *FLOORS) if (m, "depth") in by]:
        print(f"\n{model}")
        for task in dict.fromkeys(t for m, t in by if m == model):
            print(f"  {task:26s} {by[model, task].data.main_metric:14s} {value(model, task)}")
        linear = by[model, "linear_segmentation"].main.value
        rmse = by[model, "depth"].main.value
        print(f"  linear segmentation is {linear / floor:.2f} × random-vit")
        print(f"  depth RMSE is {100 * (1 - rmse / depth[0]):.1f} % below the mean depth per pixel")


def main() -> None:
    """Reads the rows, prints the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/reference"))
    parser.add_argument("--shuffles", type=int, default=20)
    args = parser.parse_args()
    report(rows_in(args.results))
    for model in MINIS:
        values = shuffled_names(model, args.shuffles)
        print(
            f"{model}: shuffled names give mIoU {np.mean(values):.2f}, at most {max(values):.2f}"
            f" ({args.shuffles} shuffles)"
        )


if __name__ == "__main__":
    main()
