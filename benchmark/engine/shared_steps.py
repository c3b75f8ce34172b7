"""The steps of a head that trains long, made by whichever workers have nothing else to do.

One worker trains the head. What its steps read (`contracts.steps`) is cut into pieces of a few steps. The trainer makes
piece after piece as one process would; workers that help it take pieces further ahead and leave each as a file in the
folder of the row's state, which the trainer reads when it comes there. So every step reads what it would have read in
one process, to the last bit, and no gradient is summed.

Who makes a piece holds its claim, which goes when its process goes: a piece that nobody holds and that is not there is
made by the trainer itself. A helper that dies costs its piece, a trainer that dies the steps since the head's last
state; pieces that lie ahead of that are read by whoever trains on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.contracts import StepInput, StepSource
from benchmark.system import sealed
from benchmark.system.claims import Claim
from benchmark.system.files import disk_errors, write_text
from benchmark.system.late import torch

PICTURES = 128  # of a piece at least: a few steps of a dense head, one of ImageNet's sweep
AHEAD = 4 * 2**30  # bytes of pieces that may wait for the trainer
KEPT = 4  # pieces of its own that a trainer holds while it waits for another's
POLL_S = 0.02


class Pieces:
    """The pieces of `source` as files below `scratch`, the folder of a row's state in the cache `root`; `key` says of
    what encoder, data and protocol they are."""

    def __init__(self, source: StepSource, scratch: Path, root: Path, key: str) -> None:
        self.folder, self.root, self.key, self.total = scratch / "steps", root, key, source.steps
        self.size = max(1, -(-PICTURES // source.pictures))  # steps of a piece
        self.count = -(-self.total // self.size)
        self.who = f"{socket.gethostname()}:{os.getpid()}"

    def steps(self, piece: int) -> range:
        """The steps of a piece."""
        return range(piece * self.size, min(self.total, (piece + 1) * self.size))

    def file(self, piece: int) -> Path:
        """Where it lies when it is there."""
        return self.folder / f"{piece}.safetensors"

    def claim(self, piece: int) -> Claim:
        """What its maker holds."""
        return Claim(self.root, f"steps-{self.key[:16]}-{piece}")

    @property
    def place(self) -> int | None:
        """The piece that the trainer reads now; None: nobody trains."""
        try:
            return int((self.folder / "at").read_text())
        except (OSError, ValueError):
            return None

    @property
    def full(self) -> bool:
        """Whether enough lies ahead of the trainer."""
        with suppress(OSError):
            return sum(file.stat().st_size for file in self.folder.glob("*.safetensors")) > AHEAD
        return False

    def arrive(self, piece: int) -> None:
        """The trainer begins with a piece: those before it are done with."""
        write_text(self.folder / "at", str(piece))
        self.file(piece - 1).unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the folder; a helper that is at a piece finds no place for it."""
        gone = self.folder.with_name(f"{self.folder.name}-{uuid.uuid4().hex[:8]}")
        with suppress(OSError):
            os.rename(self.folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def save(self, piece: int, inputs: Sequence[StepInput]) -> None:
        """Writes a piece, unless nobody trains any more. Raises BenchError where the disk is full."""
        tensors, orders = {}, {}
        for step, one in zip(self.steps(piece), inputs, strict=True):
            for name, value in one.items():
                # The order of the axes in memory is kept: kernels round otherwise for another.
                order = sorted(range(value.ndim), key=[-stride for stride in value.stride()].__getitem__)
                tensors[f"{step}/{name}"], orders[name] = value.permute(order), order
        facts = {"key": self.key, "who": self.who, "orders": json.dumps(orders)}
        content, part = sealed.tensors_file(tensors, facts), self.folder / f".{piece}-{uuid.uuid4().hex[:8]}.tmp"
        with suppress(FileNotFoundError), disk_errors(part):
            try:
                part.write_bytes(content)
                os.replace(part, self.file(piece))
            finally:
                part.unlink(missing_ok=True)

    def load(self, piece: int) -> tuple[dict[int, StepInput], str] | None:
        """The inputs of each step of a piece and who made it; None where it is not there, damaged, or of another
        run."""
        try:
            tensors, facts = sealed.read_tensors(self.file(piece))
        except (FileNotFoundError, sealed.Damaged):
            return None
        if facts.get("key") != self.key:
            return None
        orders: Mapping[str, list[int]] = json.loads(facts["orders"])
        found: dict[int, dict[str, torch.Tensor]] = {step: {} for step in self.steps(piece)}
        for key, value in tensors.items():
            step, name = key.split("/", 1)
            back = [orders[name].index(axis) for axis in range(value.ndim)]
            found[int(step)][name] = value.permute(back)
        return dict(found), facts["who"]


@dataclass
class Trainer:
    """Reads the steps in order, makes those that nobody else makes, and notes the `makers` of the others."""

    source: StepSource
    pieces: Pieces
    makers: set[str] = field(default_factory=set)
    _asked: deque[int] = field(default_factory=deque)  # steps that are being made here, in order
    _ready: dict[int, StepInput] = field(default_factory=dict)
    _mine: dict[int, Claim] = field(default_factory=dict)
    _reached: int = -1  # the last piece that was looked at

    def read(self, start: int) -> Iterator[StepInput]:
        """The inputs of step `start` and all that follow. Raises what making them raises."""
        own = self.source.made(self._unclaimed(start))
        try:
            for step in range(start, self.pieces.total):
                piece = step // self.pieces.size
                if step in (start, piece * self.pieces.size):
                    self.pieces.arrive(piece)
                    self._free(piece)
                while step not in self._ready:
                    self._come_nearer(step, own)
                yield self._ready.pop(step)
            self.pieces.clear()
        finally:
            self._free(self.pieces.count)

    def _unclaimed(self, start: int) -> Iterator[int]:
        """The steps of the pieces that nobody else makes, each piece taken when it is asked for."""
        for piece in range(start // self.pieces.size, self.pieces.count):
            self._reached = piece
            claim = self.pieces.claim(piece)
            if self.pieces.file(piece).exists() or not claim.take():
                continue
            self._mine[piece] = claim
            for step in self.pieces.steps(piece):
                if step >= start:
                    self._asked.append(step)
                    yield step
        self._reached = self.pieces.count

    def _come_nearer(self, step: int, own: Iterator[StepInput]) -> None:
        """Makes or reads something on the way to `step`, or waits a little for who makes it."""
        piece = step // self.pieces.size
        if piece in self._mine or piece > self._reached:
            self._make(own)
        elif found := self.pieces.load(piece):
            self._ready |= found[0]
            self.makers |= {found[1]} - {self.pieces.who}
        elif (claim := self.pieces.claim(piece)).take():  # its maker is gone, or has just left it there
            if self.pieces.file(piece).exists() and self.pieces.load(piece):
                claim.free()
                return
            self._mine[piece] = claim
            rest = [s for s in self.pieces.steps(piece) if s >= step]
            self._ready |= zip(rest, self.source.made(rest), strict=True)
        elif len(self._ready) >= KEPT * self.pieces.size or not self._make(own):
            time.sleep(POLL_S)

    def _make(self, own: Iterator[StepInput]) -> bool:
        """Makes the next step that is to be made here; False where there is none."""
        made = next(own, None)
        if made is None:
            return False
        self._ready[self._asked.popleft()] = made
        return True

    def _free(self, before: int) -> None:
        for piece in [piece for piece in self._mine if piece < before]:
            self._mine.pop(piece).free()


def help_train(source: StepSource, pieces: Pieces, seconds: float) -> int:
    """Makes pieces for whoever trains on `source` until `seconds` have passed or nothing is left; how many.

    Raises what making them raises."""
    until, count = time.monotonic() + seconds, 0
    taken: deque[tuple[int, Claim]] = deque()

    def steps() -> Iterator[int]:
        while time.monotonic() < until and (found := _free_piece(pieces, {piece for piece, _ in taken})):
            taken.append(found)
            yield from pieces.steps(found[0])

    inputs: list[StepInput] = []
    try:
        for made in source.made(steps()):
            inputs.append(made)
            piece, claim = taken[0]
            if len(inputs) == len(pieces.steps(piece)):
                pieces.save(piece, inputs)
                taken.popleft()
                claim.free()
                inputs, count = [], count + 1
    finally:
        for _, claim in taken:
            claim.free()
    return count


def _free_piece(pieces: Pieces, own: set[int]) -> tuple[int, Claim] | None:
    """The first piece ahead of the trainer that nobody makes, claimed; None where there is none to be made now."""
    place = pieces.place
    if place is None or pieces.full:
        return None
    for piece in range(place + 1, pieces.count):
        claim = pieces.claim(piece)
        if piece in own or pieces.file(piece).exists() or not claim.take():
            continue
        now = pieces.place  # while it was looked for the trainer may have come here, and its maker have left it
        if now is not None and piece > now and not pieces.file(piece).exists():
            return piece, claim
        claim.free()
    return None
