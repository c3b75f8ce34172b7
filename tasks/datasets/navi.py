"""NAVI v1: one scanned object per picture, with depth; normals are derived from the depth.

Train is the multiview collections, test the wild sets, every fourth picture of each list sorted by name; objects
without both are left out (Probe3D's protocol; it lists folders unsorted, so the exact pictures differ by run there).
Depth PNGs hold inverse depth, scaled: 655,350 / value is millimetres, 0 is background. A picture is brought to
512 px on the short side by nearest neighbour and centre-cropped, then cropped to a square around the object and
brought to `size` (option, 512); `crop=none` stops before that. `depth=relative` scales each picture's depth to
[0.01, 1]. Normals are taken before anything is enlarged. `normals=camera` uses the ray of every pixel and gives the
silhouette none; `normals=probe3d` is Probe3D's target: the optical axis lies at the crop's first corner, a missing
neighbour is a million metres away, and only the crop's border has none. `valid=normal` counts the pixels that have a
normal, `valid=depth` all of the object, as Probe3D does. `focal_length` belongs to the annotation's `image_size`;
pictures may have been scaled down since, in place or beside (Probe3D's `downsampled_NNN.jpg`). `pairs=multiview` makes
pairs within the multiview collections instead of the wild sets (`navi_pairs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo, DepthData, ImageSet, NormalsData
from benchmark.data.hidden import is_hidden
from benchmark.errors import DataError, UsageError
from benchmark.images.decode import decode
from benchmark.system.digest import fingerprint
from tasks.datasets.archives import Archive
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import Blobs, named
from tasks.datasets.catalog import expected
from tasks.datasets.digests import edges_of
from tasks.datasets.navi_geometry import FILTER, Framing
from tasks.datasets.navi_pairs import EDGES, NaviPairs, choose, pose
from tasks.datasets.places import (
    Folder,
    Store,
    bases,
    checked,
    known_options,
    not_found,
    note_size,
    option,
    split_error,
)

MILLIMETRES = 65535 * 10.0  # inverse-depth code of NAVI's own reader: depth = 65535 · 10 / value
STEP = 4
FOLDERS = ("navi_v1", "navi_v1.0", "navi_v1.5", "")
ARCHIVE = "navi_v1*.tar"
MARKER = "wild_set/annotations.json"
SMALL = "downsampled_"  # what Probe3D's resize_navi.py puts before the names of the files it makes


@dataclass(frozen=True)
class Camera:
    """What an annotation says of the picture as it was published."""

    focal_length: float  # pixels of
    height: int
    width: int

    def focal(self, shape: tuple[int, ...], where: str) -> float:
        """Focal length in pixels of a file of `shape` (height, width). Raises DataError when it shows another part."""
        height, width = shape
        if abs(height * self.width - width * self.height) > self.height + self.width:  # more than rounding to pixels
            raise DataError(
                f"{where}: is {width}x{height}, its annotation says {self.width}x{self.height}, another aspect, so its "
                "focal length is not known. Scale both sides alike, or fetch the picture again"
            )
        return self.focal_length * min(shape) / min(self.height, self.width)


@dataclass(frozen=True)
class NaviImages(ImageSet):
    """Pictures framed around their object."""

    pictures: Blobs
    depths: Blobs
    framing: Framing

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def digest(self) -> str:
        files = self.pictures.digest, self.depths.digest
        return fingerprint({"navi": files, "framing": self.framing, "filter": FILTER, "rule": 2})

    def image_id(self, index: int) -> str:
        return self.pictures.name(index)

    def load(self, index: int) -> np.ndarray:
        image = decode(named(self.pictures, index), exif=True)
        frame = self.framing.frame(self.raw_depth(index))
        return frame.picture(image, self.pictures.where(index))

    def file_edges(self) -> list[str]:
        """[N] digests by which equal files are found (`digests.edges_of`)."""
        return edges_of(self.pictures)

    def file_digest(self, index: int) -> str:
        return hashlib.sha256(self.pictures.read(index)).hexdigest()

    def raw_depth(self, index: int) -> np.ndarray:
        """[H, W] float32 metres as stored; 0 off the object."""
        code = index_image(self.depths, index).astype(np.float32)
        return np.where(code > 0, np.float32(MILLIMETRES / 1000) / np.maximum(code, 1), 0).astype(np.float32)


class Things:
    """What both kinds of NAVI data say of their pictures."""

    def thing_of(self, image_id: str) -> str:
        """The object on a picture: there are 36, and hundreds of pictures."""
        return image_id.split("/", 1)[0]


@dataclass(frozen=True)
class NaviDepth(Things, DepthData):
    """Depth in metres, or relative per picture."""

    images: NaviImages
    relative: bool = False

    @cached_property
    def digest(self) -> str:
        return fingerprint({"navi-depth": self.images.digest, "relative": self.relative})

    def target(self, index: int) -> np.ndarray:
        raw = self.images.raw_depth(index)
        frame = self.images.framing.frame(raw)
        depth = frame.map(raw)
        if not self.relative or not (depth > 0).any():
            return depth
        low, high = frame.nearest_of_all(raw), depth.max()  # of the whole and of what is shown, as in Probe3D
        scaled = (depth - low) / max(0.01, high - low) * 0.99 + 0.01
        return np.where(depth > 0, scaled, 0).astype(np.float32)


@dataclass(frozen=True)
class NaviNormals(Things, NormalsData):
    """Normals from the depth and the camera's focal length."""

    images: NaviImages
    cameras: tuple[Camera, ...]
    probe3d: bool
    by_depth: bool = False  # every pixel of the object counts

    @cached_property
    def digest(self) -> str:
        kind = "probe3d" if self.probe3d else "camera"
        valid = "depth" if self.by_depth else "normal"
        return fingerprint({"navi-normals": self.images.digest, "cameras": self.cameras, "kind": kind, "valid": valid})

    def target(self, index: int) -> np.ndarray:
        return self._target(index)[0]

    def counted(self, index: int) -> np.ndarray:
        """As `target`, NaN where nothing counts: a zero vector that is left counts."""
        normals, depth = self._target(index)
        normals[depth == 0 if self.by_depth else (normals == 0).all(-1)] = np.nan
        return normals

    def _target(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        raw = self.images.raw_depth(index)
        frame = self.images.framing.frame(raw)
        focal = self.cameras[index].focal(raw.shape, self.images.pictures.where(index))
        return (frame.probe3d_normals if self.probe3d else frame.normals)(raw, focal), frame.map(raw)


@dataclass(frozen=True)
class Navi(Dataset):
    """The dataset under `root`."""

    info: DatasetInfo
    root: Path | None
    framing: Framing
    relative: bool
    probe3d: bool
    by_depth: bool
    multiview: bool = False

    def data(self, kind: str, split: str) -> Any:
        if kind not in self.info.kinds or split not in self.info.splits or (kind, split) == ("correspondence", "train"):
            raise split_error(self.info, kind, split)
        store = self._store()
        if kind == "correspondence":
            return self._pairs(store)
        chosen = _pictures(self.info, store, split)[::STEP]
        images = NaviImages(
            checked(self.info, store, [p for p, *_ in chosen]),
            checked(self.info, store, [_depth_name(p) for p, *_ in chosen]),
            self.framing,
        )
        note_size(self.info, split, len(images), expected(self.info.name, split))
        if kind == "depth":
            return NaviDepth(images, self.relative)
        return NaviNormals(images, tuple(camera for _, camera, _ in chosen), self.probe3d, self.by_depth)

    def _pairs(self, store: Store) -> NaviPairs:
        every = _pictures(self.info, store, split := "train" if self.multiview else "test")
        poses = np.stack([pose(said, store.where(picture)) for picture, _, said in every])
        found = choose([picture.rsplit("/images/", 1)[0] for picture, *_ in every], poses, STEP)
        if not found:
            raise DataError(
                f"{store.where('')}: no two views of an object are up to {EDGES[-1]}° apart. Fetch them again"
            )
        note_size(self.info, split, len(found), expected(self.info.name, split))
        used = sorted({i for one, other, _ in found for i in (one, other)})
        place = {i: k for k, i in enumerate(used)}
        images = NaviImages(
            checked(self.info, store, [every[i][0] for i in used]),
            checked(self.info, store, [_depth_name(every[i][0]) for i in used]),
            self.framing,
        )
        pairs = np.array([[place[one], place[other]] for one, other, _ in found], np.int64).reshape(-1, 2)
        angles = [angle for *_, angle in found]
        return NaviPairs(images, [every[i][1] for i in used], poses[used], pairs, angles)

    def _store(self) -> Store:
        """The folder that holds the objects: v1's tar calls it navi_v1 or navi_v1.0, and users rename it."""
        for base in bases(self.info, self.root):
            for folder in FOLDERS:
                if next((base / folder).glob(f"*/{MARKER}"), None):
                    return Folder(base / folder)
            if archives := sorted(p for p in base.glob(ARCHIVE) if not is_hidden(p.name)):
                archive = Archive(archives[:1])
                marked = next((n for n in archive.names("", ("annotations.json",)) if n.endswith(MARKER)), None)
                if marked is not None:
                    depth = marked.count("/") - MARKER.count("/") - 1
                    return Archive(archives[:1], "".join(p + "/" for p in marked.split("/")[:depth]))
        raise not_found(self.info, self.root, f"navi_v1/<object>/{MARKER}", (ARCHIVE,))


def _depth_name(picture: str) -> str:
    folder, name = picture.rsplit("/images/", 1)
    return f"{folder}/depth/{name.rsplit('.', 1)[0]}.png"


def _pictures(info: DatasetInfo, store: Store, split: str) -> list[tuple[str, Camera, Any]]:
    """(picture, camera, what its annotation says of it), sorted, of the objects that have both kinds of collection."""
    lists = [n for n in store.names("", ("annotations.json",)) if n.count("/") == 2]
    scenes: dict[str, list[str]] = {}
    for name in lists:
        folder = name.rsplit("/", 1)[0]
        scenes.setdefault(folder.rsplit("/", 1)[0], []).append(folder)
    found = []
    for obj in sorted(scenes):
        wild = [s for s in scenes[obj] if s.endswith("/wild_set")]
        multiview = sorted(s for s in scenes[obj] if s.rsplit("/", 1)[1].startswith("multiview"))
        if wild and multiview:
            for scene in multiview if split == "train" else wild:
                found += _annotated(store, scene)
    if not found:
        raise DataError(f"{info.name}: no object with wild_set and multiview pictures in {store.where('')}")
    return found


def _annotated(store: Store, scene: str) -> list[tuple[str, Camera, Any]]:
    where = store.where(f"{scene}/annotations.json")
    try:
        rows = json.loads(store.read(f"{scene}/annotations.json"))
        said = [(str(row["filename"]), _camera(row), row["camera"]) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        raise DataError(f"{where}: is no NAVI annotation file ({type(e).__name__}: {e}). Fetch it again") from None
    before = f"{scene}/images/"
    if said and not store.has(before + said[0][0]) and store.has(f"{before}{SMALL}{said[0][0]}"):
        before += SMALL
    return sorted(((before + name, camera, of) for name, camera, of in said), key=lambda row: row[0])


def _camera(row: Any) -> Camera:
    height, width = (int(n) for n in row["image_size"])
    camera = Camera(float(row["camera"]["focal_length"]), height, width)
    if min(camera.focal_length, height, width) <= 0:
        raise ValueError(f"{row['filename']} has image_size {height}x{width}, focal_length {camera.focal_length}")
    return camera


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Navi:
    """NAVI under `root`.

    Options: size = 512, crop = object | none, depth = metric | relative, normals = camera | probe3d,
    valid = normal | depth, pairs = wild | multiview.
    """
    known_options(info, options, "size", "crop", "depth", "normals", "valid", "pairs")
    size = options.get("size", "512")
    if not size.isdigit() or not 32 <= int(size) <= 4096:
        raise UsageError(f"{info.name}: size = {size!r} must be a number of pixels from 32 to 4096")
    framing = Framing(int(size), option(info, options, "crop", ("object", "none")) == "object")
    relative = option(info, options, "depth", ("metric", "relative")) == "relative"
    probe3d = option(info, options, "normals", ("camera", "probe3d")) == "probe3d"
    by_depth = option(info, options, "valid", ("normal", "depth")) == "depth"
    multiview = option(info, options, "pairs", ("wild", "multiview")) == "multiview"
    return Navi(info, root, framing, relative, probe3d, by_depth, multiview)
