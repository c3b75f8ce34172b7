"""The commands that are disturbed: each small enough to be run a hundred times, each writing all that it can write."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import torch  # noqa: E402
from recipe_fixtures import tiny  # noqa: E402

PICTURES = 24  # of each split of scenes: more than the 20 neighbours of kNN, a multiple of an object's views
FAST = ("bin_steps=40", "bins=32", "pixel_rows=1500", "pixels_at_most=64", "judged_images=3")
DENSE = ("steps=24", "batch_size=2", "warmup_steps=2", "bins=8", "channels=8", "resize=48")
LINEAR = ("steps=24", "batch_size=2", "warmup_steps=2", "short_side=32", "crop=32", "window=32", "stride=21")


@dataclass(frozen=True)
class Job:
    """`run` does the whole of it in the folder that it is given, and gives an exit code; in CI it is `brief`."""

    name: str
    run: Callable[[Path], int | None]
    brief: Callable[[Path], int | None]
    environment: Mapping[str, str] = field(default_factory=dict)


def small_scenes() -> None:
    """In this process: every split of scenes has PICTURES pictures, and heads are saved as often as they can be."""
    from tasks.mm import checkpoint
    from tasks.scenes.splits import SPLITS
    from tasks.training import loop

    torch.set_num_threads(1)
    for name, split in SPLITS.items():
        SPLITS[name] = dataclasses.replace(split, n=min(split.n, PICTURES))
    loop.LEAST_S = loop.SHARE = 0.0
    checkpoint.SHARE = 0


def bench(folder: Path, *words: str) -> int:
    """`bench run` with `words`; cache and results are below `folder`."""
    from benchmark.cli import main

    small_scenes()
    os.environ |= {"BENCH_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    os.chdir(ROOT)
    sys.argv = ["bench", "run"]
    try:
        main(["run", "--no-check", "--device", "cpu", "--results", str(folder / "results"), *words])
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def _sets(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def scenes(folder: Path) -> int:
    """The nine tasks of scenes."""
    return bench(folder, "--model", "tests/small_model.py:build", "--suite", "scenes", *_sets(FAST))


def some_scenes(folder: Path) -> int:
    """Two tasks of scenes that share their features."""
    words = [w for task in ("normals", "text_to_image_retrieval") for w in ("--task", f"{task}/scenes")]
    return bench(folder, "--model", "tests/small_model.py:build", *words, *_sets(["normals.penalties=[1e-1]"]))


def _head(folder: Path, task: str, settings: Sequence[str]) -> int:
    return bench(folder, "--model", "pixels", "--protocol", "paper", "--task", f"{task}/scenes", *_sets(settings))


def head(folder: Path) -> int:
    """The `paper` heads of depth and normals, and mmengine's linear segmentation."""
    return (
        _head(folder, "depth", DENSE)
        or _head(folder, "normals", [d for d in DENSE if not d.startswith("bins")])
        or _head(folder, "linear_segmentation", LINEAR)
    )


def one_head(folder: Path) -> int:
    """The `paper` head of depth."""
    return _head(folder, "depth", [*DENSE[1:], "steps=4"])


def training(folder: Path) -> None:
    """The recipe, with checkpoints, readings, validation on held-out pictures and an export."""
    from adapters.tipsv2.recipe.trainer import train

    torch.set_num_threads(1)
    config = tiny(train__steps=40, train__checkpoint_every=4, train__validate_every=8, train__validate_samples=8)
    train(config, folder / "run", quiet=True)


def short_training(folder: Path) -> None:
    """The recipe in six steps."""
    from adapters.tipsv2.recipe.trainer import train

    torch.set_num_threads(1)
    train(tiny(), folder / "run", quiet=True)


JOBS = {
    job.name: job
    for job in (
        Job("scenes", scenes, some_scenes), Job("training", training, short_training), Job("head", head, one_head)
    )
}  # fmt: skip
