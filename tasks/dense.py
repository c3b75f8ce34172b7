"""What the dense probes share: sampled pixels with their labels for training, full-resolution maps for scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from benchmark.contracts import (
    EncoderCard,
    FeatureReader,
    Measurement,
    Method,
    Need,
    Sampling,
    Tap,
    TaskContext,
    View,
)
from benchmark.data.read_ahead import read_ahead
from benchmark.errors import DataError
from benchmark.features.taps import corners_of, pixel_indices
from benchmark.heads.grid import GridRows
from benchmark.heads.ridge import RidgeAccumulator, RidgeHead
from benchmark.images.views import Placement, ResolvedView, resolve_view
from benchmark.system.bounds import Amount, Count, Layer, Part, Rates
from benchmark.system.late import F, torch
from benchmark.system.plurals import number_of
from tasks.idle_fields import check_view

Probe = TypeVar("Probe", bound="PixelProbe")
BLOCK = 32  # images read from the store at a time
ROWS = 65536  # sampled pixels given to a head at a time


@dataclass(frozen=True)
class PixelProbe:
    """The fields every pixel-sampled probe has: one forward per picture, a convex head on sampled pixels.

    A linear head commutes with bilinear up-sampling, so some random pixels of a picture, each with the bilinear
    mixture of its four tokens and its exact label, are an unbiased sample of the full-resolution loss.
    """

    view: Literal["encoder", "square"]
    view_size: Amount
    layer: Layer  # -1 is the last
    with_cls: bool  # CLS (first) concatenated to every token
    pixels_per_image: Count  # and more on small sets:
    pixel_rows: Amount  # until there are so many in all,
    pixels_at_most: Count  # with never more than these of one picture
    sampling: Sampling
    holdout: Part  # share of the TRAINING images on which the penalty is chosen
    penalties: Rates

    def __post_init__(self) -> None:
        check_view(self.view, self.view_size)

    def pixels(self, images: int) -> int:
        """Sampled of each training picture, where there are `images`."""
        return max(self.pixels_per_image, min(self.pixels_at_most, -(-self.pixel_rows // max(1, images))))


def sampled(protocol: PixelProbe, images: int, seed: int = 0) -> Tap:
    """The pixels that are taken of each of so many training pictures."""
    layer = None if protocol.layer == -1 else protocol.layer
    return Tap("pixels", layer, protocol.pixels(images), seed, protocol.sampling)


def probe_needs(protocol: PixelProbe, data: Any, seed: int = 0) -> dict[str, Need]:
    """Sampled pixels of the training pictures, whole maps of the test pictures, and CLS of both if wanted."""
    view = View(protocol.view, protocol.view_size)
    layer = None if protocol.layer == -1 else protocol.layer
    train, test = data["train"].images, data["test"].images
    pixels = sampled(protocol, len(train), seed)
    needs = {"train/pixels": Need(train, view, pixels), "test/patches": Need(test, view, Tap("patches", layer))}
    if protocol.with_cls:
        needs |= {"train/cls": Need(train, view, Tap("cls", layer)), "test/cls": Need(test, view, Tap("cls", layer))}
    return needs


def layer_not_there(card: EncoderCard, layer: int) -> str | None:
    """Why an encoder has no such layer, or None."""
    if layer != -1 and not -card.depth <= layer < card.depth:
        return f"{card.name} has {number_of(card.depth, 'layer')}, the protocol asks for layer {layer}"
    return None


def head_use(protocol: PixelProbe) -> dict[str, Any]:
    """What a kept head has to know of its protocol."""
    return {
        "view": protocol.view, "view_size": protocol.view_size, "layer": protocol.layer, "with_cls": protocol.with_cls,
    }  # fmt: skip


class PixelMethod(Method[Probe]):
    """What is the same for every probe on sampled pixels."""

    @property
    def keeps_head(self) -> bool:
        return True

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    def not_applicable(self, card: EncoderCard) -> str | None:
        return layer_not_there(card, self.protocol.layer)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        return probe_needs(self.protocol, data)


@dataclass(frozen=True)
class PixelRows:
    """Features of sampled pixels, [n, D] float32, read from the store where they are asked for: a copy of all of them
    would grow with the pictures."""

    pixels: FeatureReader  # [N, count, D]
    cls: FeatureReader | None  # [N, K, D]: the first is joined to every pixel of its picture
    picture: np.ndarray  # [n]
    place: np.ndarray  # [n] among the picture's pixels

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self), self[:1].shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> torch.Tensor:
        """[m, D] on the CPU."""
        picture = self.picture[rows]
        found = self.pixels[picture, self.place[rows]]
        if self.cls is None:
            return found
        return torch.cat([found, self.cls[picture, np.zeros_like(picture)]], 1)


@dataclass
class PixelSet:
    """Training rows: features [n, D], targets [n, …] and the fold (-1: none) each is held out in."""

    features: PixelRows | GridRows
    targets: np.ndarray
    fold: np.ndarray

    @property
    def holdout(self) -> np.ndarray:
        """[n] bool: held out in some fold."""
        held: np.ndarray = self.fold >= 0
        return held


def training_pixels(
    context: TaskContext,
    needs: Mapping[str, Need],
    protocol: PixelProbe,
    read: Callable[[np.ndarray, np.ndarray], np.ndarray],
    judged: int = 1,
) -> PixelSet:
    """Features and labels of the sampled pixels of every training picture.

    `read(target at the pixels, rows)` gives a mask of usable ones; images are held out in folds until `judged` are.
    Raises DataError when none is usable.
    """
    data = context.data["train"]
    live = "train/patches" in needs  # mixed at the pixels by the head itself
    reader = context.features("train/patches" if live else "train/pixels")
    tap = sampled(protocol, len(reader)) if live else needs["train/pixels"].tap
    if len(reader) < 2 and len(protocol.penalties) > 1:
        raise DataError(f"{len(reader)} training picture: penalties are chosen on a held-out one, so two are needed")
    bar = context.progress("reading training labels", len(reader))
    targets, places, corners, shares = [], [], [], []
    if live:
        encoder, need = context.encoder(), needs["train/patches"]
        view = resolve_view(need.view, encoder.transform, encoder.card, need.images)
    for index, truth in enumerate(read_ahead(data.target, range(len(reader)))):
        rows, columns = pixel_indices(data.images.image_id(index), tap, *truth.shape[:2])
        values = truth[rows, columns]
        keep = read(values, rows)
        targets.append(values[keep])
        places.append(np.flatnonzero(keep).astype(np.int32))
        if live:
            size = (truth.shape[0], truth.shape[1])
            h, w = reader.shape[1:3]
            around, (y, x) = corners_of((rows[keep], columns[keep]), size, view.placement(*size), h, w)
            corners.append((index * h * w + around).T)
            shares.append(np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], 1).astype(np.float32))
        bar.advance()
    picture = np.repeat(np.arange(len(reader), dtype=np.int32), [len(place) for place in places])
    if not len(picture):
        raise DataError("no labelled pixel in the training images: check the targets with bench data verify")
    folds = held_out_folds(len(reader), protocol.holdout, judged, context.seed)
    if live:
        features: PixelRows | GridRows = GridRows(reader, np.concatenate(corners), np.concatenate(shares))
    else:
        cls = context.features("train/cls") if protocol.with_cls else None
        features = PixelRows(reader, cls, picture, np.concatenate(places))
    return PixelSet(features, np.concatenate(targets), folds[picture])


def fit_ridge(pixels: PixelSet, targets: torch.Tensor, penalties: Sequence[float], device: str) -> RidgeHead:
    """Ridge regression from the sampled features to `targets` [n, O], penalty chosen on the held-out images."""
    width = pixels.features.shape[1]
    fit = RidgeAccumulator(width, targets.shape[1], device)
    held = pixels.holdout
    for start in range(0, len(targets), ROWS):
        rows = slice(start, start + ROWS)
        fit.add(pixels.features[rows], targets[rows], held[rows])
    return fit.solve(penalties)


def held_out_images(n: int, share: float, seed: int) -> np.ndarray:
    """[n] bool: the training images kept aside for choosing a penalty; at least one, never all."""
    held: np.ndarray = held_out_folds(n, share, 1, seed) == 0
    return held


def held_out_folds(n: int, share: float, judged: int, seed: int) -> np.ndarray:
    """[n] the fold each training image is held out in, -1 for none: folds of `share`, until `judged` images are."""
    count = min(max(1, round(share * n)), n - 1)
    folds = -(-min(judged, n) // count) if count else 0
    order = np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")[: folds * count]
    out = np.full(n, -1)
    out[order] = np.arange(len(order)) // max(1, count)
    return out


def predicted_maps(
    context: TaskContext,
    needs: Mapping[str, Need],
    head: Callable[[torch.Tensor], torch.Tensor],
    label: str,
    read: Callable[[int], np.ndarray],
) -> Iterator[tuple[int, Callable[[int, int], torch.Tensor], np.ndarray]]:
    """For each test picture, its index, a function (H, W) -> the head's output [C, H, W] at full resolution, and what
    `read(index)` gives of it, its target.

    `head` maps tokens [..., D] to [..., C]; it is applied to tokens and its output up-sampled (bilinear,
    align_corners False), which for a linear head is the same as up-sampling first.
    """
    live = context.encoder()
    view = resolve_view(needs["test/patches"].view, live.transform, live.card, needs["test/patches"].images)
    reader = context.features("test/patches")
    cls = context.features("test/cls") if "test/cls" in needs else None
    bar, targets = context.progress(label, len(reader)), read_ahead(read, range(len(reader)))
    for start in range(0, len(reader), BLOCK):
        tokens = reader[start : start + BLOCK].to(context.device)  # [b, h, w, D]
        if cls is not None:
            extra = cls[start : start + BLOCK][:, 0].to(context.device)
            tokens = torch.cat([tokens, extra[:, None, None].expand(*tokens.shape[:3], -1)], -1)
        out = head(tokens).permute(0, 3, 1, 2)  # [b, C, h, w]
        for i in range(len(out)):
            yield start + i, _Upsampler(out[i], view), next(targets)
        bar.advance(len(out))


@dataclass
class _Upsampler:
    maps: torch.Tensor  # [C, h, w]
    view: ResolvedView

    def __call__(self, height: int, width: int) -> torch.Tensor:
        return upsample(self.maps, height, width, self.view.placement(height, width))


def finer(grid: torch.Tensor, times: int) -> torch.Tensor:
    """[b, h, w, C] -> [b, times · h, times · w, C], bilinear, align_corners False."""
    if times == 1:
        return grid
    maps = grid.permute(0, 3, 1, 2)
    return F.interpolate(maps, scale_factor=times, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def upsample(maps: torch.Tensor, height: int, width: int, place: Placement | None = None) -> torch.Tensor:
    """[C, h, w] -> [C, height, width], bilinear, align_corners False; the padded border of the view is cut off."""
    if place is None or place == Placement():
        return F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
    full = round(height / place.height), round(width / place.width)
    whole = F.interpolate(maps[None], full, mode="bilinear", align_corners=False)[0]
    top, left = round(place.top * full[0]), round(place.left * full[1])
    if top < 0 or left < 0:
        raise DataError("a view that crops the picture cannot be scored at full resolution: use view = square")
    return whole[:, top : top + height, left : left + width]


def resampled_by_thing(
    data: Any, samples: dict[str, np.ndarray], measurements: Sequence[Measurement]
) -> list[Measurement]:
    """`measurements` over `samples`, by the thing shown where `data` has many pictures of each (its `thing_of`).

    Such pictures are right or wrong together; taken one by one they would make intervals too narrow.
    """
    things = [data.thing_of(name) for name in samples["id"]]
    if None in things:
        return list(measurements)
    samples["thing"] = np.array(things)
    return [replace(m, statistic=replace(m.statistic, cluster="thing")) for m in measurements]


def mean_target(data: Mapping[str, Any], counts: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What an answer that sees no picture says everywhere: the mean pixel of up to 64 maps, those of training where
    there are any. `counts` gives the pixels [H, W] of a map that do."""
    split = data.get("train", data["test"])
    at = np.unique(np.linspace(0, len(split.images) - 1, 64).round().astype(int))
    maps = [np.asarray(split.counted(int(index)), np.float64) for index in at]
    found: np.ndarray = np.concatenate([m[counts(m)] for m in maps]).mean(0)
    return found


class Columns:
    """A table of `n` rows that is filled as they come: a list of rows beside it would hold all twice."""

    def __init__(self, n: int) -> None:
        self.n, self.filled = n, 0
        self._columns: dict[str, Any] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """One row: column -> a number, a word or an array, of one kind and shape in all rows."""
        for name, value in row.items():
            if isinstance(value, str):  # how long the longest is, is known at the end
                self._columns.setdefault(name, []).append(value)
                continue
            array = np.asarray(value)
            if name not in self._columns:
                self._columns[name] = np.empty((self.n, *array.shape), array.dtype)
            np.copyto(self._columns[name][self.filled, ...], array, casting="safe")
        self.filled += 1

    def table(self) -> dict[str, np.ndarray]:
        """Column -> [n, …]."""
        return {name: np.asarray(column) for name, column in self._columns.items()}


def stack_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Per-image dictionaries as columns."""
    columns = Columns(len(rows))
    for row in rows:
        columns.add(row)
    return columns.table()
