"""Predictions worth looking at: the best, the median and the worst of a test set, and retrieval's wrong neighbours.

Which pictures are the median ones is known only at the end. Until then every prediction lies on disk, in the job's own
scratch folder, shrunk to the height it is shown at and compressed: memory does not grow with the dataset.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.contracts import TaskContext, ignored_label
from benchmark.images.drawing import Kind, neighbours, shrink, side_by_side, texts_found
from benchmark.metrics.positives import Positives
from benchmark.rows.row import slug
from benchmark.system.files import disk_errors
from benchmark.system.late import torch

NEAREST = 5  # neighbours shown
BLOCK = 4096  # gallery vectors compared at a time
STORED: dict[Kind, tuple[type, float]] = {  # number type and scale
    "segmentation": (np.int32, 1),
    "depth": (np.float16, 1),
    "normals": (np.int8, 127),
}


class Predictions:
    """Takes every prediction of a dense task as it is scored and hands back the pictures; idle when none are wanted."""

    def __init__(self, context: TaskContext, kind: Kind, far: float = 0.0) -> None:
        """`far`: metres from which on depth is not scored; 0: no limit."""
        self.kind, self.far, self.wanted, self.data = kind, far, context.keep_predictions, context.data["test"]
        self.scratch, self.look_at = context.scratch, tuple(context.look_at)
        self.kept: list[tuple[int, int, int, tuple[int, ...]]] = []  # index, place, size, shape
        if self.wanted:  # without a name: no other process writes into it, and no kill leaves it
            with disk_errors(self.scratch):
                self.scratch.mkdir(parents=True, exist_ok=True)
                self.file = tempfile.TemporaryFile(dir=self.scratch)  # noqa: SIM115 - open as long as this object

    def add(self, index: int, prediction: torch.Tensor) -> None:
        """Class indices [H, W], metres [H, W] or vectors [H, W, 3] of test picture `index`, in the order of scoring."""
        if not self.wanted:
            return
        small = shrink(prediction.detach().cpu().numpy())
        if self.kind == "normals":
            small = small / np.maximum(np.linalg.norm(small, axis=2, keepdims=True), 1e-9)
        kind, scale = STORED[self.kind]
        packed = zlib.compress(np.ascontiguousarray((small * scale).astype(kind)).tobytes(), 1)
        with disk_errors(self.scratch):
            self.kept.append((index, self.file.seek(0, 2), len(packed), small.shape))
            self.file.write(packed)

    def files(self, samples: Mapping[str, np.ndarray]) -> dict[str, bytes]:
        """`pictures/….png` -> PNG, chosen by each picture's own mIoU or RMSE in `samples` (in the order of `add`)."""
        if not self.wanted:
            return {}
        scores, metric, higher = image_scores(samples, self.kind)
        out = {}
        places = {index: row for row, (index, *_) in enumerate(self.kept)}
        rows = [places[index] for index in self.look_at]
        for name, row in numbered(rows) if rows else best_median_worst(scores if higher else -scores, self.wanted):
            index = self.kept[row][0]
            words = f"{name}_{metric}-{scores[row]:.3g}_{slug(self.data.images.image_id(index))}"
            out[f"pictures/{words}.png"] = self._picture(row)
        self.file.close()
        return out

    def _picture(self, row: int) -> bytes:
        index, place, size, shape = self.kept[row]
        kind, scale = STORED[self.kind]
        self.file.seek(place)
        packed = zlib.decompress(self.file.read(size))
        prediction: np.ndarray = np.frombuffer(packed, kind).reshape(shape)
        if self.kind != "segmentation":
            prediction = prediction.astype(np.float32) / scale
        target = shrink(np.asarray(self.data.target(index)))
        if self.far:
            target = np.where(target < self.far, target, 0)
        names = self.data.class_names if self.kind == "segmentation" else ()
        palette = None if self.data.palette is None else np.asarray(self.data.palette, np.uint8)
        return side_by_side(
            self.data.images.picture(index), target, prediction, self.kind, palette, ignored_label(len(names)), names
        )


