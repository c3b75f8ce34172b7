"""The class of each picture of a flat ImageNet validation folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.contracts import DatasetInfo
from benchmark.errors import DataError, reading
from tasks.datasets.matlab import variables

CSV_PLACES = ("LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv")
DEVKIT = ("", "data", "ILSVRC2012_devkit_t12/data")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def validation_synsets(info: DatasetInfo, places: Sequence[Path]) -> dict[str, str]:
    """Picture stem -> synset. Raises DataError naming the files that would tell."""
    for base in places:
        for name in CSV_PLACES:
            if (base / name).is_file():
                return _from_csv(base / name)
        for folder in DEVKIT:
            if (base / folder / TRUTH).is_file() and (base / folder / META).is_file():
                return _from_devkit(base / folder)
    raise DataError(
        f"{info.name}: the validation pictures are in one folder and nothing tells their classes. "
        f"Put LOC_val_solution.csv, or the devkit's {TRUTH} and {META}, into {places[0]}"
    )


def _from_csv(path: Path) -> dict[str, str]:
    """Kaggle's table: ImageId, PredictionString ("n01440764 x y x y …")."""
    with reading(path, "is no table of classes", "Fetch it again"), open(path, encoding="utf-8", newline="") as f:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(f)}


def _from_devkit(folder: Path) -> dict[str, str]:
    """The devkit: line i is the ILSVRC2012_ID of ILSVRC2012_val_{i:08d}; `meta.mat` names the ids."""
    with reading(folder / META, "names no synsets", "Fetch the devkit again"):
        synsets: Any = variables((folder / META).read_bytes(), squeeze=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    with reading(folder / TRUTH, "gives no classes", "Fetch the devkit again"):
        numbers = [int(n) for n in (folder / TRUTH).read_text().split()]
        return {f"ILSVRC2012_val_{i:08d}": names[n] for i, n in enumerate(numbers, 1)}
