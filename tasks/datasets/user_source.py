"""The pictures of one split of a TOML task: where they are, which ones, and the tables that speak of them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from benchmark.data.hidden import is_hidden
from benchmark.data.tolerance import tolerance
from benchmark.errors import DataError
from benchmark.system.texts import json_lines, lines_of, text_of
from tasks.datasets.archives import Archive
from tasks.datasets.blobs import Blobs
from tasks.datasets.idx import IdxStore, is_idx
from tasks.datasets.kinds import Pictures
from tasks.datasets.places import Folder, Store
from tasks.datasets.user_fields import TaskFile

PHOTOS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
IMAGES = (".png", *PHOTOS)
TARGETS = (".png", ".npy", ".npz")
UNREAD = (*PHOTOS, ".exr", ".pfm", ".mat", ".h5", ".pt")  # what masks and maps come as, and are not read from
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
        if os.path.isdir(path):
            return Folder(path)
        if is_idx(path) and os.path.isfile(path):
            return IdxStore(path)
        shards = sorted(path.parent.glob(path.name)) if path.suffix in (".tar", ".zip") else []
        shards = [p for p in shards if p.name == path.name or not is_hidden(p.name)]
        if shards:
            return Archive(shards)
        raise self.file.wrong(f"{key} = {value!r}: no such folder, .tar, .zip or idx file ({path})", *self.keys(key))

    def _suffixes(self) -> tuple[str, ...]:
        """Where pictures and PNG targets share a place (shards), pictures are the ones that are no PNG."""
        targets = [self.file.place(self.fields[k]) for k in ("masks", "depth", "normals") if k in self.fields]
        return PHOTOS if self.file.place(self.fields[self.key]) in targets else IMAGES

    def _chosen(self, names: list[str]) -> list[str]:
        rule = self.file.values.get("split")
        if rule is None or not self.one_folder or self.key != "images":
            return names
        if isinstance(rule["test"], float):
            return [n for n in names if (_share(n) < rule["test"]) == (self.split == "test")]
        if self.split not in rule:
            raise self.file.wrong(f"split has no list for {self.split!r}", "split")
        path = self.file.place(rule[self.split])
        if not os.path.isfile(path):
            raise self.file.wrong(f"split: no such list {path}", "split")
        listed = [line.strip() for line in lines_of(path)]
        return [self.find(name, f"{path}:{i}") for i, name in enumerate(listed, 1)] if listed else []

    @cached_property
    def _spellings(self) -> dict[str, list[str]]:
        """Names, and names without their suffix -> the files called so."""
        out: dict[str, list[str]] = {}
        for name in self.store.names("", self._suffixes()):
            for key in {composed(name), composed(stem(name))}:
                out.setdefault(key, []).append(name)
        return out

    def find(self, name: str, where: str) -> str:
        """`name` as the store spells it; a list may leave the suffix out. Raises DataError at `where`."""
        key = composed(name.removeprefix("./"))
        called = self._spellings.get(key, [])
        found = [n for n in called if composed(n) == key] or called
        if not found:
            raise DataError(f"{where}: no picture {name!r} in {self.file.place(self.fields[self.key])}")
        if len(found) > 1:
            raise DataError(f"{where}: {name!r} may be {found[0]} or {found[1]}. Write the name in full")
        return found[0]

    def covered(self, found: dict[str, T], key: str, what: str, hint: str = "") -> None:
        """Raises DataError with both counts, and the `hint`, when a picture of this split is not in `found`."""
        absent = [n for n in self.names if n not in found]
        if absent:
            have = f"{len(self.names) - len(absent)} of {len(self.names)} have one"
            raise DataError(f"{self.file.place(self.fields[key])}: no {what} {absent[0]}; {have}{hint}")

    @property
    def images(self) -> Pictures:
        return Pictures(self.store.blobs(self.names))

    def pairs(self, key: str) -> tuple[Pictures, Blobs]:
        """Pictures and the files of `key` with the same stem. Raises DataError naming the first picture that has none,
        or two files of one stem: nothing says which belongs to which."""
        store = self.open(key)
        by_stem = one_each(store.names("", TARGETS), store)
        one_each(self.names, self.store)
        pictures = {composed(stem(n)) for n in self.names}
        shared = self.file.place(self.fields[key]) == self.file.place(self.fields[self.key])
        beside = [] if shared else [n for n in store.names("", UNREAD) if composed(stem(n)) in pictures]
        hint = ""
        if beside:
            hint = (
                f"{len(beside)} of other formats are not read, {beside[0]} among them: {key} are {', '.join(TARGETS)}"
            )
            if all(composed(stem(n)) in by_stem for n in beside):
                tolerance().odd.append(f"{key}: {hint}")
        self.covered(
            {n: n for n in self.names if composed(stem(n)) in by_stem}, key, "file named like", hint and f". {hint}"
        )
        return self.images, store.blobs([by_stem[composed(stem(n))] for n in self.names])


def one_each(names: Iterable[str], store: Store) -> dict[str, str]:
    """stem -> name. Raises DataError for two names of one stem."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(composed(stem(name)), name)
        if other != name:
            raise DataError(f"{store.where(name)}: {other} lies beside it, and files pair by name. Keep one of the two")
    return found


def table_rows(source: Source, key: str, needed: tuple[str, ...]) -> Iterable[tuple[str, dict[str, Any]]]:
    """("file:line", row) of a CSV with a header, or of JSON lines."""
    path = source.file.place(source.fields[key])
    if not os.path.isfile(path):
        raise source.file.wrong(f"{key} = {source.fields[key]!r}: no such file ({path})", *source.keys(key))
    reader = _csv_rows if path.suffix.lower() == ".csv" else json_lines
    if path.suffix.lower() not in (".csv", ".jsonl", ".jsonlines"):
        raise source.file.wrong(f"{key} = {source.fields[key]!r}: must be .csv or .jsonl", *source.keys(key))
    for line, row in reader(path):
        if None in row:  # where csv puts what no column is for: half a caption would be dropped in silence
            raise DataError(f"{path}:{line}: has more values than the header. Put text with commas in double quotes")
        for column in needed:
            if row.get(column) in (None, ""):
                raise DataError(f"{path}:{line}: has no {column!r}. Columns needed: {', '.join(needed)}")
        yield f"{path}:{line}", row


def _csv_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as e:
        raise DataError(f"{path}:{reader.line_num + 1}: is no CSV ({e})") from None


def stem(name: str) -> str:
    """`name` without its ending."""
    return str(PurePosixPath(name).with_suffix(""))


def composed(name: str) -> str:
    """`name` with ä as one letter: what macOS packs has it as a and two dots, which looks the same and is not."""
    return unicodedata.normalize("NFC", name)


def _share(name: str) -> float:
    """A number in [0, 1) that only the name decides: adding a picture moves no other between splits."""
    return int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:13], 16) / 16**13
