"""Where a bright square shows in a patch map: in its own patch, or where mixed-up tokens, rows or columns put it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

Place = tuple[int, int]  # row and column of a patch

LEAST_SIDE = 3  # patches; below it the places are no four
OUTER, INNER = slice(0, 4), slice(2, 6)  # of `places_in`: what every mix-up moves; what no shift by one loses
UNTOUCHED = 0.1  # share of the change where a square shows, below which a patch does not see its own square

ONE_AWAY = {(1, 0): "one row down", (-1, 0): "one row up", (0, 1): "one column right", (0, -1): "one column left"}

# Where each mix-up shows a square of patch (row, column) of a map of `rows` x `columns`.
MIXED_UP: tuple[tuple[str, Callable[[int, int, int, int], Place]], ...] = (
    ("rows and columns are swapped", lambda r, c, rows, columns: (c, r)),
    ("rows and columns are swapped", lambda r, c, rows, columns: divmod(c * rows + r, columns)),
    ("the map is mirrored", lambda r, c, rows, columns: (r, columns - 1 - c)),
    ("the map is upside down", lambda r, c, rows, columns: (rows - 1 - r, c)),
    ("the map is turned by half", lambda r, c, rows, columns: (rows - 1 - r, columns - 1 - c)),
)


def places_in(rows: int, columns: int) -> list[Place]:
    """Six patches: four off the centre, which every mix-up above moves; the last four touch no border."""
    outer = [(0, columns - 1), (rows - 1, 0), (rows // 3, columns - 2), (rows - 2, columns // 3)]
    return [*outer, (1, columns // 2), (rows // 2, 1)]


def with_squares(picture: torch.Tensor, patch: int, places: Sequence[Place], opposite: bool = False) -> torch.Tensor:
    """[1, 3, H, W] → [len(places), 3, H, W], each with a square over the patch of its place: white, or of the colour
    opposite to the patch's own."""
    batch = picture.repeat(len(places), 1, 1, 1)
    for image, (row, column) in zip(batch, places):
        square = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        square[:] = (square.mean((1, 2), keepdim=True) < 0.5) if opposite else 1.0
    return batch


class Squares:
    """Where squares at `places_in` a map show in patches `after` [6, h, w, D], against those `before` [1, h, w, D]."""

    def __init__(self, before: torch.Tensor, after: torch.Tensor, places: Sequence[Place]) -> None:
        self.places = places
        self.change = 1 - F.cosine_similarity(before.float(), after.float(), dim=-1)  # [n, h, w]
        self.rows, self.columns = self.change.shape[1:]
        self.found = [divmod(int(c.flatten().argmax()), self.columns) for c in self.change]
        reach = 1 if min(self.rows, self.columns) >= 6 else 0  # convolutions spread a little
        outer = zip(self.found[OUTER], places[OUTER])
        self.hits = [max(abs(r - R), abs(c - C)) <= reach for (r, c), (R, C) in outer]

    @property
    def share(self) -> str:
        return f"{sum(self.hits)} of {len(self.hits)} squares"

    @property
    def enough(self) -> bool:
        """Whether all outer squares but one at most show in their own patch, or beside it."""
        return sum(self.hits) >= len(self.hits) - 1

    def mix_up(self) -> str | None:
        """What puts all squares but one at most where they show, with the likely remedy; None where nothing known does.

        A square that shows beside its patch is a mix-up only with evidence: strided convolutions lag that far.
        """
        places, found = self.places[OUTER], self.found[OUTER]
        if offset := token_offset(found, places, self.columns):
            return shift_reason(offset)
        if reason := self.shift():
            return reason
        for reason, moved in MIXED_UP:
            there = [moved(r, c, self.rows, self.columns) for r, c in places]
            if sum(map(tuple.__eq__, there, found)) >= len(places) - 1:
                return reason
        return None

    def shift(self) -> str | None:
        """A shift by one row or column: inner squares show beside their patches, which do not see them at all.

        The lag of padded strided convolutions is half a patch at most, so that a patch still sees its own square.
        """
        inner = list(zip(self.change[INNER], self.places[INNER], self.found[INNER]))
        moves = [(r - R, c - C) for _, (R, C), (r, c) in inner]
        move = max(moves, key=moves.count)
        if move not in ONE_AWAY or moves.count(move) < len(moves) - 1:
            return None
        shares = []
        for change, place, at in (square for square, moved in zip(inner, moves) if moved == move):
            rest = change.median()
            shares.append(float((change[place] - rest) / (change[at] - rest).clamp_min(1e-12)))
        if sum(shares) / len(shares) >= UNTOUCHED:
            return None
        return f"the map is shifted by {ONE_AWAY[move]}: is a picture padded on one side, or are tokens cut wrongly?"

    def first_miss(self) -> str:
        """The first square that shows elsewhere, in words."""
        wrong = self.hits.index(False)
        return f"a square in patch {self.places[wrong]} shows in patch {self.found[wrong]}"


def token_offset(found: Sequence[Place], places: Sequence[Place], columns: int) -> int:
    """Tokens, in reading order, by which all squares but one at most are found too late (negative: too early), or 0.

    Strided convolutions may show every square one patch further right or down. Only a shift of tokens also carries one
    over the end of its row, to a patch that is no neighbour.
    """
    moves = [(r - R, c - C) for (r, c), (R, C) in zip(found, places)]
    offsets = [down * columns + right for down, right in moves]
    offset = max(offsets, key=offsets.count)
    far = any(max(abs(down), abs(right)) > 1 for (down, right), o in zip(moves, offsets) if o == offset)
    return offset if far and offsets.count(offset) >= len(places) - 1 else 0


def shift_reason(offset: int) -> str:
    """What is wrong with a map shifted by `offset` tokens, and the likely remedy."""
    tokens = "one token" if abs(offset) == 1 else f"{abs(offset)} tokens"
    if offset < 0:
        return f"the map is shifted back by {tokens}: are too many dropped from the front?"
    first = "is CLS" if offset == 1 else "are CLS and registers"
    return f"the map is shifted by {tokens}: {first} dropped from the front?"