def image_scores(samples: Mapping[str, np.ndarray], kind: Kind) -> tuple[np.ndarray, str, bool]:
    """[N] each picture's own metric, its name, and whether higher is better."""
    if kind == "segmentation":
        intersection, union = (np.asarray(samples[name], float) for name in ("intersection", "union"))
        present = union > 0
        with np.errstate(invalid="ignore"):
            iou = np.where(present, intersection / np.where(present, union, 1), 0).sum(1) / present.sum(1)
        return 100 * iou, "mIoU", True
    if kind == "depth":
        return np.asarray(samples["rmse"]), "RMSE", False
    return np.asarray(samples["angular_rmse"]), "angular-RMSE", False


def best_median_worst(good: np.ndarray, count: int) -> list[tuple[str, int]]:
    """("best-1", row) … of `good` (higher is better), `count` of each; none twice, none without a number."""
    order = [int(i) for i in np.argsort(-good, kind="stable") if np.isfinite(good[i])]
    middle = max((len(order) - count) // 2, 0)
    groups = {"best": order, "worst": order[::-1], "median": order[middle:]}
    taken: set[int] = set()
    out = []
    for name, rows in groups.items():
        picked = [r for r in rows[:count] if r not in taken]
        taken.update(picked)
        out += [(f"{name}-{i + 1}", row) for i, row in enumerate(picked)]
    return out


def numbered(rows: Sequence[int]) -> list[tuple[str, int]]:
    """("sample-1", row) … of samples that were asked for."""
    return [(f"sample-{i}", row) for i, row in enumerate(rows, 1)]


def wrong_queries(rank: np.ndarray, gallery: int, count: int) -> list[int]:
    """The `count` queries whose right answer stands lowest; never one answered rightly or without an answer."""
    order = np.argsort(-rank, kind="stable")
    return [int(q) for q in order if 0 < rank[q] < gallery][:count]


def nearest(query: torch.Tensor, gallery: Any, allowed: np.ndarray | None = None, k: int = NEAREST) -> list[int]:
    """Positions of the `k` gallery vectors closest to `query` [D] by cosine, among the `allowed` [N] bool ones."""
    scores, places = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(gallery), BLOCK):
        found = gallery[start : start + BLOCK].float().cpu() @ query.float().cpu()
        if allowed is not None:
            found = found.masked_fill(~torch.from_numpy(allowed[start : start + BLOCK]), -torch.inf)
        scores, places = torch.cat([scores, found]), torch.cat([places, torch.arange(start, start + len(found))])
        scores, order = scores.topk(min(k, len(scores)))
        places = places[order]
    return [int(i) for i, s in zip(places, scores) if torch.isfinite(s)]


def closest(query: torch.Tensor, gallery: Any, of: np.ndarray) -> int | None:
    """The one of gallery positions `of` that is closest to `query`; None where there are none."""
    if not len(of):
        return None
    rows = torch.stack([gallery[int(i)].float().cpu() for i in of])
    return int(of[int((rows @ query.float().cpu()).argmax())])


def short(image_id: str) -> str:
    """The last part of an id, which tells the pictures of one folder apart."""
    return image_id.rsplit("/", 1)[-1]


def answered(found: list[int], right: int | None, rank: float) -> list[int]:
    """Adds the best right answer, if any, to `found` where it is not among them; the places of all, from 1."""
    places = list(range(1, len(found) + 1))
    if right is not None and right not in found:
        found.append(right)
        places.append(int(rank) + 1)
    return places


def wrong(queries: Sequence[int]) -> list[tuple[str, int]]:
    """("wrong-1", query) …"""
    return [(f"wrong-{i}", q) for i, q in enumerate(queries, 1)]


def ranked(rank: float, gallery: int) -> str:
    """Where the best right answer stands, for a file's name."""
    return f"rank-{int(rank) + 1}" if 0 <= rank < gallery else "no-answer"


def instance_pictures(
    context: TaskContext, queries: Any, index: Any, rank: np.ndarray, merged: bool
) -> dict[str, bytes]:
    """The worst wrong queries with their nearest pictures and their best right one.

    `rank` [Q] counts from 0; `merged` says whether a query meets the whole index or only its own domain's part.
    """
    data, out = context.data["test"], {}
    domains, labels = np.asarray(data.index_domains), np.asarray(data.index_labels)
    chosen = numbered(context.look_at) or wrong(wrong_queries(rank, len(index), context.keep_predictions))
    for label, q in chosen:
        mine = domains == data.query_domains[q]
        there = np.ones(len(index), bool) if merged else mine.copy()
        if data.self_index is not None and data.self_index[q] >= 0:
            there[data.self_index[q]] = False
        good = there & mine & np.isin(labels, data.labels_of(q))
        found = nearest(queries[q], index, there)
        places = answered(found, closest(queries[q], index, np.flatnonzero(good)), rank[q])
        words = [f"{place}: {short(data.index.image_id(n))}" for place, n in zip(places, found)]
        name = f"pictures/{label}_{ranked(rank[q], len(index))}_{slug(data.queries.image_id(q))}.png"
        pictures = [data.index.picture(n) for n in found]
        out[name] = neighbours(data.queries.picture(q), pictures, [bool(good[n]) for n in found], words)
    return out


