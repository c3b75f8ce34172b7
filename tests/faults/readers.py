"""Every reader of files from outside: a valid miniature of each kind of file, and what the product does with it."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import miniatures as mini  # noqa: E402
from files_of_others import saved, written  # noqa: E402
from readers_weights import configs, read_recipe, read_tokeniser, read_weights, tokeniser, weights  # noqa: E402
from rows import write_row  # noqa: E402

from adapters.tipsv2.recipe import shard_index  # noqa: E402
from adapters.tipsv2.recipe.shards import Shard  # noqa: E402
from benchmark.compare import noise_floor as noise  # noqa: E402
from benchmark.images.decode import decode  # noqa: E402
from benchmark.leaderboard import build  # noqa: E402
from benchmark.registry import models, open_dataset  # noqa: E402
from benchmark.rows.published import read_published  # noqa: E402
from benchmark.rows.row import read_all  # noqa: E402
from benchmark.rows.tables import write_tables  # noqa: E402
from tasks.datasets.archives import Archive  # noqa: E402
from tasks.datasets.arrays import numpy_file  # noqa: E402
from tasks.datasets.blobs import FileBlobs  # noqa: E402
from tasks.datasets.idx import read_idx  # noqa: E402
from tasks.datasets.matlab import matlab_file  # noqa: E402
from tasks.datasets.names import Names  # noqa: E402
from tasks.datasets.user import open_task  # noqa: E402
from tasks.datasets.user_maps import normals_from_rgb, read_mask, read_normals  # noqa: E402
from tasks.datasets.verify import verify  # noqa: E402

MINI = ROOT / "adapters" / "weights" / "tipsv2-mini"


@dataclass(frozen=True)
class Reader:
    """`make` fills a folder with valid files and names those that are changed; `read` reads the folder."""

    name: str
    make: Callable[[Path], Iterable[Path]]
    read: Callable[[Path], Any]


def _only(path: Path) -> FileBlobs:
    return FileBlobs(str(path.parent), Names([path.name]))


def _each(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Reads every file of a folder; what one cannot be read by does not stop the next."""
    from benchmark.errors import BenchError

    def all_of(folder: Path) -> None:
        refused: BenchError | None = None
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            try:
                read(path)
            except BenchError as e:
                refused = e
        if refused:
            raise refused

    return all_of


# ------------------------------------------------------------------------------------------------ pictures and arrays


def _pictures(folder: Path) -> list[Path]:
    from PIL import Image

    rgb = Image.fromarray(mini.picture(0, 12, 16))
    depth = Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16))
    forms = {
        "a.png": (rgb, {}), "b.jpg": (rgb, {}), "c.webp": (rgb, {}), "d.gif": (rgb.convert("P"), {}),
        "e.bmp": (rgb, {}),
        "f.tif": (rgb, {"compression": "tiff_lzw"}), "g.jpg": (rgb.convert("CMYK"), {}), "h.png": (depth, {}),
        "i.png": (rgb.convert("P"), {"transparency": 3}), "j.ppm": (rgb, {}), "k.tga": (rgb, {}), "l.ico": (rgb, {}),
    }  # fmt: skip
    kinds = {"jpg": "JPEG", "tif": "TIFF"}
    made = {}
    for name, (image, more) in forms.items():
        kind = kinds.get(name[2:], name[2:].upper())
        made[name] = saved(lambda f, i=image, k=kind, m=more: i.save(f, k, **m))  # type: ignore[misc]
    return written(folder, made)


def _read_picture(path: Path) -> None:
    decode(path, exif=True)
    decode(path.read_bytes(), background=(1, 2, 3))


def _read_map(path: Path) -> None:
    for read in (read_mask, read_normals, normals_from_rgb) if path.suffix != ".npy" else (read_mask, read_normals):
        read(_only(path), 0)


def _arrays(folder: Path) -> list[Path]:
    mask = mini.mask(0, 5, 6, 8).astype(np.uint8)
    normals = np.zeros((6, 8, 3), np.float32)
    return written(folder, {
        "m.npy": saved(lambda f: np.save(f, mask)), "n.npy": saved(lambda f: np.save(f, normals)),
        "m.npz": saved(lambda f: np.savez_compressed(f, a=mask)),
    })  # fmt: skip


def _read_array(path: Path) -> None:
    numpy_file(_only(path), 0)


def _matlab(folder: Path) -> list[Path]:
    from scipy.io import savemat

    value = {"LabelMap": mini.mask(0, 5, 6, 8), "text": "words", "cells": np.array([1, "a"], object)}
    return written(folder, {
        "a.mat": saved(lambda f: savemat(f, value)), "b.mat": saved(lambda f: savemat(f, value, do_compression=True)),
        "c.mat": saved(lambda f: savemat(f, {"x": np.eye(3)}, format="4")),
    })  # fmt: skip


def _read_matlab(path: Path) -> None:
    matlab_file(_only(path), 0)


def _idx(folder: Path) -> list[Path]:
    import gzip

    pictures = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (3, 4, 5)) + bytes(range(60))
    labels = bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + bytes(3)
    return written(folder, {"a-idx3-ubyte": pictures, "b-idx1-ubyte.gz": gzip.compress(labels)})


# ----------------------------------------------------------------------------------------------------------- archives


def _archives(folder: Path) -> list[Path]:
    def tar(f: io.BytesIO, form: int = tarfile.GNU_FORMAT) -> None:
        with tarfile.open(fileobj=f, mode="w", format=form) as out:
            for name in ("a.jpg", "a.txt", "x" * 120 + ".txt"):
                entry = tarfile.TarInfo(name)
                entry.size = 5
                out.addfile(entry, io.BytesIO(b"12345"))

    def zipped(f: io.BytesIO) -> None:
        with zipfile.ZipFile(f, "w") as out:
            out.writestr("a/b.txt", b"12345" * 9, zipfile.ZIP_DEFLATED)
            out.writestr("c.txt", b"12345")

    return written(
        folder, {"a.tar": saved(tar), "b.tar": saved(lambda f: tar(f, tarfile.PAX_FORMAT)), "c.zip": saved(zipped)}
    )


