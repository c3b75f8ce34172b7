"""Pictures and their maps changed together: cuts, rotation, flip, random crops, colour.

Pictures are [H, W, 3] float32 in 0 … 255, maps [H, W] (depth, 0 where invalid) or [H, W, 3] (normals, NaN there).
Every change takes its numbers from the generator it is given.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmark.images.decode import resize
from tasks.training.fields import TrainedHead

NYU = (45, 472, 43, 608)  # first and last + 1 row, column of 480 × 640 that hold no white border
Pair = tuple[np.ndarray, np.ndarray]


def stretched(image: np.ndarray, p: TrainedHead) -> np.ndarray:
    """The [H, W, 3] uint8 picture stretched to the protocol's square, in training and test alike."""
    return resize(image, p.resize, p.resize, p.resize_filter) if p.resize else image


def augmented(image: np.ndarray, target: np.ndarray, p: TrainedHead, rng: np.random.Generator) -> Pair:
    """One training example: [H, W, 3] uint8 picture and its map -> float32 picture in 0 … 255 and map."""
    if p.border_crop == "nyu":
        image, target = border_cut(image), border_cut(target)
    if p.train_square:
        image, target = middle_square(image), middle_square(target)
    if p.resize:
        image, target = stretched(image, p), nearest(target, p.resize, p.resize)
    turn, degrees = rng.random() < p.rotate_p, rng.uniform(-p.rotate_degrees, p.rotate_degrees)
    if turn and target.ndim == 2:
        image, target = rotated(image, target, degrees)
    if rng.random() < p.flip_p:
        image, target = mirrored(image), mirrored_map(target)
    if p.crop:
        image, target = random_crop(image, target, p.crop[0], p.crop[1], rng)
    if rng.random() < p.resized_crop_p:
        image, target = resized_crop(image, target, p.resized_crop_area, rng)
    pixels = image.astype(np.float32)
    if rng.random() < p.colour_p:
        pixels = (gamma_colour if p.colour == "gamma" else jitter_colour)(pixels, p.colour_ranges, rng)
    return np.array(pixels, np.float32), np.array(target, np.float32)


def border_cut(values: np.ndarray) -> np.ndarray:
    """NYU's frame of 480 × 640, in proportion for other sizes (as DINOv3 has it)."""
    height, width = values.shape[:2]
    top, bottom, left, right = NYU
    cut: np.ndarray = values[top * height // 480 : bottom * height // 480, left * width // 640 : right * width // 640]
    return cut


def middle_square(values: np.ndarray) -> np.ndarray:
    """The middle square of the shorter side."""
    height, width = values.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square: np.ndarray = values[top : top + side, left : left + side]
    return square


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height, width, …] of [H, W, …]: each value is the one its centre falls on."""
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    picked: np.ndarray = values[rows[:, None], columns[None]]
    return picked


def rotated(image: np.ndarray, depth: np.ndarray, degrees: float) -> Pair:
    """Both turned about the middle; black and invalid where nothing is known."""
    channels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)  # of bytes Pillow cuts the fractions off
    parts = [np.asarray(Image.fromarray(one).rotate(degrees, Image.Resampling.BILINEAR)) for one in channels]
    turned = Image.fromarray(np.ascontiguousarray(depth, np.float32)).rotate(degrees, Image.Resampling.NEAREST)
    return (np.stack(parts, -1) + 0.5).astype(np.uint8), np.asarray(turned)


def mirrored(values: np.ndarray) -> np.ndarray:
    """Left and right exchanged."""
    return values[:, ::-1]


def mirrored_map(target: np.ndarray) -> np.ndarray:
    """A map of the mirrored scene: normals change the sign of x."""
    flipped = mirrored(target)
    return flipped if target.ndim == 2 else flipped * np.array([-1, 1, 1], target.dtype)


def random_crop(image: np.ndarray, target: np.ndarray, height: int, width: int, rng: np.random.Generator) -> Pair:
    """A [height, width] part, or less where the picture is smaller."""
    top = rng.integers(max(image.shape[0] - height, 0) + 1)
    left = rng.integers(max(image.shape[1] - width, 0) + 1)
    part = slice(top, top + height), slice(left, left + width)
    return image[part], target[part]


def resized_crop(image: np.ndarray, target: np.ndarray, least: float, rng: np.random.Generator) -> Pair:
    """A square of `least` to all of the area (as far as it fits), brought back to the size by nearest neighbour."""
    height, width = image.shape[:2]
    side = min(round(np.sqrt(rng.uniform(least, 1.0) * height * width)), height, width)
    image, target = random_crop(image, target, side, side, rng)
    return nearest(image, height, width), nearest(target, height, width)


def gamma_colour(pixels: np.ndarray, ranges: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """value^γ · brightness · tint, clipped: on values in 0 … 255, as DINOv2's ColorAug."""
    gamma, brightness = rng.uniform(1 - ranges[0], 1 + ranges[0]), rng.uniform(1 - ranges[1], 1 + ranges[1])
    tint = rng.uniform(1 - ranges[2], 1 + ranges[2], 3)
    changed: np.ndarray = np.clip(pixels**gamma * brightness * tint, 0, 255)
    return changed


def jitter_colour(pixels: np.ndarray, ranges: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter."""
    x = pixels / 255
    for change in rng.permutation(4):
        low = -ranges[3] if change == 3 else max(0.0, 1 - ranges[change])
        amount = rng.uniform(low, ranges[3] if change == 3 else 1 + ranges[change])
        x = np.clip(_CHANGES[change](x, amount), 0, 1)
    return x * 255


def _grey(x: np.ndarray) -> np.ndarray:
    grey: np.ndarray = x @ np.array([0.2989, 0.587, 0.114], x.dtype)
    return grey[..., None]


def _hue(x: np.ndarray, amount: float) -> np.ndarray:
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(np.clip(x, 0, 1))
    hsv[..., 0] = (hsv[..., 0] + amount) % 1
    return np.asarray(hsv_to_rgb(hsv))


_CHANGES = (
    lambda x, a: x * a,
    lambda x, a: a * x + (1 - a) * _grey(x).mean(),
    lambda x, a: a * x + (1 - a) * _grey(x),
    _hue,
)
