"""Correspondence of whole views, as Probe3D measures it: the most certain matches between all points of an object.

Features are brought to a fine grid; each point of the object in the source goes to the most similar one in the target,
by cosine, and the matches are kept whose second-best is farthest behind. A match is right where both points lie within
some centimetres of one another on the object, or some pixels in the target.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import (
    CorrespondenceData,
    EncoderCard,
    Measurement,
    Method,
    Need,
    Outcome,
    Tap,
    TaskContext,
    View,
)
from benchmark.errors import DataError, UsageError
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount, Count, Layer, Rates
from benchmark.system.late import F, torch
from tasks.dense import layer_not_there
from tasks.match_pictures import Drawn, pictures

LEAST = 1e-9  # of a distance, as in Probe3D
ROWS = 2048  # points that are compared with all of the target at a time
SHOWN = 24  # matches of a picture


@dataclass(frozen=True)
class DenseMatches:
    """The fields of a preset; nothing is trained. Pictures are square."""

    view_size: Amount  # side in pixels, rounded down to whole patches; 0: the encoder's
    view_patches: Amount  # patches on that side, so that encoders of different patches have one grid; 0: by view_size
    layer: Layer  # -1 is the last
    grid: Count  # points on a side that features are brought to, bicubically
    matches: Count  # of a pair that are kept: the most certain ones
    ratio: bool  # certain is what is far nearer than the second best; else what is near
    metres: Rates  # thresholds of the recall in 3D
    pixels: Rates  # thresholds of the recall in the target

    def __post_init__(self) -> None:
        if self.view_size and self.view_patches:
            raise ValueError(f"view_size = {self.view_size} does nothing beside view_patches. Set one of them to 0")
        for name, values in (("metres", self.metres), ("pixels", self.pixels)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)} names a threshold twice. Keep one")


@dataclass
class Matched:
    """The matches of one pair."""

    index: int
    source: np.ndarray  # [K, 2] pixels
    found: np.ndarray
    metres: np.ndarray  # [K]
    pixels: np.ndarray
    best: np.ndarray  # [K] metres between points of the source and the nearest of the target, the least ones
    blind: Sequence[np.ndarray]  # [K] metres of answers that see no picture


class DenseMatchesMethod(Method[DenseMatches]):
    """The most certain nearest neighbours by cosine."""

    schema = DenseMatches

    def not_applicable(self, card: EncoderCard) -> str | None:
        return layer_not_there(card, self.protocol.layer)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        if not data["test"].posed:
            raise UsageError(
                "the data know no cameras, which dense matches need: take a preset of patch_matches, for example fast"
            )
        p, patch = self.protocol, card.patch_size
        side = (p.view_patches or max(1, (p.view_size or card.image_size) // patch)) * patch
        tap = Tap("patches", None if p.layer == -1 else p.layer)
        return {"test/patches": Need(data["test"].images, View("square", side), tap)}

    def run(self, context: TaskContext) -> Outcome:
        """Samples are pairs; those of one object are resampled together."""
        started, data = time.perf_counter(), context.data["test"]
        pairs = sorted(self._pairs(context, data), key=lambda pair: pair.index)
        if not pairs:
            raise DataError("no pair shows an object in both pictures: check the data with bench data verify")
        sources, targets = (
            [data.images.image_id(int(data.pairs[pair.index, side])) for pair in pairs] for side in (0, 1)
        )
        columns: dict[str, np.ndarray] = {
            "id": np.array([f"{one}>{other}" for one, other in zip(sources, targets)]),
            "target": np.array([data.thing_of(name) or name for name in targets]),
            **self._recalls([pair.metres for pair in pairs]),
            **self._recalls([pair.best for pair in pairs], "ceiling_"),
        }
        for limit in self.protocol.pixels:
            columns[f"recall@{limit:g} px"] = np.array([(pair.pixels < limit).mean() for pair in pairs])
        views = np.array([data.views[pair.index] for pair in pairs]) if data.views else np.array([])
        near = [f"recall@{limit:g} m" for limit in self.protocol.metres]
        binned = {f"{name}, view {view}": (name, view) for name in near for view in sorted(set(views.tolist()))}
        for name, (column, view) in binned.items():
            columns[name] = np.where(views == view, columns[column], np.nan)

        def percent(name: str, column: str) -> Measurement:
            return Measurement(name, Statistic("mean", (column,), 100.0, cluster="target"), True, "%")

        plain = ["mean recall", *near, *(f"recall@{limit:g} px" for limit in self.protocol.pixels), *binned]
        measured = [percent(name, name) for name in plain]
        measured += [percent(f"ceiling of {name}", f"ceiling_{name}") for name in ("mean recall", *near)]
        return Outcome(
            columns,
            measured,
            main_metric="mean recall",
            n=len(pairs),
            details={"matches": int(sum(len(pair.metres) for pair in pairs))},
            score_s=time.perf_counter() - started,
            files=pictures(context, data, [self._drawn(data, pair) for pair in pairs], "recall"),
            blind=[self._recalls([pair.blind[k] for pair in pairs]) for k in range(2)],
        )

    def _recalls(self, metres: Sequence[np.ndarray], word: str = "") -> dict[str, np.ndarray]:
        """Column -> [N] shares of each pair's matches, and their mean over the thresholds."""
        shares = {
            f"{word}recall@{limit:g} m": np.array([(errors < limit).mean() for errors in metres])
            for limit in self.protocol.metres
        }
        return {**shares, f"{word}mean recall": np.mean([*shares.values()], axis=0)}

    def _pairs(self, context: TaskContext, data: CorrespondenceData) -> Iterator[Matched]:
        from scipy.spatial import cKDTree

        p, reader = self.protocol, context.features("test/patches")
        order = sorted(range(len(data)), key=lambda i: data.pairs[i].tolist())
        shapes: dict[int, Sequence[int]] = {}
        for image in np.unique(data.pairs).tolist():
            shapes[image] = data.images.uniform_shape or data.images.picture(image).shape
        bar = context.progress("matching views", len(order))
        for index in order:
            bar.advance()
            one, other = (int(image) for image in data.pairs[index])
            here, there = (_places(shapes[image], p.grid) for image in (one, other))
            carried, surface = data.carried(index, here), data.located(index, there)
            on, off = (np.flatnonzero(np.isfinite(points).all(1)) for points in (carried, surface))
            if not len(on) or not len(off):
                continue
            rows, columns = self._matches(
                _fine(reader[one : one + 1][0], p.grid, on, context.device),
                _fine(reader[other : other + 1][0], p.grid, off, context.device),
            )
            start, end = carried[on][rows], surface[off][columns]
            moved, met = data.projected(index, start), data.projected(index, end)
            best = np.sort(cKDTree(surface[off]).query(carried[on])[0])[: len(rows)]
            size, before = (np.array(shapes[image][1::-1]) for image in (other, one))
            spread = np.linspace(0, len(on) - 1, len(rows)).astype(int)
            tree = cKDTree(there[off])
            blind = [tree.query(at)[1] for at in (here[on][spread] / before * size, np.tile(size / 2, (len(rows), 1)))]
            yield Matched(
                index,
                here[on][rows],
                there[off][columns],
                np.linalg.norm(start - end, axis=1),
                np.linalg.norm(moved - met, axis=1),
                best,
                [np.linalg.norm(carried[on][spread] - surface[off][guess], axis=1) for guess in blind],
            )

    def _matches(self, here: torch.Tensor, there: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `here` [N, D] and of `there` [M, D], unit vectors: the most certain first, ties by their order."""
        near, where = [], []
        for rows in torch.split(here, ROWS):
            cosines, at = (rows @ there.T).topk(min(2, len(there)), dim=1)
            near.append((1 - cosines).clamp(min=LEAST).cpu())
            where.append(at[:, 0].cpu())
        distances, best = torch.cat(near).double().numpy(), torch.cat(where).numpy()
        doubt = distances[:, 0] / distances[:, -1] if self.protocol.ratio else distances[:, 0]
        kept = np.argsort(doubt, kind="stable")[: self.protocol.matches]
        return kept, best[kept]

    def _drawn(self, data: CorrespondenceData, pair: Matched) -> Drawn:
        some = np.unique(np.linspace(0, len(pair.metres) - 1, SHOWN).astype(int))
        truth = data.projected(pair.index, data.carried(pair.index, pair.source[some]))
        right = pair.metres[some] < max(self.protocol.metres)
        return Drawn(pair.index, pair.source[some], pair.found[some], truth, right, -float(pair.metres.mean()))


def _places(shape: Sequence[int], grid: int) -> np.ndarray:
    """[grid · grid, 2] pixels of a picture of `shape` that stand for the points of the grid: of each cell the first."""
    rows, columns = (np.arange(grid) * length // grid + 0.5 for length in shape[:2])
    x, y = np.meshgrid(columns, rows)
    return np.stack([x.ravel(), y.ravel()], 1)


def _fine(patches: torch.Tensor, grid: int, rows: np.ndarray, device: str) -> torch.Tensor:
    """[K, D] unit vectors of patches [h, w, D] at the points `rows` [K] of a grid."""
    whole = patches.to(device).float().permute(2, 0, 1)[None]
    fine = F.interpolate(whole, (grid, grid), mode="bicubic", align_corners=False)[0].flatten(1).T
    return F.normalize(fine[torch.from_numpy(rows).to(fine.device)], dim=-1)
