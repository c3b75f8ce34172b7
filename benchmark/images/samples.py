"""Samples as a person looks at them before any model is loaded: each picture beside its target, and the target over it.

A mask that is shifted, mirrored or belongs to another picture is seen in one frame. What is not scored is striped;
class shares and ranges are written beside each sample.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmark.contracts import (
    CaptionData,
    CorrespondenceData,
    DepthData,
    LabelData,
    MapSamples,
    NormalsData,
    RetrievalData,
    SegmentationData,
    ignored_label,
)
from benchmark.contracts.kinds import spread
from benchmark.errors import BenchError
from benchmark.images.drawing import (
    INK,
    LINE,
    NEAR_FAR,
    WRONG,
    mapped,
    normal_colours,
    palette_for,
    shrink,
    striped,
)  # fmt: skip
from benchmark.images.faults import Scan, name_of, sizes_differ
from benchmark.images.matches import matches
from benchmark.images.sheets import HEIGHT, NOT_SCORED, WIDEST, WORDS, Seen, Sheet, Word
from benchmark.system.plurals import number_of

ACROSS = 6  # small pictures in a line
MESSY = 0.4  # share of edge pixels past which they would hide the picture


def look_at_samples(
    data: Any, title: str, count: int = 4, called: str = "target", scanned: Scan | None = None
) -> Sheet:
    """`count` samples of `data`, spread evenly over it; `called`: what its targets are. Raises DataError where one
    cannot be read, unless the data were `scanned`: then those with a fault come first, as far as they can be drawn."""
    if scanned is not None:
        rows = scanned.chosen(count)
        unread = {fault.row: fault.text for fault in scanned.faults if fault.unread}
        sheet = _sheet(data, title, [row for row in rows if row not in unread], called)
        sheet.lines[:0] = [_unread(data, row, unread[row]) for row in rows if row in unread]
        if isinstance(data, MapSamples) and len(sheet.lines) < len(data):  # shares and ranges are of what is drawn
            sheet.facts = [f"in those drawn: {fact}" for fact in sheet.facts]
        sheet.facts[:0] = scanned.lines
        return sheet
    return _sheet(data, title, spread(len(data), count), called)


def _unread(data: Any, row: int, text: str) -> Seen:
    """The line of a sample that cannot be read whole: its picture, where it is the target that is wrong."""
    words = [Word(line, wrong=True) for line in textwrap.wrap(text, 3 * WORDS // 7)]
    try:
        return Seen([data.images.picture(row)], ["picture"], words, name_of(data, row))
    except (BenchError, AttributeError, IndexError):
        return Seen([], [], words, name_of(data, row))


def _sheet(data: Any, title: str, rows: Sequence[int], called: str) -> Sheet:
    sheet = Sheet(title, called)
    for kind, see in _KINDS.items():
        if isinstance(data, kind):
            see(data, rows, sheet)
            return sheet
    for row in rows:
        panels = dict(data.panels(row)) or {
            name: images.picture(row) for name, images in data.pictures().items() if len(images) == len(data)
        }
        sheet.lines.append(Seen(list(panels.values()), list(panels), name=name_of(data, row)))
    return sheet


def _maps(
    data: MapSamples,
    rows: Sequence[int],
    sheet: Sheet,
    draw: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray, list[Word]]],
    edge: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    """Lines of picture, target and both; `draw` gives a target's colours, what is not scored and its words, `edge`
    where two neighbours are parted by a line."""
    for row in rows:
        image, target = data.images.picture(row), np.asarray(data.target(row))
        height = min(HEIGHT, max(1, WIDEST * image.shape[0] // image.shape[1]))
        small = shrink(target, height)
        colours, unscored, words = draw(target, row)
        colours, unscored = shrink(colours, height), shrink(unscored, height)
        edges = np.zeros(small.shape[:2], bool)
        with np.errstate(invalid="ignore"):  # two infinite depths
            edges[:, :-1] |= edge(small[:, :-1], small[:, 1:])
            edges[:-1] |= edge(small[:-1], small[1:])
        picture = np.asarray(Image.fromarray(image).resize((small.shape[1], small.shape[0]), Image.Resampling.BICUBIC))
        over = (0.55 * picture + 0.45 * colours).astype(np.uint8)
        if edges.mean() < MESSY:
            over[edges] = INK
        if said := sizes_differ(image, target, sheet.called):
            words.insert(0, Word(said, WRONG, True))
        panels = [picture, striped(colours, unscored), striped(over, unscored)]
        sheet.lines.append(
            Seen(panels, ("picture", sheet.called, f"{sheet.called} over picture"), words, name_of(data, row))
        )


def _segmentation(data: SegmentationData, rows: Sequence[int], sheet: Sheet) -> None:
    names, classes = list(data.class_names), len(data.class_names)
    colours = palette_for(classes) if data.palette is None else np.asarray(data.palette, np.uint8)
    total: dict[int, int] = {}
    lost = pixels = beyond = 0

    def draw(target: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray, list[Word]]:
        nonlocal lost, pixels, beyond
        unscored = (target == ignored_label(classes)) | (target < 0)
        wrong = ~unscored & (target >= classes)
        found, counts = np.unique(target[~unscored & ~wrong], return_counts=True)
        for label, count in zip(found.tolist(), counts.tolist()):
            total[label] = total.get(label, 0) + count
        lost, pixels, beyond = lost + int(unscored.sum()), pixels + target.size, beyond + int(wrong.sum())
        order = np.argsort(-counts, kind="stable")
        words = [
            Word(f"{names[found[i]]}  {_share(int(counts[i]), target.size)}", tuple(colours[found[i]].tolist()))
            for i in order
        ]
        room = HEIGHT // LINE - 1
        if len(words) > room:
            rest = sum(int(counts[i]) for i in order[room - 1 :])
            words = [*words[: room - 1], Word(f"{len(words) - room + 1} more  {_share(rest, target.size)}")]
        words += _unscored(unscored)
        if wrong.any():
            words.insert(0, Word(f"label {int(target[wrong].max())} is no class of {classes}", WRONG, True))
        painted = colours[np.where(unscored | wrong, 0, target)]
        painted[wrong] = WRONG
        return painted, unscored, words

    _maps(data, rows, sheet, draw, np.not_equal)
    shares = [f"{names[i]} {_share(n, pixels)}" for i, n in sorted(total.items(), key=lambda one: -one[1])]
    shares[20:] = ["…"] * (len(shares) > 20)
    sheet.facts.append(f"{len(total)} of {classes} classes" + f": {', '.join(shares)}" * bool(shares))
    sheet.facts.append(f"not scored {_share(lost, pixels)}")
    if beyond:
        sheet.facts.append(f"{_share(beyond, pixels)} of a label that is no class: a run stops there. Correct classes")


def _depth(data: DepthData, rows: Sequence[int], sheet: Sheet) -> None:
    seen: list[tuple[float, float]] = []
    lost = pixels = 0
    of = "" if data.relative else " m"

    def draw(target: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray, list[Word]]:
        nonlocal lost, pixels
        there = np.isfinite(target) & (target > 0)
        far = there & (target >= data.max_depth) if data.max_depth else np.zeros_like(there)
        scored = there & ~far
        lost, pixels = lost + int((~scored).sum()), pixels + target.size
        words = []
        low, high = 0.0, 1.0
        if scored.any():
            values = target[scored]
            low, high = float(values.min()), float(values.max())
            seen.append((low, high))
            ends = [tuple(mapped(np.array([[v]]), 0, 1, NEAR_FAR)[0, 0].tolist()) for v in (0.0, 0.5, 1.0)]
            words = [
                Word(f"nearest {low:.4g}{of}", ends[0]),
                Word(f"median {float(np.median(values)):.4g}{of}"),
                Word(f"farthest {high:.4g}{of}", ends[2]),
            ]
        words += _unscored(~scored)
        if far.any():
            words.append(Word(f"of it beyond {data.max_depth:g}{of}  {_share(int(far.sum()), target.size)}"))
        return mapped(np.where(scored, target, low), low, high, NEAR_FAR), ~scored, words

    _maps(data, rows, sheet, draw, lambda a, b: np.abs(a - b) > 0.1 * np.minimum(a, b))
    if seen:
        nearest, farthest = min(low for low, _ in seen), max(high for _, high in seen)
        sheet.facts.append(f"depth {nearest:.4g} to {farthest:.4g}{of or ' (relative)'}")
    sheet.facts.append(f"not scored {_share(lost, pixels)}")


def _normals(data: NormalsData, rows: Sequence[int], sheet: Sheet) -> None:
    lost = pixels = 0

    def draw(target: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray, list[Word]]:
        nonlocal lost, pixels
        unscored = ~np.isfinite(np.asarray(data.counted(row))).all(-1)
        lost, pixels = lost + int(unscored.sum()), pixels + unscored.size
        words = _unscored(unscored)
        if not unscored.all():
            mean = np.asarray(target, np.float64)[~unscored].mean(0)
            words.insert(0, Word("mean x right {:.2f}, y down {:.2f}, z ahead {:.2f}".format(*mean)))
            length = float(np.linalg.norm(target[~unscored], axis=-1).mean())
            if abs(length - 1) > 0.01:
                words.insert(0, Word(f"mean length {length:.3g}, expected 1", WRONG, True))
        return normal_colours(target), unscored, words

    _maps(data, rows, sheet, draw, lambda a, b: (a * b).sum(-1) < 0.9)
    sheet.facts.append(f"red right, green up, blue to the camera; not scored {_share(lost, pixels)}")


def _labels(data: LabelData, rows: Sequence[int], sheet: Sheet) -> None:
    labels, names = np.asarray(data.labels), list(data.class_names)
    for start in range(0, len(rows), ACROSS):
        some = rows[start : start + ACROSS]
        sheet.lines.append(Seen([data.images.picture(i) for i in some], [names[labels[i]] for i in some]))
    found, counts = np.unique(labels, return_counts=True)
    most, least = int(counts.argmax()), int(counts.argmin())
    shares = f"{_share(int(counts[most]), len(labels))} each"
    if counts[most] != counts[least]:
        ends = (("largest", most), ("smallest", least))
        shares = ", ".join(f"the {end} {names[found[i]]} {_share(int(counts[i]), len(labels))}" for end, i in ends)
    sheet.facts.append(f"{len(found)} of {len(names)} classes: {shares}")


def _captions(data: CaptionData, rows: Sequence[int], sheet: Sheet) -> None:
    for row in rows:
        words = [Word(line) for text in data.captions[row] for line in textwrap.wrap(f"“{text}”", 3 * WORDS // 7)]
        sheet.lines.append(Seen([data.images.picture(row)], ["picture"], words, name_of(data, row)))
    sheet.facts.append(number_of(sum(map(len, data.captions)), "caption"))


def _retrieval(data: RetrievalData, rows: Sequence[int], sheet: Sheet) -> None:
    domains, labels = np.asarray(data.index_domains), np.asarray(data.index_labels)
    for row in rows:
        right = (domains == data.query_domains[row]) & np.isin(labels, data.labels_of(row))
        if data.self_index is not None and data.self_index[row] >= 0:
            right[data.self_index[row]] = False
        answers = np.flatnonzero(right)
        words = [
            Word(f"label {', '.join(map(str, data.labels_of(row)))}, {data.query_domains[row]}"),
            Word(f"{len(answers)} right of {len(data.index):,}"),
        ]
        if not len(answers):
            words.append(Word("no right answer in the index", WRONG, True))
        some = answers[: ACROSS - 2]
        panels = [data.queries.picture(row), *(data.index.picture(int(i)) for i in some)]
        titles = ["query", *(f"right {i}" for i in range(1, len(some) + 1))]
        sheet.lines.append(Seen(panels, titles, words, data.queries.image_id(row)))
    sheet.facts.append(
        f"{number_of(len(data.index), 'picture')} in the index, {number_of(len(set(data.query_domains)), 'domain')}"
    )


def _correspondence(data: CorrespondenceData, rows: Sequence[int], sheet: Sheet) -> None:
    for row in rows:
        one, other = (int(i) for i in data.pairs[row])
        source, target = data.points(row)
        panel = np.asarray(matches(data.images.picture(one), data.images.picture(other), source, target))
        said = (data.categories[row], number_of(len(source), "point"), f"extent {data.extent(row):.4g} px")
        words = [Word(text) for text in said]
        if data.views:
            words.append(Word(f"view {data.views[row]}"))
        titles = [f"{data.images.image_id(one)} → {data.images.image_id(other)}"]
        sheet.lines.append(Seen([panel], titles, words))
    sheet.facts.append(f"{number_of(len(data.images), 'picture')}, {number_of(len(set(data.categories)), 'category')}")


_KINDS: Mapping[type, Callable[[Any, Sequence[int], Sheet], None]] = {
    SegmentationData: _segmentation,
    DepthData: _depth,
    NormalsData: _normals,
    LabelData: _labels,
    CaptionData: _captions,
    RetrievalData: _retrieval,
    CorrespondenceData: _correspondence,
}


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _unscored(where: np.ndarray) -> list[Word]:
    count = int(where.sum())
    return [Word(f"not scored  {_share(count, where.size)}", NOT_SCORED, bool(where.all()))] if count else []
