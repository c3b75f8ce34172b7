"""Rendered scenes as a source: drawn on first use, kept in shards, so that later passes only read."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Renderer, Sample
from benchmark.errors import UsageError
from benchmark.system import cache_users, sealed
from benchmark.system.digest import fingerprint
from benchmark.system.paths import cache_dir

SHARD = 500
PIXELS, CAPTIONS = "pixels.npy", "captions.json"
DEFAULT_SAMPLES = 40_000


class ScenesSource:
    """Scene `index` of the "pretrain" split, which no evaluation split shares; held-out scenes lie past `samples`."""

    def __init__(self, samples: int, seed: int, size: int, folder: Path, render: Renderer) -> None:
        self.samples, self.seed, self.size, self.folder, self.render = samples, seed, size, folder, render
        self._open: dict[int, tuple[np.ndarray, list[list[Any]]]] = {}

    def __len__(self) -> int:
        return self.samples

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    @property
    def ids_digest(self) -> str:
        return fingerprint([self.folder.name, self.samples])  # the name holds what is drawn, by a digest

    def load(self, index: int) -> Sample:
        pixels, captions = self._shard(index // SHARD)
        alt, *synthetic = captions[index % SHARD]
        return Sample(Image.fromarray(pixels[index % SHARD]), alt, tuple(synthetic))

    def held_out(self, count: int) -> list[Sample]:
        first = -(-self.samples // SHARD) * SHARD
        return [self.load(first + i) for i in range(count)]

    def _shard(self, number: int) -> tuple[np.ndarray, list[list[Any]]]:
        if number not in self._open:
            folder = self.folder / f"{number:06d}"
            if not _whole(folder):
                self._draw(number, folder)
            pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
            self._open[number] = pixels, sealed.read_json(folder / CAPTIONS)["captions"]
        return self._open[number]

    def _draw(self, number: int, folder: Path) -> None:
        indices = range(number * SHARD, (number + 1) * SHARD)
        scenes = [self.render(self.seed, i, self.size, split="pretrain") for i in indices]
        staging = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        np.save(staging / PIXELS, np.stack([s.rgb for s in scenes]))
        captions = [[s.alt, s.short, s.long] for s in scenes]
        sealed.write_json(staging / CAPTIONS, {"captions": captions, "files": sealed.digests(staging, [PIXELS])})
        shutil.rmtree(folder, ignore_errors=True)
        try:
            staging.rename(folder)
        except OSError:  # another process was first; its shard holds the same bytes
            shutil.rmtree(staging, ignore_errors=True)


def _whole(folder: Path) -> bool:
    """Whether a shard is there and is what was written; one of before shards held digests is drawn again."""
    try:
        sealed.check_files(folder, sealed.read_json(folder / CAPTIONS)["files"])
    except FileNotFoundError:
        return False
    except sealed.Damaged as e:
        sealed.remake(folder, e, "its scenes are drawn again")
        return False
    return True


def open_scenes(config: DataConfig, render: Renderer | None) -> ScenesSource:
    """`data.samples` scenes of `data.size` pixels; shards lie under `data.cache`, apart for each renderer's output.

    Raises UsageError without a renderer.
    """
    if render is None:
        raise UsageError(
            "data.source = 'scenes' needs a renderer. Train with `bench train`, or "
            "train(…, render=tasks.scenes.render.render)"
        )
    first = render(config.seed, 0, config.size, split="pretrain")
    drawn = hashlib.sha256(first.rgb.tobytes() + first.long.encode()).hexdigest()
    root = Path(config.cache) if config.cache else cache_dir() / "recipe"
    folder = root / f"scenes-{fingerprint([drawn, config.seed, config.size, SHARD])[:12]}"
    cache_users.touch(cache_dir(), folder)
    return ScenesSource(config.samples or DEFAULT_SAMPLES, config.seed, config.size, folder, render)
