"""NAVI and NYUv2 normals beside Probe3D's own arithmetic (mbanani/probe3d a1f1464), written out here.

data_processing/resize_navi.py, evals/datasets/{navi,nyu,utils}.py, train_snorm.py and evals/utils/{losses,metrics}.py.
"""

from __future__ import annotations

import json

import cv2
import miniatures as mini
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.io import loadmat, savemat
from small import made

from benchmark.contracts import NormalsData
from benchmark.errors import DataError
from benchmark.metrics.geometry import normal_errors
from benchmark.registry import open_dataset
from tasks.training.batches import _stacked
from tasks.training.losses import normal_loss

SHAPES = [(1100, 1500), (1501, 1117), (1024, 1365), (2047, 1536)]


def solid(shape, place, radius) -> np.ndarray:
    """[H, W] uint16 codes of a ball before nothing: 655,350 / value is millimetres."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = 1 - ((y - place[0] * shape[0]) / radius[0]) ** 2 - ((x - place[1] * shape[1]) / radius[1]) ** 2
    millimetres = 500 - 120 * np.sqrt(np.maximum(inside, 0)) + 0.02 * x
    return np.where(inside > 0, 655350 / millimetres, 0).round().astype(np.uint16)


def write(tmp_path, shape, code, image_size=None, focal=1400.0) -> np.ndarray:
    """The miniature's first test picture replaced by one of `shape`; returns its pixels as a JPEG gives them back."""
    mini.navi(tmp_path)
    scene = tmp_path / "navi/navi_v1/dino/wild_set"
    mini.save_png(scene / "depth/000.png", code)
    mini.save_jpeg(scene / "images/000.jpg", 0, *shape)
    rows = json.loads((scene / "annotations.json").read_text())
    rows[0] |= {"image_size": list(image_size or shape), "camera": rows[0]["camera"] | {"focal_length": focal}}
    (scene / "annotations.json").write_text(json.dumps(rows))
    return np.asarray(Image.open(scene / "images/000.jpg"))


def original(image: np.ndarray, code: np.ndarray, image_size, focal: float):
    """(picture, depth, normals) at 512 × 512 as Probe3D's NAVI gives them to its loop."""
    height, width = code.shape
    factor = 1024 / min(width, height)
    size = int(width * factor), int(height * factor)
    picture = np.asarray(Image.fromarray(image).resize(size, 2))
    stored = np.asarray(Image.fromarray(code).resize(size, 0)).astype(np.float64)
    disparity = stored / (65535 * 10.0)
    depth = np.where(stored > 0, 1 / np.where(stored > 0, disparity, 1), 0) / 1000

    def square(values: torch.Tensor) -> torch.Tensor:  # Resize(512, NEAREST) and CenterCrop(512) of a [C, H, W] tensor
        h, w = values.shape[1:]
        to = (512, int(512 * w / h)) if h <= w else (int(512 * h / w), 512)
        values = F.interpolate(values[None], to, mode="nearest")[0]
        top, left = round((to[0] - 512) / 2.0), round((to[1] - 512) / 2.0)
        return values[:, top : top + 512, left : left + 512]

    shown = square(torch.from_numpy(picture.copy()).permute(2, 0, 1).double())
    metres = square(torch.from_numpy(depth)[None])
    focal = focal * 512 / min(image_size)
    at = (metres[0] > 0).nonzero()
    first, last = at.min(0).values, at.max(0).values
    box = last - first
    side = int(box.max())
    corner = first - (side - box) // 2
    if not ((corner >= 0).all() and (corner + side <= 512).all()):
        corner = (first - (side - box)).clip(min=0)
    part = slice(int(corner[0]), int(corner[0]) + side), slice(int(corner[1]), int(corner[1]) + side)
    shown, metres = shown[:, part[0], part[1]], metres[:, part[0], part[1]]

    far = torch.where(metres == 0, 1e6, metres)
    at = torch.linspace(0.5, side - 0.5, side, dtype=torch.float64)
    grid = torch.stack([at.view(1, -1).repeat(side, 1), at.view(-1, 1).repeat(1, side), torch.ones(side, side)])
    xyz = grid * far / torch.tensor([focal, focal, 1.0]).view(3, 1, 1)
    middle = xyz[:, 1:-1, 1:-1]
    left, top = xyz[:, 1:-1, :-2] - middle, xyz[:, :-2, 1:-1] - middle
    right, bottom = xyz[:, 1:-1, 2:] - middle, xyz[:, 2:, 1:-1] - middle
    normal = torch.zeros_like(xyz)
    pairs = ((left, top), (top, right), (right, bottom), (bottom, left))
    normal[:, 1:-1, 1:-1] = sum(torch.linalg.cross(a, b, dim=0) for a, b in pairs) / 4
    normal = F.normalize(normal, p=2, dim=0) * (metres > 0)

    def enlarged(values: torch.Tensor) -> np.ndarray:  # albumentations' Resize(512, 512, interpolation=0)
        found: np.ndarray = cv2.resize(values.permute(1, 2, 0).numpy(), (512, 512), interpolation=cv2.INTER_NEAREST)
        return found

    return enlarged(shown), enlarged(metres), enlarged(normal)


