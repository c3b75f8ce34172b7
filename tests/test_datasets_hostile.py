"""Files that are damaged, or made to harm: each is one line that names it, so that --max-bad can leave it out."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import miniatures as mini
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image, ImageFile
from scipy.sparse import csc_array

from benchmark.errors import DataError
from benchmark.images.decode import decode
from benchmark.registry import open_dataset
from tasks.datasets import archives, blobs, fetch
from tasks.datasets.arrays import index_image, numpy_file
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.idx import read_idx
from tasks.datasets.kinds import same_size
from tasks.datasets.matlab import check, matlab_file
from tasks.datasets.names import Names
from tasks.datasets.parquet import Table
from tasks.datasets.user_maps import normals_from_rgb


def only(path: Path) -> FileBlobs:
    return FileBlobs(str(path.parent), Names([path.name]))


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words, **more: ran.append(words))
    path = tmp_path / "cat.jpg"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    for read in (lambda: decode(path), lambda: index_image(only(path), 0), lambda: normals_from_rgb(only(path), 0)):
        with pytest.raises(DataError, match=r"cat\.jpg: cannot be read .*PostScript"):
            read()
    assert not ran


def test_damaged_numpy_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.npz"
    np.savez_compressed(path, a=np.zeros((500, 500), np.uint8))
    whole = path.read_bytes()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    for damaged in (whole[:200], whole[:60] + bytes(60) + whole[120:], header.getvalue() + bytes(8)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"mask\.npz: is no usable numpy array"):
            numpy_file(only(path), 0)


def test_damaged_matlab_files_are_named(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "labels.mat"
    savemat(path, {"a": np.arange(5000).reshape(50, 100)}, do_compression=True)
    whole = path.read_bytes()
    for damaged in (whole[:60], whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"labels\.mat: cannot be read as a MATLAB file"):
            matlab_file(only(path), 0)


@pytest.mark.filterwarnings("ignore:(?s).*spmatrix:DeprecationWarning")  # SciPy 1.18, of the sparse matrix written here
def test_a_matlab_file_whose_elements_do_not_fit_is_refused_before_scipy_sees_it(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "labels.mat"
    records = np.array([(1, "a")], [("id", object), ("name", object)])
    kinds = {"n": np.arange(6.0).reshape(2, 3), "z": np.array([1 + 2j]), "text": "words", "none": np.zeros((0, 3)),
             "cells": np.array([1, "a", np.array([[2]], object)], object), "records": records,
             "mask": np.eye(3, dtype=bool), "sparse": csc_array(np.eye(4))}  # fmt: skip
    for packed in (False, True):
        savemat(path, kinds, do_compression=packed)
        found = matlab_file(only(path), 0)
        assert np.array_equal(found["n"], kinds["n"]) and found["records"][0, 0]["name"] == "a"
    savemat(path, {"n": np.arange(6.0).reshape(2, 3)})
    whole = path.read_bytes()
    shape = whole.index(np.array([2, 3], "<i4").tobytes())
    for wrong, line in (
        (whole[:shape] + np.array([2, 2], "<i4").tobytes() + whole[shape + 8 :], r"\[2, 2\] has 48 bytes"),
        (whole[:-8], "an element says"),
        (whole[:126] + b"??" + whole[128:], "no byte order"),
    ):
        with pytest.raises(ValueError, match=line):
            check(wrong)


def test_lists_that_name_what_no_data_set_has_are_one_line(tmp_path: Path) -> None:
    root = mini.coco(tmp_path)
    listing = root / "dataset_coco.json"
    listing.write_text(listing.read_text().replace('"val2014"', '"val2094"', 1))
    with pytest.raises(DataError, match=r"dataset_coco\.json names no folder 'val2094'"):
        open_dataset("coco", tmp_path).data("captions", "test")
    listing.write_text(
        listing.read_text().replace("val2094", "val2014").replace('"sentids": [', '"sentids": [1e999, ', 1)
    )
    with pytest.raises(DataError, match="is no Karpathy split file"):
        open_dataset("coco", tmp_path).data("captions", "test")
    lines = mini.docci(tmp_path) / "docci_descriptions.jsonlines"
    lines.write_text(lines.read_text().replace("test_00002", "a" * 300))
    with pytest.raises(DataError, match="aaaa"):
        open_dataset("docci", tmp_path).data("captions", "test")
    notes = next(mini.navi(tmp_path).rglob("wild_set/annotations.json"))
    notes.write_text(re.sub(r'"image_size": \[\d+', '"image_size": [1e999', notes.read_text()))
    with pytest.raises(DataError, match=r"annotations\.json: is no NAVI annotation file"):
        open_dataset("navi", tmp_path).data("depth", "test")


def test_a_damaged_page_of_a_parquet_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"caption": [f"text {i}" for i in range(2000)]}), path, compression="none")
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"test\.parquet: column 'caption': is damaged"):
        Table([path]).values("caption")


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 40, 30_000).astype(np.uint8).tobytes()
    packed = bytearray(gzip.compress(bytes([0, 0, 8, 1]) + (30_000).to_bytes(4, "big") + content))
    packed[100:140] = bytes([255]) * 40
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"idx1-ubyte\.gz: cannot be read"):
        read_idx(str(tmp_path / "t10k-labels-idx1-ubyte.gz"))


def test_truncated_normals_are_not_filled_with_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "normals.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:6000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some libraries set it for the whole process
    with pytest.raises(DataError, match=r"normals\.png: cannot be read \(image file is truncated"):
        normals_from_rgb(only(path), 0)


def test_a_zipped_member_may_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(blobs, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("fits.png", bytes(range(250)) * 3)
        out.writestr("bomb.png", bytes(10**6))
    archive = archives.Archive([tmp_path / "a.zip"])
    assert archive.read("fits.png") == bytes(range(250)) * 3
    with pytest.raises(DataError, match=r"a\.zip:bomb\.png: .*unpacks to more than 1000 bytes"):
        archive.read("bomb.png")


def test_a_damaged_download_is_not_unpacked_as_if_it_were_whole(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 40, 300_000).astype(np.uint8).tobytes()
    (tmp_path / "x.bin").write_bytes(content)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as out:
        out.add(tmp_path / "x.bin", "x.bin")
    fetch.unpack(tmp_path / "a.tar.gz", tmp_path / "whole")
    assert (tmp_path / "whole" / "x.bin").read_bytes() == content
    packed = bytearray((tmp_path / "a.tar.gz").read_bytes())
    middle = len(packed) // 2
    packed[middle : middle + 40] = bytes([255]) * 40  # still a stream that can be unpacked, to something else
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.tar\.gz: cannot be unpacked"):
        fetch.unpack(tmp_path / "a.tar.gz", tmp_path / "damaged")


def test_a_place_that_cannot_be_unpacked_into_is_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("x", "x")
    (tmp_path / "there" / "x").mkdir(parents=True)
    with pytest.raises(DataError, match=r"there: a\.zip cannot be unpacked there \(Is a directory\)"):
        fetch.unpack(tmp_path / "a.zip", tmp_path / "there")


def test_a_remembered_index_that_is_empty_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("x.png", b"x")
    archives.Archive([tmp_path / "a.zip"])
    (index,) = (tmp_path / "cache" / "archives").glob("*.npz")
    index.write_bytes(b"")
    assert archives.Archive([tmp_path / "a.zip"]).names() == ["x.png"]


def test_a_picture_that_only_exif_turns_is_said_to_be_one(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "phone.jpg", exif=turned)
    with pytest.raises(DataError, match=r"is 20x30, its image .*phone\.jpg is 30x20\..*EXIF"):
        same_size(np.zeros((30, 20)), only(tmp_path / "phone.jpg"), 0, "mask.png")
    with pytest.raises(DataError) as other:
        same_size(np.zeros((30, 21)), only(tmp_path / "phone.jpg"), 0, "mask.png")
    assert "EXIF" not in str(other.value)
