"""Per-pixel arrays out of files: class masks, depth, normals. What the file says, before any dataset's rules."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np

from benchmark.errors import DataError, reading
from benchmark.images.decode import decoding, opened, strict_truncation
from tasks.datasets.blobs import LARGEST, Blobs

ZIP = b"PK\x03\x04"

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


def index_image(blobs: Blobs, index: int) -> np.ndarray:
    """[H, W] of a one-channel picture: palette indices, grey levels or 16-bit values, never colours.

    Raises DataError naming the file for a damaged or coloured picture.
    """
    with _naming(blobs, index), opened(io.BytesIO(blobs.read(index))) as image:
        image.load()
        if image.mode in INDEX_MODES:
            values = np.asarray(image)
            return values.astype(np.uint8) if values.dtype == bool else values
        mode = image.mode
    raise DataError(f"{blobs.where(index)}: is a {mode} picture; one index per pixel is expected (8- or 16-bit PNG)")


def picture_size(blobs: Blobs, index: int) -> tuple[int, int]:
    """(height, width) from the picture's header."""
    with _naming(blobs, index), opened(io.BytesIO(blobs.read(index))) as image:
        return image.height, image.width


def rgb_image(blobs: Blobs, index: int) -> np.ndarray:
    """[H, W, 3] uint8 of a picture that holds values, not colours to look at: no rule of photographs is applied.

    Raises DataError naming the file when it is damaged; a truncated one is never filled up with grey.
    """
    with _naming(blobs, index), opened(io.BytesIO(blobs.read(index))) as image:
        return np.asarray(image.convert("RGB"))


def numpy_file(blobs: Blobs, index: int) -> np.ndarray:
    """The array of a `.npy` file, or the only array of a `.npz`. Object arrays are refused.

    Raises DataError naming the file when it is damaged, or says it holds more than memory does.
    """
    with reading(lambda: blobs.where(index), "is no usable numpy array", "Save it again with numpy.save"):
        data = blobs.read(index)
        if not data.startswith(ZIP):
            return _plain_array(io.BytesIO(data), len(data))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise ValueError(f"holds {len(members)} arrays, one is expected")
            if members[0].file_size > LARGEST:
                raise ValueError(f"unpacks to {members[0].file_size} bytes")
            with archive.open(members[0]) as f:
                return _plain_array(io.BytesIO(f.read(LARGEST)), members[0].file_size)


def _plain_array(file: io.BytesIO, size: int) -> np.ndarray:
    """The array of a .npy file of `size` bytes; room is made for no more than there are."""
    version = np.lib.format.read_magic(file)
    reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in reads:
        raise ValueError(f"its version is {version}")
    shape, _, dtype = reads[version](file)
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and needed > size:
        raise ValueError(f"its header says {needed} bytes, {size} are there")
    file.seek(0)
    found: np.ndarray = np.load(file, allow_pickle=False)
    return found


class _naming:
    """Turns a decoder's complaint into one that names the file."""

    def __init__(self, blobs: Blobs, index: int) -> None:
        self.blobs, self.index = blobs, index
        self.strict = strict_truncation()

    def __enter__(self) -> None:
        self.strict.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.strict.__exit__(None, None, None)
        if error is not None:
            with decoding(self.blobs.where(self.index)):
                raise error
