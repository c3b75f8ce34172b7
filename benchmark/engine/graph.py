"""A graph of work and the order it is done in: the same for a run on many workers and for a plan of it.

List scheduling: a worker that is free goes on with the model it has loaded, longest way to the end first; then begins a
model that nobody has; then helps with the work whose way to the end is longest.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Node:
    """A piece of work for one worker."""

    key: str
    cost: float = 0.0  # in any one unit
    after: tuple[str, ...] = ()  # keys of what must be done before
    model: int | None = None  # number of the model that must be loaded; None: none
    opens: bool = False  # whether it begins its model: what else there is to do is known after it
    work: Any = field(default=None, compare=False)


class Graph:
    """Nodes that are waiting, ready or done; a node may be added while others run."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._blocks: dict[str, list[str]] = defaultdict(list)  # key -> those that wait for it
        self._lacks: dict[str, set[str]] = {}  # key -> what it waits for
        self._rank: dict[str, float] = {}
        self._ready: dict[tuple[int | None, bool], list[tuple[float, int, str]]] = defaultdict(list)
        self._done: set[str] = set()
        self._count = itertools.count()  # the one that was ready first, of equals

    def add(self, nodes: Iterable[Node]) -> None:
        """Adds nodes, each behind those of the same call that it waits for."""
        batch = list(nodes)
        for node in batch:
            self.nodes[node.key] = node
            self._lacks[node.key] = {key for key in node.after if key not in self._done}
            for key in self._lacks[node.key]:
                self._blocks[key].append(node.key)
        for node in reversed(batch):
            behind = max((self._rank.get(key, 0.0) for key in self._blocks[node.key]), default=0.0)
            self._rank[node.key] = node.cost + behind
        for node in batch:
            if not self._lacks[node.key]:
                self.again(node)

    def again(self, node: Node) -> None:
        """`node` is ready, for the first time or because its worker was lost."""
        place = (node.model, node.opens)
        heapq.heappush(self._ready[place], (-self._rank[node.key], next(self._count), node.key))

    def done(self, key: str) -> None:
        """`key` is done: what waited for it alone is ready."""
        self._done.add(key)
        for waiting in self._blocks.pop(key, ()):
            self._lacks[waiting].discard(key)
            if not self._lacks[waiting]:
                self.again(self.nodes[waiting])

    def next(self, loaded: int | None) -> Node | None:
        """What a free worker that has the model `loaded` should do; None: nothing is ready."""
        places = [place for place, heap in self._ready.items() if heap]
        if not places:
            return None

        def order(place: tuple[int | None, bool]) -> tuple[int, float]:
            model, opens = place
            kind = 0 if model is None else 1 if model == loaded else 2 if opens else 3
            return kind, (model or 0) if opens else self._ready[place][0][0]

        return self.nodes[heapq.heappop(self._ready[min(places, key=order)])[2]]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do or being done."""
        return len(self._done) == len(self.nodes)
