"""Kinds of data: what a sample is. A kind owns what is done to its samples: taking a part, reading all.

A data set of one's own subclasses one of these, or `Samples` for a kind of its own; what has a value may be left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from benchmark.contracts.images import ImageSet, ImageSubset
from benchmark.system.digest import fingerprint

if TYPE_CHECKING:
    import numpy as np


class Samples(ABC):
    """One split of a data set, of any kind."""

    truth: str = ""  # for the row: which ground truth this is, where a data set has more than one

    @property
    @abstractmethod
    def digest(self) -> str:
        """64 hex digits over pictures, targets and what else a score depends on."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are: what `--limit` counts."""

    @abstractmethod
    def pictures(self) -> Mapping[str, ImageSet]:
        """Name -> every set of pictures in it, e.g. "images"."""

    @abstractmethod
    def take(self, rows: Sequence[int]) -> Samples:
        """The samples `rows`, in that order, with everything that belongs to each of them."""

    def limited(self, n: int) -> Samples:
        """At most `n` samples, spread evenly over the set."""
        return self if n >= len(self) else self.take(spread(len(self), n))

    def without(self, ids: set[str]) -> Samples:
        """What is left without the pictures of these ids: here every set of pictures has one for each sample."""
        sets = self.pictures().values()
        return self.take([i for i in range(len(self)) if not any(images.image_id(i) in ids for images in sets)])

    def readings(self) -> Iterator[tuple[str, Callable[[int], Any], int]]:
        """(id, function, its argument) of everything that a run may have to read: `--max-bad` tries each."""
        for images in self.pictures().values():
            yield from ((images.image_id(i), images.picture, i) for i in range(len(images)))

    def panels(self, index: int) -> Mapping[str, np.ndarray]:
        """Title -> [H, W, 3] uint8 of what shows sample `index` and its target to a person (`bench show`); empty: its
        pictures. Asked of kinds that are not of KINDS: those are drawn already."""
        return {}

    def thing_of(self, image_id: str) -> str | None:
        """What the picture shows, where many show the same and so are right or wrong together; None where none do."""
        return None


class ImageSamples(Samples):
    """Samples that are one picture each."""

    images: ImageSet

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self) -> Mapping[str, ImageSet]:
        return {"images": self.images}


class _Part(ImageSamples):
    """`rows` of other samples of one picture each; each kind's part says what belongs to a sample and what to all."""

    def __init__(self, base: Any, rows: Sequence[int]) -> None:
        self.base, self.rows = base, tuple(int(row) for row in rows)
        self.images, self.truth = ImageSubset(base.images, self.rows), base.truth

    @cached_property
    def digest(self) -> str:
        return fingerprint({"base": self.base.digest, "rows": self.rows})

    def thing_of(self, image_id: str) -> str | None:
        found: str | None = self.base.thing_of(image_id)
        return found


class MapSamples(ImageSamples):
    """Pictures with a map of targets each."""

    palette: Sequence[Sequence[int]] | None = None  # [C] RGB of each class, for pictures of predictions

    @abstractmethod
    def target(self, index: int) -> np.ndarray:
        """[H, W] or [H, W, C], of the picture's height and width. Several threads may ask at once."""

    def counted(self, index: int) -> np.ndarray:
        """As `target`, NaN where nothing counts and a target could not say so itself."""
        return self.target(index)

    def readings(self) -> Iterator[tuple[str, Callable[[int], Any], int]]:
        yield from super().readings()
        yield from ((self.images.image_id(i), self.target, i) for i in range(len(self)))


class _MapPart(_Part, MapSamples):
    def target(self, index: int) -> np.ndarray:
        found: np.ndarray = self.base.target(self.rows[index])
        return found


class SegmentationData(MapSamples):
    """Images with a class index per pixel: `target` is [H, W] uint8 or int32, 255 (or -1 past 255 classes) where
    ignored."""

    class_names: Sequence[str]
    background: int | None = None  # index of the background class, where the class list has one
    templates: Sequence[str] = ()  # the data's own prompts; empty: the protocol's

    def take(self, rows: Sequence[int]) -> SegmentationData:
        return _SegmentationPart(self, rows)


class _SegmentationPart(_MapPart, SegmentationData):
    def __init__(self, base: SegmentationData, rows: Sequence[int]) -> None:
        super().__init__(base, rows)
        self.class_names, self.background = base.class_names, base.background
        self.templates, self.palette = base.templates, base.palette


class DepthData(MapSamples):
    """Images with planar depth: `target` is [H, W] float32 metres; 0, negative or non-finite where invalid."""

    max_depth: float = 0.0  # metres: what is farther is neither learned nor scored; 0: no limit is known
    relative: bool = False  # whether each map is scaled to 0.01 … 1 already

    def take(self, rows: Sequence[int]) -> DepthData:
        return _DepthPart(self, rows)


class _DepthPart(_MapPart, DepthData):
    def __init__(self, base: DepthData, rows: Sequence[int]) -> None:
        super().__init__(base, rows)
        self.max_depth, self.relative = base.max_depth, base.relative


