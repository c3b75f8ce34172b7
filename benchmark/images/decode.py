"""Pictures in: decode to 8-bit RGB, resize, and lay out as an encoder's authors do. Pillow and numpy only, so that
one machine's pixels are every machine's pixels.

Choices that change scores, and what they follow:

- **Alpha is dropped**, as `Image.convert("RGB")` does in the reference code of CLIP, SigLIP and DINO; pass `background`
  to composite instead.
- **EXIF orientation is ignored** unless `exif=True`: the datasets' masks and published numbers ignore it.
- **16-bit grey keeps its high byte**, which is what Pillow does with 16-bit colour.
- **CMYK** goes through Pillow's conversion; no colour profile is applied.
- **Animations** give their first frame.
- A damaged file is a `DataError` that names it. It is never padded with grey and never replaced.
- **PostScript is refused**, whatever the file is called: it is a program, and Pillow would have Ghostscript run it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from benchmark.contracts import CropRounding, ImageTransform, Interpolation
from benchmark.errors import DataError, UsageError, reading
from benchmark.images.resampling import sampled

FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_PIXELS = "BENCH_MAX_PIXELS"  # in the environment, so that worker processes have it
LARGEST = 178_956_970  # pixels: what Pillow reads at most; a strip of 20000×1 brought to a short side of 224 has more
BAND = 1 << 24  # pixels brought to RGB at a time: Pillow's copies of a whole picture are four times its array
_strict_lock = threading.Lock()
# Pillow keeps the memory of four pictures for the next ones, at most 16 MB each: pages that go back to the system after
# every picture and come again cost a tenth of the time from JPEG to encoder.
Image.core.set_blocks_max(4)


def decode(
    source: Path | str | bytes | BinaryIO,
    *,
    exif: bool = False,
    background: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """[H, W, 3] uint8 sRGB of a path, encoded bytes or an open binary file.

    Raises DataError, naming the file, when it is missing, is no image, ends too early, or is larger than `max_pixels`.
    """
    with _loaded(source) as image:
        upright = ImageOps.exif_transpose(image) if exif else image
        if upright.width * upright.height <= BAND:
            return np.array(to_rgb(upright, background))
        out = np.empty((upright.height, upright.width, 3), np.uint8)
        rows = max(1, BAND // upright.width)
        for top in range(0, len(out), rows):
            band = upright.crop((0, top, upright.width, min(top + rows, len(out))))
            out[top : top + rows] = np.asarray(to_rgb(band, background))
        return out


def decode_image(source: Path | str | bytes | BinaryIO, *, exif: bool = False) -> Image.Image:
    """`decode` as a Pillow picture in RGB, without the copies through an array: for those that are resized next."""
    with _loaded(source) as image:
        return to_rgb(ImageOps.exif_transpose(image) if exif else image)


@contextlib.contextmanager
def _loaded(source: Path | str | bytes | BinaryIO) -> Iterator[Image.Image]:
    """The whole picture as Pillow reads it; what fails inside is an error that names the file."""
    name = describe(source)
    handle = io.BytesIO(source) if isinstance(source, bytes) else source
    if isinstance(source, (str, Path)) and not os.path.lexists(source):
        raise DataError(f"{name}: no such image file. Check the path and the dataset's --data folder")
    with decoding(name, " as an image"), strict_truncation(), opened(handle) as image:
        image.load()
        yield image


@contextlib.contextmanager
def decoding(name: str, what: str = "") -> Iterator[None]:
    """`reading` for pictures; one that is larger than is read unasked says how to allow it."""
    with reading(name, f"cannot be read{what}", "Replace the file"):
        try:
            yield
        except Image.DecompressionBombError as e:
            size = next(iter(re.findall(r"\d+", str(e))), "N")  # Pillow: "Image size (N pixels) exceeds limit of …"
            raise DataError(
                f"{name}: is too large: {size} pixels, of which {max_pixels()} are read unasked. If you trust the "
                f"file, allow it by bench run --max-pixels {size}, or {MAX_PIXELS}={size} for every command; or scale "
                "it down"
            ) from e


def max_pixels() -> int:
    """The largest picture that is read: `$BENCH_MAX_PIXELS`, at least Pillow's own limit. Raises UsageError."""
    said = os.environ.get(MAX_PIXELS) or str(LARGEST)
    if not said.isdecimal():
        raise UsageError(f"{MAX_PIXELS}={said} is no number of pixels")
    return max(int(said), LARGEST)


def opened(handle: Path | str | BinaryIO) -> Image.Image:
    """`Image.open`; raises ValueError for PostScript, of which only the header was read."""
    if MAX_PIXELS in os.environ:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels() // 2)  # Pillow refuses what has more than twice as many
    image = Image.open(handle)
    if image.format == "EPS":
        image.close()
        raise ValueError("it is PostScript, a program that another program would have to run")
    return image


