"""Per-pixel arrays out of files: class masks, depth, normals. What the file says, before any dataset's rules."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np

from benchmark.errors import DataError
from benchmark.images import DAMAGE, complaint, opened, strict_truncation
from tasks.datasets.blobs import Blobs

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
    try:
        loaded = np.load(io.BytesIO(blobs.read(index)), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) != 1:
                raise ValueError(f"holds {len(loaded.files)} arrays, one is expected")
            array: np.ndarray = loaded[loaded.files[0]]
            return array
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(
            f"{blobs.where(index)}: is no usable numpy array ({e}). Save it again with numpy.save"
        ) from None


def matlab_file(blobs: Blobs, index: int) -> dict[str, np.ndarray]:
    """The variables of a MATLAB 5 file; structs are numpy records."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        variables: dict[str, np.ndarray] = loadmat(io.BytesIO(blobs.read(index)))
        return variables
    except (MatReadError, ValueError, TypeError, OSError, IndexError, NotImplementedError, zlib.error) as e:
        raise DataError(f"{blobs.where(index)}: cannot be read as a MATLAB file ({e}). Fetch it again") from None


class _naming:
    """Turns a decoder's complaint into one that names the file."""

    def __init__(self, blobs: Blobs, index: int) -> None:
        self.blobs, self.index = blobs, index
        self.strict = strict_truncation()

    def __enter__(self) -> None:
        self.strict.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.strict.__exit__(None, None, None)
        if isinstance(error, DAMAGE):
            raise DataError(f"{self.blobs.where(self.index)}: {complaint(error, '')}") from None
