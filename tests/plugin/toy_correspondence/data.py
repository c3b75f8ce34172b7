"""Pairs of pictures with the same points marked in both: a kind of data that densebench does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo, DatasetSource, ImageSet, ImageSubset, Samples
from benchmark.errors import DataError, UsageError
from benchmark.system.digest import fingerprint

SIZE, SPOTS, PAIRS, RULE = 64, 4, 24, 1  # RULE: raised when other pictures are drawn
INFO = DatasetInfo(
    name="toy_pairs",
    title="Toy pairs: coloured spots, shifted",
    licence="Apache-2.0",
    citation="none",
    url="none",
    layout="embedded",
    kinds=("pairs",),
    splits=("test",),
)


class Pairs(Samples):
    """Points of a source picture and where they are in its target picture."""

    sources: ImageSet
    targets: ImageSet
    source_points: np.ndarray  # [N, K, 2] x and y in 0 … 1
    target_points: np.ndarray  # [N, K, 2]

    def __len__(self) -> int:
        return len(self.sources)

    def pictures(self) -> Mapping[str, ImageSet]:
        return {"sources": self.sources, "targets": self.targets}

    def take(self, rows: Sequence[int]) -> Pairs:
        return _SomePairs(self, rows)


class _SomePairs(Pairs):
    def __init__(self, base: Pairs, rows: Sequence[int]) -> None:
        self.sources, self.targets = ImageSubset(base.sources, rows), ImageSubset(base.targets, rows)
        self.source_points, self.target_points = base.source_points[list(rows)], base.target_points[list(rows)]
        self._digest = fingerprint({"base": base.digest, "rows": list(rows)})

    @property
    def digest(self) -> str:
        return self._digest


def _drawn(index: int) -> tuple[np.ndarray, np.ndarray]:
    """[SPOTS, 2] places in 0 … 1 and [SPOTS, 3] colours of a pair; no two spots are near each other."""
    rng = np.random.default_rng([RULE, index])
    cells = rng.permutation(9)[:SPOTS]
    places = (np.stack([cells % 3, cells // 3], 1) + rng.uniform(0.35, 0.65, (SPOTS, 2))) / 3
    return places, rng.permutation(np.array([[230, 40, 40], [40, 200, 40], [50, 60, 230], [230, 210, 40]]))


def _moved(places: np.ndarray) -> np.ndarray:
    return places[:, ::-1]  # mirrored at the diagonal


@dataclass(frozen=True)
class Spots(ImageSet):
    """The pictures of one side; one of them may be damaged."""

    side: str
    broken: int = -1
    n: int = PAIRS

    @property
    def digest(self) -> str:
        return fingerprint({"toy spots": RULE, "side": self.side, "n": self.n, "broken": self.broken})

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"{self.side}/{index:02d}"

    def load(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise DataError(f"{self.image_id(index)}: is damaged. Draw it again")
        places, colours = _drawn(index)
        image = np.full((SIZE, SIZE, 3), 128, np.uint8)
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE
        for (px, py), colour in zip(places if self.side == "source" else _moved(places), colours):
            image[(x - px) ** 2 + (y - py) ** 2 < 0.01] = colour
        return image


class ToyPairs(Pairs):
    """All pairs."""

    def __init__(self, broken: int) -> None:
        self.sources, self.targets = Spots("source", broken), Spots("target")
        places = np.stack([_drawn(i)[0] for i in range(PAIRS)])
        self.source_points, self.target_points = places, places[..., ::-1]

    @property
    def digest(self) -> str:
        return fingerprint({"toy pairs": [self.sources.digest, self.targets.digest]})


@dataclass(frozen=True)
class ToyDataset(Dataset):
    """Embedded: drawn when asked for."""

    info: DatasetInfo
    broken: int = -1

    def data(self, kind: str, split: str) -> Pairs:
        if kind != "pairs" or split != "test":
            raise DataError(f"toy_pairs has no {kind} data for {split}: only pairs, in test")
        return ToyPairs(self.broken)


def open_dataset(root: Path | None, options: Mapping[str, str]) -> ToyDataset:
    """A file toy_pairs/broken under `root` names a source picture by its number: it cannot be read."""
    if options:
        raise UsageError(f"toy_pairs has no options, so no {min(options)}")
    broken = None if root is None else root / "toy_pairs" / "broken"
    return ToyDataset(INFO, int(broken.read_text()) if broken and broken.is_file() else -1)


SOURCE = DatasetSource(INFO, open_dataset, embedded=True)