class NormalsData(MapSamples):
    """Images with surface normals: `target` is [H, W, 3] float32 unit vectors in the camera frame; a zero vector where
    invalid."""

    def counted(self, index: int) -> np.ndarray:
        """As `target`, NaN where nothing counts: at zero vectors, unless the data say that some of them count (they are
        90° from every prediction)."""
        import numpy as np

        target = self.target(index)
        return np.where((target == 0).all(-1, keepdims=True), np.nan, target)

    def take(self, rows: Sequence[int]) -> NormalsData:
        return _NormalsPart(self, rows)


class _NormalsPart(_MapPart, NormalsData):
    def counted(self, index: int) -> np.ndarray:
        found: np.ndarray = self.base.counted(self.rows[index])
        return found


class CaptionData(ImageSamples):
    """Images with one or more captions each."""

    captions: Sequence[Sequence[str]]  # one non-empty list for each image

    def take(self, rows: Sequence[int]) -> CaptionData:
        return _CaptionPart(self, rows)


class _CaptionPart(_Part, CaptionData):
    @cached_property
    def captions(self) -> Sequence[Sequence[str]]:  # type: ignore[override]
        return [self.base.captions[row] for row in self.rows]


class LabelData(ImageSamples):
    """Images with one class each."""

    labels: np.ndarray  # [N] int64
    class_names: Sequence[str]
    templates: Sequence[str] = ()  # as of SegmentationData

    def take(self, rows: Sequence[int]) -> LabelData:
        return _LabelPart(self, rows)


class _LabelPart(_Part, LabelData):
    def __init__(self, base: LabelData, rows: Sequence[int]) -> None:
        import numpy as np

        super().__init__(base, rows)
        self.labels = np.asarray(base.labels)[list(self.rows)]
        self.class_names, self.templates = base.class_names, base.templates


class RetrievalData(Samples):
    """Queries and an index of images; a hit shares both a label and the domain with the query."""

    queries: ImageSet
    index: ImageSet
    query_labels: np.ndarray  # [Q] int64
    index_labels: np.ndarray  # [N] int64
    query_domains: Sequence[str]  # [Q]
    index_domains: Sequence[str]  # [N]
    # [Q] position of each query in the index (to be excluded), -1 where absent; None: none is there
    self_index: np.ndarray | None = None
    more_labels: Mapping[int, Sequence[int]] = {}  # query -> labels beside its first: a hit with any of them counts

    def __len__(self) -> int:
        return len(self.queries)

    def pictures(self) -> Mapping[str, ImageSet]:
        return {"queries": self.queries, "index": self.index}

    def labels_of(self, query: int) -> tuple[int, ...]:
        """All labels of a query: the index pictures of its domain with one of them are right."""
        return int(self.query_labels[query]), *self.more_labels.get(query, ())

    def part(self, queries: Sequence[int], index: Sequence[int]) -> RetrievalData:
        """Some queries and some index images."""
        return _RetrievalPart(self, queries, index)

    def take(self, rows: Sequence[int]) -> RetrievalData:
        return self.part(rows, range(len(self.index)))

    def limited(self, n: int) -> RetrievalData:
        """At most `n` queries, of whole instances, and the index pictures that answer them."""
        if n >= len(self):
            return self
        instances: dict[tuple[str, int], list[int]] = {}
        for i, key in enumerate(zip(self.query_domains, map(int, self.query_labels))):
            instances.setdefault(key, []).append(i)
        groups = list(instances.values())
        order = spread(len(groups), max(1, n * len(groups) // len(self)))
        queries = sorted(i for g in order for i in groups[g])[: max(n, 2)]
        kept = {(self.query_domains[i], label) for i in queries for label in self.labels_of(i)}
        keys = zip(self.index_domains, map(int, self.index_labels))
        return self.part(queries, [i for i, key in enumerate(keys) if key in kept])

    def without(self, ids: set[str]) -> RetrievalData:
        queries, index = ([i for i in range(len(s)) if s.image_id(i) not in ids] for s in self.pictures().values())
        return self.part(queries, index)


class _RetrievalPart(RetrievalData):
    def __init__(self, base: RetrievalData, queries: Sequence[int], index: Sequence[int]) -> None:
        import numpy as np

        q, n = [int(i) for i in queries], [int(i) for i in index]
        self.queries, self.index, self.truth = ImageSubset(base.queries, q), ImageSubset(base.index, n), base.truth
        self._digest = fingerprint({"base": base.digest, "queries": q, "index": n})
        self.query_labels, self.index_labels = np.asarray(base.query_labels)[q], np.asarray(base.index_labels)[n]
        self.query_domains = [base.query_domains[i] for i in q]
        self.index_domains = [base.index_domains[i] for i in n]
        asked = {old: new for new, old in enumerate(q)}
        self.more_labels = {asked[old]: labels for old, labels in base.more_labels.items() if old in asked}
        self.self_index = None
        if base.self_index is not None:
            place = {old: new for new, old in enumerate(n)}
            self.self_index = np.array([place.get(int(base.self_index[i]), -1) for i in q], dtype=np.int64)

    @property
    def digest(self) -> str:
        return self._digest


def spread(total: int, n: int) -> list[int]:
    """`n` of `total` places, or all, evenly spread with both ends."""
    import numpy as np

    return [int(i) for i in np.linspace(0, total - 1, min(n, total)).round()]
