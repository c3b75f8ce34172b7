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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.errors import DataError
from benchmark.system.files import make_folder
from tasks.datasets.catalog import catalog
from tasks.datasets.hub import from_hub, lacking
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
    something would have to be fetched; what must be done by hand comes before it.
    """
    row = catalog().get(name, {})  # a data set of another package says all in `how_to_get`
    hub = row.get("hub")  # then the steps are its login, or other ways to the same files
    left = () if hub and not lacking(data / name, hub["patterns"]) else row.get("steps", ())
    by_hand = [Step(False, text) for text in left]
    if offline:
        yield from by_hand
    try:
        yield from _fetched(name, row, data, offline, progress)
    except DataError:
        yield from () if offline else by_hand
        raise
    yield from () if offline or hub else by_hand


def _fetched(name: str, row: dict[str, Any], data: Path, offline: bool, progress: NewBar | None) -> Iterator[Step]:
    absent = []
    for item in row.get("fetch", ()):
        target = data / item["to"]
        mark = target.with_name(f".{target.name}.unpacked")
        urls = [item["url"], *item.get("also", ())]
        if mark.exists() or (target.exists() and not item.get("unpack")):
            yield Step(True, f"{target} is there")
            continue
        packed = target.with_name(PurePosixPath(urllib.parse.urlsplit(urls[0]).path).name)
        there = target.exists() or (item.get("gunzip") and packed.is_file())
        if offline and not there:
            put = "put it there" if not item.get("gunzip") else f"put it beside as {packed.name}"
            absent.append(f"{target} is missing. Fetch {' or '.join(urls)} on another machine and {put}")
        else:
            source = str(packed)
            if item.get("gunzip") and packed.is_file():  # fetched by hand
                _gunzip(packed, target)
            elif not there:
                source = download(urls, target, gunzip=item.get("gunzip", False), progress=progress)
            if item.get("unpack"):
                unpack(target, target.parent)
                mark.touch()
            yield Step(True, f"{'unpacked' if there else 'fetched'} {source} to {target}")
    for text in absent[1:]:
        yield Step(False, text)
    if absent:
        raise DataError(f"{name}: --offline, and {absent[0]}")
    if hub := row.get("hub"):
        yield Step(True, from_hub(name, hub, data, offline))


def download(urls: str | Sequence[str], target: Path, *, gunzip: bool = False, progress: NewBar | None = None) -> str:
    """The file to `target` through `<target>.part`, going on where an earlier attempt stopped; `gunzip` unpacks it.

    `urls` are tried in their order; the one that gave it is returned. What came is held against the digest on record
    for a file of that name, or else the one the server sends. Raises DataError when it differs or cannot be fetched
    from any.
    """
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in [urls] if isinstance(urls, str) else urls:
        try:
            _hold(url, part, _receive(url, part, progress))
            if gunzip:
                _gunzip(part, target)
                part.unlink()
            else:
                part.replace(target)
            return url
        except DataError as e:
            part.unlink(missing_ok=True)
            failures.append(str(e) if str(e).startswith(url) else f"{url}: {e}")
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as e:
            reason = getattr(e, "reason", e)
            failures.append(f"{url}: cannot be fetched ({reason}). The same command goes on where it stopped")
        except OSError as e:
            raise DataError(
                f"{target}: cannot be written ({e.strerror}). Free some space, or choose another --data"
            ) from None
    raise DataError("; ".join([*(f.partition(". ")[0] for f in failures[:-1]), failures[-1]]))


def _gunzip(packed: Path, target: Path) -> None:
    plain = target.with_name(target.name + ".plain")
    try:
        with gzip.open(packed, "rb") as source, open(plain, "wb") as sink:
            shutil.copyfileobj(source, sink, BLOCK)
        plain.replace(target)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        plain.unlink(missing_ok=True)
        raise DataError(f"{packed}: is no whole gzip file ({e}). Delete it and run the same command again") from None


def _hold(url: str, part: Path, sent: str) -> None:
    """Removes `part` and raises DataError where it is not the file on record, or not what the server's md5 is of."""
    record = _record(url) or (Known("md5", sent, None, "as its server says") if sent else None)
    _, wrong = difference(part, record) if record else ("", "")
    if wrong:
        part.unlink()
        raise DataError(
            f"{url}: what came has {wrong}. Run the same command again; if it says the same, the file has changed: "
            "fetch it by hand"
        )


def _record(url: str) -> Known | None:
    return known().get(PurePosixPath(urllib.parse.urlsplit(url).path).name)


def _receive(url: str, part: Path, progress: NewBar | None) -> str:
    """The md5 in hex that the server sends beside the file, or ""."""
    have = part.stat().st_size if part.exists() else 0
    stated = part.with_name(part.name + ".from")  # where the part is from, and its version in the server's words
    origin, _, version = stated.read_text(encoding="utf-8").partition("\n") if stated.exists() else (url, "", "")
    if origin != url:  # another server's words tell nothing: without a digest on record, two files could be mixed
        version, have = "", have if _record(url) else 0
    headers = {"User-Agent": "densebench"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code == 416 and have:  # nothing after what we have: it is whole
            stated.unlink(missing_ok=True)
            return _md5(e.headers)
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise urllib.error.URLError("it sends a web page")
        if have and response.status != 206:  # the server starts from the beginning
            have = 0
        if not have:
            part.unlink(missing_ok=True)
            stated.write_text(f"{url}\n{_version(response.headers)}", encoding="utf-8")
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


def _version(headers: Message) -> str:
    """What tells this version of the file from another one, or ""; weak tags do not tell it to the byte."""
    version = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if not version or version.startswith("W/") else version
    return version if version.isascii() else ""


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
