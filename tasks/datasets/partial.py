"""A set with files missing that the user allowed (`--max-bad`): reading one of them raises, the digest names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmark.errors import DataError
from benchmark.system.digest import fingerprint
from tasks.datasets.blobs import Blobs


@dataclass(frozen=True)
class PartialBlobs:
    """The files `names`, of which `present` holds those that are there, in the same order."""

    names: Sequence[str]
    paths: Sequence[str]
    present: Blobs
    place: tuple[int, ...]  # [N] index into `present`, -1 for a missing file

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def where(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        if self.place[index] < 0:
            raise DataError(f"{self.paths[index]} is missing. Fetch the data set again, or see bench data verify")
        return self.present.read(self.place[index])

    @cached_property
    def digest(self) -> str:
        lost = [name for name, place in zip(self.names, self.place) if place < 0]
        return fingerprint({"present": self.present.digest, "missing": lost})
