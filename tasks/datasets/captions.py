"""What the caption sets share: Karpathy's split files, hub parquet, webdataset shards, and how many captions count."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import DatasetInfo
from benchmark.errors import DataError, reading
from benchmark.system.plurals import number_of
from benchmark.system.texts import decoded, split_lines
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import CaptionSet, Pictures
from tasks.datasets.parts import check_parts
from tasks.datasets.places import Store, bases, checked, find, note_size, option, split_error
from tasks.datasets.shards import PICTURES, find_shards

CONVENTION = 5  # captions per image in every published COCO and Flickr30K number
CAPTION_COLUMNS = ("caption", "captions", "sentences", "description")
CONFIGS = {"coco": ("TEST",), "flickr30k": ("TEST",), "docci": ("docci",)}  # of nlphuji's repositories and google's
OTHER_SPLIT = re.compile(r"(?<![a-z])(train|val|validation|dev|qual)(?![a-z])", re.IGNORECASE)
LISTING_FOLDERS, LISTING_ARCHIVES = ("karpathy", "annotations"), ("caption_datasets.zip",)  # where Karpathy's files lie


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
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as e:
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
    kind: str,
    split: str,
    keep: int | None,
    official: Callable[[str], CaptionSet],
    split_file: str | None = None,
) -> CaptionSet:
    """`official(split)`, or hub parquet or shards where its files are not there, held against the official size.

    Karpathy's `split_file` picks the rows of a parquet that holds more than the split and has file names.
    """
    if kind != "captions" or split not in info.splits:
        raise split_error(info, kind, split)
    try:
        found = official(split)
    except DataError:
        other = from_hub(info, root, split, keep, split_file) or from_shards(info, root, split, keep)
        if other is None:
            raise
        found = other
    note_size(info, split, len(found.images), expected(info.name, split))
    return found


def from_hub(
    info: DatasetInfo,
    root: Path | None,
    split: str,
    keep: int | None,
    split_file: str | None = None,
) -> CaptionSet | None:
    """Parquet with pictures and captions, or None where there is none; a `split` column or `split_file` picks rows."""
    from tasks.datasets.parquet import Table, find_files, loose_files

    places = bases(info, root)
    named = find_files(places, (split,), CONFIGS.get(info.name, ()))
    files = named or loose_files(places)
    if not files:
        return None
    table = Table(files)
    if not named and not table.has("split") and any(OTHER_SPLIT.search(f.name) for f in files):
        return None
    check_parts(info, split, files)
    rows = np.arange(len(table))
    if table.has("split"):
        rows = np.flatnonzero(np.array([v == split for v in table.values("split")]))
    elif len(rows) > (expected(info.name, split) or len(rows)):
        rows = _listed(info, root, table, split, split_file)
    texts = table.values(table.first_of(*CAPTION_COLUMNS))
    captions = tuple(_texts(texts[i])[:keep] for i in rows)
    return CaptionSet(Pictures(table.blobs(table.first_of("image"), rows)), captions)


def _listed(info: DatasetInfo, root: Path | None, table: Any, split: str, split_file: str | None) -> np.ndarray:
    """Rows of the official split in a parquet that holds more pictures, by file name.

    Raises DataError where nothing tells which they are: a score over all would look like an official one.
    """
    named, listing = table.has("filename"), None
    if split_file and named:
        with contextlib.suppress(DataError):
            listing = find(info, root, split_file, LISTING_FOLDERS, LISTING_ARCHIVES)
    if listing is None or split_file is None:
        remedy = f"Put {split_file} beside it" if split_file and named else "Use the official files"
        held = number_of(len(table), "picture")
        raise DataError(
            f"{info.name}: {table.files[0]} and its shards hold {held}, the official {split} split "
            f"{expected(info.name, split)}, and nothing tells which. {remedy}: bench data prepare {info.name}"
        )
    places = {name: row for row, name in enumerate(table.values("filename"))}
    names = [entry.file.rsplit("/", 1)[-1] for entry in karpathy(listing, split_file, split)]
    absent = [name for name in names if name not in places]
    if absent:
        raise DataError(
            f"{info.name}: {absent[0]} is not in {table.files[0]} or its shards; {len(names) - len(absent)} of "
            f"{len(names)} are there. Fetch the missing shards"
        )
    return np.array([places[name] for name in names], dtype=np.int64)


def from_shards(info: DatasetInfo, root: Path | None, split: str, keep: int | None) -> CaptionSet | None:
    """Webdataset shards with a picture and a `.txt` (a caption per line) or `.json` (caption, captions) per sample."""
    shards = find_shards(info, bases(info, root), split)
    if shards is None:
        return None
    samples = shards.samples(PICTURES)
    found = []
    for sample in samples:
        if "txt" in sample.parts:
            text = decoded(shards.archive.read(sample.parts["txt"]), shards.archive.where(sample.parts["txt"]))
            texts = tuple(line.strip() for line in split_lines(text) if line.strip())
        elif "json" in sample.parts:
            with reading(shards.archive.where(sample.parts["json"]), "is no JSON with a caption", "Fetch it again"):
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
