"""Where a point of one picture lies in another, by the features of patches: the fields, the geometry, and the search.

Pictures lie in a square, and places in it are shares of its side. What two evaluations do differently with a point
between the picture and the patch grid is a field each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from benchmark.contracts import ImageSet, Need, Tap, View
from benchmark.system.bounds import Amount, Layer, Positive, Rates
from benchmark.system.digest import fingerprint
from benchmark.system.late import F, torch

Frame = Literal["stretched", "corner", "centre"]
FILL = {"corner": 255, "centre": 0}  # of the border: Probe3D's is white, SD-DINO's black


@dataclass(frozen=True)
class PatchMatches:
    """The fields of a preset; nothing is trained."""

    frame: Frame  # the picture fills the square, or keeps its shape at the upper left corner or in the centre
    view_size: Amount  # side of the square in pixels, rounded down to whole patches; 0: the encoder's
    view_patches: Amount  # patches on that side, so that encoders of different patches have one grid; 0: by view_size
    layer: Layer  # -1 is the last
    whole_pixels: bool  # whether points are cut to whole pixels, of the picture and then of the square
    source: Literal["patch", "bilinear", "corners"]  # the feature of a point: its patch's, or a mixture of four whose
    # places are the patches' centres, or run from edge to edge (align_corners)
    place: Literal["centre", "corner"]  # of a patch in the target
    window: Amount  # patches on each side of the best one whose soft-argmax is the answer; 0: the best one's place
    temperature: Positive  # of that soft-argmax over cosines
    pairs: Amount  # of each category, drawn; 0: all
    average: Literal["categories", "all"]  # a mean over categories of their scores, or one over everything
    metres: Rates  # thresholds of the recall in 3D, where surfaces are known

    def __post_init__(self) -> None:
        if self.view_size and self.view_patches:
            raise ValueError(f"view_size = {self.view_size} does nothing beside view_patches. Set one of them to 0")
        if len(set(self.metres)) < len(self.metres):
            raise ValueError(f"metres = {list(self.metres)} names a threshold twice. Keep one")

    def side(self, image_size: int, patch: int) -> int:
        """Pixels of the square view."""
        return (self.view_patches or max(1, (self.view_size or image_size) // patch)) * patch

    def need(self, images: ImageSet, image_size: int, patch: int) -> Need:
        """The patches of every picture."""
        framed = images if self.frame == "stretched" else Framed(images, self.frame)
        tap = Tap("patches", None if self.layer == -1 else self.layer)
        return Need(framed, View("square", self.side(image_size, patch)), tap)


class Framed(ImageSet):
    """Pictures within squares of their longer side."""

    def __init__(self, base: ImageSet, frame: Frame) -> None:
        self.base, self.frame, self.cheap = base, frame, base.cheap
        shape = base.uniform_shape
        self.uniform_shape = None if shape is None else (max(shape), max(shape))

    @cached_property
    def digest(self) -> str:
        return fingerprint({"framed": self.base.digest, "frame": self.frame, "fill": FILL[self.frame]})

    def __len__(self) -> int:
        return len(self.base)

    def image_id(self, index: int) -> str:
        return self.base.image_id(index)

    def load(self, index: int) -> np.ndarray:
        image = self.base.load(index)
        square = Square(self.frame, *image.shape[:2])
        out = np.full((square.side, square.side, 3), FILL[self.frame], np.uint8)
        out[square.top : square.top + square.height, square.left : square.left + square.width] = image
        return out

    def prepare(self, progress: object) -> None:
        self.base.prepare(progress)  # type: ignore[arg-type]

    def file_edges(self) -> list[str] | None:
        return self.base.file_edges()

    def file_digest(self, index: int) -> str:
        return self.base.file_digest(index)


@dataclass(frozen=True)
class Square:
    """A picture's place in its square; `left` and `top` are pixels of the picture's scale."""

    frame: Frame
    height: int
    width: int

    @property
    def side(self) -> int:
        return max(self.height, self.width)

    @property
    def left(self) -> int:
        return (self.side - self.width) // 2 if self.frame == "centre" else 0

    @property
    def top(self) -> int:
        return (self.side - self.height) // 2 if self.frame == "centre" else 0

    @property
    def corner(self) -> np.ndarray:
        """[2] where the picture begins."""
        return np.array([self.left, self.top], float)

    @property
    def scale(self) -> np.ndarray:
        """[2] pixels of the square's width and height."""
        return np.array([self.width, self.height] if self.frame == "stretched" else [self.side, self.side], float)

    def shares(self, places: np.ndarray) -> np.ndarray:
        """Places [K, 2] in pixels as shares of the square."""
        found: np.ndarray = (places + self.corner) / self.scale
        return found

    def pixels(self, shares: np.ndarray) -> np.ndarray:
        """The way back."""
        found: np.ndarray = shares * self.scale - self.corner
        return found


def whole(places: np.ndarray, square: Square, side: int) -> np.ndarray:
    """Places [K, 2] cut to whole pixels, of the picture and then of a square of `side`; in pixels of the picture."""
    return square.pixels(np.floor(square.shares(np.floor(places)) * side) / side)


def at_points(grid: torch.Tensor, shares: np.ndarray, how: str) -> torch.Tensor:
    """[K, D] features of `grid` [h, w, D] at shares [K, 2]."""
    h, w = grid.shape[:2]
    if how == "patch":
        x, y = (np.clip((shares[:, axis] * n).astype(np.int64), 0, n - 1) for axis, n in enumerate((w, h)))
        return grid[torch.from_numpy(y), torch.from_numpy(x)]
    at = torch.from_numpy(shares * 2 - 1).to(grid)[None, None]
    found: torch.Tensor = F.grid_sample(
        grid.permute(2, 0, 1)[None], at, mode="bilinear", padding_mode="border", align_corners=how == "corners"
    )
    return found[0, :, 0].T


def cells(h: int, w: int, place: str) -> np.ndarray:
    """[h · w, 2] shares at which the patches of a grid lie."""
    offset = 0.5 if place == "centre" else 0.0
    x, y = np.meshgrid((np.arange(w) + offset) / w, (np.arange(h) + offset) / h)
    return np.stack([x.ravel(), y.ravel()], 1)


def answers(cosines: torch.Tensor, h: int, w: int, protocol: PatchMatches) -> np.ndarray:
    """[K, 2] shares from the cosines [K, h · w] of each point with the patches of the target; ties go to the first."""
    places = torch.from_numpy(cells(h, w, protocol.place))
    best = cosines.argmax(1)
    if not protocol.window:
        return places[best].numpy()
    rows, columns = torch.arange(h * w) // w, torch.arange(h * w) % w
    near = ((rows - (best // w)[:, None]).abs() <= protocol.window) & (
        (columns - (best % w)[:, None]).abs() <= protocol.window
    )
    weights = (cosines.double() / protocol.temperature).masked_fill(~near, -torch.inf).softmax(1)
    return (weights @ places).numpy()


def ceiling(shares: np.ndarray, h: int, w: int, place: str) -> np.ndarray:
    """[K, 2] the patch places that lie nearest to `shares` [K, 2]: what an oracle would answer."""
    offset = 0.5 if place == "centre" else 0.0
    n = np.array([w, h])
    found: np.ndarray = (np.clip(np.round(shares * n - offset), 0, n - 1) + offset) / n
    return found
