"""Patches of the training pictures as a labelled memory on disk, and the neighbours of test patches in it.

The vectors lie in a scratch file whose pages are let go of as they are read, so ten million of them are no part of the
process's memory. The memory has parts: a quarter, what makes it a half, and the rest, each picture's patches in the
order in which it gives them away. One search over the parts says what memories of these sizes would have answered.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy  # its parts are imported when they are used

from benchmark.contracts import TaskContext, ignored_label
from benchmark.data.read_ahead import read_ahead
from benchmark.errors import DataError
from benchmark.heads.knn import topk_search
from benchmark.system.bounds import Amount, Counts, Layer, NotNegative, Part
from benchmark.system.files import disk_errors
from benchmark.system.late import torch
from benchmark.system.mapped import let_go

Distance = Literal["cosine", "L2"]
SHARES = ("1/4", "1/2", "1")  # of the memory, by its parts
BLOCK = 32  # pictures read from the store at a time
RESIDENT = 64 << 20  # bytes of a file's rows that may count as this process's memory


@dataclass(frozen=True)
class PatchMemory:
    """The fields of a preset. Pictures are stretched to a square of whole patches; nothing is trained."""

    view_size: Amount  # side of the square in pixels, rounded down to whole patches; 0: the encoder's
    layer: Layer  # -1 is the last
    memory: Amount  # patches in all, as many of every picture; 0: all of them
    sampling: Literal["uniform", "rare"]  # which patches of a picture; rare: rather those of classes it shows little of
    void: Literal["left out", "background"]  # what unlabelled pixels of training masks are
    labels: Literal["shares", "pixels"]  # of a patch: the share of each class, or the class of each of its pixels
    standardise: bool  # every feature to mean 0 and deviation 1 over training patches
    neighbours: Counts  # with `distances`: the pair with the best mIoU on held-out training pictures
    distances: tuple[Distance, ...]
    holdout: Part  # share of the training pictures held out, where there is something to choose
    temperature: NotNegative  # of the softmax over cosines that weighs neighbours; 0: all weigh the same
    voc_train: Literal["train", "trainaug"]  # the training list of VOC 2012
    resolution: Literal["full", "view"]  # of the pixels that are scored: those of the picture, or of the square

    def __post_init__(self) -> None:
        if not self.distances:
            raise ValueError('distances is empty. Name "cosine", "L2", or both')
        if self.temperature and "L2" in self.distances:
            raise ValueError(f"temperature = {self.temperature:g} is one of cosines. Use 0 with the distance L2")

    def side(self, image_size: int, patch: int) -> int:
        """Pixels of the square view."""
        return max(1, (self.view_size or image_size) // patch) * patch

    def pairs(self) -> list[tuple[Distance, int]]:
        """What there is to choose from."""
        return [(distance, k) for distance in self.distances for k in self.neighbours]


class RowFile:
    """Rows of one width in a scratch file: appended, then read by slice or by sorted indices."""

    def __init__(self, folder: Path, width: int, kind: type = np.float32) -> None:
        self.kind, self.width, self.rows, self.folder = np.dtype(kind), width, 0, folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as this object
        self.map, self.held = np.empty((0, width), self.kind), 0  # of the rows that were there, and bytes read of it

    def append(self, rows: np.ndarray) -> None:
        """Takes rows [n, width]."""
        with disk_errors(self.folder):
            self.file.seek(0, 2)
            self.file.write(np.ascontiguousarray(rows, self.kind).data)
        self.rows += len(rows)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.width

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        """[n, width]; rows of an index array that lie near one another are read in one go."""
        if isinstance(rows, slice):
            return self._seen(rows)
        asked = np.asarray(rows, np.int64)
        runs = np.split(np.arange(len(asked)), np.flatnonzero(np.diff(asked) > 4) + 1) if len(asked) else []
        out = np.empty((len(asked), self.width), self.kind)
        for run in runs:
            low = asked[run[0]]
            out[run] = self._read(int(low), int(asked[run[-1]]) + 1)[asked[run] - low]
        return out

    def _seen(self, rows: slice) -> np.ndarray:
        """Rows where they lie in the system's cache: no copy is made."""
        with disk_errors(self.folder):
            if len(self.map) != self.rows:
                self.file.flush()
                # "c": what is read may not be changed in the file, and needs no copy to become a tensor
                self.map = np.memmap(self.file, self.kind, "c", shape=self.shape)
            if self.held > RESIDENT:
                let_go(self.map)
                self.held = 0
            found: np.ndarray = self.map[rows].view(np.ndarray)
            self.held += found.nbytes
            return found

    def _read(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((max(0, stop - start), self.width), self.kind)
        with disk_errors(self.folder):
            self.file.seek(start * self.width * self.kind.itemsize)
            self.file.readinto(out.data.cast("B") if out.size else bytearray())
        return out


@dataclass
class Space:
    """Where patches are compared by cosine: their own space, standardised, or one in which cosines fall with distance.

    For L2 a key k becomes [k, −|k|²/2c, s] with s so that all keys have the norm r, and a query q becomes [q, c, 0]:
    their product is (|q|² − |q − k|²) / 2, so the largest cosine is the smallest distance.
    """

    distance: Distance
    mean: torch.Tensor | None = None  # [D]
    deviation: torch.Tensor | None = None  # [D]
    scale: float = 1.0  # c: about the norm of a key
    radius: float = 1.0  # r

    def standardise(self, blocks: Iterator[torch.Tensor]) -> None:
        """To the mean and deviation of patches [n, D] that come in blocks; a constant feature keeps its scale."""
        count, total, squares = 0, torch.zeros(1).double(), torch.zeros(1).double()
        for block in blocks:
            wide = block.double()
            count, total, squares = count + len(wide), total + wide.sum(0), squares + (wide**2).sum(0)
        mean = total / count
        deviation = (squares / count - mean**2).clamp(min=0).sqrt()
        self.mean, self.deviation = mean.float(), torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0).float()

    def lift(self, blocks: Iterator[torch.Tensor]) -> None:
        """For L2: room for the largest of the keys [n, D] that are to come."""
        norms = torch.cat([self._plain(block).double().square().sum(1) for block in blocks])
        self.scale = max(float(norms.mean().sqrt()), 1e-12)
        self.radius = float((norms + (norms / (2 * self.scale)) ** 2).max().sqrt()) * (1 + 1e-6)

    def _plain(self, rows: torch.Tensor) -> torch.Tensor:
        if self.mean is None or self.deviation is None:
            return rows
        return (rows - self.mean) / self.deviation

    def keys(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, D] as they are kept in the memory."""
        rows = self._plain(rows)
        if self.distance == "cosine":
            return rows
        square = rows.double().square().sum(1, keepdim=True)
        height = -square / (2 * self.scale)
        rest = (self.radius**2 - square - height**2).clamp(min=0).sqrt()
        return torch.cat([rows, height.float(), rest.float()], 1)

    def queries(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, D] as they are looked up."""
        rows = self._plain(rows)
        if self.distance == "cosine":
            return rows
        return torch.cat([rows, rows.new_full((len(rows), 1), self.scale), rows.new_zeros(len(rows), 1)], 1)


