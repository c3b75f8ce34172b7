"""What each kind of task reads of a rendered split: frozen, picklable, one class per kind."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import (
    CaptionData,
    DepthData,
    ImageSet,
    LabelData,
    NormalsData,
    RetrievalData,
    SegmentationData,
)
from benchmark.contracts.progress import NewProgress
from benchmark.errors import DataError
from benchmark.system.digest import fingerprint
from benchmark.system.mapped import let_go, mapped
from tasks.scenes.fill import SEED
from tasks.scenes.golden import GOLDEN
from tasks.scenes.splits import VIEWS
from tasks.scenes.store import rendered
from tasks.scenes.tables import CLASS_NAMES, DOMAINS, OBJECTS, VERSION

# Prompts in the words of the captions; `bench run` uses them where a protocol says templates = dataset.
TEMPLATES = ("{}", "a {}", "a {} on the ground", "photo {}", "{} picture")
CAPTIONS = {"both": (2, 1), "long": (2,), "short": (1,)}  # positions in [alt, short, long]


@lru_cache(maxsize=32)
def _array(path: Path) -> np.ndarray:
    try:
        return mapped(path)
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read ({e}). Delete its folder: it is rendered again") from None


def _row(path: Path, index: int) -> np.ndarray:
    whole = _array(path)
    row = np.array(whole[index])
    let_go(whole)
    return row


@dataclass(frozen=True)
class Pictures(ImageSet):
    """The first `n` pictures of a split, rendered when they are prepared or one is read."""

    split: str
    size: int
    n: int
    uniform_shape: tuple[int, int] | None = field(init=False)
    cheap: bool = field(default=True, init=False)  # read from a memory map: no worker process is worth its start

    def __len__(self) -> int:
        return self.n

    def __post_init__(self) -> None:
        object.__setattr__(self, "uniform_shape", (self.size, self.size))

    @cached_property
    def folder(self) -> Path:
        """Where they lie."""
        return rendered(self.split, self.size, self.n)

    def prepare(self, progress: NewProgress) -> None:
        if "folder" not in vars(self):
            vars(self)["folder"] = rendered(self.split, self.size, self.n, progress)

    @property
    def digest(self) -> str:
        """Of what the pictures are drawn from and of the renderer's pinned output, not of the pixels: cheap."""
        return _digest("images", self)

    def image_id(self, index: int) -> str:
        return f"scenes-{VERSION}/{self.split}/{self.check(index):05d}"

    def load(self, index: int) -> np.ndarray:
        return _row(self.folder / "images.npy", self.check(index))

    def check(self, index: int) -> int:
        """`index`, or IndexError when there is no such picture."""
        if not 0 <= index < self.n:
            raise IndexError(f"scenes: picture {index} of {self.n}")
        return int(index)


def _digest(what: str, pictures: Pictures, **more: Any) -> str:
    head = {"dataset": "scenes", "version": VERSION, "golden": GOLDEN, "seed": SEED}
    return fingerprint(
        {**head, "split": pictures.split, "size": pictures.size, "n": len(pictures), "what": what, **more}
    )


@dataclass(frozen=True)
class SceneSegmentation(SegmentationData):
    """Stuff and object classes; every pixel has one."""

    images: Pictures
    class_names: Sequence[str] = CLASS_NAMES
    background: int | None = None
    templates: Sequence[str] = field(default=TEMPLATES, init=False)

    @property
    def digest(self) -> str:
        return _digest("segmentation", self.images, templates=self.templates)

    def target(self, index: int) -> np.ndarray:
        """[S, S] uint8 index into CLASS_NAMES."""
        return _row(self.images.folder / "semantic.npy", self.images.check(index))


@dataclass(frozen=True)
class SceneDepth(DepthData):
    """Planar depth in metres, infinite in the sky; what is nearer than `max_depth` is scored.

    Beyond it are mountains and the last rows of the ground, a few pixels high.
    """

    images: Pictures
    max_depth: float = field(default=20.0, init=False)  # metres

    @property
    def digest(self) -> str:
        return _digest("depth", self.images, max_depth=self.max_depth)

    def target(self, index: int) -> np.ndarray:
        """[S, S] float32 metres."""
        return _row(self.images.folder / "depth.npy", self.images.check(index))


@dataclass(frozen=True)
class SceneNormals(NormalsData):
    """Unit normals towards the camera: x right, y down, z ahead; zero in the sky."""

    images: Pictures

    @property
    def digest(self) -> str:
        return _digest("normals", self.images)

    def target(self, index: int) -> np.ndarray:
        """[S, S, 3] float32."""
        ends = _array(self.images.folder / "normals_end.npy")
        start, end = (int(ends[index - 1]) if self.images.check(index) else 0), int(ends[index])
        with open(self.images.folder / "normals.bin", "rb") as f:
            f.seek(start)
            planes = np.frombuffer(zlib.decompress(f.read(end - start)), np.float32)
        return np.moveaxis(planes.reshape(3, self.images.size, self.images.size), 0, -1).copy()


@dataclass(frozen=True)
class SceneCaptions(CaptionData):
    """The long and the short caption of each picture, in this order, or one of them.

    In the test split no text serves two pictures: the later one's captions are worded anew.
    """

    images: Pictures
    which: str = "both"

    @property
    def digest(self) -> str:
        return _digest("captions", self.images, which=self.which)

    @cached_property
    def captions(self) -> Sequence[Sequence[str]]:  # type: ignore[override]  # read when they are asked for
        rows = json.loads((self.images.folder / "captions.json").read_text())[: len(self.images)]
        return tuple(tuple(row[k] for k in CAPTIONS[self.which]) for row in rows)


@dataclass(frozen=True)
class SceneLabels(LabelData):
    """Pictures of one near object each; classes in turn, so balanced."""

    images: Pictures
    class_names: Sequence[str] = OBJECTS
    templates: Sequence[str] = field(default=TEMPLATES, init=False)

    @property
    def digest(self) -> str:
        return _digest("labels", self.images, templates=self.templates)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.arange(len(self.images), dtype=np.int64) % len(OBJECTS))


@dataclass(frozen=True)
class SceneRetrieval(RetrievalData):
    """Each object under four views, lights and surroundings; every picture is a query over all the others.

    Labels are objects, domains are groups of categories.
    """

    queries: Pictures

    def __post_init__(self) -> None:
        places = np.arange(len(self.queries), dtype=np.int64)
        labels = places // VIEWS
        group = {category: name for name, members in DOMAINS.items() for category in members}
        domains = tuple(group[OBJECTS[label % len(OBJECTS)]] for label in labels.tolist())
        for side in ("query", "index"):
            object.__setattr__(self, f"{side}_labels", labels)
            object.__setattr__(self, f"{side}_domains", domains)
        object.__setattr__(self, "index", self.queries)
        object.__setattr__(self, "self_index", places)

    @property
    def digest(self) -> str:
        return _digest("retrieval", self.queries)
