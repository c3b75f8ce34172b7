"""The pictures of one split of a TOML task: where they are, which ones, and the tables that speak of them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from benchmark.errors import DataError
from tasks.datasets.archives import Archive
from tasks.datasets.blobs import Blobs
from tasks.datasets.idx import IdxStore, is_idx
from tasks.datasets.kinds import Pictures
from tasks.datasets.places import Folder, Store
from tasks.datasets.user_fields import TaskFile

PHOTOS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
IMAGES = (".png", *PHOTOS)
TARGETS = (".png", ".npy", ".npz")
T = TypeVar("T")


class Source:
    """The pictures of one split, and its other fields."""

    def __init__(self, file: TaskFile, split: str, key: str = "images") -> None:
        self.file, self.split, self.key = file, split, key
        self.one_folder = "images" in file.values
        self.fields = file.values if self.one_folder else file.values[split]
        self.store = self.open(key)
        self.names = self._chosen(self.store.names("", self._suffixes()))
        if not self.names:
            raise file.wrong(f"{key} = {self.fields[key]!r}: no pictures for split {split!r}", *self.keys(key))

    def keys(self, key: str) -> tuple[str, ...]:
        return (key,) if self.one_folder else (self.split, key)

    def open(self, key: str) -> Store:
        value = self.fields[key]
        path = self.file.place(value)
        if path.is_dir():
            return Folder(path)
        if is_idx(path) and path.is_file():
            return IdxStore(path)
        shards = sorted(path.parent.glob(path.name)) if path.suffix in (".tar", ".zip") else []
        if shards:
            return Archive(shards)
        raise self.file.wrong(f"{key} = {value!r}: no such folder, .tar, .zip or idx file ({path})", *self.keys(key))

    def _suffixes(self) -> tuple[str, ...]:
        """Where pictures and PNG targets share a place (shards), pictures are the ones that are no PNG."""
        targets = [self.fields.get(k) for k in ("masks", "depth", "normals")]
        return PHOTOS if self.fields[self.key] in targets else IMAGES

    def _chosen(self, names: list[str]) -> list[str]:
        rule = self.file.values.get("split")
        if rule is None or not self.one_folder or self.key != "images":
            return names
        if isinstance(rule["test"], float):
            return [n for n in names if (_share(n) < rule["test"]) == (self.split == "test")]
        if self.split not in rule:
            raise self.file.wrong(f"split has no list for {self.split!r}", "split")
        path = self.file.place(rule[self.split])
        if not path.is_file():
            raise self.file.wrong(f"split: no such list {path}", "split")
        listed = [line.strip() for line in text_lines(path) if line.strip()]
        return [self.find(name, f"{path}:{i}") for i, name in enumerate(listed, 1)] if listed else []

    @cached_property
    def _spellings(self) -> dict[str, str]:
        every = self.store.names("", self._suffixes())
        return {stem(n): n for n in every} | {n: n for n in every}

    def find(self, name: str, where: str) -> str:
        """`name` as the store spells it; a list may leave the suffix out. Raises DataError at `where`."""
        found = self._spellings.get(name.removeprefix("./"))
        if found is None:
            raise DataError(f"{where}: no picture {name!r} in {self.file.place(self.fields[self.key])}")
        return found

    def covered(self, found: dict[str, T], key: str, what: str) -> None:
        """Raises DataError with both counts when a picture of this split is not in `found`."""
        absent = [n for n in self.names if n not in found]
        if absent:
            have = f"{len(self.names) - len(absent)} of {len(self.names)} have one"
            raise DataError(f"{self.file.place(self.fields[key])}: no {what} {absent[0]}; {have}")

    @property
    def images(self) -> Pictures:
        return Pictures(self.store.blobs(self.names))

    def pairs(self, key: str) -> tuple[Pictures, Blobs]:
        """Pictures and the files of `key` with the same stem. Raises DataError naming the first that has none."""
        store = self.open(key)
        by_stem = {stem(n): n for n in store.names("", TARGETS)}
        self.covered({n: n for n in self.names if stem(n) in by_stem}, key, "file named like")
        return self.images, store.blobs([by_stem[stem(n)] for n in self.names])


def table_rows(source: Source, key: str, needed: tuple[str, ...]) -> Iterable[tuple[str, dict[str, Any]]]:
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
    with only_utf8(path), open(path, encoding="utf-8-sig", newline="") as f:
        reader = csv.DictReader(f)
        for row in reader:
            yield reader.line_num, row


def _json_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    with only_utf8(path), open(path, encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as e:
                    raise DataError(f"{path}:{number}: is not JSON ({e.msg})") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path}:{number}: is no JSON object")
                yield number, row


@contextmanager
def only_utf8(path: Path) -> Iterator[None]:
    """Raises DataError for a text in another encoding: spreadsheets write the one of their country."""
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no UTF-8 text. Save it as UTF-8") from None


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text, with or without a byte order mark. Raises DataError for another encoding."""
    with only_utf8(path):
        return path.read_text(encoding="utf-8-sig").splitlines()


def stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _share(name: str) -> float:
    """A number in [0, 1) that only the name decides: adding a picture moves no other between splits."""
    return int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:13], 16) / 16**13
