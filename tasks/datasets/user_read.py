"""From the checked fields of a TOML task to data sets: finding pictures, pairing them with their targets."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from benchmark.contracts import IGNORE
from benchmark.errors import DataError
from tasks.datasets.archives import Archive
from tasks.datasets.blobs import Blobs
from tasks.datasets.kinds import (
    IGNORED,
    INVALID,
    CaptionSet,
    LabelSet,
    MapSet,
    Pictures,
    Relabel,
    RetrievalSet,
    SegmentationSet,
)
from tasks.datasets.places import Folder, Store
from tasks.datasets.user_fields import TaskFile
from tasks.datasets.user_maps import DepthReader, read_mask, read_normals

PHOTOS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
IMAGES = (".png", *PHOTOS)
TARGETS = (".png", ".npy", ".npz")


def read_split(file: TaskFile, split: str) -> Any:
    """The `<Kind>Data` of `split`. Raises UsageError for the file's mistakes, DataError for the data's."""
    source = _Source(file, split)
    if file.kind == "segmentation":
        images, masks = source.pairs("masks")
        names = class_names(file)
        return SegmentationSet(images, masks, names, _relabel(file, len(names)), read_mask, _background(file, names))
    if file.kind == "depth":
        images, maps = source.pairs("depth")
        scale = float(file.values.get("depth_scale", 0.0))
        return MapSet(images, maps, DepthReader(scale), f"user-depth {scale}")
    if file.kind == "normals":
        images, maps = source.pairs("normals")
        return MapSet(images, maps, read_normals, "user-normals")
    if file.kind == "captions":
        return _captions(source)
    if file.kind == "labels":
        return _labels(source)
    return _retrieval(source)


class _Source:
    """The pictures of one split, and its other fields."""

    def __init__(self, file: TaskFile, split: str) -> None:
        self.file, self.split = file, split
        self.one_folder = "images" in file.values
        self.fields = file.values if self.one_folder else file.values[split]
        self.store = self.open("images")
        self.names = self._chosen(self.store.names("", self._suffixes()))
        if not self.names:
            raise file.wrong(
                f"images = {self.fields['images']!r}: no pictures for split {split!r}", *self.keys("images")
            )

    def keys(self, key: str) -> tuple[str, ...]:
        return (key,) if self.one_folder else (self.split, key)

    def open(self, key: str) -> Store:
        value = self.fields[key]
        path = self.file.place(value)
        if path.is_dir():
            return Folder(path)
        shards = sorted(path.parent.glob(path.name)) if path.suffix in (".tar", ".zip") else []
        if shards:
            return Archive(shards)
        raise self.file.wrong(f"{key} = {value!r}: no such folder or .tar/.zip ({path})", *self.keys(key))

    def _suffixes(self) -> tuple[str, ...]:
        """Where pictures and PNG targets share a place (shards), pictures are the ones that are no PNG."""
        targets = [self.fields.get(k) for k in ("masks", "depth", "normals")]
        return PHOTOS if self.fields["images"] in targets else IMAGES

    def _chosen(self, names: list[str]) -> list[str]:
        rule = self.file.values.get("split")
        if rule is None or not self.one_folder:
            return names
        if isinstance(rule["test"], float):
            return [n for n in names if (_share(n) < rule["test"]) == (self.split == "test")]
        if self.split not in rule:
            raise self.file.wrong(f"split has no list for {self.split!r}", "split")
        path = self.file.place(rule[self.split])
        if not path.is_file():
            raise self.file.wrong(f"split: no such list {path}", "split")
        listed = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [self.find(name, f"{path}:{i}") for i, name in enumerate(listed, 1)] if listed else []

    def find(self, name: str, where: str) -> str:
        """`name` as the store spells it; a list may leave the suffix out."""
        if not hasattr(self, "_by_name"):
            every = self.store.names("", self._suffixes())
            self._by_name = {n: n for n in every} | {_stem(n): n for n in every}
        found = self._by_name.get(name) or self._by_name.get(name.removeprefix("./"))
        if found is None:
            raise DataError(f"{where}: no picture {name!r} in {self.file.place(self.fields['images'])}")
        return found

    @property
    def images(self) -> Pictures:
        return Pictures(self.store.blobs(self.names))

    def pairs(self, key: str) -> tuple[Pictures, Blobs]:
        """Pictures and the files of `key` with the same stem. Raises DataError naming the first that has none."""
        store = self.open(key)
        by_stem = {_stem(n): n for n in store.names("", TARGETS)}
        absent = [n for n in self.names if _stem(n) not in by_stem]
        if absent:
            raise DataError(
                f"{self.file.path}: {self.store.where(absent[0])} has no file of the same name in {key} = "
                f"{self.fields[key]!r}; {len(self.names) - len(absent)} of {len(self.names)} have one"
            )
        return self.images, store.blobs([by_stem[_stem(n)] for n in self.names])


def class_names(file: TaskFile) -> tuple[str, ...]:
    """`classes`: a list, or a text file with one name per line."""
    value = file.values["classes"]
    if isinstance(value, str):
        if not file.place(value).is_file():
            raise file.wrong(f"classes = {value!r}: no such file ({file.place(value)})", "classes")
        value = [line for line in file.place(value).read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(value) < 2 or not all(isinstance(n, str) and n for n in value):
        raise file.wrong(f"classes must be two or more names, not {value!r}", "classes")
    return tuple(value)


def _background(file: TaskFile, names: tuple[str, ...]) -> int | None:
    name = file.values.get("background")
    if name is not None and name not in names:
        raise file.wrong(f"background = {name!r} is not one of the classes", "background")
    return None if name is None else names.index(name)


def _relabel(file: TaskFile, classes: int) -> Relabel:
    shift = 1 if file.values.get("reduce_zero_label") else 0
    value = file.values.get("ignore", IGNORE)
    ignored = set(value if isinstance(value, list) else [value])
    size = max(classes + shift, 256, *(int(i) + 1 for i in ignored))
    table = [i - shift if shift <= i < classes + shift else INVALID for i in range(size)]
    for i in (*ignored, *range(shift)):
        table[i] = IGNORED
    return Relabel(tuple(table))


def _captions(source: _Source) -> CaptionSet:
    path = source.file.place(source.fields["captions"])
    found: dict[str, list[str]] = {}
    if path.is_dir():
        for name in source.names:
            text = path / f"{_stem(name)}.txt"
            if text.is_file():
                found[name] = [line.strip() for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        for where, row in table_rows(source, "captions", ("image",)):
            texts = row.get("captions") or [row.get("caption")]
            if not all(isinstance(t, str) and t.strip() for t in texts):
                raise DataError(f"{where}: caption {texts!r} is empty or no text")
            found.setdefault(source.find(str(row["image"]), where), []).extend(texts)
    absent = [n for n in source.names if n not in found]
    if absent:
        raise DataError(
            f"{path}: no caption for {absent[0]}; {len(source.names) - len(absent)} of {len(source.names)} have one"
        )
    return CaptionSet(source.images, tuple(tuple(found[n]) for n in source.names))


def _labels(source: _Source) -> LabelSet:
    pairs = _label_pairs(source, source, "labels") if "labels" in source.fields else _by_folder(source)
    words = [str(word) for _, word, _ in pairs]
    if "classes" in source.file.values:
        names = class_names(source.file)
    else:
        names = tuple(_all_words(source))
    known = {n: i for i, n in enumerate(names)}
    for (where, _, _), word in zip(pairs, words):
        if word not in known:
            raise DataError(
                f"{where}: label {word!r} is not one of the {len(names)} classes. Add it, or correct the file"
            )
    return LabelSet(source.images, np.array([known[w] for w in words], dtype=np.int64), names)


def _all_words(source: _Source) -> list[str]:
    """Class names when none are given: those of all splits together, sorted, so that splits agree."""
    splits = [source.split] if source.one_folder else [s for s in ("train", "test") if s in source.file.values]
    words: set[str] = set()
    for split in splits:
        other = source if split == source.split else _Source(source.file, split)
        if "labels" in other.fields:
            words |= {str(row["label"]) for _, row in table_rows(other, "labels", ("image", "label"))}
        else:
            words |= {PurePosixPath(n).parts[0] for n in other.store.names("", IMAGES)}
    return sorted(words)


def _by_folder(source: _Source) -> list[tuple[str, str, str]]:
    for name in source.names:
        if len(PurePosixPath(name).parts) < 2:
            raise DataError(f"{source.store.where(name)}: is in no class folder. Use <class>/<picture>, or give labels")
    return [(source.store.where(n), PurePosixPath(n).parts[0], "") for n in source.names]


def _label_pairs(source: _Source, owner: _Source, key: str) -> list[tuple[str, str, str]]:
    """(where, label, domain) of each picture of `source`, from the table `key`."""
    found: dict[str, tuple[str, str, str]] = {}
    for where, row in table_rows(owner, key, ("image", "label")):
        if owner.one_folder and "split" in owner.file.values and _outside(source, str(row["image"])):
            continue
        name = source.find(str(row["image"]), where)
        found[name] = (where, str(row["label"]), str(row.get("domain") or owner.file.values["name"]))
    absent = [n for n in source.names if n not in found]
    if absent:
        raise DataError(
            f"{owner.file.place(owner.fields[key])}: no label for {absent[0]}; {len(found)} of {len(source.names)} have one"
        )
    return [found[n] for n in source.names]


def _outside(source: _Source, name: str) -> bool:
    return source.find(name, "split") not in set(source.names)


def _retrieval(source: _Source) -> RetrievalSet:
    index = _label_pairs(source, source, "labels")
    numbers: dict[str, int] = {}
    labels = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in index], dtype=np.int64)
    domains = tuple(d for _, _, d in index)
    if "queries" not in source.fields:
        return RetrievalSet(source.images, source.images, labels, labels, domains, domains, np.arange(len(labels)))
    if "query_labels" not in source.fields:
        raise source.file.wrong("queries needs query_labels, a table of image,label", *source.keys("queries"))
    queries = _Source.__new__(_Source)
    queries.file, queries.split, queries.one_folder = source.file, source.split, source.one_folder
    queries.fields = {**source.fields, "images": source.fields["queries"]}
    queries.store = source.open("queries")
    queries.names = queries.store.names("", IMAGES)
    pairs = _label_pairs(queries, source, "query_labels")
    asked = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in pairs], dtype=np.int64)
    return RetrievalSet(queries.images, source.images, asked, labels, tuple(d for _, _, d in pairs), domains, None)


def table_rows(source: _Source, key: str, needed: tuple[str, ...]) -> Iterable[tuple[str, dict[str, Any]]]:
    """("file:line", row) of a CSV with a header, or of JSON lines."""
    path = source.file.place(source.fields[key])
    if not path.is_file():
        raise source.file.wrong(f"{key} = {source.fields[key]!r}: no such file ({path})", *source.keys(key))
    reader = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    if path.suffix.lower() not in (".csv", ".jsonl", ".jsonlines"):
        raise source.file.wrong(f"{key} = {source.fields[key]!r}: must be .csv or .jsonl", *source.keys(key))
    for line, row in reader(path):
        for column in needed:
            if row.get(column) in (None, ""):
                raise DataError(f"{path}:{line}: has no {column!r}. Columns needed: {', '.join(needed)}")
        yield f"{path}:{line}", row


def _csv_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as f:
        reader = csv.DictReader(f)
        for row in reader:
            yield reader.line_num, row


def _json_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as e:
                    raise DataError(f"{path}:{number}: is not JSON ({e.msg})") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path}:{number}: is no JSON object")
                yield number, row


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _share(name: str) -> float:
    """A number in [0, 1) that only the name decides: adding a picture moves no other between splits."""
    return int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:13], 16) / 16**13
