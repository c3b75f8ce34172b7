"""Work that one process at a time does: others that want it done wait, or do something else meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmark.system.cache_users import FOLDER
from benchmark.system.processes import locked


class Claim:
    """A lock named `key` among all processes that use the cache `root`; let go by `free`, and by the process's end.

    Where nothing can be locked (a cache that is only read, a file system without locks) everyone gets it: the work is
    then done twice, and what it writes is the same.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.file = root / FOLDER / key
        self._held = ExitStack()

    def take(self, wait: bool = False) -> bool:
        """Whether it is ours now; with `wait` it is, once whoever holds it has let go."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(self.file, wait))
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def free(self) -> None:
        """Lets others have it."""
        with suppress(OSError):
            self.file.unlink()
        self._held.close()


def take_all(claims: Iterable[Claim]) -> bool:
    """Whether all of them are ours now; else none is."""
    taken: list[Claim] = []
    for claim in claims:
        if not claim.take():
            for mine in taken:
                mine.free()
            return False
        taken.append(claim)
    return True


class Held:
    """Claims that are ours for longer, by the name of what they are for."""

    def __init__(self) -> None:
        self._claims: dict[str, list[Claim]] = {}

    def take(self, name: str, claims: Iterable[Claim]) -> bool:
        """Whether all claims for `name` are ours now, or were before."""
        wanted = list(claims)
        if name not in self._claims and not take_all(wanted):
            return False
        self._claims.setdefault(name, wanted)
        return True

    def free(self, name: str) -> None:
        """Lets others have what was taken for `name`."""
        for claim in self._claims.pop(name, ()):
            claim.free()

    def close(self) -> None:
        """Lets others have everything."""
        for name in list(self._claims):
            self.free(name)


@contextmanager
def claimed(claims: Iterable[Claim]) -> Iterator[None]:
    """Waits until all of them are ours, for the block. Asked for in one order, so that no two wait for each other."""
    with ExitStack() as held:
        for claim in sorted(claims, key=lambda c: c.file):
            claim.take(wait=True)
            held.callback(claim.free)
        yield
