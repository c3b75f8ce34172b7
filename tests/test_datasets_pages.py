"""Single values of parquet's pages: what pyarrow reads, without the row group; damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.errors import DataError
from tasks.datasets import parquet

PAGES = {"min_chunk_size": 2048, "max_chunk_size": 8192, "norm_level": 0}  # as `datasets` 5, a hundredth of its size
PLAIN = {"use_dictionary": False, "compression": "none", "use_content_defined_chunking": PAGES}


def pictures(n: int = 60) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(int(size)) for size in rng.integers(0, 3000, n)]


def write(path: Path, values: list, how: dict) -> pa.ChunkedArray:
    table = pa.table({"label": range(len(values)), "image": values})
    pq.write_table(table, path, row_group_size=25, **{**PLAIN, **how})
    return table.column("image")


@pytest.fixture
def no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("chunked", [PAGES, False])
def test_a_picture_is_read_without_its_row_group(tmp_path, no_groups, version, struct, chunked) -> None:
    values = [{"bytes": b, "path": f"{i}.jpg"} if struct else b for i, b in enumerate(pictures())]
    path = str(tmp_path / f"{version}{struct}{bool(chunked)}.parquet")
    write(Path(path), values, {"data_page_version": version, "use_content_defined_chunking": chunked})
    for row in np.random.default_rng(1).permutation(len(values)):
        assert parquet.cell(path, "image", int(row)) == (values[row]["bytes"] if struct else values[row])


def test_a_required_column_has_no_levels(tmp_path, no_groups) -> None:
    values, path = pictures(), str(tmp_path / "required.parquet")
    schema = pa.schema([pa.field("image", pa.binary(), nullable=False)])
    pq.write_table(pa.table({"image": values}, schema=schema), path, **PLAIN)
    assert [parquet.cell(path, "image", row) for row in range(60)] == values


@pytest.mark.parametrize(
    "how",
    [{"compression": "snappy"}, {"use_dictionary": True}, {"column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
     {"write_statistics": False}, {"text": True}, {"nulls": True}],
    ids=lambda how: next(iter(how)),
)  # fmt: skip
def test_other_columns_are_read_by_pyarrow(tmp_path, how) -> None:
    values: list = ["one", "two"] * 30 if how.pop("text", False) else pictures()
    if how.pop("nulls", False):
        values[3:50:7] = [None] * 7
    path = str(tmp_path / "other.parquet")
    column = write(Path(path), values, how)
    parquet._places.cache_clear(), parquet._open.cache_clear()
    assert [parquet.cell(path, "image", row) for row in range(60)] == column.to_pylist()


def test_damaged_pages_are_named_and_no_other_picture_is_handed_out(tmp_path) -> None:
    good = tmp_path / "good.parquet"
    values = pictures()
    write(good, values, {})
    content, first = good.read_bytes(), pq.ParquetFile(good).metadata.row_group(0).column(1).data_page_offset
    back = bytes.fromhex("15021500150d00")  # an index page of -7 bytes: the next one would be itself
    length = content.index(values[40]) - 4
    for name, at, put in [("header", first, bytes(12)), ("back", first, back), ("length", length, b"\xff" * 4)]:
        bad = tmp_path / f"{name}.parquet"
        bad.write_bytes(content[:at] + put + content[at + len(put) :])
        with pytest.raises(DataError, match=rf"{name}\.parquet: row group \d: is damaged .*Fetch it again"):
            parquet.cell(str(bad), "image", 40 if name == "length" else 0)
