"""SPair-71k (Min et al. 2019): the test pairs, as PairAnnotation/test/*.json says them.

Points and boxes are in pixels of the picture as it is stored. A pair's view-point change is its `viewpoint_variation`,
0, 1 or 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import picture_size
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import Pictures
from tasks.datasets.pairs import PairSet
from tasks.datasets.places import Store, checked, find, known_options, note_size, split_error

PLACE = "PairAnnotation/test"
ARCHIVES = ("SPair-71k.tar",)
VIEWS = ("0", "1", "2")


@dataclass(frozen=True)
class Spair(Dataset):
    """The data set under `root`."""

    info: DatasetInfo
    root: Path | None

    def data(self, kind: str, split: str) -> PairSet:
        if kind not in self.info.kinds or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        store = find(self.info, self.root, PLACE, ("SPair-71k",), ARCHIVES)
        rows = [_row(store, name) for name in store.names(PLACE, (".json",))]
        names = sorted({name for row in rows for name in row["names"]})
        blobs = checked(self.info, store, names)
        _check_sizes(blobs, {name: size for row in rows for name, size in zip(row["names"], row["sizes"])})
        note_size(self.info, split, len(rows), expected(self.info.name, split))
        place = {name: i for i, name in enumerate(names)}
        return PairSet(
            Pictures(blobs),
            np.array([[place[name] for name in row["names"]] for row in rows], np.int64),
            [row["points"] for row in rows],
            [row["extent"] for row in rows],
            [row["category"] for row in rows],
            [row["view"] for row in rows],
        )


def _check_sizes(blobs: Blobs, said: Mapping[str, tuple[int, int]]) -> None:
    """Raises DataError for a picture that is not as large as its annotations say: their points would lie elsewhere."""
    for index in range(len(blobs)):
        try:
            height, width = picture_size(blobs, index)
        except DataError:
            continue  # one that cannot be read is named, or left out, when it is
        if (width, height) != (there := said[blobs.name(index)]):
            raise DataError(
                f"{blobs.where(index)}: is {width}x{height}, its annotation says {there[0]}x{there[1]}. Fetch it again"
            )


def _row(store: Store, name: str) -> dict[str, Any]:
    """What is needed of one annotation. Raises DataError where it is none."""
    try:
        row = json.loads(store.read(name))
        points = tuple(np.array(row[key], float).reshape(-1, 2) for key in ("src_kps", "trg_kps"))
        left, top, right, bottom = row["trg_bndbox"]
        extent, category = float(max(right - left, bottom - top)), str(row["category"])
        view = VIEWS[row["viewpoint_variation"]]
        sizes = [(int(row[key][0]), int(row[key][1])) for key in ("src_imsize", "trg_imsize")]
        if len(points[0]) != len(points[1]) or extent <= 0 or not all(np.isfinite(p).all() for p in points):
            raise ValueError(f"{len(points[0])} and {len(points[1])} points, a box of {extent:g} pixels")
        names = [f"JPEGImages/{category}/{row[key]}" for key in ("src_imname", "trg_imname")]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as e:
        raise DataError(f"{store.where(name)}: is no SPair pair ({type(e).__name__}: {e}). Fetch it again") from None
    return {"names": names, "sizes": sizes, "points": points, "extent": extent, "category": category, "view": view}


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Spair:
    """SPair-71k under `root`; no options."""
    known_options(info, options)
    return Spair(info, root)
