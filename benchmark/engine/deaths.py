"""How often the worker of a piece of work was lost without having brought it further."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from benchmark.engine.slots import Slot
from benchmark.errors import BenchError
from benchmark.system.digest import sha256_file

RETRIES = 3  # of a piece whose workers are lost one after another at the same place


class Deaths:
    """Deaths by the key of the piece. A head that was trained up to another checkpoint than at any death before begins
    anew: it will come to its end, however often its workers are taken away."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._counts: Counter[str] = Counter()
        self._seen: dict[str, set[str]] = defaultdict(set)  # digests of the states that the dead have left

    def count(self, piece: str, slot: Slot | None = None) -> int:
        """One more death; `slot` is that of a row. Those without progress, this one included."""
        left = _states(slot.scratch(self.cache)) - self._seen[piece] if slot else set()
        self._seen[piece] |= left
        self._counts[piece] = 1 if left else self._counts[piece] + 1
        return self._counts[piece]

    def forget(self, piece: str) -> None:
        """What was counted does not matter any more: the piece was done."""
        self._counts[piece] = 0

    def too_many(self, piece: str, workers: int = 1) -> bool:
        """Whether to give up, where so many `workers` may have died of it at once."""
        return self._counts[piece] > RETRIES * workers


def _states(scratch: Path) -> set[str]:
    """Digests of a head's checkpoints: of one step they are the same bytes, whoever trained up to it."""
    found = set()
    for file in scratch.glob("*.safetensors"):
        try:
            found.add(sha256_file(file))
        except (OSError, BenchError):  # replaced meanwhile
            continue
    return found
