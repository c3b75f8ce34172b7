"""An encoder with three checkpoints, whose workers die where a run can lose something, and pictures for two tasks."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from command import hurried
from PIL import Image

from benchmark.contracts.progress import silent
from benchmark.engine.alike import probes, versions
from benchmark.engine.jobs import JobMaker
from benchmark.engine.options import RunOptions
from benchmark.engine.target import targets
from benchmark.engine.worker import Brief, Worker
from benchmark.registry import units

ENCODER = """
import dataclasses
import os
import sys
from pathlib import Path

from small import SmallEncoder

from benchmark.contracts import WeightsInfo
from benchmark.system.digest import fingerprint

HERE = Path(__file__).parent


def once(name):
    mark = HERE / name
    if os.getpid() != {parent} and not mark.exists():
        mark.touch()
        os._exit(1)


class Dying(SmallEncoder):
    def encode_image(self, images, request=None):
        once("died-encoding")
        return super().encode_image(images, request)


def build(spec):
    encoder = Dying("dying")
    gain = float((Path(spec.weights) / "gain").read_text()) if spec.weights else 1.0
    encoder.map *= gain
    encoder.card = dataclasses.replace(encoder.card, weights=WeightsInfo("a file", fingerprint(gain)))
    with open(HERE / "loaded", "a") as log:
        log.write(f"{{os.getpid()}} {{gain}}\\n")
    if os.getpid() != {parent}:
        _die_later()
    return encoder


def _die_later():
    from benchmark.engine import session

    class Context(session.Context):
        def __init__(self, **fields):
            once("died-in-a-head")
            super().__init__(**fields)

    def rename(old, new, plain=os.replace):
        if str(new).endswith("result.json"):
            once("died-writing-a-row")
        plain(old, new)

    if session.Context.__qualname__ == "Context":
        session.Context, os.replace = Context, rename
"""
HURRIED = hurried("classification", "linear_segmentation")


def make(root: Path) -> Path:
    """In `root` an encoder, three checkpoints of it, and pictures of three colours with masks."""
    (root / "dying.py").write_text(ENCODER.format(parent=os.getpid()))
    for step in (9, 10, 100):
        (root / "runs" / f"step-{step}").mkdir(parents=True)
        (root / "runs" / f"step-{step}" / "gain").write_text(str(step / 10))
    rng = np.random.default_rng(0)
    for split, n in (("train", 150), ("test", 20)):
        for i in range(n):
            mask = rng.integers(0, 3, (2, 2), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            picture = (mask[..., None] * [90, 20, 60] + rng.integers(0, 70, (32, 32, 3))).astype(np.uint8)
            for kind, array in (("pictures", picture), ("masks", mask), (f"labels/{'abc'[i % 3]}", picture)):
                file = root / split / kind / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    both = [f'[{s}]\nimages = "{s}/pictures"\nmasks = "{s}/masks"' for s in ("train", "test")]
    head = 'task = "linear_segmentation"\nname = "squares"\nclasses = ["a", "b", "c"]\n'
    (root / "masks.toml").write_text("\n".join([head, *both]))
    both = [f'[{s}]\nimages = "{s}/labels"' for s in ("train", "test")]
    (root / "labels.toml").write_text("\n".join(['task = "classification"\nname = "colours"\n', *both]))
    return root


def words(place: Path, results: Path, *more: str) -> list[str]:
    """Of `bench run` for both tasks."""
    tasks = ["--task", str(place / "masks.toml"), "--task", str(place / "labels.toml"), *HURRIED]
    return ["run", "--model", f"{place / 'dying.py'}:build", *tasks, "--results", str(results), *more]


def told_worker(place: Path, tmp_path: Path, weights: str = "step-9", **changes: Any) -> Worker:
    """A worker in this process."""
    options = RunOptions(
        results=tmp_path / "rows", cache=tmp_path / "cache", weights=str(place / "runs" / weights), check=False
    )
    maker = JobMaker(options, "fast", silent)
    jobs = tuple(maker.make(unit) for unit in units(str(place / "labels.toml")))
    found = targets([f"{place / 'dying.py'}:build"], options)
    brief = Brief(tuple(found), jobs, {}, Path.cwd(), tuple(sys.path), (), versions(), probes(jobs))
    return Worker(replace(brief, **changes), 1)
