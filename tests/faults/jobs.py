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
from recipe_fixtures import TINY, write_toml  # noqa: E402

PICTURES = 24  # of each split of scenes: more than the 20 neighbours of kNN, a multiple of an object's views
FAST = ("bin_steps=40", "bins=32", "pixel_rows=1500", "pixels_at_most=64", "judged_images=3")
DENSE = ("steps=24", "batch_size=2", "warmup_steps=2", "bins=8", "channels=8", "resize=48")
LINEAR = ("steps=24", "batch_size=2", "warmup_steps=2", "short_side=32", "crop=32", "window=32", "stride=21")


@dataclass(frozen=True)
class Job:
    """`run` does the whole of it in the folder that it is given, and gives an exit code; in CI it is `brief`."""

    name: str
    run: Callable[[Path], int | None]
    brief: Callable[[Path], int | None] | None = None
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
    small_scenes()
    os.chdir(ROOT)
    return _main(folder, "run", "--no-check", "--device", "cpu", "--results", str(folder / "results"), *words)


def _main(folder: Path, *words: str) -> int:
    from benchmark.cli import main

    os.environ |= {"BENCH_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.argv = ["bench", words[0]]
    try:
        main([*words])
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


def _recipe(folder: Path, command: str, out: str, **changes: object) -> int:
    """`bench train` or `distill` of the tiny recipe within `folder`: checkpoints say the same of files each time."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    sets = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    config = write_toml(Path(f"{out}.toml"), TINY)
    return _main(folder, command, str(config), "--out", out, *_sets(sets))


def training(folder: Path) -> int:
    """The recipe, with checkpoints, readings, validation on held-out pictures and an export."""
    steps = {"train__steps": 40, "train__checkpoint_every": 4, "train__validate_every": 8, "train__validate_samples": 8}
    return _recipe(folder, "train", "run", **steps)


def short_training(folder: Path) -> int:
    """The recipe in six steps."""
    return _recipe(folder, "train", "run")


def distillation(folder: Path) -> int:
    """A teacher, a projector of its own that is warmed up, and a narrower student of it."""
    often = {"train__steps": 8, "train__checkpoint_every": 2}
    taught = {"teacher__path": "teacher/final", "teacher__heads": "warm", "teacher__warmup_steps": 4}
    return _recipe(folder, "train", "teacher", model__width=32, **often) or _recipe(
        folder, "distill", "student", **often, **taught
    )


JOBS = {
    job.name: job
    for job in (
        Job("scenes", scenes, some_scenes), Job("training", training, short_training), Job("head", head, one_head),
        Job("distillation", distillation),
    )
}  # fmt: skip
