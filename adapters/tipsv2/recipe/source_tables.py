"""Sources in tables, through the `datasets` library: parquet files and hub data sets."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Sample
from adapters.tipsv2.recipe.source_files import sample_from
from benchmark.errors import DataError, first_line

READ = 1000  # pictures whose content counts


@dataclass
class TableSource:
    """Rows with a picture (encoded bytes, or a path) and captions."""

    rows: Any  # datasets.Dataset
    config: DataConfig

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Sample:
        row = self.rows[index]
        image = row[self.config.image]
        if isinstance(image, dict):  # the undecoded form of a hub image: bytes, or the path of a file
            image = image.get("bytes") or image.get("path")
        return sample_from(image, row, self.config, f"{self.config.path}, row {index}")

    @property
    def ids_digest(self) -> str:
        """Over names and lengths of all pictures, and the content of READ of them, spread evenly."""
        import pyarrow as pa
        import pyarrow.compute as pc

        known, column = hashlib.sha256(), self.config.image
        rows = self.rows.select_columns([column]).with_format("arrow")
        for batch in rows.iter(2**16):  # mapped from the library's own files: lengths are read, contents are not
            found = batch[column].combine_chunks()
            for part in found.flatten() if pa.types.is_struct(found.type) else [found]:
                if pa.types.is_binary(part.type) or pa.types.is_large_binary(part.type):
                    said = pc.binary_length(part).to_pylist()
                else:
                    said = [os.path.basename(str(name or "")) for name in part.to_pylist()]
                known.update(repr(said).encode("utf-8", "surrogateescape"))
        for index in np.unique(np.linspace(0, max(0, len(self) - 1), min(len(self), READ)).astype(int)).tolist():
            image = self.rows[index][column]
            content = image.get("bytes") if isinstance(image, dict) else image
            known.update(content if isinstance(content, bytes) else b"")
        return known.hexdigest()

    def held_out(self, count: int) -> list[Sample]:
        return []


def open_parquet(config: DataConfig) -> TableSource:
    """The parquet files that `data.path` (a file, folder or pattern) names."""
    path = Path(config.path)
    pattern = os.path.join(glob.escape(config.path), "*.parquet") if path.is_dir() else config.path
    files = sorted(glob.glob(pattern))  # unlike Path.glob it leaves hidden names out
    if not files:
        raise DataError(f"data.path = {config.path!r} matches no parquet file")
    return _table("parquet", config, data_files=files, split="train")


def open_hub(config: DataConfig) -> TableSource:
    """The hub data set `data.path`, "owner/name" or "owner/name:split"."""
    name, _, split = config.path.partition(":")
    return _table(name, config, split=split or "train")


def _table(name: str, config: DataConfig, **options: Any) -> TableSource:
    from datasets import Image, load_dataset

    try:
        rows = load_dataset(name, **options)
    except Exception as error:  # the library raises its own, pyarrow's, fsspec's and OS errors alike
        first = first_line(error)
        raise DataError(f"data.path = {config.path!r} cannot be read: {first}") from None
    for column in (config.image, config.alt, *config.synthetic):
        if column not in rows.column_names:
            raise DataError(
                f"{config.path}: no column {column!r}; there are {', '.join(map(repr, rows.column_names))}."
                " Set data.image, data.alt, data.synthetic"
            )
    if isinstance(rows.features[config.image], Image):
        rows = rows.cast_column(config.image, Image(decode=False))
    if config.samples:
        rows = rows.select(range(min(config.samples, len(rows))))
    return TableSource(rows, config)
