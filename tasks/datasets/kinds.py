"""The data sets that readers hand out: frozen, picklable, read item by item. One class per kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL.Image import Image

from benchmark.contracts import (
    IGNORE,
    CaptionData,
    DepthData,
    ImageSet,
    LabelData,
    NormalsData,
    RetrievalData,
    SegmentationData,
    ignored_label,
)
from benchmark.errors import DataError
from benchmark.images.decode import decode, decode_image
from benchmark.system.digest import fingerprint
from tasks.datasets.arrays import picture_size
from tasks.datasets.blobs import Blobs, named
from tasks.datasets.digests import edges_of
from tasks.datasets.names import readable

INVALID = -2  # in a Relabel table: a raw label the format does not allow
IGNORED = -1  # in a Relabel table: never scored


@dataclass(frozen=True)
class Pictures(ImageSet):
    """Encoded pictures in a fixed order. `exif` turns them upright; few datasets need it."""

    blobs: Blobs
    exif: bool = False

    def __len__(self) -> int:
        return len(self.blobs)

    @cached_property
    def digest(self) -> str:
        return fingerprint({"blobs": self.blobs.digest, "exif": self.exif}) if self.exif else self.blobs.digest

    def image_id(self, index: int) -> str:
        return readable(self.blobs.name(index))

    def load(self, index: int) -> np.ndarray:
        return decode(named(self.blobs, index), exif=self.exif)

    def for_layout(self, index: int) -> Image:
        return decode_image(named(self.blobs, index), exif=self.exif)

    def file_edges(self) -> list[str]:
        """[N] digests by which equal files are found (`digests.edges_of`)."""
        return edges_of(self.blobs)

    def file_digest(self, index: int) -> str:
        return hashlib.sha256(self.blobs.read(index)).hexdigest()


@dataclass(frozen=True)
class Relabel:
    """raw mask value -> class index, IGNORED or INVALID; values past the table are INVALID, unless they are among the
    `ignored` ones (of numpy masks and 32-bit pictures, below 0 or far above the classes)."""

    table: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    @classmethod
    def identity(cls, classes: int) -> Relabel:
        """0 … classes-1 as they are, 255 ignored (so at most 255 classes)."""
        return cls(tuple(i if i < classes else IGNORED if i == IGNORE else INVALID for i in range(256)))

    @classmethod
    def reduce_zero(cls, classes: int) -> Relabel:
        """1 … classes become 0 … classes-1; 0 ("other") and 255 are ignored."""
        return cls(tuple(i - 1 if 1 <= i <= classes else IGNORED if i in (0, IGNORE) else INVALID for i in range(256)))

    def apply(self, raw: np.ndarray, classes: int, where: str) -> np.ndarray:
        """[H, W] class indices. Raises DataError naming the file and the first label out of range."""
        table = np.asarray(self.table, dtype=np.int32)
        values = raw.astype(np.int64)
        beyond = (values < 0) | (values >= len(table))
        mapped = table[np.where(beyond, 0, values)]
        mapped[beyond] = np.where(np.isin(values[beyond], self.ignored), IGNORED, INVALID)
        if (mapped == INVALID).any():
            label = int(values[mapped == INVALID][0])
            remedy = f"Save masks of 0 … {classes - 1}, or say ignore = [{label}]" if label in (IGNORE, -1) else ""
            raise DataError(
                f"{where}: label {label} is out of range for {classes} classes. "
                + (remedy or "Check the mask or the classes")
            )
        ignored = ignored_label(classes)
        return np.where(mapped == IGNORED, ignored, mapped).astype(np.uint8 if ignored == IGNORE else np.int32)


@dataclass(frozen=True)
class SegmentationSet(SegmentationData):
    """Pictures with class masks; `read_mask` gives the raw labels of a file."""

    images: Pictures
    masks: Blobs
    class_names: tuple[str, ...]
    relabel: Relabel
    read_mask: Callable[[Blobs, int], np.ndarray]
    background: int | None = None
    templates: tuple[str, ...] = ()  # the data's own prompts; empty: the protocol's
    truth: str = ""  # for the row: which ground truth this is, where a data set has more than one

    @cached_property
    def digest(self) -> str:
        parts = (self.images.digest, self.masks.digest, self.class_names, self.relabel.table, self.background)
        more = {"ignored": self.relabel.ignored} if self.relabel.ignored else {}
        return fingerprint({"kind": "segmentation", "parts": parts, "templates": self.templates, **more})

    def target(self, index: int) -> np.ndarray:
        where = self.masks.where(index)
        raw = self.read_mask(self.masks, index)
        same_size(raw, self.images.blobs, index, where)
        return self.relabel.apply(raw, len(self.class_names), where)


@dataclass(frozen=True)
class _Maps:
    """Pictures with a file of targets per picture."""

    images: Pictures
    maps: Blobs
    read_map: Callable[[Blobs, int], np.ndarray]
    rule: str  # names what `read_map` does, for the digest

    def target(self, index: int) -> np.ndarray:
        values = self.read_map(self.maps, index)
        same_size(values, self.images.blobs, index, self.maps.where(index))
        return values


@dataclass(frozen=True)
class DepthSet(_Maps, DepthData):
    """Pictures with a depth map each."""

    max_depth: float = 0.0

    @cached_property
    def digest(self) -> str:
        limit = {"max_depth": self.max_depth} if self.max_depth else {}
        return fingerprint({"kind": self.rule, "parts": (self.images.digest, self.maps.digest), **limit})


@dataclass(frozen=True)
class NormalsSet(_Maps, NormalsData):
    """Pictures with a map of normals each."""

    @cached_property
    def digest(self) -> str:
        return fingerprint({"kind": self.rule, "parts": (self.images.digest, self.maps.digest)})


@dataclass(frozen=True)
class CaptionSet(CaptionData):
    """Pictures with one or more captions each."""

    images: Pictures
    captions: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.captions) != len(self.images):
            raise DataError(f"{len(self.images)} images have {len(self.captions)} caption lists. Check the file")
        for i, texts in enumerate(self.captions):
            if not texts or not all(t.strip() for t in texts):
                raise DataError(f"{self.images.image_id(i)}: has no caption, or an empty one. Check the caption file")

    @cached_property
    def digest(self) -> str:
        return fingerprint({"kind": "captions", "images": self.images.digest, "captions": self.captions})


@dataclass(frozen=True)
class LabelSet(LabelData):
    """Pictures with one class each."""

    images: Pictures
    labels: np.ndarray  # [N] int64
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            bad = int(np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))[0])
            raise DataError(
                f"{self.images.image_id(bad)}: label {self.labels[bad]} is out of range for "
                f"{len(self.class_names)} classes. Check the labels or the class list"
            )

    @cached_property
    def digest(self) -> str:
        parts = {"images": self.images.digest, "labels": array_digest(self.labels), "classes": self.class_names}
        return fingerprint({"kind": "labels", "templates": self.templates, **parts})


@dataclass(frozen=True)
class RetrievalSet(RetrievalData):
    """Queries and index; a hit shares label and domain with the query."""

    queries: Pictures
    index: Pictures
    query_labels: np.ndarray  # [Q] int64
    index_labels: np.ndarray  # [N] int64
    query_domains: Sequence[str]
    index_domains: Sequence[str]
    self_index: np.ndarray | None = None  # [Q] int64
    more_labels: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # query -> labels beside its first

    @cached_property
    def digest(self) -> str:
        places = np.array([-1]) if self.self_index is None else self.self_index
        numbers = [array_digest(a) for a in (self.query_labels, self.index_labels, places)]
        domains = ["\0".join(names) for names in (self.query_domains, self.index_domains)]
        images = [self.queries.digest, self.index.digest]
        more = {"more": sorted(self.more_labels.items())} if self.more_labels else {}
        return fingerprint({"kind": "retrieval", "images": images, "numbers": numbers, "domains": domains, **more})


def array_digest(values: np.ndarray) -> str:
    """sha256 of an integer array's values; a million of them take milliseconds."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").tobytes()).hexdigest()


def same_size(values: np.ndarray, pictures: Blobs, index: int, where: str) -> None:
    """Raises DataError when a mask or map is not as large as its picture (from the header, nothing is decoded)."""
    height, width = picture_size(pictures, index)
    if values.shape[:2] != (height, width):
        turned = values.shape[:2] == (width, height)
        raise DataError(
            f"{where}: is {values.shape[1]}x{values.shape[0]}, its image {pictures.where(index)} is {width}x{height}. "
            "Both must be the same size" + (" (EXIF rotation is not read: save the image upright)" if turned else "")
        )
