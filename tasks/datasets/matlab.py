"""MATLAB files (versions 4 and 5), read by scipy after a look at how the elements of a version 5 file are nested.

scipy's reader is compiled and takes types and sizes on trust: some damaged files end the process (found by
`python tests/faults fuzz`), so what it is handed is held against the format first.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from benchmark.errors import reading
from tasks.datasets.blobs import Blobs

LARGEST = 1 << 31  # bytes one array, or one compressed element, may unpack to
HEADER, TAG = 128, 8
ITEM = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # number types of elements -> bytes an entry
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
TEXT = (1, 2, 3, 4, 16, 17, 18)
CELL, STRUCT, OBJECT, CHAR, SPARSE = 1, 2, 3, 4, 5
NUMBERS = range(6, 16)  # double … uint64
COMPLEX = 0x800
DEEPEST = 32

Element = tuple[int, memoryview]


def matlab_file(blobs: Blobs, index: int) -> dict[str, np.ndarray]:
    """The variables of a MATLAB file; structs are numpy records. Raises DataError naming a damaged file."""
    with reading(lambda: blobs.where(index), "cannot be read as a MATLAB file", "Fetch it again"):
        return variables(blobs.read(index))


def variables(data: bytes, *, squeeze: bool = False) -> dict[str, np.ndarray]:
    """Name -> array of a whole file. Raises ValueError, and what scipy raises, for a damaged one."""
    from scipy.io import loadmat

    found: dict[str, np.ndarray] = loadmat(io.BytesIO(check(data)), squeeze_me=squeeze)
    return found


def check(data: bytes) -> bytes:
    """The file as SciPy is to read it: compressed variables of version 5 are unpacked, so that it need not do so again.

    Raises ValueError where `data` is a file of version 5 whose elements are not nested as the format has it, or
    where a variable of any version is larger than LARGEST.

    Source: MathWorks, "MAT-File Format", Level 5.
    """
    from scipy.io import whosmat

    plain = data
    if len(data) >= HEADER and 0 not in data[:4] and 1 in data[124:126]:  # 2: HDF5, which scipy refuses by its name
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128], "")
        if not order:
            raise ValueError("its header has no byte order")
        parts: list[bytes | memoryview] = [data[:HEADER]]
        for kind, content in _elements(memoryview(data)[HEADER:], order):
            if kind == COMPRESSED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(content, LARGEST)
                if unpacker.unconsumed_tail or not unpacker.eof:
                    raise ValueError("a compressed variable is cut off, or too large")
                kind, content = next(_elements(memoryview(unpacked), order), (0, memoryview(b"")))
            if kind != MATRIX:
                raise ValueError(f"an element of type {kind} stands where a variable should")
            _check_array(content, order, 0)
            parts += [struct.pack(f"{order}II", MATRIX, len(content)), content, bytes(-len(content) % 8)]
        plain = b"".join(parts)
    for name, shape, _ in whosmat(io.BytesIO(plain)):
        if math.prod(shape) > LARGEST:
            raise ValueError(f"{name} is {list(shape)}")
    return plain


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """(type, content) of the elements that stand in `data` one behind the other."""
    at = 0
    while at < len(data):
        if len(data) - at < TAG:
            raise ValueError("it is cut off")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, padded = at + TAG, kind != COMPRESSED
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, start, padded = kind & 0xFFFF, kind >> 16, at + 4, False
            if size > 4:
                raise ValueError(f"a short element says {size} bytes")
        if start + size > len(data):
            raise ValueError(f"an element says {size} bytes, {len(data) - start} are there")
        yield kind, data[start : start + size]
        at = at + TAG if start == at + 4 else start + size + (-size % 8 if padded else 0)


def _check_array(data: memoryview, order: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"its cells are nested more than {DEEPEST} deep")
    if not data:  # an empty cell
        return
    elements = _elements(data, order)
    flags, kind = _take(elements, UINT32, order), 0
    kind, is_complex = (flags[0] & 0xFF, bool(flags[0] & COMPLEX)) if len(flags) == 2 else (0, False)
    shape = _take(elements, INT32, order)
    if min(shape, default=-1) < 0:
        raise ValueError(f"an array has the shape {list(shape)}")
    _take(elements, INT8, order)  # its name
    count = math.prod(shape)
    if kind in NUMBERS:
        for _ in range(2 if is_complex else 1):
            found, content = _next(elements)
            if found not in ITEM or len(content) != count * ITEM[found]:
                raise ValueError(f"an array {list(shape)} has {len(content)} bytes of type {found}")
    elif kind == CHAR:
        if (found := _next(elements)[0]) not in TEXT:
            raise ValueError(f"a text is of type {found}")
    elif kind == SPARSE:
        for number in range(4 if is_complex else 3):
            found, content = _next(elements)
            if found not in ITEM or len(content) % ITEM[found] or (number < 2 and found != INT32):
                raise ValueError(f"a sparse array has {len(content)} bytes of type {found}")
    elif kind in (CELL, STRUCT, OBJECT):
        if kind == OBJECT:
            _take(elements, INT8, order)  # the name of its class
        if kind != CELL:
            (width,) = _take(elements, INT32, order)
            names = _take(elements, INT8, order)
            if width < 1 or len(names) % width:
                raise ValueError(f"its field names are {len(names)} letters in words of {width}")
            count *= len(names) // width
        for _ in range(count):
            found, content = _next(elements)
            if found != MATRIX:
                raise ValueError(f"an element of type {found} stands where an array should")
            _check_array(content, order, depth + 1)
    else:
        raise ValueError(f"it holds an array of class {kind}")
    if next(elements, None) is not None:
        raise ValueError("an array holds more than its shape says")


def _next(elements: Iterator[Element]) -> Element:
    found = next(elements, None)
    if found is None:
        raise ValueError("an array is cut off")
    return found


def _take(elements: Iterator[Element], wanted: int, order: str) -> tuple[int, ...]:
    """The numbers of the next element, which must be of type `wanted`."""
    kind, content = _next(elements)
    if kind != wanted or len(content) % ITEM[wanted]:
        raise ValueError(f"an element of type {kind} and {len(content)} bytes stands where type {wanted} should")
    letter = {INT8: "b", INT32: "i", UINT32: "I"}[wanted]
    return struct.unpack(f"{order}{len(content) // ITEM[wanted]}{letter}", content)
