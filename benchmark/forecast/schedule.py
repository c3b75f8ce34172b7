"""How long a plan takes on many workers: the graph of a run, done in its own order with the plan's seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.engine.graph import Graph, Node, parts
from benchmark.engine.worker import KEPT
from benchmark.features.store import shard_items
from benchmark.forecast.lines import Forecast, Line, Size
from benchmark.system.plurals import number_of

OVERHEAD_S = 0.05  # of a piece of work: asking for it, and its answer
TRAINING = 0.05  # of a crop's forward, at most: the step of the head that reads it, which one worker does for all


@dataclass(frozen=True)
class Schedule:
    """A run as it would go, in seconds."""

    workers: int
    jobs: int
    makespan: float
    total: float  # of all pieces and of loading each model once
    longest: float  # piece, all workers sharing its crops
    path: tuple[
        tuple[str, float], ...
    ]  # what is done and its seconds: the pieces of the longest chain of which each waits for the one before
    loads: int  # of models, by all workers together

    @property
    def bound(self) -> float:
        """No order is quicker: the longest chain, or all pieces shared evenly."""
        return max(sum(seconds for _, seconds in self.path), self.total / self.workers)

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
    held: list[list[int]] = [[] for _ in range(workers)]  # models that each has loaded, the last one at work
    running: dict[int, _Running] = {}  # by the worker that began it
    now, loads = 0.0, 0
    while not graph.finished:
        free = [worker for worker in range(workers) if worker not in running]
        while free and (node := graph.next(held[free[0]][-1] if held[free[0]] else None)) is not None:
            assert node.model is not None
            worker = free.pop(0)
            new = _loads(held[worker], node.model)
            loads += new
            seconds = OVERHEAD_S + node.cost - node.crops + new * (not node.opens) * plans[node.model].load_s
            running[worker] = _Running(node, seconds, node.crops)
        loads += _shared_out(free, held, [one for one in running.values() if one.crops > 0], plans)
        spent = min(one.next for one in running.values())
        now += spent
        for worker, one in list(running.items()):
            if one.pass_by(spent):
                del running[worker]
                if one.node.opens:
                    graph.add(pieces[one.node.work])
                graph.done(one.node.key)
    nodes = list(graph.nodes.values())
    total = sum(node.cost + OVERHEAD_S for node in nodes)
    longest = max((_alone(node, workers) for node in nodes), default=0.0)
    return Schedule(workers, len(nodes), now, total, longest, _path(nodes, opened, plans, workers), loads)


@dataclass
class _Running:
    """A piece at work."""

    node: Node
    rest: float  # seconds of its own worker, after the crops
    crops: float  # seconds of one worker, shared by all that are at it
    at_it: int = 1

    @property
    def pace(self) -> float:
        return min(self.at_it, 1 / TRAINING)

    @property
    def next(self) -> float:
        """Seconds until its crops are there, or, where none are left, until it is done."""
        return self.crops / self.pace if self.crops > 0 else self.rest

    def pass_by(self, seconds: float) -> bool:
        """Goes on for `seconds`, at most `next`; whether it is done."""
        if self.crops > 0:
            self.crops = self.crops - seconds * self.pace if seconds < self.next else 0.0
            return self.crops == 0 and self.rest == 0
        self.rest = self.rest - seconds if seconds < self.rest else 0.0
        return self.rest == 0


def _loads(held: list[int], model: int) -> bool:
    """Whether a worker that holds these models has to load `model`, which is at work from now on."""
    new = model not in held
    held[:] = [*(one for one in held[-KEPT:] if one != model), model]
    return new


def _shared_out(
    free: Sequence[int], held: Sequence[list[int]], running: Sequence[_Running], plans: Sequence[Forecast]
) -> int:
    """Lets `free` workers help where most is left for each that is at it; how many load a model for that, which is
    more to do there."""
    loads = 0
    for one in running:
        one.at_it = 1
    for worker in free if running else ():
        one = max(running, key=lambda one: one.crops / one.at_it)
        model = one.node.model
        assert model is not None
        if model not in held[worker] and one.crops / one.at_it < plans[model].load_s:
            continue
        if _loads(held[worker], model):
            loads += 1
            one.crops += plans[model].load_s
        one.at_it += 1
    return loads


def _alone(node: Node, workers: int) -> float:
    """Seconds that a piece takes at least, all workers helping."""
    return node.cost - node.crops + node.crops * max(1 / workers, min(1.0, TRAINING))


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
        crops = sum(count / plan.images_per_s[size] for size, count in line.crops.items())
        nodes.append(Node(name, _row_seconds(line, plan), after, number, crops=crops, work=words))
    return nodes


def _row_seconds(line: Line, plan: Forecast) -> float:
    """Seconds of a task whose features are there: forwards that are not kept, and a convex fit."""
    kept: Counter[Size] = Counter()
    for size, pictures in line.passes.values():
        kept[size] += pictures
    live = sum((count - kept[size]) / plan.images_per_s[size] for size, count in line.todo.items())
    return live + (line.fit / plan.rate if plan.rate else 0.0)


def _path(
    nodes: Sequence[Node], opened: Sequence[Node], plans: Sequence[Forecast], workers: int
) -> tuple[tuple[str, float], ...]:
    """The longest chain, in words, with its seconds."""
    opens = {node.model: node for node in opened}
    best: dict[str, tuple[float, tuple[tuple[str, float], ...]]] = {}
    for node in nodes:
        head = [] if node.opens else [best[opens[node.model].key]]
        before = max([best[key] for key in node.after] + head, default=(0.0, ()), key=lambda chain: chain[0])
        words = f"load {plans[node.work].model}" if node.opens else node.work
        seconds = _alone(node, workers)
        best[node.key] = (before[0] + seconds, (*before[1], (words, seconds)))
    return max(best.values(), default=(0.0, ()), key=lambda chain: chain[0])[1]