def _read_archive(path: Path) -> None:
    found = Archive([path])
    for name in found.names()[:20]:
        found.read(name)
    if path.suffix == ".tar":
        shard_index.shard_entries(Shard(str(path), path.stat().st_size, ""))


# ------------------------------------------------------------------------------------------------- official data sets

OFFICIAL: dict[str, Callable[[Path], Any]] = {
    "ade20k": mini.ade20k, "voc2012": mini.voc2012, "coco": mini.coco, "flickr30k": mini.flickr30k, "docci": mini.docci,
    "imagenet1k": mini.imagenet, "nyuv2": mini.nyu_labelled, "navi": mini.navi, "uned": mini.uned,
    "pc59": mini.pascal_context,
}  # fmt: skip


def _read_official(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for _ in verify(open_dataset(name, folder), options={}):
            pass

    return read


def _official(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        OFFICIAL[name](folder)
        return sorted(p for p in folder.rglob("*") if p.is_file())

    return make


def _hub(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = mini.save_jpeg(folder / "a.jpg", 0, 8, 8).read_bytes()
    (folder / "a.jpg").unlink()
    table = {"image": [{"bytes": picture, "path": f"{i}.jpg"} for i in range(3)], "split": ["test"] * 3}
    table["caption"] = [["one", "two"]] * 3
    (folder / "flickr30k").mkdir()
    path = folder / "flickr30k" / "test-00000-of-00001.parquet"
    pq.write_table(pa.table(table), path, row_group_size=2)
    return [path]


# ----------------------------------------------------------------------------------------------------------- own data


def _own(folder: Path) -> list[Path]:
    for i in range(4):
        mini.save_png(folder / "images" / f"{i}.png", mini.picture(i, 8, 8))
        mini.save_png(folder / "masks" / f"{i}.png", mini.mask(i, 3, 8, 8).astype(np.uint8))
    names = [f"{i}.png" for i in range(4)]
    captions = [json.dumps({"image": n, "captions": [f"a picture {n}", "another"]}) for n in names]
    return written(folder, {
        "captions.toml": 'task = "image_to_text_retrieval"\nname = "c"\nimages = "images"\n'
        'captions = "captions.jsonl"\n',
        "captions.jsonl": "\n".join(captions),
        "csv.toml": 'task = "text_to_image_retrieval"\nname = "d"\nimages = "images"\ncaptions = "captions.csv"\n',
        "captions.csv": "image,caption\n" + "".join(f'{n},"a, picture {n}"\n' for n in names),
        "labels.toml": 'task = "zero_shot_classification"\nname = "l"\nimages = "images"\nlabels = "labels.csv"\n',
        "labels.csv": "image,label\n0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog\n",
        "masks.toml": 'task = "linear_segmentation"\nname = "s"\nclasses = "classes.txt"\nimages = "images"\n'
        'masks = "masks"\nignore = [255]\nsplit = { train = "train.txt", test = 0.5 }\n',
        "classes.txt": "wall\nfloor\nsky\n", "train.txt": "0.png\n1.png\n",
    })  # fmt: skip


def _read_own(path: Path) -> None:
    if path.suffix != ".toml":
        return
    dataset = open_task(path).dataset
    for split in dataset.info.splits:
        data = dataset.data(dataset.file.kind, split)
        for i in range(min(len(data.images), 4)):
            data.images.load(i)
            if hasattr(data, "target"):
                data.target(i)


# ----------------------------------------------------------------------------------------------- rows, numbers, tables


def _rows(folder: Path) -> list[Path]:
    place = write_row(folder, "a", "depth", n=5, schema=1)
    write_row(folder, "b", "depth", n=5, schema=1)
    csv = "model,model_id,task,dataset,metric,value,source,note\na,a,depth,nyuv2,RMSE,0.4,p,n\n"
    floors = {"depth/scenes@12345678": {"m": {"floor": 0.125, "runs": {"reference": 1.0}}}}
    noted = json.dumps({"schema": 1, "floors": floors})
    return [
        place / "result.json", place / "samples.parquet",
        *written(folder, {"published.csv": csv, "noise.json": noted}),
    ]  # fmt: skip


def _read_rows(folder: Path) -> None:
    rows, _ = read_all(folder)
    for row in rows:
        row.check_against_samples()
    write_tables(folder)
    build(folder)
    noise.read(folder)
    read_published(folder)


READERS = {
    reader.name: reader
    for reader in (
        Reader("pictures", _pictures, _each(_read_picture)),
        Reader("masks and normals", _pictures, _each(_read_map)),
        Reader("numpy", _arrays, _each(_read_array)),
        Reader("numpy maps", _arrays, _each(_read_map)),
        Reader("matlab", _matlab, _each(_read_matlab)),
        Reader("idx", _idx, _each(lambda path: read_idx(str(path)))),
        Reader("archives", _archives, _each(_read_archive)),
        *(Reader(name, _official(name), _read_official(name)) for name in OFFICIAL),
        Reader("hub parquet", _hub, _read_official("flickr30k")),
        Reader("own data", _own, _each(_read_own)),
        Reader("rows and tables", _rows, _read_rows),
        Reader("weights", weights, _each(read_weights)),
        Reader("tokenisers", tokeniser, _each(read_tokeniser)),
        Reader("recipes", configs, _each(read_recipe)),
    )
}
assert models()  # the tables are read before any child is
