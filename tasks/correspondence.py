"""Correspondence: each point of a picture goes to the most similar patch of another one.

PCK@α is the share of points that land within α of the object's longer side. Beside every score stands its ceiling, that
of an oracle that picks the best patch: it says what the grid allows, so that resolution is not read as quality. Where
surfaces are known, the error is measured on them in metres as well.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import CorrespondenceData, EncoderCard, Measurement, Method, Need, Outcome, Task, TaskContext
from benchmark.errors import DataError
from benchmark.statistics.statistic import Statistic
from benchmark.system.late import F, torch
from tasks.dense import layer_not_there
from tasks.dense_matches import DenseMatchesMethod
from tasks.match_pictures import Drawn, pictures
from tasks.patch_matches import PatchMatches, Square, answers, at_points, ceiling, cells, whole

ALPHAS = (0.1, 0.05, 0.01)
BIN, BINS = 0.02, 250  # metres: the median's histogram; the last bin holds what is farther, and nothing at all
SEED = 20  # Probe3D's, of the pairs that are drawn
READ = 512 << 20  # bytes of patches held: on most grids those of a category


@dataclass
class Pair:
    """The points of one pair: where they are, where they were looked for, and what blind answers would be."""

    index: int
    source: np.ndarray  # [K, 2] pixels
    target: np.ndarray
    found: np.ndarray
    best: np.ndarray  # by the oracle
    blind: Sequence[np.ndarray]  # the target's centre, and the place that the point has in the source
    metres: np.ndarray | None = None  # [K]
    best_metres: np.ndarray | None = None


class PatchMatchesMethod(Method[PatchMatches]):
    """The most similar patch by cosine."""

    schema = PatchMatches

    def not_applicable(self, card: EncoderCard) -> str | None:
        return layer_not_there(card, self.protocol.layer)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        return {"test/patches": self.protocol.need(data["test"].images, card.image_size, card.patch_size)}

    def run(self, context: TaskContext) -> Outcome:
        """Samples are points; those that are looked for in one picture, or on one thing, are resampled together."""
        started, data = time.perf_counter(), context.data["test"]
        pairs = sorted(self._pairs(context, data), key=lambda pair: pair.index)
        if not pairs:
            raise DataError(
                "no pair has a point that is marked in both pictures: check the data with bench data verify"
            )
        columns, blind = self._columns(data, pairs)
        return Outcome(
            columns,
            self._measurements(columns, data),
            main_metric=f"PCK@{ALPHAS[0]}",
            n=len(columns["id"]),
            details={"pairs": len(pairs), "per_category_PCK": self._by_category(columns)},
            score_s=time.perf_counter() - started,
            files=pictures(context, data, [_drawn(data, pair) for pair in pairs], "PCK"),
            blind=blind,
        )

    def _by_category(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
        hit, of = columns[f"hit@{ALPHAS[0]}"], columns["category"]
        return {name: round(100 * float(hit[of == name].mean()), 4) for name in sorted(set(of.tolist()))}

    def _chosen(self, data: CorrespondenceData) -> list[int]:
        """The pairs that are scored, those of a category and a source together, so that few pictures are read twice."""
        groups: dict[str, list[int]] = {}
        for index, category in enumerate(data.categories):
            groups.setdefault(category, []).append(index)
        if self.protocol.pairs:
            for group in groups.values():
                random.Random(SEED).shuffle(group)
                del group[self.protocol.pairs :]
        return [i for group in groups.values() for i in sorted(group, key=lambda i: data.pairs[i].tolist())]

    def _pairs(self, context: TaskContext, data: CorrespondenceData) -> Iterator[Pair]:
        p, reader, chosen = self.protocol, context.features("test/patches"), self._chosen(data)
        bar = context.progress("looking for points", len(chosen))
        h, w = reader.shape[1:3]
        side = p.side(context.card.image_size, context.card.patch_size)
        held: dict[int, torch.Tensor] = {}
        most = max(2, READ // (4 * int(np.prod(reader.shape[1:]))))
        squares: dict[int, Square] = {}

        def grid(image: int) -> torch.Tensor:  # normalised [h, w, D]
            if image not in held:
                while len(held) >= most:
                    held.pop(next(iter(held)))
                held[image] = F.normalize(reader[image : image + 1][0].to(context.device), dim=-1)
            return held[image]

        def square(image: int) -> Square:
            if image not in squares:
                shape = data.images.uniform_shape or data.images.picture(image).shape[:2]
                squares[image] = Square(p.frame, *shape)
            return squares[image]

        for index in chosen:
            one, other = (int(image) for image in data.pairs[index])
            here, there = square(one), square(other)
            source, target = data.points(index)
            bar.advance()
            if not len(source):
                continue
            if p.whole_pixels:
                source, target = whole(source, here, side), whole(target, there, side)
            tokens = at_points(grid(one), here.shares(source), p.source)
            cosines = (F.normalize(tokens, dim=-1) @ grid(other).flatten(0, 1).T).cpu()
            found = there.pixels(answers(cosines, h, w, p))
            best = there.pixels(ceiling(there.shares(target), h, w, p.place))
            middle = np.broadcast_to(np.array([there.width / 2, there.height / 2]), target.shape)
            same = source / [here.width, here.height] * [there.width, there.height]
            pair = Pair(index, source, target, found, best, (middle, same))
            if data.metric:
                grid_places = there.pixels(cells(h, w, p.place))
                at = data.located(index, np.concatenate([target, found, grid_places]))
                truth, answer, patches = np.split(at, [len(target), 2 * len(target)])
                pair.metres = _distance(answer, truth)
                pair.best_metres = _distance(patches[None], truth[:, None]).min(1)
            yield pair

    def _columns(
        self, data: CorrespondenceData, pairs: Sequence[Pair]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """Columns of all points, and those that two blind answers would have."""
        ids, targets, categories, views = [], [], [], []
        for pair in pairs:
            one, other = (data.images.image_id(int(image)) for image in data.pairs[pair.index])
            count = len(pair.source)
            ids += [f"{one}>{other}#{k}" for k in range(count)]
            targets += [data.thing_of(other) or other] * count
            categories += [data.categories[pair.index]] * count
            views += [data.views[pair.index] if data.views else ""] * count
        extent = np.concatenate([np.full(len(pair.source), data.extent(pair.index)) for pair in pairs])
        first = np.concatenate([np.arange(len(pair.source)) == 0 for pair in pairs])
        starts = np.flatnonzero(first)
        counts = np.diff([*starts, len(first)])
        truth = np.concatenate([pair.target for pair in pairs])

        def judged(places: Sequence[np.ndarray], word: str = "") -> dict[str, np.ndarray]:
            errors = _distance(np.concatenate(places), truth)
            out: dict[str, np.ndarray] = {f"{word}pixels": errors}
            for alpha in ALPHAS:
                hit = (errors <= alpha * extent).astype(float)
                share = np.full(len(hit), np.nan)  # of a pair's points, on its first one
                share[starts] = np.add.reduceat(hit, starts) / counts
                out |= {f"{word}hit@{alpha}": hit, f"{word}image@{alpha}": share}
            return out

        columns = {"id": np.array(ids), "target": np.array(targets), "category": np.array(categories)}
        columns |= judged([pair.found for pair in pairs]) | judged([pair.best for pair in pairs], "ceiling_")
        for view in sorted(set(views) - {""}):
            columns[f"hit@{ALPHAS[0]} {view}"] = np.where(np.array(views) == view, columns[f"hit@{ALPHAS[0]}"], np.nan)
        if data.metric:
            for word, name in (("", "metres"), ("ceiling_", "best_metres")):
                metres = np.concatenate([getattr(pair, name) for pair in pairs])
                columns |= {f"{word}hit@{m:g} m": (metres <= m).astype(float) for m in self.protocol.metres}
                place = np.minimum(np.nan_to_num(metres / BIN, nan=BINS, posinf=BINS), BINS - 1).astype(int)
                columns[f"{word}metres"] = np.eye(BINS, dtype=np.uint8)[place]
        return columns, [judged([pair.blind[k] for pair in pairs]) for k in range(2)]

    def _measurements(self, columns: Mapping[str, np.ndarray], data: CorrespondenceData) -> list[Measurement]:
        by_category = self.protocol.average == "categories"

        def percent(name: str, column: str) -> Measurement:
            kind, group = ("group_mean", "category") if by_category else ("mean", None)
            return Measurement(name, Statistic(kind, (column,), 100.0, group=group, cluster="target"), True, "%")  # type: ignore[arg-type]

        found = []
        for word, name in (("", ""), ("ceiling_", "ceiling of ")):
            found += [percent(f"{name}PCK@{alpha}", f"{word}hit@{alpha}") for alpha in ALPHAS]
            found += [percent(f"{name}PCK@{alpha} per image", f"{word}image@{alpha}") for alpha in ALPHAS]
            if data.metric:
                found += [percent(f"{name}recall@{m:g} m", f"{word}hit@{m:g} m") for m in self.protocol.metres]
                median = Statistic("quantile", (f"{word}metres",), cluster="target", width=BIN)
                pixels = Statistic("mean", (f"{word}pixels",), cluster="target")
                found += [
                    Measurement(f"{name}median error", median, False, "m"),
                    Measurement(f"{name}mean error", pixels, False, "px"),
                ]
        views = [column for column in columns if column.startswith(f"hit@{ALPHAS[0]} ") and not column.endswith(" m")]
        return found + [percent(f"PCK@{ALPHAS[0]}, view {column.partition(' ')[2]}", column) for column in views]


def _distance(places: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of the last axis; infinite where there is nothing."""
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.nan_to_num(np.linalg.norm(places - truth, axis=-1), nan=np.inf, posinf=np.inf)
    return found


def _drawn(data: CorrespondenceData, pair: Pair) -> Drawn:
    errors, extent = _distance(pair.found, pair.target), data.extent(pair.index)
    return Drawn(
        pair.index, pair.source, pair.found, pair.target, errors <= ALPHAS[0] * extent, -errors.mean() / extent
    )


TASK = Task(
    "correspondence", "correspondence", {"patch_matches": PatchMatchesMethod, "dense_matches": DenseMatchesMethod}
)
