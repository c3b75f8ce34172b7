"""Single values of a parquet column without the rest of its row group.

`datasets` 5 writes row groups of 100 MB, whose pictures lie there as they are: neither compressed nor in a dictionary.
pyarrow reads whole groups or goes through them from the start, so the places are found here, once for each group: the
headers of its pages (Thrift's compact protocol) and the lengths before its values (PLAIN), as the format says:
github.com/apache/parquet-format, parquet.thrift and Encodings.md.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq

HEADER = 1 << 16  # bytes read for a page's header; one has 30, and up to four statistics of 4 KB
DATA, DATA_V2 = 0, 3  # PageType; others hold no values
PLAIN = 0  # Encoding
LEVELS_V2 = (5, 6)  # bytes of definition and repetition levels in a DataPageHeaderV2


def place(file: pq.ParquetFile, path: str, group: int, column: str) -> Places | None:
    """Where the values of `column` (of an image struct: its bytes) lie in a row group; None where pyarrow must read it:
    compressed, in a dictionary, with nulls or lists. Raises ValueError for damaged pages."""
    chunks = file.metadata.row_group(group)
    for number in range(chunks.num_columns):
        chunk, schema = chunks.column(number), file.schema.column(number)
        if chunk.path_in_schema in (column, f"{column}.bytes") and chunk.physical_type == "BYTE_ARRAY":
            plain = chunk.compression == "UNCOMPRESSED" and {*chunk.encodings} <= {"PLAIN", "RLE", "BIT_PACKED"}
            full = chunk.statistics is not None and chunk.statistics.null_count == 0
            if plain and full and not schema.max_repetition_level and chunks.num_rows == chunk.num_values:
                text = file.schema_arrow.field(column).type in ("string", "large_string")
                return None if text else Places(path, chunk, bool(schema.max_definition_level))
    return None


class Places:
    """The values of one column of one row group, read by their place."""

    def __init__(self, path: str, chunk: Any, levels: bool) -> None:
        self.path = path
        self.end = chunk.data_page_offset + chunk.total_compressed_size
        starts = []
        at, left = chunk.data_page_offset, chunk.num_values
        with open(path, "rb", buffering=0) as file:
            while left > 0:
                header, body = _struct(_read(file, at, min(HEADER, self.end - at)), 0)
                body += at
                if header[3] < 0:
                    raise ValueError("a page ends before it begins")
                at = body + header[3]
                if header[1] in (DATA, DATA_V2):
                    about = header[5 if header[1] == DATA else 8]
                    if about[2 if header[1] == DATA else 4] != PLAIN:
                        raise ValueError("a page is not PLAIN, as the column says")
                    if header[1] == DATA_V2:
                        body += sum(about[field] for field in LEVELS_V2)
                    elif levels:
                        body += 4 + self._length(file, body)
                    for _ in range(about[1]):
                        starts.append(body)
                        body += 4 + self._length(file, body)
                    if body > at:
                        raise ValueError("a page is longer than it says")
                    left -= about[1]
        if left < 0 or at > self.end:
            raise ValueError("there are more values than the column says")
        self.starts = np.array(starts, np.int64)

    def read(self, row: int) -> bytes:
        """The value of one row."""
        start = int(self.starts[row])
        with open(self.path, "rb", buffering=0) as file:
            return _read(file, start + 4, self._length(file, start))

    def _length(self, file: BinaryIO, at: int) -> int:
        length = int.from_bytes(_read(file, at, 4), "little")
        if at + 4 + length > self.end:
            raise ValueError(f"{length} bytes at {at} are more than the column has")
        return length


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    found = file.read(size)
    if len(found) != size:
        raise ValueError(f"the file ends before byte {at + size}")
    return found


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """({field: value}, where it ends) of a Thrift struct in the compact protocol."""
    fields: dict[int, Any] = {}
    field = 0
    while kind := data[at]:
        at += 1
        step, kind = divmod(kind, 16)
        if not step:
            number, at = _varint(data, at)
            step = _signed(number) - field
        field += step
        if kind in (1, 2):
            fields[field] = kind == 1
        elif kind in (4, 5, 6):
            number, at = _varint(data, at)
            fields[field] = _signed(number)
        elif kind == 8:
            number, at = _varint(data, at)
            at += number
        elif kind == 12:
            fields[field], at = _struct(data, at)
        else:
            raise ValueError(f"a page header has a field of kind {kind}")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, bits = data[at] & 127, 7
    while data[at] > 127:
        at += 1
        value |= (data[at] & 127) << bits
        bits += 7
    return value, at + 1


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
