"""Caption, label, geometry and retrieval sets in their official layouts."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile

import miniatures as mini
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.errors import DataError
from benchmark.registry import open_dataset
from tasks.datasets import digests
from tasks.datasets.archives import Archive
from tasks.datasets.parquet import RowBlobs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def image_struct(path):
    return {"bytes": path.read_bytes(), "path": path.name}


def add_bytes(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


# ------------------------------------------------------------------------------------------- captions


def test_coco_takes_the_first_five_official_captions_of_the_test_split(tmp_path):
    mini.coco(tmp_path)
    data = open_dataset("coco", tmp_path).data("captions", "test")
    assert len(data.images) == 3 and [len(c) for c in data.captions] == [5, 5, 5]
    assert data.captions[1][4] == "A thing 1 seen as 4. (official)"
    every = open_dataset("coco", tmp_path, {"captions": "all"}).data("captions", "test")
    assert [len(c) for c in every.captions] == [5, 7, 6] and every.digest != data.digest
    assert every.images.digest == data.images.digest


def test_coco_without_annotation_files_uses_the_split_files_sentences(tmp_path):
    mini.coco(tmp_path, annotations=False)
    assert open_dataset("coco", tmp_path).data("captions", "test").captions[0][0] == "A thing 0 seen as 0."


def test_coco_missing_picture_is_named_with_counts(tmp_path):
    root = mini.coco(tmp_path)
    (root / "val2014/COCO_val2014_000000000001.jpg").unlink()
    with pytest.raises(DataError, match=r"COCO_val2014_000000000001.jpg is missing; 2 of 3 files"):
        open_dataset("coco", tmp_path).data("captions", "test")


def test_flickr_folder_parquet_and_shards_hold_the_same_pictures_and_captions(tmp_path):
    root = mini.flickr30k(tmp_path / "folder")
    plain = open_dataset("flickr30k", tmp_path / "folder").data("captions", "test")
    names = [f"{1000 + i}.jpg" for i in range(5)]
    captions = [[f"Picture {i}, caption {j} ." for j in range(5)] for i in range(5)]
    table = {"image": [image_struct(root / "flickr30k-images" / n) for n in names], "caption": captions}
    table["split"] = ["test"] * 3 + ["train"] * 2
    (tmp_path / "hub/flickr30k").mkdir(parents=True)
    pq.write_table(pa.table(table), tmp_path / "hub/flickr30k/test-00000-of-00001.parquet", row_group_size=2)
    (tmp_path / "wds/flickr30k/test").mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(tmp_path / f"wds/flickr30k/test/{shard}.tar", "w") as archive:
            for i in (range(2), range(2, 3))[shard]:
                add_bytes(archive, f"{i:04d}.jpg", (root / "flickr30k-images" / names[i]).read_bytes())
                add_bytes(archive, f"{i:04d}.txt", "\n".join(captions[i]).encode())
    for kind in ("hub", "wds"):
        other = pickle.loads(pickle.dumps(open_dataset("flickr30k", tmp_path / kind).data("captions", "test")))
        assert other.captions == plain.captions and len(other.images) == 3
        assert all((other.images.load(i) == plain.images.load(i)).all() for i in range(3))


def test_docci_splits_come_from_the_jsonlines_and_descriptions_are_one_line(tmp_path):
    root = mini.docci(tmp_path)
    dataset = open_dataset("docci", tmp_path)
    test = dataset.data("captions", "test")
    assert len(test.images) == 3 and len(dataset.data("captions", "train").images) == 2
    assert test.captions[0] == ("Long text 2. More",) and len(test.digest) == 64
    with tarfile.open(root / "docci_images.tar", "w") as archive:
        archive.add(root / "images", "images")
    for path in (root / "images").iterdir():
        path.unlink()
    (root / "images").rmdir()
    assert open_dataset("docci", tmp_path).data("captions", "test").digest == test.digest


def test_docci_damaged_line_is_named(tmp_path):
    root = mini.docci(tmp_path)
    with open(root / "docci_descriptions.jsonlines", "a") as f:
        f.write("{broken\n")
    with pytest.raises(DataError, match=r"docci_descriptions.jsonlines:7: JSONDecodeError"):
        open_dataset("docci", tmp_path).data("captions", "test")


# --------------------------------------------------------------------------------------------- labels


def check_imagenet(data):
    assert data.labels.tolist() == [0, 0, 1, 1, 999, 999] and data.labels.dtype == np.int64
    assert len(data.class_names) == 1000 and data.class_names[1] == "goldfish"
    assert all(data.images.load(i).shape == (24, 32, 3) for i in range(6))


def test_imagenet_folders_with_grey_and_cmyk_files(tmp_path):
    mini.imagenet(tmp_path)
    dataset = open_dataset("imagenet1k", tmp_path)
    check_imagenet(dataset.data("labels", "train"))
    check_imagenet(dataset.data("labels", "test"))


def test_imagenet_official_tars_are_read_in_place(tmp_path):
    root = mini.imagenet(tmp_path / "folder")
    out = tmp_path / "tars" / "imagenet1k"
    out.mkdir(parents=True)
    with tarfile.open(out / "ILSVRC2012_img_train.tar", "w") as outer:
        for synset in mini.SYNSETS:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for path in sorted((root / "train" / synset).iterdir()):
                    archive.add(path, path.name)
            add_bytes(outer, f"{synset}.tar", inner.getvalue())
    rows = ["ImageId,PredictionString"]
    with tarfile.open(out / "ILSVRC2012_img_val.tar", "w") as archive:
        for path in sorted((root / "val").rglob("*.JPEG")):
            archive.add(path, path.name)
            rows.append(f"{path.stem},{path.parent.name} 1 2 3 4")
    (out / "LOC_val_solution.csv").write_text("\n".join(rows))
    dataset = open_dataset("imagenet1k", tmp_path / "tars")
    for split in ("train", "test"):
        data = pickle.loads(pickle.dumps(dataset.data("labels", split)))
        check_imagenet(data)
        plain = open_dataset("imagenet1k", tmp_path / "folder").data("labels", split)
        assert all((data.images.load(i) == plain.images.load(i)).all() for i in range(6))


def test_imagenet_hub_parquet_and_shards(tmp_path):
    root = mini.imagenet(tmp_path / "folder")
    files = sorted((root / "val").rglob("*.JPEG"))
    labels = [0, 0, 1, 1, 999, 999]
    (tmp_path / "hub/imagenet1k/data").mkdir(parents=True)
    for part, rows in enumerate((range(4), range(4, 6))):
        table = pa.table({"image": [image_struct(files[i]) for i in rows], "label": [labels[i] for i in rows]})
        pq.write_table(
            table, tmp_path / f"hub/imagenet1k/data/validation-0000{part}-of-00002.parquet", row_group_size=3
        )
    (tmp_path / "wds/imagenet1k").mkdir(parents=True)
    with tarfile.open(tmp_path / "wds/imagenet1k/imagenet1k-validation-00.tar", "w") as archive:
        for path, label in zip(files, labels):
            add_bytes(archive, f"{path.stem}.jpg", path.read_bytes())
            add_bytes(archive, f"{path.stem}.cls", str(label).encode())
    check_imagenet(open_dataset("imagenet1k", tmp_path / "hub").data("labels", "test"))
    check_imagenet(open_dataset("imagenet1k", tmp_path / "wds").data("labels", "test"))


def test_flat_validation_folder_without_classes_says_which_file_tells_them(tmp_path):
    root = mini.imagenet(tmp_path)
    for path in sorted((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    for synset in mini.SYNSETS:
        (root / "val" / synset).rmdir()
    with pytest.raises(DataError, match="LOC_val_solution.csv"):
        open_dataset("imagenet1k", tmp_path).data("labels", "test")


# ------------------------------------------------------------------------------------------- geometry


def test_uned_domain_searches_itself_and_knows_its_own_place(tmp_path):
    mini.uned(tmp_path)
    data = open_dataset("cars196", tmp_path).data("retrieval", "test")
    assert data.self_index.tolist() == [0, 1, 2, 3] and data.query_labels.tolist() == [0, 0, 1, 1]
    assert set(data.query_domains) == {"cars196"} and data.queries.digest == data.index.digest


def test_uned_merged_index_holds_all_domains_with_shifted_places(tmp_path):
    mini.uned(tmp_path)
    data = open_dataset("uned", tmp_path).data("retrieval", "test")
    assert len(data.queries) == 32 and len(data.index) == 5 * 4 + 3 * 6
    assert sorted(set(data.index_domains)) == sorted(
        ["food2k", "cars196", "sop", "inshop", "inat", "met", "gldv2", "rp2k"]
    )
    for q, place in enumerate(data.self_index):
        if place >= 0:
            assert data.index.image_id(place) == data.queries.image_id(q)
            assert (data.index.load(place) == data.queries.load(q)).all()
            assert data.index_domains[place] == data.query_domains[q]
    assert (data.self_index < 0).sum() == 12
    assert pickle.loads(pickle.dumps(data)).digest == data.digest


def test_uned_query_of_two_classes_has_both_and_no_other_query_has(tmp_path):
    mini.uned(tmp_path)
    data = open_dataset("gldv2", tmp_path).data("retrieval", "test")
    assert data.query_labels.tolist() == [0, 0, 1, 1] and data.index_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.more_labels == {0: (1,)} and data.labels_of(0) == (0, 1) and data.labels_of(1) == (0,)
    merged = open_dataset("uned", tmp_path, {"domains": "sop,gldv2"}).data("retrieval", "test")
    assert merged.more_labels == {4: (1,)} and merged.query_domains[4] == "gldv2"
    part = merged.without({merged.queries.image_id(0)})
    assert part.more_labels == {3: (1,)} and part.labels_of(3) == (0, 1)


def test_uned_escaped_rp2k_names_are_found(tmp_path):
    root = mini.uned(tmp_path)
    for folder in sorted((root / "images/rp2k/all/test").iterdir()):
        folder.rename(folder.with_name("#U996e#U6599" + folder.name[-1]))
    assert open_dataset("rp2k", tmp_path).data("retrieval", "test").queries.load(0).shape == (24, 32, 3)


def test_uned_entry_without_class_is_named(tmp_path):
    root = mini.uned(tmp_path)
    (root / "info_files/sop/test.json").write_text(json.dumps([{"path": "x.jpg"}]))
    with pytest.raises(DataError, match=r"sop/test.json: entry 0 has no path or class_id"):
        open_dataset("sop", tmp_path).data("retrieval", "test")


def test_a_digest_is_of_the_names_by_which_files_are_asked_for(tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    (place / "c").write_bytes(b"picture")
    long, short = (str(tmp_path / "a"), ["b/c"]), (str(place), ["c"])
    first = digests.of_files(*long), digests.of_files(*short)
    assert first[0] != first[1] and (digests.of_files(*short), digests.of_files(*long)) == first[::-1]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("top/x.png", b"1")
    whole, below = Archive([tmp_path / "z.zip"]), Archive([tmp_path / "z.zip"], "top/")
    assert whole.blobs(["top/x.png"]).digest != below.blobs(["x.png"]).digest
    for folder in ("validation", "test"):  # whose pictures are called validation/0000.parquet#0 and test/0000.parquet#0
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"image": [b"1"]}), tmp_path / folder / "0000.parquet")
    files = [(str(tmp_path / folder / "0000.parquet"),) for folder in ("validation", "test")]
    one, other = (RowBlobs(file, "image", (1,), np.zeros(1, int)) for file in files)
    assert one.digest != other.digest
