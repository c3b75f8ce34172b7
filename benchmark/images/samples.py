"""Samples as a person looks at them before any model is loaded: each picture beside its target, and the target over it.

A mask that is shifted, mirrored or belongs to another picture is seen in one frame. What is not scored is striped;
class shares and ranges are written beside each sample.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmark.contracts import (
    CaptionData,
    CorrespondenceData,
    DepthData,
    ImageSet,
    LabelData,
    MapSamples,
    NormalsData,
    RetrievalData,
    SegmentationData,
    ignored_label,
)
from benchmark.contracts.kinds import spread
from benchmark.images.drawing import (
    GAP,
    INK,
    LINE,
    NEAR_FAR,
    STRIPES,
    WRONG,
    cut,
    font,
    joined,
    mapped,
    normal_colours,
    palette_for,
    png,
    shrink,
    striped,
)  # fmt: skip
from benchmark.images.matches import matches
from benchmark.system.plurals import number_of

HEIGHT, WIDEST, WORDS, ACROSS = 160, 300, 270, 6  # pixels of a panel and of its words; small pictures in a line
MESSY = 0.4  # share of edge pixels past which they would hide the picture
NOT_SCORED = STRIPES[0]


@dataclass
class Word:
    """A line beside a sample, with the colour that it explains."""

    text: str
    colour: tuple[int, int, int] | None = None
    wrong: bool = False


@dataclass
class Seen:
    """A line of a sheet: panels [H, W, 3] with a title each, words beside them, and whose they are."""

    panels: Sequence[np.ndarray]
    titles: Sequence[str]
    words: Sequence[Word] = ()
    name: str = ""


@dataclass
class Sheet:
    """Some samples of one split: what is drawn (a picture in a notebook), and what is said of them in words."""

    title: str
    called: str = "target"
    lines: list[Seen] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Sheet {self.title}: {'; '.join(self.facts)}>"

    def _repr_png_(self) -> bytes:
        return drawn([self])


def look_at_samples(data: Any, title: str, count: int = 4, called: str = "target") -> Sheet:
    """`count` samples of `data`, spread evenly over it; `called`: what its targets are. Raises DataError where one
    cannot be read."""
    sheet = Sheet(title, called)
    rows = spread(len(data), count)
    for kind, see in _KINDS.items():
        if isinstance(data, kind):
            see(data, rows, sheet)
            return sheet
    for row in rows:
        panels = dict(data.panels(row)) or {
            name: images.picture(row) for name, images in data.pictures().items() if len(images) == len(data)
        }
        sheet.lines.append(Seen(list(panels.values()), list(panels), name=_name(data, row)))
    return sheet


def _name(data: Any, row: int) -> str:
    first: ImageSet | None = next(iter(data.pictures().values()), None)
    return first.image_id(row) if first is not None and row < len(first) else f"sample {row}"


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
        if image.shape[:2] != target.shape[:2]:
            sizes = [" × ".join(map(str, shape)) for shape in (target.shape[:2], image.shape[:2])]
            words.insert(0, Word(f"the {sheet.called} is {sizes[0]}, the picture {sizes[1]}", WRONG, True))
        panels = [picture, striped(colours, unscored), striped(over, unscored)]
        sheet.lines.append(
            Seen(panels, ("picture", sheet.called, f"{sheet.called} over picture"), words, _name(data, row))
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
    sheet.facts.append(
        f"{len(found)} of {len(names)} classes; the largest {names[found[counts.argmax()]]} "
        f"{_share(int(counts.max()), len(labels))}, the smallest {names[found[counts.argmin()]]} "
        f"{_share(int(counts.min()), len(labels))}"
    )


def _captions(data: CaptionData, rows: Sequence[int], sheet: Sheet) -> None:
    for row in rows:
        words = [Word(line) for text in data.captions[row] for line in textwrap.wrap(f"“{text}”", 3 * WORDS // 7)]
        sheet.lines.append(Seen([data.images.picture(row)], ["picture"], words, _name(data, row)))
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
        words += [Word(f"view {data.views[row]}")] * bool(data.views)
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


def drawn(sheets: Sequence[Sheet]) -> bytes:
    """One PNG of all `sheets` below each other."""
    lines = [[_line(seen) for seen in sheet.lines] for sheet in sheets]
    width = max([700, *(line.width for some in lines for line in some)])
    blocks: list[Image.Image] = []
    for sheet, some in zip(sheets, lines):
        words = [part for fact in (sheet.title, *sheet.facts) for part in textwrap.wrap(fact, width // 7)]
        head = Image.new("RGB", (width, LINE * len(words) + 6), (235, 238, 242))
        for i, text in enumerate(words):
            ImageDraw.Draw(head).text((4, 3 + LINE * i), text, INK, font())
        blocks += [head, *some]
    out = Image.new("RGB", (width + 2 * GAP, sum(b.height + GAP for b in blocks) + GAP), "white")
    y = GAP
    for block in blocks:
        out.paste(block, (GAP, y))
        y += block.height + GAP
    return png(out)


def _line(seen: Seen) -> Image.Image:
    height = min(HEIGHT, *(max(1, WIDEST * p.shape[0] // p.shape[1]) for p in seen.panels)) if seen.panels else HEIGHT
    widths = [max(1, round(p.shape[1] * height / p.shape[0])) for p in seen.panels]
    strip = joined(seen.panels, height) if seen.panels else Image.new("RGB", (1, HEIGHT), "white")
    room = WORDS if len(seen.panels) > 1 else 3 * WORDS
    out = Image.new("RGB", (strip.width + 2 * GAP + room * bool(seen.words), 2 * LINE + max(height, LINE)), "white")
    out.paste(strip, (0, LINE))
    draw, x = ImageDraw.Draw(out), 0
    for title, width in zip(seen.titles, widths):
        draw.text((x + 1, 1), cut(title, width), INK, font())
        x += width + GAP
    draw.text((1, LINE + height + 1), cut(seen.name, strip.width), (110, 110, 110), font())
    y = LINE
    for word in seen.words:
        if word.colour == NOT_SCORED:
            box = striped(np.zeros((11, 11, 3), np.uint8), np.ones((11, 11), bool))
            out.paste(Image.fromarray(box), (strip.width + 9, y + 3))
        elif word.colour is not None:
            draw.rectangle((strip.width + 9, y + 3, strip.width + 19, y + 13), word.colour, (150, 150, 150))
        left = strip.width + (24 if word.colour is not None else 9)
        draw.text((left, y), cut(word.text, out.width - left), WRONG if word.wrong else INK, font())
        y += LINE
    return out
