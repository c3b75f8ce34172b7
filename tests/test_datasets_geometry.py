"""Readers of depth and normals, each on a miniature in the official layout."""

from __future__ import annotations

import json
import pickle
import tarfile

import miniatures as mini
import numpy as np
import pytest
from PIL import Image

from benchmark.errors import DataError
from benchmark.registry import open_dataset
from tasks.datasets.navi_geometry import Framing, corners, normals_of


def test_nyu_depth_is_metres_and_holes_stay_zero(tmp_path):
    mini.nyu_bts(tmp_path)
    dataset = open_dataset("nyuv2", tmp_path)
    assert len(dataset.data("depth", "train").images) == 3
    data = dataset.data("depth", "test")
    target = data.target(0)
    assert target.dtype == np.float32 and (target[:3] == 0).all() and target[3:].min() > 1.5
    assert target.max() == np.float32(9.99) and data.images.load(0).shape == (24, 32, 3)


def test_nyu_eight_bit_depth_is_refused(tmp_path):
    root = mini.nyu_bts(tmp_path)
    mini.save_png(root / "official_splits/test/kitchen/sync_depth_00001.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(DataError, match=r"sync_depth_00001.png: is an 8-bit PNG"):
        open_dataset("nyuv2", tmp_path).data("depth", "test").target(1)


def test_nyu_labelled_mat_is_turned_upright_and_counted_from_one(tmp_path):
    mini.nyu_labelled(tmp_path)
    dataset = open_dataset("nyuv2", tmp_path, {"source": "labelled"})
    assert dataset.data("depth", "train").max_depth == 10.0, "the sensor's, as from the BTS files"
    train, test = dataset.data("depth", "train"), dataset.data("depth", "test")
    assert [train.images.image_id(i)[-4:] for i in range(3)] == ["0002", "0003", "0004"] and len(test.images) == 2
    assert (test.images.load(1) == mini.picture(1)).all() and (train.target(0) == 3.0).all()
    assert train.digest != test.digest and pickle.loads(pickle.dumps(test)).target(0).shape == (24, 32)


def test_nyu_normals_are_unit_vectors_and_invalid_where_depth_is(tmp_path):
    mini.nyu_labelled(tmp_path)
    dataset = open_dataset("nyuv2", tmp_path)
    test, train = dataset.data("normals", "test"), dataset.data("normals", "train")
    assert (test.target(0)[:2] == 0).all() and (test.target(0)[2:] == [0, 0, -1]).all()
    assert (train.target(0)[:2] == 0).all() and (train.target(0)[2:] == [0, -1, 0]).all()
    assert np.abs(train.images.load(1).astype(int) - mini.picture(1)).max() <= 1
    assert test.target(0).dtype == train.target(0).dtype == np.float32


def test_nyu_object_array_of_normals_is_refused(tmp_path):
    root = mini.nyu_labelled(tmp_path)
    np.save(root / "surfacenormal_metadata/all_normals.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="all_normals.npy: is no plain numpy array"):
        open_dataset("nyuv2", tmp_path).data("normals", "test")


def test_navi_takes_every_fourth_picture_of_objects_with_both_collections(tmp_path):
    mini.navi(tmp_path)
    dataset = open_dataset("navi", tmp_path, {"size": "64"})
    train, test = dataset.data("depth", "train"), dataset.data("depth", "test")
    assert [train.images.image_id(i) for i in range(2)] == [
        "dino/multiview_00_pixel_5/images/000.jpg",
        "dino/multiview_00_pixel_5/images/004.jpg",
    ]
    assert len(test.images) == 2 and all("wild_set" in test.images.image_id(i) for i in range(2))


def test_navi_frames_the_object_and_depth_is_metres(tmp_path):
    mini.navi(tmp_path)
    data = open_dataset("navi", tmp_path, {"size": "64"}).data("depth", "test")
    depth = data.target(0)
    assert depth.shape == (64, 64) == data.images.load(0).shape[:2]
    assert np.allclose(depth[depth > 0], 0.5, atol=3e-4) and 0.6 < (depth > 0).mean() < 0.75
    whole = open_dataset("navi", tmp_path, {"size": "64", "crop": "none"}).data("depth", "test")
    assert (whole.target(0) > 0).mean() < 0.25 and whole.images.digest != data.images.digest
    relative = open_dataset("navi", tmp_path, {"depth": "relative", "size": "64"}).data("depth", "test").target(0)
    assert relative.max() <= 1 and (relative > 0).sum() == (depth > 0).sum()


def test_navi_pictures_are_first_brought_to_1024_pixels_bilinearly_as_probe3d_does():
    """Its resize_navi.py names Pillow's filter by number, 2, and calls it bicubic; 2 is bilinear."""
    picture = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    shown = Framing(512, around_object=False).frame(np.ones((1200, 1600), np.float32)).picture(picture, "p")
    small = np.asarray(Image.fromarray(picture).resize((1365, 1024), 2))
    assert Image.Resampling(2) is Image.Resampling.BILINEAR
    np.testing.assert_array_equal(shown, small[::2, corners(1365, 682)[85:597]])


def test_navi_normals_of_a_flat_patch_face_the_camera(tmp_path):
    mini.navi(tmp_path)
    normals = open_dataset("navi", tmp_path, {"size": "64"}).data("normals", "test").target(0)
    valid = (normals != 0).any(-1)
    assert valid.mean() > 0.5 and np.allclose(normals[valid], [0, 0, -1], atol=1e-4)


def test_navi_normals_follow_a_slanted_plane():
    normal = np.array([0.3, -0.2, -0.9]) / np.linalg.norm([0.3, -0.2, -0.9])
    x, y = (np.arange(40) + 0.5 - 18) / 50, (np.arange(30) + 0.5 - 16) / 50
    depth = -1.0 / (normal[0] * x[None] + normal[1] * y[:, None] + normal[2])
    found = normals_of(depth.astype(np.float32), x, y)
    assert np.allclose(found[1:-1, 1:-1], normal, atol=1e-3) and (found[0] == 0).all()


@pytest.mark.parametrize("shape", [(300, 400), (1500, 1100)])
def test_navi_normals_of_a_small_slanted_object_are_no_staircase(tmp_path, shape):
    """An object of a third of the frame is enlarged three times; its normals must be those of the plane it is on."""
    mini.navi(tmp_path)
    height, width = shape
    normal = np.array([0.6, 0.4, -0.7]) / np.linalg.norm([0.6, 0.4, -0.7])
    focal = 1.2 * width
    x, y = (np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal
    depth = -0.2 / (normal[0] * x[None] + normal[1] * y[:, None] + normal[2])
    code = np.zeros(shape, np.uint16)
    inside = slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)
    code[inside] = np.round(655.35 / depth[inside])
    scene = tmp_path / "navi/navi_v1/dino/wild_set"
    mini.save_png(scene / "depth/000.png", code)
    mini.save_jpeg(scene / "images/000.jpg", 0, height, width)
    rows = json.loads((scene / "annotations.json").read_text())
    rows[0] |= {"image_size": list(shape), "camera": rows[0]["camera"] | {"focal_length": focal}}
    (scene / "annotations.json").write_text(json.dumps(rows))
    found = open_dataset("navi", tmp_path, {"size": "224"}).data("normals", "test").target(0)
    known = (found != 0).any(-1)
    angles = np.degrees(np.arccos(np.clip(found[known] @ normal, -1, 1)))
    # What is left comes from the depth codes, which are whole numbers.
    assert known.mean() > 0.6 and np.sqrt((angles**2).mean()) < 4


def test_navi_normals_of_probe3d_are_seen_from_the_crops_corner(tmp_path):
    """The plane's slope without a principal point, by Probe3D's formula on four neighbours; silhouettes count."""
    mini.navi(tmp_path)
    data = open_dataset("navi", tmp_path, {"size": "64", "normals": "probe3d"}).data("normals", "test")
    camera = open_dataset("navi", tmp_path, {"size": "64"}).data("normals", "test")
    frame = data.images.framing.frame(data.images.raw_depth(0))
    found, shown = data.target(0), frame.map(data.images.raw_depth(0)) > 0
    assert data.digest != camera.digest
    known, inner = (found != 0).any(-1), (camera.target(0) != 0).any(-1)
    assert (
        (known <= shown).all()
        and known.sum() > inner.sum()
        and np.allclose(found[inner & known], [0, 0, -1], atol=1e-4)
    )
    # A pixel on the left edge of the object has no left neighbour: that one is 1e6 m away along its own ray.
    grid = frame._grid(data.images.raw_depth(0))
    top, left, side = frame.square
    part = grid[top : top + side, left : left + side].astype(np.float64)
    row = side // 2
    column = int(np.flatnonzero(part[row])[0])
    assert column > 0  # the patch is higher than wide
    focal = data.cameras[0].focal_length * len(frame.rows) / min(frame.shape)

    def point(r, c):
        return np.array([(c + 0.5) / focal, (r + 0.5) / focal, 1]) * (part[r, c] or 1e6)

    around = [point(row, column - 1), point(row - 1, column), point(row, column + 1), point(row + 1, column)]
    steps = [p - point(row, column) for p in around]
    total = sum(np.cross(steps[i], steps[(i + 1) % 4]) for i in range(4))
    every = corners(side, 64)
    at = int(np.flatnonzero(every == row)[0]), int(np.flatnonzero(every == column)[0])
    assert np.allclose(found[at], -total / np.linalg.norm(total), atol=1e-4)


def test_navi_tar_gives_the_same_set(tmp_path):
    mini.navi(tmp_path / "folder")
    (tmp_path / "tar/navi").mkdir(parents=True)
    with tarfile.open(tmp_path / "tar/navi/navi_v1.0.tar", "w") as archive:
        archive.add(tmp_path / "folder/navi/navi_v1", "navi_v1")
    plain = open_dataset("navi", tmp_path / "folder").data("normals", "train")
    packed = open_dataset("navi", tmp_path / "tar").data("normals", "train")
    assert plain.digest == packed.digest and (plain.target(0) == packed.target(0)).all()


# ------------------------------------------------------------------------------------------ retrieval