def original_rmse(guess: np.ndarray, target: np.ndarray, depth: np.ndarray) -> float:
    """One picture's, degrees: metrics.py's evaluate_surface_norm with the mask of train_snorm.py's validate."""
    cosine = torch.cosine_similarity(torch.from_numpy(guess), torch.from_numpy(target), dim=-1).clamp(-1, 1)
    error, valid = cosine.acos() * 180 / torch.pi, torch.from_numpy(depth) > 0
    return float(((error * valid) ** 2).sum().div(valid.sum()).sqrt())


def original_loss(guess: torch.Tensor, target: np.ndarray, depth: np.ndarray) -> torch.Tensor:
    """losses.py's uncertainty-aware angular_loss of [1, 4, H, W]."""
    cosine = torch.cosine_similarity(guess[:, :3], torch.from_numpy(target).permute(2, 0, 1)[None], dim=1)
    angle = cosine.clamp(-1 + 1e-4, 1 - 1e-4).acos()
    kappa = F.elu(guess[:, 3]) + 1.01
    loss = (1 + (-kappa * torch.pi).exp()).log() - (kappa**2 + 1).log() + kappa * angle
    return loss[torch.from_numpy(depth)[None] > 0].mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("place", "radius"), [((0.5, 0.5), (300, 200)), ((0.52, 0.22), (160, 420)), ((0.8, 0.5), (500, 120))]
)
def test_navi_gives_probe3ds_pictures_depths_normals_and_errors(tmp_path, shape, place, radius):
    code = solid(shape, place, radius)
    image = write(tmp_path, shape, code)
    picture, depth, normal = original(image, code, shape, 1400.0)
    options = {"normals": "probe3d", "valid": "depth"}
    data = open_dataset("navi", tmp_path, options).data("normals", "test")
    found, target = data.counted(0), data.target(0)
    np.testing.assert_array_equal(data.images.load(0), picture.astype(np.uint8))
    ours = open_dataset("navi", tmp_path).data("depth", "test").target(0)
    np.testing.assert_allclose(ours, depth, rtol=1e-6)
    counts = np.isfinite(found).all(-1)
    np.testing.assert_array_equal(counts, depth > 0)
    np.testing.assert_allclose(found[counts], -normal[counts], atol=1e-4)  # facing the camera, not away from it
    assert (target[~counts] == 0).all() and (normal[counts] == 0).all(-1).any(), "the border has none, and counts"

    rng = np.random.default_rng(0)
    guess = rng.normal(size=(512, 512, 3)) + 3 * target
    row = normal_errors(guess, data.counted(0), zeros_count=True)
    assert row["angular_rmse"] == pytest.approx(original_rmse(guess, -normal, depth), abs=1e-3)
    assert row["angular_rmse"] > normal_errors(guess, target)["angular_rmse"], "without the border all are better"

    output = torch.from_numpy(rng.normal(size=(1, 4, 512, 512))).requires_grad_()
    theirs = original_loss(output, -normal, depth)
    (gradient,) = torch.autograd.grad(theirs, output)
    _, targets = _stacked([(np.zeros((512, 512, 3), np.float32), found)])
    mine = normal_loss(output, targets.double(), "uncertainty")
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    np.testing.assert_allclose(torch.autograd.grad(mine, output)[0], gradient, atol=5e-7)


def test_navis_focal_length_belongs_to_the_annotated_size(tmp_path):
    """Scaled to a third, targets are those of Probe3D, which reads image_size, and are not turned by 20°."""
    full, shape = (3072, 4096), (1024, 1365)
    code = solid(shape, (0.5, 0.5), (280, 260))
    image = write(tmp_path, shape, code, full, focal=3200.0)
    _, depth, normal = original(image, code, full, 3200.0)
    found = open_dataset("navi", tmp_path, {"normals": "probe3d", "valid": "depth"}).data("normals", "test").counted(0)
    np.testing.assert_allclose(found[depth > 0], -normal[depth > 0], atol=1e-4)
    camera = open_dataset("navi", tmp_path).data("normals", "test").target(0)
    write(tmp_path / "own", shape, code, shape, focal=3200.0 / 3)
    np.testing.assert_array_equal(camera, open_dataset("navi", tmp_path / "own").data("normals", "test").target(0))


