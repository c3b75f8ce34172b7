"""Places where the real archives differ from the tidy layout, as public loaders of the same files treat them."""

from __future__ import annotations

import shutil
import tarfile

import miniatures as mini
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat
from test_datasets_readers import image_struct

from benchmark.data.tolerance import tolerating
from benchmark.errors import DataError
from benchmark.registry import open_dataset
from tasks.datasets import catalog


def test_pascal_context_short_of_one_picture_stops(tmp_path, official):
    mini.pascal_context(tmp_path, count=3)
    official("pc60", counts={"test": 3})
    assert len(open_dataset("pc60", tmp_path).data("segmentation", "test").images) == 3
    official("pc60", counts={"test": 4})
    with pytest.raises(DataError, match="3 images found, the official split has 4"):
        open_dataset("pc60", tmp_path).data("segmentation", "test")


def test_geonets_two_bad_files_are_dropped_by_name_whatever_the_count_and_the_folders(tmp_path):
    """Probe3D deletes the 6,920th and 21,182nd of 30,816 names; with one file more or less others would go."""
    bad = (
        "bedroom_0129_r-1315328302.785180-1089784518.mat",
        "library_0006_r-1300708259.539496-3335480784.mat",
    )
    root = mini.nyu_labelled(tmp_path) / "nyu_geonet"
    shutil.rmtree(root)
    for folder, names in (("data2", (bad[0], "d.mat")), ("data1", ("a.mat", bad[1], "e.mat"))):
        (root / folder).mkdir(parents=True)
        for name in names:
            savemat(root / folder / name, {"img": 0})
    images = open_dataset("nyuv2", tmp_path).data("normals", "train").images
    assert [images.image_id(i)[-5:] for i in range(len(images))] == ["a.mat", "d.mat", "e.mat"]


@pytest.mark.parametrize("place", ["nyuv2/train_test_inputs", "nyuv2/nyu_depth_v2/train_test_inputs"])
def test_bts_lists_may_stay_in_their_folder(tmp_path, place):
    root = mini.nyu_bts(tmp_path / "tidy")
    plain = open_dataset("nyuv2", tmp_path / "tidy")
    shutil.copytree(tmp_path / "tidy", tmp_path / "data")
    (tmp_path / "data" / place).mkdir()
    for split in ("train", "test"):
        name = f"nyudepthv2_{split}_files_with_gt.txt"
        (tmp_path / "data/nyuv2" / root.name / name).rename(tmp_path / "data" / place / name)
        found = open_dataset("nyuv2", tmp_path / "data").data("depth", split)
        tidy = plain.data("depth", split)
        assert len(found.images) == len(tidy.images) and (found.images.load(0) == tidy.images.load(0)).all()
        assert (found.target(1) == tidy.target(1)).all()


def test_flickr_parquet_of_all_pictures_needs_karpathys_list(tmp_path, official):
    """The hub has sets of all 31,783 pictures under the name test."""
    official("flickr30k", counts={"test": 3})
    root = mini.flickr30k(tmp_path / "folder")
    names = [f"{1000 + i}.jpg" for i in (4, 2, 3, 1, 0)]
    table = {
        "image": [image_struct(root / "flickr30k-images" / n) for n in names],
        "caption": [[f"Picture {n}, caption {j} ." for j in range(5)] for n in (4, 2, 3, 1, 0)],
        "filename": names,
    }
    hub = tmp_path / "hub/flickr30k"
    hub.mkdir(parents=True)
    pq.write_table(pa.table(table), hub / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"hold 5 pictures, the official test split 3, .*Put dataset_flickr30k.json"):
        open_dataset("flickr30k", tmp_path / "hub").data("captions", "test")
    shutil.copy(root / "dataset_flickr30k.json", hub)
    plain = open_dataset("flickr30k", tmp_path / "folder").data("captions", "test")
    found = open_dataset("flickr30k", tmp_path / "hub").data("captions", "test")
    assert found.captions == plain.captions
    assert all((found.images.load(i) == plain.images.load(i)).all() for i in range(3))


def test_a_set_larger_than_the_official_one_is_noted_in_the_row(tmp_path, official):
    official("docci", counts={"test": 2})
    mini.docci(tmp_path)
    with tolerating() as allowed:
        open_dataset("docci", tmp_path).data("captions", "test")
    assert allowed.short == ["docci test: 3 images found, the official split has 2"]


def test_an_images_folder_of_something_else_does_not_hide_doccis_tar(tmp_path):
    root = mini.docci(tmp_path / "folder")
    plain = open_dataset("docci", tmp_path / "folder").data("captions", "test")
    packed = tmp_path / "data/docci"
    packed.mkdir(parents=True)
    shutil.copy(root / "docci_descriptions.jsonlines", packed)
    with tarfile.open(packed / "docci_images.tar", "w") as archive:
        archive.add(root / "images", "images")
    (tmp_path / "data/images/cars").mkdir(parents=True)  # UnED's layout beside it
    found = open_dataset("docci", tmp_path / "data").data("captions", "test")
    assert len(found.images) == 3 and (found.images.load(1) == plain.images.load(1)).all()


def test_what_imagenet_asks_for_is_what_it_reads():
    row = catalog.catalog()["imagenet1k"]
    assert "meta.mat" in row["layout"] and any("meta.mat" in step for step in row["steps"])


def test_nyu_depth_ends_at_ten_metres(tmp_path):
    mini.nyu_bts(tmp_path)
    assert open_dataset("nyuv2", tmp_path).data("depth", "test").max_depth == 10.0
