"""Tar shards by the million: a mapped index, an order without a permutation, few open files, other machines."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_fixtures import tiny
from test_recipe_sources import ROWS, png, settings, write_tar

from adapters.tipsv2.recipe import order, shard_index, shards
from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.order import GROUP, Order, shuffled
from adapters.tipsv2.recipe.samples import Source, open_source
from adapters.tipsv2.recipe.shard_index import members, shard_entries
from adapters.tipsv2.recipe.shards import OPEN, Shard, expanded
from adapters.tipsv2.recipe.source_tar import TarSource
from adapters.tipsv2.recipe.text import train_tokenizer
from benchmark.errors import BenchError, DataError, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BENCH_CACHE", str(place))
    monkeypatch.setattr(shards, "FIRST_WAIT", 0.0)
    return place


def pair(i: int) -> dict[str, bytes]:
    return {f"{i}.png": png(i), f"{i}.json": json.dumps(ROWS[i % 3]).encode()}


def write_shards(root: Path, count: int, each: int = 2) -> TarSource:
    for s in range(count):
        wanted = [pair(s * each + i) for i in range(each)]
        write_tar(root / f"{s:03d}.tar", {k: v for members in wanted for k, v in members.items()})
    source = open_source(settings("tar", root / "*.tar"))
    assert isinstance(source, TarSource)
    return source


def values(source: Source) -> list[int]:
    return [int(np.asarray(source.load(i).image).max()) for i in range(len(source))]


# ---------------------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("length", [1, 2, 5, 1000, 4099])
def test_past_small_the_order_is_a_bijection_that_differs_by_epoch(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(order, "SMALL", 0)
    first, second = ([Order(length, 7)(epoch, i) for i in range(length)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(length))
    assert length < 1000 or sum(a == b for a, b in zip(first, second, strict=True)) < 12


def test_the_order_of_many_samples_spreads_as_a_permutation_does_and_takes_no_memory() -> None:
    length = 116_000_000
    found = shuffled(length, (0, 0, 3))
    drawn = np.array([found(i) for i in range(4000)])
    assert len({*drawn.tolist()}) == 4000 and 0 <= drawn.min() <= drawn.max() < length
    cells = np.bincount(drawn * 50 // length, minlength=50)
    steps = np.bincount((np.diff(drawn) % length) * 50 // length, minlength=50)
    for counts in (cells, steps):  # χ² with 49 degrees of freedom: 99.99 % lie below 97
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 97
    assert len(pickle.dumps(found)) < 500


def test_small_sources_keep_the_order_they_had() -> None:
    expected = np.random.default_rng((5, 0, 2)).permutation(40)
    assert [Order(40, 5)(2, i) for i in range(40)] == expected.tolist()


def test_by_shards_every_sample_comes_once_and_few_shards_are_at_work() -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 50)
    starts = np.append(0, np.cumsum(sizes))
    by_shards = Order(int(starts[-1]), 1, starts)
    drawn = [by_shards(0, i) for i in range(int(starts[-1]))]
    assert sorted(drawn) == list(range(int(starts[-1])))
    at_work = np.searchsorted(starts, drawn, "right")
    groups = [list(dict.fromkeys(at_work[i : i + 10])) for i in range(0, len(drawn), 10)]
    assert all(len(group) <= GROUP for group in groups)
    assert drawn != [by_shards(1, i) for i in range(int(starts[-1]))]
    assert list(dict.fromkeys(at_work.tolist()))[:3] != [1, 2, 3]


def test_an_order_by_shards_is_for_shards() -> None:
    config = tiny(data__order="shards")
    with pytest.raises(UsageError, match='data.order = "shards", but data.source is not "tar"'):
        Positions(open_source(config.data), config)


# ---------------------------------------------------------------------------------------------------------- the index


def test_the_index_takes_sixteen_bytes_a_sample_and_is_mapped_not_copied(tmp_path: Path) -> None:
    source = write_shards(tmp_path, 3)
    assert source.index.file.stat().st_size == 16 * 6
    assert isinstance(source.index.entries, np.memmap)
    assert len(pickle.dumps(source.index)) < 1000
    assert values(pickle.loads(pickle.dumps(source))) == [*range(6)]


def test_it_is_made_once_and_again_where_it_is_damaged_or_a_shard_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []
    real = shard_index._make
    monkeypatch.setattr(shard_index, "_make", lambda *words: (made.append(1), real(*words)))
    source = write_shards(tmp_path, 2)
    for _ in range(2):
        source = open_source(settings("tar", tmp_path / "*.tar"))  # type: ignore[assignment]
    assert len(made) == 1
    content = bytearray(source.index.file.read_bytes())
    content[5] ^= 1
    source.index.file.write_bytes(content)
    assert values(open_source(settings("tar", tmp_path / "*.tar"))) == [*range(4)]
    assert len(made) == 2 and "does not agree with its checksum); it is made again" in caplog.text
    write_tar(tmp_path / "001.tar", pair(9))
    assert values(open_source(settings("tar", tmp_path / "*.tar"))) == [0, 1, 9]
    assert len(made) == 3


def test_an_index_that_was_cut_short_goes_on_from_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "PART", 1)
    read: list[str] = []

    def entries(shard: Shard) -> Any:
        read.append(Path(shard.name).stem)
        if len(read) == 3:
            raise KeyboardInterrupt
        return shard_entries(shard)

    monkeypatch.setattr(shard_index, "shard_entries", entries)
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 4)
    assert values(open_source(settings("tar", tmp_path / "*.tar"))) == [*range(8)]
    assert read == ["000", "001", "002", "002", "003"]


def test_a_shard_that_changed_under_its_index_gives_no_wrong_sample(tmp_path: Path) -> None:
    source = write_shards(tmp_path, 1)
    file = tmp_path / "000.tar"
    content = file.read_bytes()
    file.write_bytes(content[1024:] + content[:1024])
    with pytest.raises(DataError, match=r"000\.tar, sample 0: its place holds something else"):
        source.load(0)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path: Path, form: int) -> None:
    names = ["a.jpg", "ordner/" + "n" * 90 + ".json", "ä/ö.txt", *(["l" * 200 + ".jpg"] if form else [])]
    with tarfile.open(tmp_path / "a.tar", "w", format=form, pax_headers={"comment": "x"} if form == 2 else None) as out:
        for name in names:
            (tmp_path / "file").write_bytes(name.encode() * 50)
            out.add(tmp_path / "file", name)
        (tmp_path / "link").symlink_to("file")
        out.add(tmp_path / "link", "link.jpg")
        (tmp_path / "folder").mkdir()
        out.add(tmp_path / "folder", "folder.jpg")
    with tarfile.open(tmp_path / "a.tar") as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    assert len(expected) == len(names)
    assert list(members(Shard(str(tmp_path / "a.tar"), (tmp_path / "a.tar").stat().st_size, ""))) == expected


@pytest.mark.parametrize(("at", "why"), [(1024 + 20, "does not agree with its checksum"), (None, "ends inside")])
def test_a_shard_that_is_damaged_in_its_middle_is_named_and_not_taken_for_a_shorter_one(
    tmp_path: Path, at: int | None, why: str
) -> None:
    write_shards(tmp_path, 1)
    content = bytearray((tmp_path / "000.tar").read_bytes())
    if at is not None:
        content[at] ^= 1
    (tmp_path / "000.tar").write_bytes(content if at is not None else content[: 1024 + 512 + 10])
    with pytest.raises(DataError, match=rf"000\.tar: not a readable tar file .*{why}"):
        open_source(settings("tar", tmp_path / "*.tar"))


def test_what_webdataset_and_img2dataset_write_is_read_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """img2dataset: 000000000.jpg, .json with "caption", .txt; a .parquet beside each shard."""
    facts = {"caption": "a cat", "key": "0", "status": "success", "width": 8}
    write_tar(
        tmp_path / "00000.tar",
        {"00.jpg": png(0), "00.json": json.dumps(facts).encode(), "00.txt": b"a cat", "00.cls": b"3",
         "01.PNG": png(1), "01.txt": b"zwei\n", "02.webp": png(2)},
    )  # fmt: skip
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000_stats.json").write_text("{}")
    source = open_source(DataConfig(source="tar", path=str(tmp_path / "{00000..00000}.tar"), alt="txt", synthetic=()))
    assert [source.load(i).alt for i in range(len(source))] == ["a cat", "zwei"]
    assert "1 pictures of the shards have neither .json nor .txt" in caplog.text
    both = DataConfig(source="tar", path=str(tmp_path / "*.tar"), alt="caption", synthetic=("txt",))
    assert open_source(both).load(0).synthetic == (("a cat",),)


def test_a_range_counts_with_its_zeros() -> None:
    assert expanded("s3://b/{008..011}/x-{0..1}.tar")[:3] == [
        "s3://b/008/x-0.tar", "s3://b/008/x-1.tar", "s3://b/009/x-0.tar",
    ]  # fmt: skip
    assert expanded("a/*.tar") == ["a/*.tar"]


def test_a_shard_that_is_counted_and_not_there_is_named_with_how_many_are_missing(tmp_path: Path) -> None:
    import fsspec

    write_shards(tmp_path, 3)
    memory = fsspec.filesystem("memory")
    for s in range(3):
        memory.pipe(f"/counted/{s:03d}.tar", (tmp_path / f"{s:03d}.tar").read_bytes())
    (tmp_path / "0").mkdir()
    write_tar(tmp_path / "0" / "a.tar", pair(0))
    memory.pipe("/counted/0/a.tar", (tmp_path / "0" / "a.tar").read_bytes())
    for place in (str(tmp_path), "memory://counted"):
        assert len(open_source(settings("tar", f"{place}/{{000..002}}.tar"))) == 6
        with pytest.raises(DataError, match=r"/003\.tar, \S+/004\.tar: no such file; .* counts 5, 2 of them missing"):
            open_source(settings("tar", f"{place}/{{000..004}}.tar"))
        with pytest.raises(DataError, match=r"/005\.tar, …: no such file; .* counts 10, 7 of them missing\. Fetch"):
            open_source(settings("tar", f"{place}/{{000..009}}.tar"))
        with pytest.raises(DataError, match=r"/1/\*\.tar: no such file"):  # folders are counted, their files matched
            open_source(settings("tar", f"{place}/{{0..1}}/*.tar"))


# --------------------------------------------------------------------------------------------- files, other machines


def test_at_most_sixteen_shards_are_open(tmp_path: Path) -> None:
    source = write_shards(tmp_path, OPEN + 8, each=1)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(2):
        assert values(source) == [*range(OPEN + 8)]
    assert len(source.reader._open) == OPEN
    assert not before or len(os.listdir("/proc/self/fd")) <= before + OPEN
    source.reader.close()


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_too_many_open_files_end_a_run_and_are_no_bad_sample(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        write_shards(tmp_path, 1, each=4)
    else:
        rows = [{**ROWS[0], "image": f"{i}.png"} for i in range(4)]
        for i in range(4):
            (tmp_path / f"{i}.png").write_bytes(png(i))
        (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tiny(
        data__source=kind, data__path=str(tmp_path / "*.tar" if kind == "tar" else tmp_path), data__max_bad=99,
        data__synthetic=["short"], train__batch_size=2,
    )  # fmt: skip
    positions = Positions(open_source(config.data), config)
    tokenizer = train_tokenizer(["alt short long 0 1 2"] * 9, 60, 16)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
    try:
        with pytest.raises(BenchError, match=r"Too many open files\. Allow more open files .ulimit -n."):
            list(steps_from(0, positions, tokenizer))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held[0])


def test_shards_behind_a_url_are_read_and_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    write_shards(tmp_path, 2)
    memory = fsspec.filesystem("memory")
    for s in range(2):
        memory.pipe(f"/shards/{s:03d}.tar", (tmp_path / f"{s:03d}.tar").read_bytes())
    asked: Counter[str] = Counter()
    real = MemoryFileSystem.cat_file

    def cat_file(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> Any:
        asked[path] += 1
        if asked[path] % 3:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return real(self, path, start=start, end=end, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    for pattern in ("memory://shards/*.tar", "memory://shards/{000..001}.tar"):
        assert values(open_source(settings("tar", pattern))) == [*range(4)]
    source = open_source(settings("tar", "memory://shards/*.tar"))
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: (_ for _ in ()).throw(TimeoutError("slow")))
    with pytest.raises(BenchError, match=r"memory:///?shards/000.tar: cannot be read after 6 tries .slow.") as caught:
        source.load(0)
    assert not isinstance(caught.value, DataError)
    whole = (tmp_path / "000.tar").read_bytes()  # a web server that knows no ranges answers with all of it
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: whole)
    with pytest.raises(BenchError, match="its server gives no parts of files"):
        source.load(1)
    with pytest.raises(DataError, match="none.tar: no such file"):
        open_source(settings("tar", "memory://shards/none.tar"))


def test_a_url_that_needs_a_package_says_which() -> None:
    with pytest.raises(UsageError, match="Install what this kind of URL needs .http: aiohttp, s3: s3fs, gs: gcsfs."):
        open_source(settings("tar", "no-such-protocol://x/{0..1}.tar"))


def test_batches_are_handed_over_in_eight_bits(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, each=4)
    config = tiny(
        data__source="tar", data__path=str(tmp_path / "*.tar"), data__synthetic=["short"], train__batch_size=4
    )
    tokenizer = train_tokenizer(["alt short long 0 1 2"] * 9, 60, 16)
    batch, _ = next(steps_from(0, Positions(open_source(config.data), config), tokenizer))
    assert batch is not None and batch.images.dtype == batch.local.dtype == torch.uint8
    moved = batch.to(torch.device("cpu"))
    assert moved.images.dtype == moved.local.dtype == torch.float32
    assert torch.equal(moved.images, torch.from_numpy(batch.images.numpy().astype(np.float32) / 255))
