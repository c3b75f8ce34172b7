"""Decoding and preprocessing: every kind of file, pixels pinned, the families' own processors as the reference."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from adapters.preprocessing import from_row
from adapters.tipsv2.card import transform_of as tips_transform
from benchmark.cli import main
from benchmark.contracts import ImageTransform
from benchmark.errors import DataError, UsageError
from benchmark.images.decode import (
    apply_transform,
    center_crop,
    decode,
    decode_image,
    lay_out,
    max_pixels,
    opened,
    resize,
    short_side_size,
)
from benchmark.registry import models


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """[height, width, channels] uint8, smooth with noise, from integers alone."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    noise = np.random.Generator(np.random.Philox(height * width)).integers(0, 32, (height, width, channels))
    return ((y * 3 + x * 2 + c * 60 + noise) % 256).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(picture(33, 57)), "PNG", exif=exif)


def palette() -> Image.Image:
    image = Image.new("P", (41, 27))
    image.putpalette([(i * 7) % 256 for i in range(768)])
    image.putdata((np.arange(41 * 27) % 256).tolist())
    return image


FILES = {
    "rgb": lambda: encoded(Image.fromarray(picture(37, 53))),
    "grey": lambda: encoded(Image.fromarray(picture(61, 43, 1)[..., 0])),
    "grey-alpha": lambda: encoded(Image.fromarray(picture(31, 29, 2), "LA")),
    "rgba": lambda: encoded(Image.fromarray(picture(35, 51, 4), "RGBA")),
    "sixteen-bit": lambda: encoded(Image.fromarray(picture(45, 39, 1)[..., 0].astype(np.uint16) * 257)),
    "cmyk": lambda: encoded(Image.fromarray(picture(47, 33, 4), "CMYK"), "TIFF"),
    "palette": lambda: encoded(palette()),
    "exif-rotated": rotated,
    "one-bit": lambda: encoded(Image.fromarray(picture(33, 31, 1)[..., 0] > 100)),
}
DIGESTS = {
    "rgb": "c9640287aaacf165",
    "grey": "327f46e890f52887",
    "grey-alpha": "8fdaff6b890375c9",
    "rgba": "0a925f793367a6d8",
    "sixteen-bit": "a9432331f1b331ce",
    "cmyk": "23141ca6d3932cb9",
    "palette": "3c8a10b3716db7a5",
    "exif-rotated": "ace7da3f34b41983",
    "one-bit": "f68d6134c91506d0",
}
FAMILY_DIGESTS = {
    "tipsv2-b": "760c826c40e94dd9",
    "clip-l14": "c4deb57e60720018",
    "siglip-so400m-384": "c15671ea77ae3287",
    "siglip2-b16-256": "9e886a38bdb57500",
    "dinov2-b": "16d35bbcecb624c6",
    "dinov2-b-reg": "16d35bbcecb624c6",
    "dinov3-b": "0f8603cd35db08bc",
}


@pytest.mark.parametrize("kind", FILES)
def test_decoded_pixels_are_pinned(kind):
    image = decode(FILES[kind]())
    assert image.dtype == np.uint8
    assert image.ndim == 3
    transform = ImageTransform("short-side", 32, crop=24)
    found = hashlib.sha256(image.tobytes() + apply_transform(image, transform).tobytes()).hexdigest()[:16]
    assert found == DIGESTS[kind]


def normalised(name: str, data: bytes) -> np.ndarray:
    """[3, h, w] float32 as the model sees the file."""
    transform = transform_of_row(name)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    return (apply_transform(decode(data), transform) - mean) / std


def transform_of_row(name: str) -> ImageTransform:
    row = models()[name]
    return from_row(row["transform"]) if "transform" in row else tips_transform(row["image_size"])