class ClassShares:
    """Labels of patches by the share of each class, kept sparse: few patches show more than two."""

    def __init__(self, classes: int) -> None:
        self.classes, self.of_patch = classes, [np.zeros(1, np.int64)]
        self.where, self.share = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]

    def append(self, counts: np.ndarray) -> None:
        """Takes patches by their pixels of each class, [n, C]."""
        rows, classes = np.nonzero(counts)
        self.of_patch.append(np.bincount(rows, minlength=len(counts)))
        self.where.append(classes.astype(np.int32))
        self.share.append((counts / counts.sum(1, keepdims=True))[rows, classes].astype(np.float32))

    def table(self) -> scipy.sparse.csr_matrix:
        """[n, C] float32."""
        starts = np.cumsum(np.concatenate(self.of_patch))
        values = np.concatenate(self.share), np.concatenate(self.where), starts
        return scipy.sparse.csr_matrix(values, shape=(len(starts) - 1, self.classes))


class Memory:
    """The patches of some training pictures in a `Space`, with their labels."""

    def __init__(self, context: TaskContext, protocol: PatchMemory, pictures: np.ndarray, space: Space) -> None:
        """Reads the stored patches and the masks of `pictures`. Raises DataError where no patch has a label."""
        self.protocol, self.space, self.device = protocol, space, context.device
        data, reader = context.data["train"], context.features("train/patches")
        self.classes, (_, h, w, width) = len(data.class_names), reader.shape
        self.patch = protocol.side(context.card.image_size, context.card.patch_size) // h
        extra = 2 if space.distance == "L2" else 0
        self.parts = [RowFile(context.scratch, width + extra) for _ in SHARES]
        label = np.uint8 if self.classes <= 255 else np.int32
        self.labels: list[Any] = [
            ClassShares(self.classes) if protocol.labels == "shares" else RowFile(context.scratch, self.patch**2, label)
            for _ in SHARES
        ]
        quota = max(1, protocol.memory // len(pictures)) if protocol.memory else h * w
        bar = context.progress("filling the memory", len(pictures))
        read = partial(patch_labels, data, grid=(h, w), patch=self.patch, protocol=protocol)
        labelled = read_ahead(read, pictures.tolist())
        for start in range(0, len(pictures), BLOCK):
            block = pictures[start : start + BLOCK]
            for index, tokens in zip(block, reader[block].flatten(1, 2)):
                cells, counts, usable = next(labelled)
                picked = self._picked(counts, usable, f"{context.seed}:{data.images.image_id(int(index))}")[:quota]
                keys = space.keys(tokens[picked]).numpy()
                ends = [-(-len(picked) // 4), -(-len(picked) // 2), len(picked)]
                for place, (low, high) in enumerate(zip([0, *ends], ends)):
                    self.parts[place].append(keys[low:high])
                    rows = picked[low:high]
                    self.labels[place].append(counts[rows] if protocol.labels == "shares" else cells[rows])
            bar.advance(len(block))
        if not len(self):
            raise DataError("no labelled patch in the training images: check the masks with bench data verify")
        if protocol.labels == "shares":
            self.labels = [scipy.sparse.vstack([labels.table() for labels in self.labels], "csr")]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def _picked(self, counts: np.ndarray, usable: np.ndarray, seed: str) -> np.ndarray:
        """The usable patches of a picture in the order in which they enter the memory."""
        digest = hashlib.sha256(f"memory:{seed}".encode()).digest()
        draw = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(len(counts)) * 2.0**-64
        if self.protocol.sampling == "rare":
            shown = counts > 0
            draw = draw * (shown @ shown.sum(0))
        order = np.argsort(draw, kind="stable")
        picked: np.ndarray = order[usable[order]]
        return picked

    def nearest(self, tokens: torch.Tensor, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For memories of the `SHARES`: (scores [Q, k], patches [Q, k]) of test patches [Q, D], best first, equal
        ones in the order of the memory; fewer where a memory has fewer."""
        queries, offset = self.space.queries(tokens), 0
        scores, found = torch.zeros(len(queries), 0).double(), torch.zeros(len(queries), 0).long()
        for part in self.parts:
            if len(part):
                more, rows = topk_search(queries, part, min(k, len(part)), device=self.device)
                scores, found = torch.cat([scores, more], 1), torch.cat([found, rows + offset], 1)
                order = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :k]
                scores, found = scores.gather(1, order), found.gather(1, order)
            offset += len(part)
            yield scores.numpy(), found.numpy()

    def votes(self, scores: np.ndarray, found: np.ndarray) -> np.ndarray:
        """What neighbours [Q, k] say of a patch: shares [Q, C] float32, or the class of each pixel [Q, patch²]."""
        weights = np.full(scores.shape, 1 / scores.shape[1])
        if self.protocol.temperature:
            weights = scipy.special.softmax(scores / self.protocol.temperature, 1)
        if self.protocol.labels == "shares":
            starts = np.arange(0, scores.size + 1, scores.shape[1])
            chosen = scipy.sparse.csr_matrix((weights.ravel(), found.ravel(), starts), shape=(len(scores), len(self)))
            shares: np.ndarray = (chosen @ self.labels[0]).toarray().astype(np.float32)
            return shares
        labels, offset = np.empty((*found.shape, self.patch**2), np.int64), 0
        for part in self.labels:
            here = (found >= offset) & (found < offset + len(part))
            rows, places = np.unique(found[here] - offset, return_inverse=True)
            labels[here] = part[rows][places]
            offset += len(part)
        out = np.empty((len(found), self.patch**2), np.int64)
        for q, mine in enumerate(labels):  # [k, patch²]; equal votes go to the lower class
            cell = np.arange(mine.shape[1]) * self.classes + mine
            ballots = np.bincount(cell.ravel(), np.repeat(weights[q], mine.shape[1]), mine.shape[1] * self.classes)
            out[q] = ballots.reshape(-1, self.classes).argmax(1)
        return out


def patch_labels(
    data: Any, index: int, grid: tuple[int, int], patch: int, protocol: PatchMemory
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes [P, patch²], pixels of each class [P, C], whether the patch can be remembered [P]) of a mask laid over
    the grid by the nearest pixel. An unlabelled pixel has the commonest class of its patch in the first and is not
    counted in the second; a patch without a label cannot be remembered, nor by its pixels one with fewer of any class
    than unlabelled. Raises DataError for a label that is no class."""
    classes, ignored = len(data.class_names), ignored_label(len(data.class_names))
    h, w = grid
    mask = nearest_pixels(np.asarray(data.target(index)), h * patch, w * patch).astype(np.int64)
    cells = mask.reshape(h, patch, w, patch).swapaxes(1, 2).reshape(h * w, patch**2)
    unlabelled = (cells == ignored) | (cells < 0)
    if protocol.void == "background" and data.background is not None:
        cells, unlabelled = np.where(unlabelled, data.background, cells), np.zeros_like(unlabelled)
    if (worst := cells[~unlabelled].max(initial=0)) >= classes:
        raise DataError(f"label {worst} in a training mask, but there are {classes} classes")
    places = np.arange(h * w)[:, None] * classes + cells
    counts = np.bincount(places[~unlabelled], minlength=h * w * classes).reshape(h * w, classes)
    cells = np.where(unlabelled, counts.argmax(1)[:, None], cells)
    least = unlabelled.sum(1) if protocol.labels == "pixels" else 1
    return cells, counts, (counts.max(1) > 0) & (counts.max(1) >= least)


def nearest_pixels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W] -> [height, width]: the label at each new pixel's centre, as Pillow's NEAREST."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    found: np.ndarray = labels[rows][:, columns]
    return found
