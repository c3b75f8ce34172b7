"""How long a plan takes on many workers: the graph of a run, done in its own order with the plan's seconds."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.engine.graph import Graph, Node, parts
from benchmark.engine.worker import KEPT
from benchmark.features.store import shard_items
from benchmark.forecast.lines import Forecast, Line, Size
from benchmark.system.plurals import number_of

OVERHEAD_S = 0.05  # of a piece of work: asking for it, and its answer


@dataclass(frozen=True)
class Schedule:
    """A run as it would go, in seconds."""

    workers: int
    jobs: int
    makespan: float
    total: float  # of all pieces and of loading each model once
    longest: float  # piece
    path: tuple[
        tuple[str, float], ...
    ]  # what is done and its seconds: the pieces of the longest chain of which each waits for the one before
    loads: int  # of models, by all workers together

    @property
    def bound(self) -> float:
        """No order is quicker: the longest piece, or all of them shared evenly."""
        return max(self.longest, self.total / self.workers)

    @property
    def idle(self) -> float:
        """Share of the workers' time in which they have nothing to do."""
        return max(0.0, 1 - self.total / (self.workers * self.makespan)) if self.makespan else 0.0


def schedule(plans: Sequence[Forecast], workers: int) -> Schedule:
    """The run of all `plans` on `workers` that are as fast as the device they were made on."""
    graph = Graph(workers)
    pieces = [_pieces(plan, number, parts(workers, len(plans))) for number, plan in enumerate(plans)]
    opened = [
        Node(f"open {plan.model} {number}", plan.load_s, (), number, opens=True, work=number)
        for number, plan in enumerate(plans)
        if pieces[number]
    ]
    graph.add(opened)
    free: list[int] = list(range(workers))
    held: list[list[int]] = [[] for _ in range(workers)]  # models that each has loaded, the last one at work
    running: list[tuple[float, int, str]] = []  # end, worker, piece
    now, loads = 0.0, 0
    while not graph.finished:
        idle = []
        for worker in free:
            mine = held[worker]
            node = graph.next(mine[-1] if mine else None)
            if node is None or node.model is None:
                idle.append(worker)
                continue
            lacks = node.model not in mine
            seconds = OVERHEAD_S + node.cost + (plans[node.model].load_s if lacks and not node.opens else 0.0)
            held[worker] = [*(model for model in mine[-KEPT:] if model != node.model), node.model]
            loads += lacks
            heapq.heappush(running, (now + seconds, worker, node.key))
        now, worker, key = heapq.heappop(running)
        free = sorted([*idle, worker])
        if graph.nodes[key].opens:
            graph.add(pieces[graph.nodes[key].work])
        graph.done(key)
    nodes = list(graph.nodes.values())
    total = sum(node.cost + OVERHEAD_S for node in nodes)
    longest = max((node.cost for node in nodes), default=0.0)
    return Schedule(workers, len(nodes), now, total, longest, _path(nodes, opened, plans), loads)


def _pieces(plan: Forecast, number: int, most: int) -> list[Node]:
    """Ranges (at most so many of a pass) and rows of one model, as a run cuts them."""
    added: Counter[str] = Counter()
    sizes: dict[str, Size] = {}
    readers: dict[str, str] = {}  # of each pass: the first task
    todo = [line for line in plan.lines if not line.note or line.note.startswith("data not here")]
    for line in todo:
        for key, (size, pictures) in line.passes.items():
            added[key] += pictures
            sizes[key] = size
            readers.setdefault(key, line.unit)
    ranges: dict[str, list[str]] = {}
    nodes = []
    for key, pictures in added.items():
        count = min(most, -(-pictures // shard_items(pictures)))
        ranges[key] = [f"{number} encode {key} {i}" for i in range(count)]
        seconds = pictures / plan.images_per_s[sizes[key]] / count if count else 0.0
        words = f"encode {number_of(pictures // count, 'picture')} for {readers[key]}" if count else ""
        nodes += [Node(name, seconds, (), number, work=words) for name in ranges[key]]
    for line in todo:
        after = tuple(name for key in line.passes for name in ranges.get(key, ()))
        name = f"{number} {line.unit} {line.change}".strip()
        words = f"score {line.unit} {line.change}".strip()
        nodes.append(Node(name, _row_seconds(line, plan), after, number, work=words))
    return nodes


def _row_seconds(line: Line, plan: Forecast) -> float:
    """Seconds of a task whose features are there: forwards that are not kept, and a convex fit."""
    kept: Counter[Size] = Counter()
    for size, pictures in line.passes.values():
        kept[size] += pictures
    live = sum((count - kept[size]) / plan.images_per_s[size] for size, count in line.todo.items())
    return live + (line.fit / plan.rate if plan.rate else 0.0)


def _path(nodes: Sequence[Node], opened: Sequence[Node], plans: Sequence[Forecast]) -> tuple[tuple[str, float], ...]:
    """The longest chain, in words, with its seconds."""
    opens = {node.model: node for node in opened}
    best: dict[str, tuple[float, tuple[tuple[str, float], ...]]] = {}
    for node in nodes:
        head = [] if node.opens else [best[opens[node.model].key]]
        before = max([best[key] for key in node.after] + head, default=(0.0, ()), key=lambda chain: chain[0])
        words = f"load {plans[node.work].model}" if node.opens else node.work
        best[node.key] = (before[0] + node.cost, (*before[1], (words, node.cost)))
    return max(best.values(), default=(0.0, ()), key=lambda chain: chain[0])[1]