@pytest.mark.parametrize(
    "name", ["tipsv2-b", "clip-l14", "siglip-so400m-384", "siglip2-b16-256", "dinov2-b", "dinov2-b-reg", "dinov3-b"]
)
def test_what_each_family_sees_of_every_kind_of_file_is_pinned(name):
    digest = hashlib.sha256()
    for kind in FILES:
        digest.update(normalised(name, FILES[kind]()).tobytes())
    assert digest.hexdigest()[:16] == FAMILY_DIGESTS[name]


def test_grey_is_repeated_and_alpha_dropped():
    grey = picture(61, 43, 1)[..., 0]
    np.testing.assert_array_equal(decode(FILES["grey"]()), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode(FILES["rgba"]()), picture(35, 51, 4)[..., :3])


def test_background_composites_transparent_pixels():
    data = np.zeros((2, 2, 4), np.uint8)
    data[0, 0] = (10, 20, 30, 255)
    found = decode(encoded(Image.fromarray(data, "RGBA")), background=(255, 255, 255))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[1, 1].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_high_byte():
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_exif_orientation_is_an_option():
    assert decode(rotated()).shape == (33, 57, 3)
    upright = decode(rotated(), exif=True)
    np.testing.assert_array_equal(upright, np.rot90(picture(33, 57), -1))


