"""What a plan says of one model: a line for each task."""

from __future__ import annotations

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
    fast: Forecast | None = None

    @property
    def forwards(self) -> int:
        return sum(line.forwards - line.shared + line.live for line in self.lines)

    @property
    def forwards_unshared(self) -> int:
        return sum(line.forwards + line.live for line in self.lines)

    @property
    def seconds(self) -> float:
        return sum(line.seconds for line in self.lines)