def caption_pictures(
    context: TaskContext,
    images: Any,
    texts: Any,
    rank: np.ndarray,
    owner: np.ndarray,
    right: Positives,
    by_image: bool,
) -> dict[str, bytes]:
    """The worst wrong queries of one direction with their nearest captions or pictures and their best right one.

    `owner` [captions] is the picture each caption belongs to; `rank` and `right` are those of this direction's queries.
    """
    data, out = context.data["test"], {}
    captions = [text for group in data.captions for text in group]
    queries, gallery = (images, texts) if by_image else (texts, images)
    asked = [i if by_image else int(np.flatnonzero(owner == i)[0]) for i in context.look_at]
    for label, q in numbered(asked) or wrong(wrong_queries(rank, len(gallery), context.keep_predictions)):
        good = right.indices[right.offsets[q] : right.offsets[q + 1]]
        found = nearest(queries[q], gallery)
        places = answered(found, closest(queries[q], gallery, good), rank[q])
        correct = [n in good for n in found]
        picture = q if by_image else int(owner[q])
        name = f"pictures/{label}_{ranked(rank[q], len(gallery))}_{slug(data.images.image_id(picture))}.png"
        if by_image:
            lines = [f"{place}: {captions[n]}" for place, n in zip(places, found)]
            out[name] = texts_found(data.images.picture(q), lines, correct)
        else:
            labels = [f"{place}: {short(data.images.image_id(n))}" for place, n in zip(places, found)]
            out[name] = neighbours(captions[q], [data.images.picture(n) for n in found], correct, labels)
    return out


def label_pictures(context: TaskContext, found: torch.Tensor, guess: np.ndarray, also: np.ndarray) -> dict[str, bytes]:
    """Pictures with their nearest training pictures, those of the true class framed green.

    `found` [N, k] positions of neighbours in the training set, nearest first; `guess` [N] classes by their vote, `also`
    [N] classes by a linear head (empty: none). Where none are asked for by name, the first wrong ones.
    """
    train, test, out = context.data["train"], context.data["test"], {}
    truth, classes, names = np.asarray(test.labels), np.asarray(train.labels), test.class_names
    mistaken = np.flatnonzero(guess != truth)[: context.keep_predictions].tolist()
    for label, row in numbered(context.look_at) or wrong(mistaken):
        near = [int(i) for i in found[row][:NEAREST]]
        said = f"kNN-{names[guess[row]]}" + (f"_linear-{names[also[row]]}" if len(also) else "")
        name = f"pictures/{label}_{slug(f'is-{names[truth[row]]}')}_{slug(said)}_{slug(test.images.image_id(row))}.png"
        out[name] = neighbours(
            test.images.picture(row),
            [train.images.picture(i) for i in near],
            [bool(classes[i] == truth[row]) for i in near],
            [f"{place}: {names[classes[i]]}" for place, i in enumerate(near, 1)],
        )
    return out


def class_pictures(
    context: TaskContext, scores: Callable[[int], torch.Tensor], rank: np.ndarray, names: Sequence[str]
) -> dict[str, bytes]:
    """Pictures with the classes nearest to them, the true one green; `scores` gives [C] cosines of a picture."""
    data, out = context.data["test"], {}
    for label, row in numbered(context.look_at) or wrong(wrong_queries(rank, len(names), context.keep_predictions)):
        found = scores(row)
        truth = int(data.labels[row])
        best = found.topk(min(NEAREST, len(names))).indices.tolist()
        places = answered(best, truth, rank[row])
        lines = [f"{place}: {names[c]}  {float(found[c]):.3f}" for place, c in zip(places, best)]
        name = f"pictures/{label}_{ranked(rank[row], len(names))}_{slug(data.images.image_id(row))}.png"
        out[name] = texts_found(data.images.picture(row), lines, [c == truth for c in best])
    return out
