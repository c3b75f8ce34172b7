"""What the caption sets share: Karpathy's split files, hub parquet, webdataset shards, and how many captions count."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import DataKind, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import CaptionSet, Pictures
from tasks.datasets.places import Store, bases, checked, note_size, option, split_error
from tasks.datasets.shards import find_shards

CONVENTION = 5  # captions per image in every published COCO and Flickr30K number


@dataclass(frozen=True)
class Entry:
    """One picture of a split file: where it lies and what is said of it."""

    file: str
    captions: tuple[str, ...]
    ids: tuple[int, ...] = ()  # COCO's annotation ids of the captions


def caption_count(info: DatasetInfo, options: Mapping[str, str]) -> int | None:
    """The option `captions`: `5` (the first five, as published numbers use) or `all`."""
    return CONVENTION if option(info, options, "captions", (str(CONVENTION), "all")) == str(CONVENTION) else None


def karpathy(store: Store, name: str, split: str) -> list[Entry]:
    """The pictures of `split` in one of Karpathy's `dataset_*.json`, in the file's order."""
    where = store.where(name)
    try:
        images = json.loads(store.read(name))["images"]
        return [
            Entry(
                "/".join(p for p in (image.get("filepath", ""), image["filename"]) if p),
                tuple(sentence["raw"].strip() for sentence in image["sentences"]),
                tuple(int(i) for i in image.get("sentids", ())),
            )
            for image in images
            if image["split"] == split
        ]
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"{where}: is no Karpathy split file ({type(e).__name__}: {e}). Fetch it again") from None


def from_entries(info: DatasetInfo, store: Store, entries: Sequence[Entry], keep: int | None) -> CaptionSet:
    """The set of `entries`, at most `keep` captions each; their pictures are in `store`."""
    if not entries:
        raise DataError(f"{info.name}: the split file has no test pictures. See bench show {info.name}")
    images = Pictures(checked(info, store, [e.file for e in entries]))
    return CaptionSet(images, tuple(e.captions[:keep] for e in entries))


def caption_split(
    info: DatasetInfo,
    root: Path | None,
    kind: DataKind,
    split: str,
    keep: int | None,
    official: Callable[[str], CaptionSet],
) -> CaptionSet:
    """`official(split)`, or hub parquet or shards where its files are not there, held against the official size."""
    if kind != "captions" or split not in info.splits:
        raise split_error(info, kind, split)
    try:
        found = official(split)
    except DataError:
        other = elsewhere(info, root, split, keep)
        if other is None:
            raise
        found = other
    note_size(info, split, len(found.images), expected(info.name, split))
    return found


def elsewhere(info: DatasetInfo, root: Path | None, split: str, keep: int | None) -> CaptionSet | None:
    """Hub parquet or webdataset shards, for those who have no official folder; None where there are none either."""
    return from_hub(info, root, split, keep) or from_shards(info, root, split, keep)


def from_hub(
    info: DatasetInfo,
    root: Path | None,
    split: str,
    keep: int | None,
    columns: Sequence[str] = ("caption", "captions", "sentences", "description"),
) -> CaptionSet | None:
    """Parquet with pictures and captions, or None where there is none; a `split` column picks rows."""
    from tasks.datasets.parquet import Table, files_below

    for base in bases(info, root):
        if files := files_below(base, (split, "TEST" if split == "test" else split.upper(), "")):
            table = Table(files)
            rows = np.arange(len(table))
            if table.has("split"):
                rows = np.flatnonzero(np.array([v == split for v in table.values("split")]))
            texts = table.values(table.first_of(*columns))
            captions = tuple(_texts(texts[i])[:keep] for i in rows)
            return CaptionSet(Pictures(table.blobs(table.first_of("image"), rows)), captions)
    return None


def from_shards(info: DatasetInfo, root: Path | None, split: str, keep: int | None) -> CaptionSet | None:
    """Webdataset shards with a picture and a `.txt` (a caption per line) or `.json` (caption, captions) per sample."""
    shards = find_shards(bases(info, root), split)
    if shards is None:
        return None
    samples = shards.samples(("jpg", "jpeg", "png", "webp"))
    found = []
    for sample in samples:
        if "txt" in sample.parts:
            text = shards.archive.read(sample.parts["txt"]).decode("utf-8")
            texts = tuple(line.strip() for line in text.splitlines() if line.strip())
        elif "json" in sample.parts:
            texts = _texts(_caption_of(json.loads(shards.archive.read(sample.parts["json"]))))
        else:
            raise DataError(f"{shards.archive.where(sample.picture)}: has no .txt or .json with captions beside it")
        found.append(texts[:keep])
    return CaptionSet(Pictures(shards.archive.blobs([s.picture for s in samples])), tuple(found))


def _caption_of(record: Mapping[str, Any]) -> Any:
    return next((record[k] for k in ("captions", "caption", "description") if k in record), None)


def _texts(value: Any) -> tuple[str, ...]:
    """A string, a list of strings, or a list of {raw} as captions; line breaks are spaces."""
    items = [value] if isinstance(value, str) else list(value or ())
    words = (item["raw"] if isinstance(item, Mapping) else str(item) for item in items)
    return tuple(" ".join(w.split()) for w in words)