def test_navi_of_another_aspect_than_annotated_is_refused(tmp_path):
    code = solid((300, 400), (0.5, 0.5), (80, 90))
    for number, size in enumerate([(3024, 3024), (4032, 3024), (300, 410)]):
        write(tmp_path / str(number), (300, 400), code, size)
        data = open_dataset("navi", tmp_path / str(number)).data("normals", "test")
        with pytest.raises(DataError, match=rf"000.jpg: is 400x300, its annotation says {size[1]}x{size[0]}, another"):
            data.target(0)
    write(tmp_path / "rounded", (300, 400), code, (3024, 4030))  # int() of a scaled side is no other aspect
    assert open_dataset("navi", tmp_path / "rounded").data("normals", "test").target(0).any()


def test_navi_is_read_under_the_names_that_probe3ds_script_gives(tmp_path):
    mini.navi(tmp_path)
    plain = open_dataset("navi", tmp_path).data("normals", "test")
    want = [(plain.images.load(i), plain.target(i)) for i in range(2)]
    for kind in ("images", "depth"):
        for file in (tmp_path / "navi/navi_v1").glob(f"*/*/{kind}/*"):
            file.rename(file.with_name(f"downsampled_{file.name}"))
    data = open_dataset("navi", tmp_path).data("normals", "test")
    for i, (picture, target) in enumerate(want):
        np.testing.assert_array_equal(data.images.load(i), picture)
        np.testing.assert_array_equal(data.target(i), target)


def nyu(tmp_path):
    """The miniature with vectors that are zero, short, and long under every kind of depth."""
    root = mini.nyu_labelled(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(24, 32, 3)) * np.logspace(-6, 2, 32)[None, :, None]
    vectors[:, ::5] = 0
    depth = np.tile(np.linspace(-1, 14, 24)[:, None], (1, 32))
    for file in (root / "nyu_geonet").glob("*.mat"):
        savemat(file, {k: v for k, v in loadmat(file).items() if k[0] != "_"} | {"norm": vectors, "depth": depth})
    every = np.load(root / "surfacenormal_metadata/all_normals.npy")
    every[:] = vectors
    np.save(root / "surfacenormal_metadata/all_normals.npy", every)
    return vectors


@pytest.mark.parametrize("split", ["train", "test"])
def test_nyu_normals_count_where_the_depth_does(tmp_path, split):
    vectors = nyu(tmp_path)
    data = open_dataset("nyuv2", tmp_path, {"valid": "depth"}).data("normals", split)
    depth = data._read(0)[1]
    valid = (depth > 0) & (depth <= 10)
    assert 0 < valid.mean() < 1
    guess = np.random.default_rng(1).normal(size=(24, 32, 3))
    row = normal_errors(guess, data.counted(0), zeros_count=True)
    theirs = original_rmse(guess, vectors, np.where(valid, depth, 0))
    assert row["n"] == valid.sum() and row["angular_rmse"] == pytest.approx(theirs, abs=0.02)
    other = open_dataset("nyuv2", tmp_path).data("normals", split)
    has = (vectors != 0).any(-1)
    np.testing.assert_array_equal((other.target(0) != 0).any(-1), valid & has)
    np.testing.assert_array_equal(np.isfinite(other.counted(0)).all(-1), valid & has)
    assert other.digest != data.digest and other.images.digest == data.images.digest


def test_geonets_pictures_are_cut_off_in_the_precision_they_are_stored_in(tmp_path):
    root = mini.nyu_labelled(tmp_path)
    mean = (122.175, 116.169, 103.508)
    levels = np.tile(np.arange(256.0)[:, None, None], (1, 2, 3))
    for kind in (np.float64, np.float32):
        stored = (levels - 2 * np.array(mean)).astype(kind)
        theirs = stored.copy()
        for c in range(3):
            theirs[:, :, c] = theirs[:, :, c] + 2 * mean[c]
        for file in (root / "nyu_geonet").glob("*.mat"):
            savemat(file, {k: v for k, v in loadmat(file).items() if k[0] != "_"} | {"img": stored})
        found = open_dataset("nyuv2", tmp_path).data("normals", "train").images.load(0)
        np.testing.assert_array_equal(found, theirs.astype(np.uint8))


def test_a_part_of_the_data_counts_the_same_pixels(tmp_path):
    nyu(tmp_path)
    data = open_dataset("nyuv2", tmp_path, {"valid": "depth"}).data("normals", "train")
    part = data.limited(1)
    np.testing.assert_array_equal(part.counted(0), data.counted(part.rows[0]))
    plain = made(NormalsData, target=lambda index: np.zeros((2, 2, 3), np.float32))
    assert np.isnan(plain.counted(0)).all()