def describe(source: object) -> str:
    """The source of a picture in words: its path, its name, or how many bytes it has."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes in memory>"
    return str(getattr(source, "name", "<open file>"))


@contextlib.contextmanager
def strict_truncation() -> Iterator[None]:
    """Some libraries switch Pillow to fill what is missing of a file with grey, for the whole process."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict_lock:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def to_rgb(image: Image.Image, background: tuple[int, int, int] | None = None) -> Image.Image:
    """`image` as 8-bit RGB under the rules at the top of this file."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{image.mode} pixels from {values.min()} to {values.max()} are not an 8- or 16-bit picture"
            )
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; convert the file to 8 bits")
    if background is not None and (image.has_transparency_data or "A" in image.mode):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency")  # alpha is dropped on purpose
        return image.convert("RGB")


def size_of(image: np.ndarray | Image.Image) -> tuple[int, int]:
    """(height, width)."""
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])


def within(image: np.ndarray, longest: int) -> np.ndarray:
    """[h, w, 3] uint8 with no side above `longest` pixels: scaled down (bicubic), or as it is."""
    scale = min(1.0, longest / max(image.shape[:2]))
    height, width = (max(1, round(n * scale)) for n in image.shape[:2])
    return image if scale == 1 else resize(image, height, width, "bicubic", True)


def resize(
    image: np.ndarray | Image.Image,
    height: int,
    width: int,
    interpolation: Interpolation = "bicubic",
    antialias: bool = True,
) -> np.ndarray:
    """[height, width, 3] uint8 from [H, W, 3] uint8 or a Pillow picture in RGB, or [height, width] from [H, W]; the
    array itself when it fits.

    `antialias` widens the filter when shrinking, as Pillow's `resize` always does (`nearest` then takes the pixel that
    the centre falls on); without it the kernels are those of OpenCV and torch.
    """
    tall, wide = size_of(image)
    if (tall, wide) == (height, width):
        return np.asarray(image)
    if height < 1 or width < 1 or height * width > LARGEST:
        raise DataError(f"cannot resize an image of {wide}x{tall} to {width}x{height} pixels")
    if antialias:
        return np.asarray(_pillow(image).resize((width, height), FILTERS[interpolation]))
    if interpolation == "lanczos":
        raise UsageError("lanczos has no form without antialiasing. Use bilinear or bicubic")
    return sampled(np.asarray(image), height, width, interpolation)


def _pillow(image: np.ndarray | Image.Image) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the short side at `size`, the long side rounded down as torchvision and transformers do."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def crop_start(size: int, crop: int, rounding: CropRounding) -> int:
    """Where the middle `crop` of `size` pixels begins; negative where black stands before a smaller picture.

    `floor` is the rule of transformers 5 (image_transforms.py, center_crop), which leaves the larger half of an odd
    margin behind the crop and the smaller half of an odd border behind the picture. `even` is torchvision's
    (transforms/functional.py, center_crop): half a margin rounded as Python rounds, half a border rounded down.
    """
    margin = size - crop
    if rounding == "floor":
        return margin // 2
    return round(margin / 2) if margin > 0 else -(-margin // 2)


def center_crop(image: np.ndarray, height: int, width: int, rounding: CropRounding = "floor") -> np.ndarray:
    """The middle [height, width] of an image, with black around one that is smaller."""
    if image.shape[:2] == (height, width):
        return image
    top, left = crop_start(image.shape[0], height, rounding), crop_start(image.shape[1], width, rounding)
    part = image[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if part.shape[:2] == (height, width):
        return part
    out = np.zeros((height, width, *image.shape[2:]), image.dtype)
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def laid_size(height: int, width: int, transform: ImageTransform) -> tuple[int, int]:
    """(height, width) that `transform` gives a picture before the crop."""
    if transform.resize == "none":
        return height, width
    if transform.resize == "square":
        return transform.size, transform.size
    return short_side_size(height, width, transform.size)


def lay_out(image: np.ndarray | Image.Image, transform: ImageTransform) -> np.ndarray:
    """[h, w, 3] uint8: `image` resized and cropped by `transform`."""
    tall, wide = size_of(image)
    height, width = laid_size(tall, wide, transform)
    crop = transform.crop
    if (
        crop and crop < width < wide and height < tall <= height + 2 * (wide - width)
        and transform.antialias and transform.interpolation != "nearest" and _rows_before_columns()
    ):  # fmt: skip
        picture, kernel = _pillow(image), FILTERS[transform.interpolation]
        left = crop_start(width, crop, transform.rounding)
        kept = picture.resize((width, tall), kernel).crop((left, 0, left + crop, tall))
        return center_crop(np.asarray(kept.resize((crop, height), kernel)), crop, crop, transform.rounding)
    resized = resize(image, height, width, transform.interpolation, transform.antialias)
    return center_crop(resized, crop, crop, transform.rounding) if crop else resized


@lru_cache(1)
def _rows_before_columns() -> bool:
    """Whether Pillow resizes along rows first, to 8 bits, then along columns, where the height loses at most twice as
    many pixels as the width: then columns that are cropped off need no second pass. The rule is that of Pillow 13
    (pull request 9549), in no document; so this Pillow is asked, just below and at its bound."""
    noise = Image.fromarray(np.random.Generator(np.random.Philox(0)).integers(0, 256, (40, 30, 3), np.uint8))
    return all(
        noise.resize((w, h), k).tobytes() == noise.resize((w, 40), k).resize((w, h), k).tobytes()
        for k in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        for w, h in ((20, 20), (20, 21), (11, 39), (29, 38), (5, 2), (29, 39))
    )


def to_float(image: np.ndarray) -> np.ndarray:
    """[3, H, W] float32 in [0, 1] from [H, W, 3] uint8."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def apply_transform(image: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """[3, h, w] float32 in [0, 1]: what `encode_image` takes. Mean and std are left to the adapter."""
    return to_float(lay_out(image, transform))
