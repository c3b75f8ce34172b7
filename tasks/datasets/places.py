"""Finding a dataset under --data: unpacked in its official layout, or still in the archive it came in."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from benchmark.contracts import DatasetInfo
from benchmark.data.hidden import is_hidden
from benchmark.data.tolerance import tolerance
from benchmark.errors import DataError, UsageError, unknown
from benchmark.system.paths import data_dir
from benchmark.system.texts import split_lines
from tasks.datasets.archives import Archive, without_hidden
from tasks.datasets.blobs import Blobs, FileBlobs
from tasks.datasets.names import Names
from tasks.datasets.partial import PartialBlobs

log = logging.getLogger("densebench.data")


class Store(Protocol):
    """A read-only tree of files."""

    def has(self, name: str) -> bool:
        """Whether a file or folder of that name is there."""
        ...

    def names(self, folder: str = "", suffixes: tuple[str, ...] = ()) -> list[str]:
        """Sorted names of the files below `folder`, at any depth; suffixes are lower case.

        Hidden names (`benchmark.data.hidden`) are no data: they are left out and counted.
        """
        ...

    def where(self, name: str) -> str: ...

    def missing(self, names: Sequence[str]) -> list[str]: ...

    def blobs(self, names: Sequence[str]) -> Blobs: ...

    def read(self, name: str) -> bytes: ...


class Folder:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        return os.path.exists(self.root / name)  # a name out of a list may be longer than a path can be: False

    def names(self, folder: str = "", suffixes: tuple[str, ...] = ()) -> list[str]:
        base, found = os.path.join(self.root, folder), []
        lines: dict[str, tuple[str, ...]] = {
            base: (os.path.realpath(base),)
        }  # folder -> the real folders from `base` down to it
        for path, folders, files in os.walk(base, followlinks=True):
            line = lines.pop(path)
            for name in sorted(folders):
                inner = os.path.join(path, name)
                real = os.path.realpath(inner) if os.path.islink(inner) else os.path.join(line[-1], name)
                if any(above == real or above.startswith(real.rstrip(os.sep) + os.sep) for above in line):
                    folders.remove(name)  # a link back: all pictures would be found again below it
                lines[inner] = (*line, real)
            relative = os.path.relpath(path, base)
            start = "" if relative == "." else relative.replace(os.sep, "/") + "/"
            found += [start + f for f in files if not suffixes or f.lower().endswith(suffixes)]
        start = folder.rstrip("/") + "/" if folder else ""
        return [start + name for name in without_hidden(sorted(found), base.rstrip("/"))]

    def where(self, name: str) -> str:
        return str(self.root / name)

    def missing(self, names: Sequence[str]) -> list[str]:
        return [n for n in names if not os.path.isfile(self.root / n)]

    def blobs(self, names: Sequence[str]) -> FileBlobs:
        return FileBlobs(str(self.root), Names(names))

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as e:
            raise DataError(f"{self.where(name)}: cannot be read ({e.strerror}). Check the folder") from None


def bases(info: DatasetInfo, root: Path | None, also: Sequence[str] = ()) -> list[Path]:
    """Folders a dataset may be in: `<data>/<name>`, `<data>/<another name>` and `<data>` itself."""
    data = root if root is not None else data_dir()
    return [data / name for name in (info.name, *also)] + [data]


def find(
    info: DatasetInfo,
    root: Path | None,
    marker: str,
    folders: Sequence[str],
    archives: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Store:
    """The tree that holds `marker`: an official folder (`folders`, tried in order) or an archive with one of them.

    Raises DataError with the first path that was looked for and the command that helps.
    """
    places = bases(info, root, also)
    for base in places:
        for folder in (*folders, ""):
            if _there(base / folder / marker):
                return Folder(base / folder)
    for base in places:
        found = sorted(p for pattern in archives for p in base.glob(pattern) if not is_hidden(p.name))
        if found:
            for prefix in (*(f + "/" for f in folders), ""):
                archive = Archive(found, prefix)
                if archive.has(marker):
                    return archive
            if PurePosixPath(marker).suffix and (prefix := archive.prefix_of(marker)):
                return Archive(found, prefix)  # people pack the folder that it lay in as well
    raise not_found(info, root, "/".join(p for p in (folders[0] if folders else "", marker) if p), archives, also)


def _there(path: Path) -> bool:
    """Whether there is such a file or folder; a name out of a list may be longer than a path can be. Raises OSError."""
    try:
        return path.exists()
    except OSError as e:
        if e.errno != errno.ENAMETOOLONG:
            raise  # a folder that may not be read
        return False


def not_found(
    info: DatasetInfo, root: Path | None, wanted: str, archives: Sequence[str] = (), also: Sequence[str] = ()
) -> DataError:
    """The error for a dataset that is not there, or of which one of `archives` was left as it came, compressed."""
    tars = [a.removesuffix(".tar") for a in archives if a.endswith(".tar")]
    for base in bases(info, root, also):
        for packed in sorted(p for tar in tars for end in (".tar.gz", ".tgz") for p in base.glob(tar + end)):
            return DataError(
                f"{info.name}: {packed} is there, but a gzip cannot be read in place. Unpack it: gunzip -k {packed}"
            )
    data = root if root is not None else data_dir()
    return DataError(f"{info.name}: no {wanted} under {data}. Get it: bench data prepare {info.name}")


def checked(info: DatasetInfo, store: Store, names: Sequence[str]) -> Blobs:
    """`names` of `store`. Raises DataError with the first missing path and the counts when any is missing.

    As many as the run tolerates (`--max-bad`) may be: reading one of those raises.
    """
    absent = store.missing(names)
    if len(absent) > tolerance().missing:
        raise DataError(
            f"{info.name}: {store.where(absent[0])} is missing; {len(names) - len(absent)} of {len(names)} files are "
            f"there. Details: bench data verify {info.name}. To leave them out: --max-bad {len(absent)}"
        )
    if not names:
        raise DataError(f"{info.name}: no files where {len(names)} or more were expected. See bench show {info.name}")
    if not absent:
        return store.blobs(names)
    lost = set(absent)
    there = [n for n in names if n not in lost]
    place = {n: i for i, n in enumerate(there)}
    paths = [store.where(n) for n in names]
    return PartialBlobs(list(names), paths, store.blobs(there), tuple(place.get(n, -1) for n in names))


def note_size(info: DatasetInfo, split: str, found: int, expected: int | None, names: Sequence[str] = ()) -> None:
    """Holds a split against its official size.

    At least half of it, but not all: something got lost, and DataError is raised unless the run tolerates it
    (`--max-bad`, which has it noted; `--limit`). Less than half is a part taken on purpose, more is another release:
    the log says so, and the row too. `names` of a set that has no list of its files: the first one missing from their
    numbers is named.
    """
    if expected is None or found == expected:
        return
    gaps, allowed = gaps_in(names, expected), tolerance()
    text = f"{info.name} {split}: {found} images found, the official split has {expected}"
    text += f"; first missing: {gaps[0]}" if gaps else ""
    lost = expected - found
    if found < expected <= 2 * found and not allowed.part:
        if lost > allowed.missing:
            raise DataError(
                f"{text}. More: bench data verify {info.name}. To run without them: --max-bad {lost}; a part: --limit N"
            )
        unnamed = f"{info.name} {split}: an image of the official {expected} is not there"
        allowed.absent += [f"{gap} is not there" for gap in gaps] if len(gaps) == lost else [unnamed] * lost
    else:
        log.warning("%s. More: bench data verify %s", text, info.name)
        allowed.short.append(f"{info.name} {split}: {found} of {expected} images" if found < expected else text)


def gaps_in(names: Sequence[str], count: int) -> list[str]:
    """The stems absent from files numbered 1 … `count` (`ADE_val_00000007`); none if they are not numbered so."""
    found = [re.fullmatch(r"(.*?)(\d+)", PurePosixPath(name).stem) for name in names]
    heads = {(m[1], len(m[2])) for m in found if m}
    if not names or None in found or len(heads) != 1:
        return []
    (word, width), present = heads.pop(), {int(m[2]) for m in found if m}
    return [f"{word}{i:0{width}d}" for i in range(1, count + 1) if i not in present]


def lines(store: Store, name: str) -> list[str]:
    """The non-empty lines of a text file, stripped."""
    text = store.read(name).decode("utf-8", "replace")
    return [line.strip() for line in split_lines(text) if line.strip()]


def option(info: DatasetInfo, options: Mapping[str, str], key: str, choices: Sequence[str]) -> str:
    """The choice made for `key`; the first is the default. Raises UsageError for another word."""
    value = options.get(key, choices[0])
    if value not in choices:
        raise unknown(f"{key} of {info.name}", value, choices, ", ".join(choices))
    return value


def known_options(info: DatasetInfo, options: Mapping[str, str], *keys: str) -> None:
    """Raises UsageError for an option this dataset does not have."""
    for key in options:
        if key not in keys:
            raise UsageError(f"{info.name} has no option {key!r}; it has {', '.join(keys) or 'none'}")


def split_error(info: DatasetInfo, kind: str, split: str) -> DataError:
    """The error for a kind or split that the dataset does not have."""
    return DataError(
        f"{info.name}: no {kind} data for split {split!r}; it has {', '.join(info.kinds)} in {', '.join(info.splits)}"
    )
