"""`bench data prepare`: fetching what may be fetched, resumably, and saying exactly what is left to do by hand."""

from __future__ import annotations

import base64
import binascii
import gzip
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.errors import DataError, first_line
from tasks.datasets.catalog import catalog
from tasks.datasets.known import Known, difference, known

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
NewBar = Callable[[str, int], Any]


@dataclass(frozen=True)
class Step:
    """One thing that was done, or that is left to do."""

    done: bool
    text: str


def prepare(name: str, data: Path, *, offline: bool = False, progress: NewBar | None = None) -> Iterator[Step]:
    """Fetches the archives of dataset `name` into `data`, then yields what must be done by hand.

    Raises DataError when a download fails (the same command goes on where it stopped), or with `offline` when
    something would have to be fetched.
    """
    row = catalog()[name]
    for item in row.get("fetch", ()):
        target = data / item["to"]
        mark = target.with_name(f".{target.name}.unpacked")
        if (mark if item.get("unpack") else target).exists():
            yield Step(True, f"{target} is there")
            continue
        if offline and not target.exists():
            raise DataError(
                f"{name}: --offline, and {target} is missing. Fetch {item['url']} on another machine and put it there"
            )
        if not target.exists():
            download(item["url"], target, gunzip=item.get("gunzip", False), progress=progress)
        if item.get("unpack"):
            unpack(target, target.parent)
            mark.touch()
        yield Step(True, f"fetched {item['url']} to {target}")
    if hub := row.get("hub"):
        yield _from_hub(hub, data / name, offline)
    for text in row.get("steps", ()):
        yield Step(False, text)


def download(url: str, target: Path, *, gunzip: bool = False, progress: NewBar | None = None) -> None:
    """`url` to `target` through `<target>.part`, going on where an earlier attempt stopped; `gunzip` unpacks it.

    What came is held against the digest on record for a file of that name, or else the one the server sends. Raises
    DataError when it differs or cannot be fetched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, plain = (target.with_name(target.name + ending) for ending in (".part", ".plain"))
    try:
        _hold(url, part, _receive(url, part, progress))
        if gunzip:
            with gzip.open(part, "rb") as source, open(plain, "wb") as sink:
                shutil.copyfileobj(source, sink, BLOCK)
            plain.replace(target)
            part.unlink()
        else:
            part.replace(target)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        for damaged in (part, plain):
            damaged.unlink(missing_ok=True)
        raise DataError(f"{url}: what came is no whole gzip file ({e}). Run the same command again") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as e:
        reason = getattr(e, "reason", e)
        raise DataError(f"{url}: cannot be fetched ({reason}). The same command goes on where it stopped") from None
    except OSError as e:
        raise DataError(
            f"{target}: cannot be written ({e.strerror}). Free some space, or choose another --data"
        ) from None


def _hold(url: str, part: Path, sent: str) -> None:
    """Removes `part` and raises DataError where it is not the file on record, or not what the server's md5 is of."""
    record = known().get(PurePosixPath(urllib.parse.urlsplit(url).path).name)
    record = record or (Known("md5", sent, None, "as its server says") if sent else None)
    _, wrong = difference(part, record) if record else ("", "")
    if wrong:
        part.unlink()
        raise DataError(
            f"{url}: what came has {wrong}. Run the same command again; if it says the same, the file has changed: "
            "fetch it by hand"
        )


def _receive(url: str, part: Path, progress: NewBar | None) -> str:
    """The md5 in hex that the server sends beside the file, or ""."""
    have = part.stat().st_size if part.exists() else 0
    stated = part.with_name(part.name + ".from")  # the version of the file that the part is of, in the server's words
    headers = {"User-Agent": "densebench"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if stated.exists():
            headers["If-Range"] = stated.read_text(encoding="ascii")
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code == 416 and have:  # nothing after what we have: it is whole
            stated.unlink(missing_ok=True)
            return _md5(e.headers)
        raise
    with response:
        if have and response.status != 206:  # the server starts from the beginning
            have = 0
        if not have:
            part.unlink(missing_ok=True)
            _state(stated, response.headers)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        if total and shutil.disk_usage(part.parent).free < total - have:
            raise OSError(28, f"{(total - have) / 1e9:.1f} GB are needed")
        bar = progress(part.name.removesuffix(".part"), total) if progress else None
        with open(part, "ab" if have else "wb") as f:
            while block := response.read(BLOCK):
                f.write(block)
                if bar is not None:
                    bar.advance(len(block))
    if total and part.stat().st_size != total:
        raise ConnectionError(f"{part.stat().st_size} of {total} bytes came")
    stated.unlink(missing_ok=True)
    return _md5(response.headers)


def _md5(headers: Message) -> str:
    """The md5 in hex of the whole file, which Google's storage (DOCCI, NAVI) sends in base64; "" from other servers."""
    for words in headers.get_all("x-goog-hash", []):
        for word in words.split(","):
            kind, _, value = word.strip().partition("=")
            try:
                found = base64.b64decode(value, validate=True) if kind == "md5" else b""
            except binascii.Error:
                continue
            if len(found) == 16:
                return found.hex()
    return ""


def _state(path: Path, headers: Message) -> None:
    """Notes what tells this version of the file from another one; weak tags do not tell it to the byte."""
    version = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if not version or version.startswith("W/") else version
    if version.isascii() and version:
        path.write_text(version, encoding="ascii")
    else:
        path.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip, tar or tar.gz into `folder`; members that would land elsewhere are refused. Raises DataError."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as z:
                z.extractall(folder)
            return
        packed = archive.suffix in (".gz", ".tgz")
        with gzip.open(archive, "rb") if packed else open(archive, "rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:") as t:
                t.extractall(folder, filter="data")
            while stream.read(BLOCK):  # a gzip's checksum stands behind all a tar reads, and only its reader compares
                pass
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"{archive}: cannot be unpacked ({e}). Delete it and run the same command again") from None
    except OSError as e:
        raise DataError(
            f"{folder}: {archive.name} cannot be unpacked there ({e.strerror}). Look at the folder"
        ) from None


def _from_hub(hub: dict[str, Any], folder: Path, offline: bool) -> Step:
    """The parquet files of a hub data set, as they are; access-restricted ones need a login first."""
    if any(folder.rglob("*.parquet")):
        return Step(True, f"{folder} has parquet files")
    if offline:
        raise DataError(f"--offline, and {folder} has no parquet files. Fetch {hub['repo']} on another machine")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(hub["repo"], repo_type="dataset", local_dir=folder, allow_patterns=hub["patterns"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        reason = first_line(e)
        return Step(False, f"https://huggingface.co/datasets/{hub['repo']} could not be fetched: {reason}")
    return Step(True, f"fetched {hub['repo']} to {folder}")
