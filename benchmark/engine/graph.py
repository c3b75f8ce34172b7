"""A graph of work and the order it is done in: the same for a run on many workers and for a plan of it.

List scheduling: a worker that is free goes on with the model it has loaded, longest way to the end first; then with
those that are side by side with it; then begins a model that nobody has; then helps with the work whose way to the end
is longest. What would end last if it were put off any longer (its way to the end takes as long as all that is left,
shared evenly) comes before all that; a model that is not open yet is taken to be like the others.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Pass = tuple[int, Any]  # a pass of a model: the model's number, and the pass's key
SIDE_BY_SIDE = 4  # models at most whose pictures are decoded once for all of them: a worker holds so many
RANGES = 4  # of a pass, for each worker that may work on it: small enough that a slow one holds nobody up
FAR = 2.0  # times as long the way to the end must be for which a worker leaves the model it has loaded


def parts(workers: int, groups: int) -> int:
    """Ranges that a pass is cut into, where models are in so many groups."""
    return max(RANGES, -(-RANGES * workers // max(1, groups)))


def side_by_side(models: Sequence[int]) -> dict[int, int]:
    """The group of each of `models`, which are encoded side by side as far as they see the same pictures."""
    return {model: place // SIDE_BY_SIDE for place, model in enumerate(models)}


def by_memory(models: Mapping[int, float], room: float) -> list[list[int]]:
    """`models` in their order, as few lots as their bytes allow: a lot takes `room` at most, or is one model."""
    lots: list[list[int]] = []
    held = 0.0
    for model, size in models.items():
        if not lots or held + size > room:
            lots.append([])
            held = 0.0
        lots[-1].append(model)
        held += size
    return lots


def lots(pixels: Mapping[Pass, str], weights: Mapping[int, float], room: Mapping[int, float]) -> list[list[list[Pass]]]:
    """The passes of `pixels`, by what they read: of those that read the same pixels, as few lots as the models' bytes
    allow. `weights` and `room` are of each model."""
    same: dict[str, list[Pass]] = defaultdict(list)
    for one, read in pixels.items():
        same[read].append(one)
    found = []
    for passes in same.values():
        sizes = {model: weights[model] for model, _ in passes}
        parted = by_memory(sizes, min(room[model] for model in sizes))
        found.append([[one for one in passes if one[0] in together] for together in parted])
    return found


def ranges(blocks: Sequence[int], count: int) -> list[list[int]]:
    """`blocks` in at most `count` runs of nearly equal length, in order."""
    count = min(count, len(blocks))
    cuts = [round(i * len(blocks) / count) for i in range(count + 1)]
    return [list(blocks[a:b]) for a, b in itertools.pairwise(cuts)]


@dataclass(frozen=True)
class Node:
    """A piece of work for one worker."""

    key: str
    cost: float = 0.0  # in any one unit
    after: tuple[str, ...] = ()  # keys of what must be done before
    model: int | None = None  # number of the model that must be loaded; None: none
    group: int | None = None  # of models that are side by side
    opens: bool = False  # whether it begins its model: what else there is to do is known after it
    crops: float = 0.0  # of the cost, what workers with nothing else to do may take over while it is being done
    work: Any = field(default=None, compare=False)


class Graph:
    """Nodes that are waiting, ready or done; a node may be added while others run."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._left = 0.0  # cost of all that is known and that nobody has begun
        self._costs: dict[int, float] = defaultdict(float)  # of each open model, in all
        self._longest = 0.0  # way to the end in any of them
        self._closed = 0  # models that nobody has begun
        self._group: dict[int, int | None] = {}
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
            self._begun(node, -1)
            if node.model is not None:
                self._group[node.model] = node.group
            self._lacks[node.key] = {key for key in node.after if key not in self._done}
            for key in self._lacks[node.key]:
                self._blocks[key].append(node.key)
        for node in reversed(batch):
            behind = max((self._rank.get(key, 0.0) for key in self._blocks[node.key]), default=0.0)
            self._rank[node.key] = node.cost + behind
            if node.model is not None and not node.opens:
                self._costs[node.model] += node.cost
                self._longest = max(self._longest, self._rank[node.key])
        for node in batch:
            if not self._lacks[node.key]:
                self._push(node)

    def again(self, node: Node) -> None:
        """`node` is ready once more: its worker was lost, or another run has it."""
        self._begun(node, -1)
        self._push(node)

    def _begun(self, node: Node, times: int = 1) -> None:
        self._left -= times * node.cost
        self._closed -= times * node.opens

    def _push(self, node: Node) -> None:
        place = (node.model, node.opens)
        heapq.heappush(self._ready[place], (-self._rank[node.key], next(self._count), node.key))

    def split(self, node: Node, into: Sequence[Node]) -> None:
        """Puts pieces of other models each in the place of `node`, which was begun: what waits for it waits for the
        piece of its own model."""
        if node.model is not None:
            self._costs[node.model] -= node.cost
        waiting = self._blocks.pop(node.key, [])
        for piece in into:
            self._blocks[piece.key] = [key for key in waiting if self.nodes[key].model == piece.model]
            for key in self._blocks[piece.key]:
                self._lacks[key].add(piece.key)
        self.add(into)
        for key in waiting:
            self._lacks[key].discard(node.key)
        self.done(node.key)

    def done(self, key: str) -> None:
        """`key` is done: what waited for it alone is ready."""
        self._done.add(key)
        for waiting in self._blocks.pop(key, ()):
            self._lacks[waiting].discard(key)
            if not self._lacks[waiting]:
                self._push(self.nodes[waiting])

    def next(self, loaded: int | None) -> Node | None:
        """What a free worker that has the model `loaded` should do; None: nothing is ready."""
        places = [place for place, heap in self._ready.items() if heap]
        if not places:
            return None

        share = (self._left + self._closed * self._typical) / self.workers
        own = self._ready.get((loaded, False))
        beside = None if loaded is None else self._group.get(loaded)
        late = max(share, FAR * -own[0][0] if own and loaded is not None else 0.0)

        def order(place: tuple[int | None, bool]) -> tuple[int, float]:
            model, opens = place
            way = self._longest if opens else -self._ready[place][0][0]
            if model is None:
                return 0, -way
            if way >= late:
                return 1, -way
            if model == loaded:
                return 2, -way
            if beside is not None and self._group[model] == beside:
                return 3, -way
            return (4, model) if opens else (5, -way)

        node = self.nodes[heapq.heappop(self._ready[min(places, key=order)])[2]]
        self._begun(node)
        return node

    @property
    def _typical(self) -> float:
        """Cost of a model that is not open yet."""
        return sum(self._costs.values()) / len(self._costs) if self._costs else 0.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do or being done."""
        return len(self._done) == len(self.nodes)


def to_help(at_work: Sequence[Node], loaded: int | None, alone: Collection[str]) -> Node | None:
    """Of the nodes `at_work` the one that a worker which has the model `loaded` should help with: that of most crops
    for each that is at it. None where there is none, but those `alone`."""
    helped = Counter(node.work[1] for node in at_work if helps(node))

    def left(node: Node) -> float:
        return node.crops / (1 + helped[node.key]) * (FAR if node.model == loaded else 1.0)

    best = max((node for node in at_work if node.key not in alone), key=left, default=None)
    return best if best is not None and best.crops else None


def helping(row: Node) -> Node:
    """The work of helping to train the head of `row`: of no graph."""
    return Node(f"help {row.key}", model=row.model, work=("help", row.key))


def helps(node: Node | None) -> bool:
    """Whether `node` is such work."""
    return node is not None and node.work[0] == "help"
