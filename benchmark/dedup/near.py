"""Near-copies by an encoder's own vectors: the nearest evaluation picture of each training picture, by cosine.

What a cosine means differs from encoder to encoder. So where no threshold is given it is measured: evaluation pictures
are spoilt as copies on the web are (half the size, a border cut off, JPEG), and the lowest LEAST of their cosines with
themselves is the threshold. The report says as well how near pictures come that are no copies.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from benchmark.contracts import ImageSet, Need, Tap, View
from benchmark.contracts.progress import NewProgress, silent
from benchmark.engine.jobs import JobMaker
from benchmark.engine.session import Session
from benchmark.errors import DataError, UsageError
from benchmark.heads.knn import topk_search
from benchmark.images.decode import decode
from benchmark.registry import units
from benchmark.system.digest import fingerprint

SPOILT = 256  # evaluation pictures that the threshold is measured on, spread evenly
LEAST = 0.05  # share of spoilt copies that may be missed
AT_ONCE = 2**16  # pictures whose class tokens are read at a time
QUALITY, CUT = 50, 0.05  # of the JPEG; of each side, cut off


@dataclass(frozen=True)
class Found:
    """Of each training picture the nearest evaluation picture."""

    score: np.ndarray  # [N] cosine
    of: list[str]  # [N] "unit: picture"
    threshold: float
    spoilt: np.ndarray  # [S] cosines of spoilt copies with their originals
    others: np.ndarray  # [E] cosine of each evaluation picture with the nearest other one

    @property
    def left_out(self) -> np.ndarray:
        """Which training pictures are near-copies, rising."""
        return np.flatnonzero(self.score >= self.threshold)


class Spoilt(ImageSet):
    """Pictures as copies of them come: without their border, at half the size, as a JPEG."""

    def __init__(self, base: ImageSet, rows: Sequence[int]) -> None:
        self.base, self.rows = base, list(rows)

    @cached_property
    def digest(self) -> str:
        return fingerprint({"spoilt": self.base.digest, "rows": self.rows, "how": [QUALITY, CUT]})

    def __len__(self) -> int:
        return len(self.rows)

    def image_id(self, index: int) -> str:
        return f"copy of {self.base.image_id(self.rows[index])}"

    def load(self, index: int) -> np.ndarray:
        image = Image.fromarray(self.base.picture(self.rows[index]))
        left, top = int(CUT * image.width), int(CUT * image.height)
        inner = image.crop((left, top, image.width - left, image.height - top))
        held = io.BytesIO()
        inner.resize((max(1, inner.width // 2), max(1, inner.height // 2))).save(held, "JPEG", quality=QUALITY)
        return decode(held.getvalue())

    def prepare(self, progress: NewProgress) -> None:
        self.base.prepare(progress)


def find_near(
    session: Session, training: ImageSet, evaluated: Mapping[str, ImageSet], threshold: float | None = None
) -> Found:
    """The nearest of all `evaluated` pictures (unit -> set) to each `training` picture. Vectors are kept in the
    session's feature store. Raises UsageError for a threshold that is no cosine, DataError without pictures."""
    if threshold is not None and not -1 < threshold <= 1:
        raise UsageError(f"--threshold {threshold} is no cosine: give one above -1, at most 1")
    sets = {images.digest: (unit, images) for unit, images in reversed(list(evaluated.items()))}
    if not len(training) or not sets:
        raise DataError("nothing to compare: there are no training pictures or no evaluation pictures")
    seen = _vectors(session, training)
    best = np.full(len(training), -2.0)
    of = [""] * len(training)
    spoilt, others = [], []
    for unit, images in sets.values():
        index = _vectors(session, images)
        score, where = (found[:, 0].numpy() for found in topk_search(seen, index, 1, device=session.device))
        for row in np.flatnonzero(score > best):
            best[row], of[row] = score[row], f"{unit}: {images.image_id(int(where[row]))}"
        rows = np.unique(np.linspace(0, len(images) - 1, min(SPOILT, len(images))).astype(int))
        copies = _vectors(session, Spoilt(images, rows.tolist()))
        spoilt.append(_cosines(copies, index[rows]))
        if len(images) > 1:
            nearest, _ = topk_search(index[rows], index, 1, exclude=rows, device=session.device)
            others.append(nearest[:, 0].numpy())
    copied = np.concatenate(spoilt)
    limit = float(np.quantile(copied, LEAST, method="lower")) if threshold is None else threshold
    return Found(best, of, limit, copied, np.concatenate(others) if others else np.zeros(0))


def _vectors(session: Session, images: ImageSet) -> np.ndarray:
    """[N, D] float32: the first class token of every picture, from the feature store."""
    need = Need(images, View(), Tap("cls"))
    session.planner.add([need])
    session.extractor.run(session.planner.of(need))
    stored = session.planner.array(need)
    parts = np.array_split(np.arange(len(images)), -(-len(images) // AT_ONCE))
    return np.concatenate([stored[rows][:, 0].numpy() for rows in parts])


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / np.maximum(sizes, 1e-12))


def evaluation_pictures(
    session: Session, words: Sequence[str], progress: NewProgress = silent
) -> tuple[dict[str, ImageSet], dict[str, int]]:
    """(unit -> its test pictures, unit -> how many there are without --limit), of every task that `words` mean. Raises
    UsageError, DataError."""
    maker, found, there = JobMaker(session.options, "fast", progress), {}, {}
    for unit in dict.fromkeys(unit for word in words for unit in units(word)):
        job = maker.make(unit)
        for name, images in job.data["test"].pictures().items():
            word = f"{unit}" if name == "images" else f"{unit} {name}"
            found[word], there[word] = images, len(job.whole["test"].pictures()[name])
    return found, there
