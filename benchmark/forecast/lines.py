"""What a plan says of one model: a line for each task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

Size = tuple[int, int]  # (height, width) in pixels


@dataclass
class Line:
    """One unit's share of the plan."""

    unit: str
    images: int = 0  # pictures its needs touch
    forwards: int = 0  # of pictures whose features are kept and not there yet, that it would cost alone
    shared: int = 0  # of these, encoded for a unit above
    live: int = 0  # forwards whose features are not kept: training crops, windows
    head_steps: int = 0  # gradient steps of its head
    head_rows: int = 0  # training vectors its head is fitted on
    disk: int = 0  # bytes it adds
    seconds: float = 0.0  # of encoding it adds
    note: str = ""  # done, not applicable, data missing
    change: str = ""  # of a variant of the preset: what differs
    todo: dict[Size, int] = field(default_factory=dict)  # (height, width) in pixels -> forwards still to be made
    passes: dict[str, tuple[Size, int]] = field(default_factory=dict)  # pass it reads -> size, pictures it adds to it
    pixels: dict[str, str] = field(default_factory=dict)  # pass -> the same where the same pixels are read
    fit: float = 0.0  # multiplications of a convex head
    crops: dict[Size, int] = field(default_factory=dict)  # of `todo`: training crops, which several workers may share


@dataclass
class Forecast:
    """The plan of one model; `fast` is the same units by the `fast` preset, where another was asked for."""

    model: str
    lines: list[Line]
    images_per_s: dict[Size, float]
    memory: int  # bytes, the largest arrays held at once
    note: str = ""  # what the speed was measured on, when not on the model itself
    load_s: float = 0.0  # seconds until the model is loaded
    rate: float = 0.0  # multiplications a second, as its own forwards make them
    weights: int = 0  # bytes
    room: float = 0.0  # bytes that a worker on this device gives the weights of models side by side
    fast: Forecast | None = None
    of_presets: int | None = None  # of `forwards`, what the presets alone would make, where variants are planned beside

    @property
    def forwards(self) -> int:
        return sum(line.forwards - line.shared + line.live for line in self.lines)

    @property
    def forwards_unshared(self) -> int:
        return sum(line.forwards + line.live for line in self.lines)

    @property
    def seconds(self) -> float:
        return sum(line.seconds for line in self.lines)

    @property
    def todo(self) -> list[Line]:
        """The lines whose rows are to be made."""
        return [line for line in self.lines if not line.note or line.note.startswith("data not here")]

    @property
    def passes(self) -> dict[str, tuple[Size, int]]:
        """Each pass of all tasks: the size of its input, and the pictures that are to be encoded."""
        pictures: Counter[str] = Counter()
        sizes: dict[str, Size] = {}
        for line in self.todo:
            for key, (size, new) in line.passes.items():
                pictures[key] += new
                sizes[key] = size
        return {key: (size, pictures[key]) for key, size in sizes.items()}

    @property
    def pixels(self) -> dict[str, str]:
        """Of each pass, what is the same where the same pixels are read."""
        return {key: pixels for line in self.todo for key, pixels in line.pixels.items()}