@pytest.mark.parametrize("force", [False, True])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, monkeypatch, force):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", force)
    path = tmp_path / "half.jpg"
    path.write_bytes(encoded(Image.fromarray(picture(200, 300)), "JPEG")[:4000])
    with pytest.raises(DataError, match=r"half\.jpg: cannot be read as an image"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image_is_an_error(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png"):
        decode(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such image file"):
        decode(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow warns at half of what it refuses
def test_a_picture_that_is_too_large_says_so_and_what_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = tmp_path / "map.png"
    Image.new("1", (20_000, 9_000)).save(path)  # 180 million pixels in 26 kilobytes
    line = r"map\.png: is too large: 180000000 pixels, of which 178956970 are read unasked.* --max-pixels 180000000, or"
    with pytest.raises(DataError, match=line):
        decode(path)
    monkeypatch.setenv("BENCH_MAX_PIXELS", "179999998")
    with pytest.raises(DataError, match="of which 179999998 are read"):
        decode(path)
    monkeypatch.setenv("BENCH_MAX_PIXELS", "180000000")
    with opened(path) as image:
        assert image.size == (20_000, 9_000)
    with pytest.raises(SystemExit):
        main(["run", "--max-pixels", "190000000", "--model", "no-such-model", "--task", "scenes"])
    assert max_pixels() == 190_000_000
    monkeypatch.setenv("BENCH_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="BENCH_MAX_PIXELS=many is no number"):
        decode(path)


def test_float_images_are_refused(tmp_path):
    path: Path = tmp_path / "f.tiff"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(DataError, match="no agreed range"):
        decode(path)


PROCESSORS = {
    "clip-b16": lambda: CLIPImageProcessorPil(),
    "clip-l14-336": lambda: CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "siglip-b16-256": lambda: SiglipImageProcessorPil(size={"height": 256, "width": 256}),
    "siglip2-so400m-384": lambda: SiglipImageProcessorPil(size={"height": 384, "width": 384}, resample=2),
}


@pytest.mark.parametrize("shape", [(301, 417), (417, 301), (97, 640), (224, 224), (225, 256)])
@pytest.mark.parametrize("name", PROCESSORS)
def test_transforms_equal_the_familys_own_processor(name, shape):
    image = picture(*shape)
    transform = from_row(models()[name]["transform"])
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    ours = (apply_transform(image, transform) - mean) / std
    theirs = PROCESSORS[name]()(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5  # far below 1/255


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "sixteen-bit"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_odd_files_look_as_they_do_to_the_familys_own_processor(name, kind):
    """Grey, transparent, CMYK, palette and EXIF-rotated files. Of 16-bit grey the processors keep white alone."""
    ours = normalised(name, FILES[kind]())
    with Image.open(io.BytesIO(FILES[kind]())) as image:
        theirs = PROCESSORS[name]()(image.convert("RGB"), return_tensors="np")["pixel_values"][0]
    assert np.abs(ours - theirs).max() <= 1e-5


@pytest.mark.parametrize("shape", [(301, 417), (97, 640), (448, 448)])
def test_tips_pixels_are_the_official_demos(shape):
    """Its PyTorch demo: PIL's bilinear resize to a square, [0, 1], no normalisation."""
    image = picture(*shape)
    theirs = np.asarray(Image.fromarray(image).resize((448, 448), Image.Resampling.BILINEAR), np.float32) / 255
    np.testing.assert_array_equal(apply_transform(image, transform_of_row("tipsv2-l")), theirs.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["dinov3-b", "tipsv2-b"])
def test_a_bilinear_square_equals_torch_resize_to_one_level(name):
    """The processors of these two families in transformers resize with torch; theirs rounds in float, ours in bytes."""
    image = picture(301, 417)
    transform = transform_of_row(name)
    ours = apply_transform(image, transform)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    size = (transform.size, transform.size)
    theirs = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0].numpy()
    assert np.abs(ours - theirs).max() <= 1.01 / 255


def test_short_side_rounds_the_long_side_down():
    assert short_side_size(301, 417, 224) == (224, 310)
    assert short_side_size(640, 97, 224) == (1477, 224)


def test_without_antialias_pixels_are_sampled_at_centres():
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert abs(int(resize(ramp, 32, 32, "bilinear", False)[5, 10, 0]) - 82) <= 2
    assert resize(checker, 21, 21, "bilinear", True).std() < resize(checker, 21, 21, "bilinear", False).std()


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "LA", "I;16"])
def test_a_large_picture_is_brought_to_rgb_band_by_band(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.images import decode

    rng = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (37, 16)).astype(np.uint16))
    else:
        picture = Image.fromarray(rng.integers(0, 256, (37, 16, 4), dtype=np.uint8), "RGBA").convert(
            "RGB" if mode == "P" else mode
        )
        picture = picture.quantize(40) if mode == "P" else picture
    file = io.BytesIO()
    picture.save(file, "PNG")
    for background in (None, (255, 0, 0)):
        whole = decode.decode(file.getvalue(), background=background)
        monkeypatch.setattr(decode, "BAND", 100)
        banded = decode.decode(file.getvalue(), background=background)
        monkeypatch.undo()
        assert np.array_equal(whole, banded) and banded.flags.writeable


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("rounding", ["floor", "even"])
def test_what_is_cropped_off_costs_less_and_the_rest_has_the_same_pixels(interpolation, rounding):
    rng = np.random.default_rng(0)
    shapes = [(43, 64), (64, 43), (30, 31), (9, 50), (50, 9), (40, 30), (41, 30), (300, 3), (3, 300)]
    for height, width in [*shapes, *(tuple(int(v) for v in rng.integers(8, 90, 2)) for _ in range(60))]:
        size = int(rng.integers(4, 48))
        crop = max(1, size + int(rng.integers(-6, 4)))
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        rule = ImageTransform("short-side", size, crop, interpolation=interpolation, rounding=rounding)
        whole = center_crop(resize(image, *short_side_size(height, width, size), interpolation), crop, crop, rounding)
        assert np.array_equal(lay_out(image, rule), whole), (height, width, size, crop)
        assert np.array_equal(lay_out(Image.fromarray(image), rule), whole), (height, width, size, crop)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("exif", [False, True])
def test_a_picture_that_is_resized_next_has_the_pixels_of_its_array(kind, exif):
    assert np.array_equal(np.asarray(decode_image(FILES[kind](), exif=exif)), decode(FILES[kind](), exif=exif))


def test_pictures_of_one_size_take_the_memory_of_those_before_them():
    resource = pytest.importorskip("resource")
    data = encoded(Image.fromarray(picture(427, 640)), "JPEG")
    rule = ImageTransform("short-side", 224, 224, interpolation="bicubic")

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        lay_out(decode_image(data), rule)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(pages() for _ in range(8)) < 150  # up to 787 where Pillow gives them back to the system
